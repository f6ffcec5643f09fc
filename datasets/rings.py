r"""Ring-like images of the surroundings of a black hole, as an interferometer at 1.3 mm might see them.

The brightness at distance :math:`r` and position angle :math:`\phi` from a centre near the middle is

.. math:: I(r, \phi) = (1 + A \cos(\phi - \phi_0) + A_2 \cos(2 \phi - \phi_2))\,
          \exp\!\big(-\tfrac{(r - R)^2}{2 w_\pm^2}\big)
          + \text{photon ring} + \text{blobs} + \text{halo},

a ring of radius :math:`R`, bright on one side (a crescent when :math:`A` is near one) and falling off faster inwards
(:math:`w_-`) than outwards (:math:`w_+`), slightly elliptic; a thin ring near it in half of the images; up to three
Gaussian blobs, such as knots of a jet; and a wide faint halo. Every image is positive and its pixels add up to one
jansky: multiply the prior by the total flux that was measured (``prior.rescaled``).

Position angles run from north through east; rows run from north to south and columns from east to west, as on the sky.
These are shapes, not solutions of any equation of radiation or gravitation.

References:
    First M87 Event Horizon Telescope results IV and VI, The EHT Collaboration, 2019, doi:10.3847/2041-8213/ab0e85 and
    ab1141 (crescents; diameter 42 microarcseconds, width, asymmetry).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from scidiff.datasets.simulator import Simulator
from scidiff.errors import InputError
from scidiff.transforms import make_transform

__all__ = ["Rings", "ring_image"]


class _Dice:
    """Draws from one generator; none depends on the grid."""

    def __init__(self, generator: Generator) -> None:
        self.generator = generator

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def angle(self) -> float:
        return self.uniform(-math.pi, math.pi)


def ring_image(shape: Sequence[int], generator: Generator, fov: float = 160.0) -> Tensor:
    """One image (H, W) in Jy per pixel, float64, positive, with the sum one.

    Arguments:
        shape: Height and width.
        generator: Source of the shape; equal generators give the same sky on every grid.
        fov: Field of view along the longer side, microarcseconds.
    """
    pixel = fov / max(shape)
    north, east = (((n - 1) / 2 - torch.arange(n, dtype=torch.float64)) * pixel for n in shape)
    dice = _Dice(generator)
    centre = dice.uniform(-10, 10), dice.uniform(-10, 10)
    y, x = north[:, None] - centre[0], east[None, :] - centre[1]
    tilt, squeeze = dice.angle(), dice.uniform(0.85, 1.0)
    along, across = math.cos(tilt) * y + math.sin(tilt) * x, -math.sin(tilt) * y + math.cos(tilt) * x
    r = torch.hypot(along * math.sqrt(squeeze), across / math.sqrt(squeeze))
    phi = torch.atan2(x, y)

    radius, width, skew = dice.uniform(13, 30), dice.uniform(2.5, 8), dice.uniform(1.0, 1.8)
    first, second = dice.uniform(0.0, 0.95), dice.uniform(0.0, 0.25)
    bright, other = dice.angle(), dice.angle()
    side = 1 + first * torch.cos(phi - bright) + second * (1 - first) * torch.cos(2 * (phi - other))
    image = side * torch.exp(-0.5 * ((r - radius) / torch.where(r > radius, skew * width, width)).square())

    present, strength, near = dice.uniform(0, 1) < 0.5, dice.uniform(0.1, 0.8), dice.uniform(0.92, 1.12)
    thin = dice.uniform(1.2, 2.0)
    if present:
        image = image + strength * side * torch.exp(-0.5 * ((r - near * radius) / thin).square())

    count = int(4 * dice.uniform(0, 1))
    for number in range(3):
        distance, angle, size = radius * dice.uniform(0.6, 2.2), dice.angle(), dice.uniform(2.5, 9)
        stretch, turn, peak = dice.uniform(1.0, 2.0), dice.angle(), dice.uniform(0.05, 0.5)
        if number < count:
            dy, dx = y - distance * math.cos(angle), x - distance * math.sin(angle)
            p, q = math.cos(turn) * dy + math.sin(turn) * dx, -math.sin(turn) * dy + math.cos(turn) * dx
            image = image + peak * torch.exp(-0.5 * ((p / stretch).square() + q.square()) / size**2)

    halo, extent = dice.uniform(0.005, 0.04), dice.uniform(40, 80)
    image = image + halo * (1 + (y.square() + x.square()) / extent**2) ** -1.5
    return image / image.sum()


class Rings(Simulator):
    r"""Draws whole images (1, H, W).

    The field of the prior is the brightness, or with a transform a function of it that keeps every draw positive: then
    the prior is not affine, and a linear measurement is no longer linear in ``u``.

    Arguments:
        shape: Height and width; training.crops must be the same.
        fov: Field of view along the longer side, microarcseconds.
        transform: See `scidiff.transforms`, for example ``{kind = "softplus", scale = 2e-4}`` (Jy per pixel); none by
            default.
    """

    units = "Jy/pixel"

    def __init__(
        self, shape: Sequence[int] = (64, 64), fov: float = 160.0, transform: dict[str, Any] | None = None
    ) -> None:
        if len(shape) != 2 or min(shape) < 8 or not fov > 0:
            raise ValueError(f"expected two sides of at least 8 pixels and fov > 0, got {tuple(shape)} and {fov}.")
        self.shape, self.fov = (int(shape[0]), int(shape[1])), fov
        self.transform = make_transform(**transform) if transform else None
        g = Generator().manual_seed(0)
        fields = torch.stack([self._field(g) for _ in range(256)])
        self._mean, self._deviation = float(fields.mean()), float(fields.std())
        self.loc, self.scale = self._mean, self._deviation

    def image(self, generator: Generator) -> Tensor:
        """One image (H, W) with a total flux of 1 Jy, in Jy per pixel."""
        return ring_image(self.shape, generator, self.fov)

    def _field(self, generator: Generator) -> Tensor:
        image = self.image(generator)
        return image if self.transform is None else self.transform.encode(image)

    def __call__(self, generator: Generator, crop: tuple[int, ...]) -> Tensor:
        """One image (1, H, W) in units of ``u``."""
        if tuple(crop) != self.shape:
            raise InputError(f"sources are whole images of data.shape = {self.shape}, training.crops asks for {crop}.")
        return ((self._field(generator)[None] - self._mean) / self._deviation).float()

    @property
    def card(self) -> dict[str, Any]:
        rows: dict[str, Any] = {
            "variables": ["brightness"],
            "pixel_size": self.fov / max(self.shape),
            "pixel_size_units": "microarcsecond",
            "total_flux": 1.0,
        }
        return rows | ({"transforms": [self.transform.card]} if self.transform else {})
