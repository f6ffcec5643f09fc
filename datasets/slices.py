r"""Random complex crops of magnitude slices, for training a prior of MR images.

A slice is scaled so that the 99th percentile of its magnitude is 1, then: random volume and slice, rotation, zoom,
flips, gamma and shading of the intensity, and a smooth random phase, because the phase of a coil-combined image is
smooth but arbitrary. All draws come from the generator given to the call.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

__all__ = ["ComplexSlices", "PhantomCrops"]


class ComplexSlices:
    r"""Draws crops (2, h, w), real and imaginary part, divided by ``scale``.

    Arguments:
        volumes: Magnitude volumes (slices, H_i, W_i); each is drawn with equal probability unless ``weights`` are
        given.
        scale: Standard deviation per real component, so that the crops have about unit variance.
        weights: Probability of each volume, up to a factor.
        rotation: Largest rotation in degrees.
        zoom: Largest factor by which a slice is enlarged or reduced.
        gamma: Largest exponent (and inverse of the smallest) applied to the magnitude.
        shading: Standard deviation of the logarithm of a smooth intensity field.
        phase: Standard deviation of the smooth part of the phase in radians, at most.
        jitter: Standard deviation of the logarithm of the overall intensity.
    """

    def __init__(
        self,
        volumes: Sequence[Tensor],
        scale: float = 0.25,
        weights: Sequence[float] | None = None,
        rotation: float = 15.0,
        zoom: float = 1.2,
        gamma: float = 1.4,
        shading: float = 0.15,
        phase: float = 1.0,
        jitter: float = 0.1,
    ) -> None:
        self.volumes = [_normalised(v) for v in volumes]
        self.weights = torch.tensor([1.0] * len(volumes) if weights is None else list(weights))
        if len(self.weights) != len(self.volumes) or not volumes:
            raise ValueError(
                f"expected one weight per volume, got {len(self.weights)} for {len(self.volumes)} volumes."
            )
        self.scale, self.rotation, self.zoom, self.gamma = scale, rotation, zoom, gamma
        self.shading, self.phase, self.jitter = shading, phase, jitter

    def __call__(self, generator: Generator, crop: tuple[int, ...]) -> Tensor:
        """One crop (2, h, w) in units of ``u``."""
        g = generator
        volume = self.volumes[int(torch.multinomial(self.weights, 1, generator=g))]
        image = volume[int(torch.randint(len(volume), (), generator=g))][None, None]
        r = torch.rand(8, generator=g)
        angle = math.radians(self.rotation) * (2 * r[0] - 1)
        zoom = self.zoom ** (2 * r[1] - 1)
        flip = 1.0 if r[2] < 0.5 else -1.0
        flop = 1.0 if r[3] < 0.75 else -1.0
        magnitude = _crop(image, crop, float(angle), float(zoom), flip, flop, float(r[4]), float(r[5])).clamp_min(0)
        magnitude = magnitude ** (self.gamma ** (2 * r[6] - 1))
        magnitude = magnitude * (self.shading * _smooth(crop, g) + self.jitter * torch.randn((), generator=g)).exp()
        phase = self.phase * r[7] * _smooth(crop, g) + 2 * math.pi * torch.rand((), generator=g)
        return torch.stack([magnitude * phase.cos(), magnitude * phase.sin()]) / self.scale


def _normalised(volume: Tensor) -> Tensor:
    """Slices with the 99th percentile of each at 1; nearly empty slices are dropped."""
    volume = volume.float()
    top = torch.stack([s.flatten().quantile(0.99) for s in volume])
    keep = top > 0.1 * top.max()
    return volume[keep] / top[keep, None, None]


def _crop(
    image: Tensor, crop: tuple[int, ...], angle: float, zoom: float, flip: float, flop: float, a: float, b: float
) -> Tensor:
    """Rotated, enlarged window of ``crop`` pixels centred at a place given by (a, b) in [0, 1]^2. Outside is zero."""
    height, width = image.shape[-2:]
    h, w = crop
    cy = (2 * a - 1) * (abs(height - h / zoom) / 2 + 0.1 * height)
    cx = (2 * b - 1) * (abs(width - w / zoom) / 2 + 0.1 * width)
    c, s = math.cos(angle) / zoom, math.sin(angle) / zoom
    # From the window's coordinates in [-1, 1] through pixels to the slice's coordinates in [-1, 1].
    theta = torch.tensor(
        [
            [flip * c * w / width, -flip * s * h / width, 2 * cx / width],
            [flop * s * w / height, flop * c * h / height, 2 * cy / height],
        ]
    )
    grid = F.affine_grid(theta[None], [1, 1, h, w], align_corners=False)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)[0, 0]


def _smooth(crop: tuple[int, ...], g: Generator, length: int = 48) -> Tensor:
    """Smooth random field of about unit variance: cubic through normal numbers every ``length`` pixels."""
    coarse = torch.randn(1, 1, *(math.ceil(n / length) + 3 for n in crop), generator=g)
    fine = F.interpolate(coarse, scale_factor=length, mode="bicubic", align_corners=False)[0, 0]
    return fine[length : length + crop[0], length : length + crop[1]]


class PhantomCrops:
    r"""Draws crops (2, h, w) of random head phantoms with a smooth random phase, divided by ``scale``.

    Arguments:
        shape: Grid on which a phantom is drawn; a crop of the same shape is the whole phantom.
        scale: Standard deviation per real component, so that the crops have about unit variance.
        phase: Standard deviation of the smooth part of the phase in radians, at most.
        jitter: Standard deviation of the logarithm of the overall intensity.
    """

    def __init__(
        self, shape: Sequence[int] = (160, 128), scale: float = 0.25, phase: float = 1.0, jitter: float = 0.1
    ) -> None:
        height, width = shape
        self.shape, self.scale, self.phase, self.jitter = (height, width), scale, phase, jitter

    def __call__(self, generator: Generator, crop: tuple[int, ...]) -> Tensor:
        """One crop (2, h, w) in units of ``u``."""
        from scidiff.datasets.phantom import head_phantom

        if any(c > n for c, n in zip(crop, self.shape, strict=True)):
            raise ValueError(f"the crop {crop} is larger than the phantom's grid {self.shape}; raise data.shape.")
        image = head_phantom(self.shape, generator=generator, oversample=2)
        y, x = (int(torch.randint(n - c + 1, (), generator=generator)) for n, c in zip(self.shape, crop, strict=True))
        magnitude = image[y : y + crop[0], x : x + crop[1]]
        magnitude = magnitude * (self.jitter * torch.randn((), generator=generator)).exp()
        r = torch.rand(2, generator=generator)
        phase = self.phase * r[0] * _smooth(crop, generator) + 2 * math.pi * r[1]
        return torch.stack([magnitude * phase.cos(), magnitude * phase.sin()]) / self.scale
