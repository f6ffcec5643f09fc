r"""Fan-beam tomography: rays from one point, as of an X-ray tube, to a flat or a curved row of detectors.

==============  =====================================================================================
``beta``        angle of the view; the source is at D (sin beta, -cos beta), below the field at 0 degrees
``gamma``       angle of a ray to the central one, which goes from the source through the axis
``D, D'``       distances from the axis to the source and to the detector, mm
``s``           position on the detector, mm along the row: :math:`s = (D + D') \tan\gamma` if it is flat,
                :math:`s = (D + D') \gamma` on an arc about the source
==============  =====================================================================================

Seen from far away this is `ParallelBeam` at the same angles: the ray is the one of the parallel view
:math:`\theta = \beta - \gamma` at the distance :math:`D \sin\gamma` from the axis.

**Filtered backprojection.** With n the vertical to the central ray, c along it, both through the axis,

.. math:: x(r) = \sum_v \Delta\beta_v \frac{D^2}{(D + r \cdot c)^2}\,
          \big(h * [m\, \cos\gamma\; y_v]\big)\Big(\frac{D\, r \cdot n}{D + r \cdot c}\Big)

on the flat detector scaled back to the axis; on an arc the factor in front is :math:`D / |r - \text{source}|^2` and the
filter that of equal angles. A line that is measured twice, from both ends, gets weights m with the sum 1. In a full
turn both are one half, and where the axis is away from the middle of the detector, what only the longer side sees
counts in full. Otherwise :math:`m = t(\beta) / (t(\beta) + t(\beta + \pi - 2\gamma))` with a window t that falls
smoothly to zero at the ends of the scan, which is complete if it covers :math:`\pi` plus the opening angle.

References:
    Principles of Computerized Tomographic Imaging. Kak and Slaney, 1988, section 3.4.
    Optimal short scan convolution reconstruction for fanbeam CT. Parker, 1982, Med. Phys. 9.
"""

from __future__ import annotations

import math
from typing import Any, Literal

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

__all__ = ["FanBeam"]


class FanBeam(Projector):
    r"""Sinograms (B, C, views, bins) of fields (B, C, H, W), by Joseph's method.

    Arguments:
        shape: (H, W) of the field.
        angles: :math:`\beta`, (views,), in degrees or a pint quantity.
        source_distance: D from the source to the rotation axis, in mm or a pint quantity.
        detector_distance: D' from the rotation axis to the detector, likewise.
        pixel: Side of a pixel, or (height, width), likewise.
        bins: Number of detector bins; by default as many as see the whole field from all sides.
        bin_width: On the detector; by default that of the image of a pixel on the axis.
        centre: Detector coordinate, in bins, onto which the rotation axis projects; default (bins - 1) / 2.
        detector: "flat", or "arc" with the source as centre.
        rays_per_bin: Rays averaged over the width of a bin; by default one per image of a pixel.
        truncation: What to do if views miss part of the ellipse inscribed in the field by more than a bin: "raise",
            "warn" or "ignore". Corners may always fall beside the detector.

    Raises:
        ValueError: if a number has the wrong sign or unit, angles look like radians, the source is inside the field,
            or the detector is too short.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        angles: Any,
        *,
        source_distance: Any,
        detector_distance: Any,
        pixel: Any = 1.0,
        bins: int | None = None,
        bin_width: Any = None,
        centre: float | None = None,
        detector: Literal["flat", "arc"] = "flat",
        rays_per_bin: int | None = None,
        truncation: Truncation = "raise",
    ) -> None:
        if detector not in ("flat", "arc"):
            raise ValueError(f"detector must be 'flat' or 'arc', got {detector!r}.")
        self.shape, self.angles, self.pixel = grid(shape), degrees(angles), sides(pixel)
        self.detector = detector
        self.source_distance = length(source_distance, "source_distance")
        self.detector_distance = length(detector_distance, "detector_distance")
        height, width = (n * p for n, p in zip(self.shape, self.pixel, strict=True))
        corner = math.hypot(height, width) / 2
        if self.source_distance <= corner:
            raise ValueError(
                f"the source is {self.source_distance:g} mm from the rotation axis, inside the field, whose corners "
                f"are {corner:.4g} mm from it; give a larger source_distance or smaller pixels."
            )
        whole_distance = self.source_distance + self.detector_distance
        magnification = whole_distance / self.source_distance
        image = min(self.pixel) * magnification
        self.bin_width = image if bin_width is None else length(bin_width, "bin_width")
        full = 2 * self._position(math.asin(corner / self.source_distance))
        self.bins = math.ceil(full / self.bin_width) if bins is None else whole(bins, "bins")
        self.centre = (self.bins - 1) / 2 if centre is None else float(centre)
        per_bin = max(1, round(self.bin_width / image))
        self.rays_per_bin = per_bin if rays_per_bin is None else whole(rays_per_bin, "rays_per_bin")
        full_turn = scanned(torch.deg2rad(self.angles), 2 * math.pi) is None
        require_reach(self._shadow(width / 2, height / 2), *self._ends(), self.bin_width, truncation, full_turn)

    def __repr__(self) -> str:
        return (
            f"FanBeam({self.shape}, {self.views} views, {self.bins} bins of {self.bin_width:g} mm, "
            f"source {self.source_distance:g} mm and {self.detector} detector {self.detector_distance:g} mm from the "
            f"axis, pixel={self.pixel}, centre={self.centre:g})"
        )

    def _ends(self) -> tuple[float, float]:
        """Distances from the central ray to both ends of the detector in mm."""
        return (self.centre + 0.5) * self.bin_width, (self.bins - 0.5 - self.centre) * self.bin_width

    def _position(self, gamma: float) -> float:
        """Where the ray of an angle meets the detector, mm from the central one."""
        whole_distance = self.source_distance + self.detector_distance
        return whole_distance * (math.tan(gamma) if self.detector == "flat" else gamma)

    def _shadow(self, a: float, b: float) -> float:
        """Largest distance on the detector of the shadow of an ellipse with these half axes, from the central ray."""
        beta, largest = np.deg2rad(self.angles.numpy()), 0.0
        for side in (-1, 1):
            gamma = np.zeros_like(beta)
            for _ in range(50):  # the tangent is the parallel ray at the distance of the ellipse's own shadow
                theta = beta - gamma
                gamma = side * np.arcsin(np.hypot(a * np.cos(theta), b * np.sin(theta)) / self.source_distance)
            largest = max(largest, float(np.abs(gamma).max()))
        return self._position(largest)

    def _gamma(self, positions: np.ndarray) -> np.ndarray:
        """Angles of rays that meet the detector at these coordinates, given in bins."""
        ratio = (positions - self.centre) * self.bin_width / (self.source_distance + self.detector_distance)
        return np.arctan(ratio) if self.detector == "flat" else ratio

    def rays(self) -> Rays:
        beta = np.deg2rad(self.angles.numpy())
        within = (np.arange(self.rays_per_bin) + 0.5) / self.rays_per_bin - 0.5
        gamma = self._gamma((np.arange(self.bins)[:, None] + within).ravel())
        theta = beta[:, None] - gamma
        distance = self.source_distance * np.sin(gamma)[:, None]
        across = np.stack([np.cos(theta), np.sin(theta)], -1)
        along = np.stack([-np.sin(theta), np.cos(theta)], -1)
        return Rays((distance * across).reshape(-1, 2), along.reshape(-1, 2))

    def _shares(self, beta: Tensor, gamma: Tensor) -> Tensor:
        """The weights m of lines that may be measured from both ends, (views, bins)."""
        covered = scanned(beta, 2 * math.pi)
        if covered is None:
            s = (torch.arange(self.bins, dtype=torch.float64) - self.centre) * self.bin_width
            return mirror_shares(s, *self._ends(), self.bin_width).expand(len(beta), -1)
        start, arc = covered
        ramp = max((arc - math.pi) / 2, arc / len(beta))

        def window(angle: Tensor) -> Tensor:
            place = (angle - start) % (2 * math.pi)
            height = (torch.minimum(place, arc - place) / ramp).clamp(0, 1)
            return torch.sin(height * math.pi / 2).square()

        own = window(beta)[:, None].expand(-1, len(gamma))
        return own / (own + window(beta[:, None] + math.pi - 2 * gamma))

    def fbp(self, y: Tensor, filter: FilterName = "ramp", cutoff: float = 1.0) -> Tensor:
        """Filtered backprojection, (B, C, views, bins) to (B, C, H, W) in 1/mm; see the module for the formula.

        Every view weighs half the way to its neighbours; a gap more than four times as wide as the median one is taken
        for missing data. For bins that are narrow beside the distances, and fans of usual opening.

        Arguments:
            y: Sinograms, line integrals.
            filter: Window on the ramp: "ramp" (none), "shepp-logan", "cosine", "hamming" or "hann".
            cutoff: Highest frequency kept, as a fraction of the highest that bins resolve.
        """
        self._check(y)
        D, flat = self.source_distance, self.detector == "flat"
        whole_distance = D + self.detector_distance
        width = self.bin_width * (D if flat else 1) / whole_distance  # on the axis in mm, or in radians
        beta = torch.deg2rad(self.angles)
        gamma = torch.from_numpy(self._gamma(np.arange(self.bins)))
        shares = (self._shares(beta, gamma) * gamma.cos()).to(y.device, y.dtype.to_real())
        corner = math.hypot(*(n * p / 2 for n, p in zip(self.shape, self.pixel, strict=True)))
        reach = self._position(math.asin(corner / D)) / self.bin_width
        y, centre = extended(y * shares, self.centre, reach)
        q = ramp_filtered(y, width, filter, cutoff, arc=not flat)
        weight = view_weights(beta, 2 * math.pi).tolist()
        u, v = coordinates(self.shape, self.pixel, y)
        x = y.new_zeros(*y.shape[:2], *self.shape)
        for view, angle in enumerate(beta.tolist()):
            across = u * math.cos(angle) + v * math.sin(angle)
            ahead = D - u * math.sin(angle) + v * math.cos(angle)
            if flat:
                position, factor = D * across / ahead, (D / ahead).square()
            else:
                position, factor = torch.atan2(across, ahead), D / (across.square() + ahead.square())
            x = x + weight[view] * factor * interpolate(q[..., view, :], position / width + centre)
        return x
