"""Windows of axial CT slices in Hounsfield units, for training a prior of CT images.

Every slice is brought to one pixel size. Random volume and slice (volumes are drawn by their weights, or by their
number of slices), rotation, zoom and mirroring left to right; what lies outside of a volume is air. Values keep their
meaning: the intensity is not changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from scidiff.datasets.slices import _crop

__all__ = ["AIR", "CTSlices"]

AIR = -1000.0
"""Hounsfield units of air; where scanners store less, it is raised to this."""


class CTSlices:
    r"""Draws windows (1, h, w), standardised.

    Arguments:
        volumes: In Hounsfield units, (slices, H_i, W_i), rows from anterior to posterior.
        sizes: Side of the pixels of each volume along y and x, mm.
        pixel: Side of the pixels of the windows, mm.
        weights: Probability of each volume, up to a factor.
        rotation: Largest rotation in degrees.
        zoom: Largest factor by which a slice is enlarged or reduced.
        loc, scale: Mean and standard deviation of the windows, in HU; measured over 256 windows of 64x64 by default.
    """

    def __init__(
        self,
        volumes: Sequence[Tensor],
        sizes: Sequence[tuple[float, float]],
        pixel: float = 2.0,
        weights: Sequence[float] | None = None,
        rotation: float = 10.0,
        zoom: float = 1.1,
        loc: float | None = None,
        scale: float | None = None,
    ) -> None:
        if not volumes or len(sizes) != len(volumes):
            raise ValueError(f"expected volumes and one pixel size for each, got {len(volumes)} and {len(sizes)}.")
        if not (pixel > 0 and zoom >= 1 and rotation >= 0):
            raise ValueError(f"expected pixel > 0, zoom >= 1 and rotation >= 0, got {pixel}, {zoom} and {rotation}.")
        self.volumes = [_resized(v.float().clamp_min(AIR), s, pixel) for v, s in zip(volumes, sizes, strict=True)]
        self.weights = torch.tensor([float(len(v)) for v in volumes] if weights is None else list(weights))
        if len(self.weights) != len(self.volumes):
            raise ValueError(
                f"expected one weight per volume, got {len(self.weights)} for {len(self.volumes)} volumes."
            )
        self.pixel, self.rotation, self.zoom = pixel, rotation, zoom
        self.loc, self.scale = 0.0, 1.0
        if loc is None or scale is None:
            g = Generator().manual_seed(0)
            values = torch.stack([self(g, (64, 64)) for _ in range(256)]).double()
            loc, scale = float(values.mean()), float(values.std())
        self.loc, self.scale = loc, scale

    def __call__(self, generator: Generator, crop: tuple[int, ...]) -> Tensor:
        """One window (1, h, w) in units of ``u``."""
        volume = self.volumes[int(torch.multinomial(self.weights, 1, generator=generator))]
        image = volume[int(torch.randint(len(volume), (), generator=generator))][None, None]
        r = torch.rand(5, generator=generator)
        angle = math.radians(self.rotation) * float(2 * r[0] - 1)
        zoom = self.zoom ** float(2 * r[1] - 1)
        flop = 1.0 if r[2] < 0.5 else -1.0
        above_air = _crop(image - AIR, crop, angle, zoom, 1.0, flop, float(r[3]), float(r[4]))
        return (above_air + (AIR - self.loc))[None] / self.scale


def _resized(volume: Tensor, size: tuple[float, float], pixel: float) -> Tensor:
    """Slices with square pixels of the side ``pixel``; means over the area where that is coarser."""
    shape = [max(1, round(n * s / pixel)) for n, s in zip(volume.shape[1:], size, strict=True)]
    if shape == list(volume.shape[1:]):
        return volume
    return torch.nn.functional.interpolate(
        volume[:, None], size=shape, mode="bilinear", align_corners=False, antialias=True
    )[:, 0]
