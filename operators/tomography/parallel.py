r"""Parallel-beam tomography: line integrals along parallel rays, as of a synchrotron or a neutron source.

.. math:: z(\theta, s) = \int x(s \cos\theta - t \sin\theta,\; s \sin\theta + t \cos\theta)\, dt

==============  =====================================================================================
``x``           attenuation in 1/mm, at (u, v): u to the right, v upwards from the rotation axis, in mm
``theta``       angle of the view, counterclockwise; at 0 degrees rays run along columns
``s``           position on the detector, to the right at 0 degrees; bin b is at (b - centre) bin_width
``z``           dimensionless line integral, zero where nothing attenuates
==============  =====================================================================================

The rotation axis is the centre of the field, between the middle pixels if sides are even.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scidiff.operators.tomography.backprojection import (
    coordinates,
    extended,
    interpolate,
    mirror_shares,
    scanned,
    view_weights,
)
from scidiff.operators.tomography.filters import FilterName, ramp_filtered
from scidiff.operators.tomography.geometry import Truncation, degrees, grid, length, require_reach, sides, whole
from scidiff.operators.tomography.joseph import Rays
from scidiff.operators.tomography.projector import Projector

__all__ = ["ParallelBeam"]


class ParallelBeam(Projector):
    r"""Sinograms (B, C, views, bins) of fields (B, C, H, W), by Joseph's method.

    Arguments:
        shape: (H, W) of the field.
        angles: :math:`\theta`, (views,), in degrees or a pint quantity.
        pixel: Side of a pixel, or (height, width), in mm or a pint quantity.
        bins: Number of detector bins; by default as many as see the whole field from all sides.
        bin_width: In mm or a pint quantity; by default the shorter side of a pixel.
        centre: Detector coordinate, in bins, onto which the rotation axis projects; default (bins - 1) / 2.
        rays_per_bin: Rays averaged over the width of a bin; by default one per shorter side of a pixel.
        truncation: What to do if views miss part of the ellipse inscribed in the field by more than a bin: "raise",
            "warn" or "ignore". Corners may always fall beside the detector.

    Raises:
        ValueError: if a number has the wrong sign or unit, angles look like radians, or the detector is too short.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        angles: Any,
        *,
        pixel: Any = 1.0,
        bins: int | None = None,
        bin_width: Any = None,
        centre: float | None = None,
        rays_per_bin: int | None = None,
        truncation: Truncation = "raise",
    ) -> None:
        self.shape, self.angles, self.pixel = grid(shape), degrees(angles), sides(pixel)
        height, width = (n * p for n, p in zip(self.shape, self.pixel, strict=True))
        self.bin_width = min(self.pixel) if bin_width is None else length(bin_width, "bin_width")
        self.bins = math.ceil(math.hypot(height, width) / self.bin_width) if bins is None else whole(bins, "bins")
        self.centre = (self.bins - 1) / 2 if centre is None else float(centre)
        per_bin = max(1, round(self.bin_width / min(self.pixel)))
        self.rays_per_bin = per_bin if rays_per_bin is None else whole(rays_per_bin, "rays_per_bin")
        theta = torch.deg2rad(self.angles)
        shadow = torch.hypot(width / 2 * theta.cos(), height / 2 * theta.sin())
        self._full_turn = scanned(theta, 2 * math.pi) is None
        require_reach(float(shadow.max()), *self._ends(), self.bin_width, truncation, self._full_turn)

    def _ends(self) -> tuple[float, float]:
        """Distances from the axis to both ends of the detector in mm."""
        return (self.centre + 0.5) * self.bin_width, (self.bins - 0.5 - self.centre) * self.bin_width

    def __repr__(self) -> str:
        return (
            f"ParallelBeam({self.shape}, {self.views} views, {self.bins} bins of {self.bin_width:g} mm, "
            f"pixel={self.pixel}, centre={self.centre:g})"
        )

    def rays(self) -> Rays:
        theta = np.deg2rad(self.angles.numpy())
        within = (np.arange(self.rays_per_bin) + 0.5) / self.rays_per_bin - 0.5
        s = ((np.arange(self.bins) - self.centre)[:, None] + within).ravel() * self.bin_width
        across = np.stack([np.cos(theta), np.sin(theta)], -1)
        along = np.stack([-np.sin(theta), np.cos(theta)], -1)
        return Rays((s[None, :, None] * across[:, None]).reshape(-1, 2), np.repeat(along, len(s), axis=0))

    def fbp(self, y: Tensor, filter: FilterName = "ramp", cutoff: float = 1.0) -> Tensor:
        r"""Filtered backprojection, (B, C, views, bins) to (B, C, H, W) in 1/mm.

        :math:`x(r) = \sum_v \Delta\theta_v\, (h * y_v)(r \cdot n_v)` with the band-limited ramp h of
        `scidiff.operators.tomography.filters` and linear interpolation between bins. Every view weighs half the way to
        its neighbours on the half circle (opposite views are one view); a gap more than four times as wide as the
        median one is taken for missing data. In a full turn with the axis away from the middle of the detector, what
        only one of two opposite views sees counts in full.

        Arguments:
            y: Sinograms, line integrals.
            filter: Window on the ramp: "ramp" (none), "shepp-logan", "cosine", "hamming" or "hann".
            cutoff: Highest frequency kept, as a fraction of the highest that bins resolve.
        """
        self._check(y)
        theta = torch.deg2rad(self.angles)
        weight = view_weights(theta, 2 * math.pi if self._full_turn else math.pi).tolist()
        if self._full_turn:
            s = (torch.arange(self.bins, dtype=torch.float64) - self.centre) * self.bin_width
            y = y * mirror_shares(s, *self._ends(), self.bin_width).to(y.device, y.dtype.to_real())
        corner = math.hypot(*(n * p / 2 for n, p in zip(self.shape, self.pixel, strict=True)))
        y, centre = extended(y, self.centre, corner / self.bin_width)
        q = ramp_filtered(y, self.bin_width, filter, cutoff)
        u, v = coordinates(self.shape, self.pixel, y)
        x = y.new_zeros(*y.shape[:2], *self.shape)
        for view, angle in enumerate(theta.tolist()):
            position = (u * math.cos(angle) + v * math.sin(angle)) / self.bin_width + centre
            x = x + weight[view] * interpolate(q[..., view, :], position)
        return x
