r"""Compact sources of four simple kinds: crescents, rings, discs and double sources.

They are for questions that the prior of `scidiff.datasets.rings` does not cover: what does a method make of a source
that is no ring? With the distance :math:`r` and position angle :math:`\phi` from a centre near the middle,

==========  ==========================================================================================
kind        brightness
==========  ==========================================================================================
crescent    :math:`(1 + A \cos(\phi - \phi_0)) \exp(-(r - R)^2 / 2 w^2)`, :math:`A` from 0.6 to 0.95
ring        the same with :math:`A` below 0.2
disc        :math:`\tfrac12 \operatorname{erfc}((r - R) / \sqrt2 w)`: even inside :math:`R`, with soft edges
double      two elliptic Gaussians 25 to 70 microarcseconds apart
==========  ==========================================================================================

Every image is positive and its pixels add up to one jansky. Position angles run from north through east; rows run from
north to south and columns from east to west, as on the sky.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from scidiff.datasets.rings import Rings, _Dice

__all__ = ["KINDS", "CompactSources", "compact_source", "ring_profile"]

KINDS = ("crescent", "ring", "disc", "double")
FLOOR = 1e-4  # of the peak: positive transforms need fields above zero


def sky(shape: Sequence[int], fov: float) -> tuple[Tensor, Tensor]:
    """North (H, 1) and east (1, W) of the pixel centres, microarcseconds, float64."""
    pixel = fov / max(shape)
    north, east = (((n - 1) / 2 - torch.arange(n, dtype=torch.float64)) * pixel for n in shape)
    return north[:, None], east[None, :]


def ring_profile(
    shape: Sequence[int],
    fov: float,
    radius: float,
    width: float,
    asymmetry: float = 0.0,
    angle: float = 0.0,
    centre: tuple[float, float] = (0.0, 0.0),
) -> Tensor:
    """The ring of the module's table (H, W) with the sum one; lengths in microarcseconds, ``angle`` in radians.

    Arguments:
        shape: Height and width.
        fov: Field of view along the longer side.
        radius: Of the brightest circle.
        width: Standard deviation of the profile.
        asymmetry: :math:`A`, at most one.
        angle: Position angle of the brightest direction, from north through east.
        centre: North and east.
    """
    north, east = sky(shape, fov)
    y, x = north - centre[0], east - centre[1]
    side = 1 + asymmetry * torch.cos(torch.atan2(x, y) - angle)
    image = side * torch.exp(-0.5 * ((torch.hypot(y, x) - radius) / width).square())
    return image / image.sum()


def compact_source(kind: str, shape: Sequence[int], generator: Generator, fov: float = 160.0) -> Tensor:
    """One image (H, W) in Jy per pixel, float64, positive, with the sum one.

    Arguments:
        kind: One of `KINDS`.
        shape: Height and width.
        generator: Source of the shape; equal generators give the same sky on every grid.
        fov: Field of view along the longer side, microarcseconds.

    Raises:
        ValueError: an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}.")
    dice = _Dice(generator)
    centre = dice.uniform(-8, 8), dice.uniform(-8, 8)
    if kind in ("crescent", "ring"):
        asymmetry = dice.uniform(0.6, 0.95) if kind == "crescent" else dice.uniform(0.0, 0.2)
        radius, width, angle = dice.uniform(15, 28), dice.uniform(3, 7), dice.angle()
        image = ring_profile(shape, fov, radius, width, asymmetry, angle, centre)
    elif kind == "disc":
        north, east = sky(shape, fov)
        radius, edge = dice.uniform(18, 35), dice.uniform(2, 5)
        r = torch.hypot(north - centre[0], east - centre[1])
        image = 0.5 * torch.erfc((r - radius) / (math.sqrt(2) * edge))
    else:
        image = _double(shape, fov, dice, centre)
    image = image / image.max() + FLOOR
    return image / image.sum()


def _double(shape: Sequence[int], fov: float, dice: _Dice, centre: tuple[float, float]) -> Tensor:
    north, east = sky(shape, fov)
    distance, angle, ratio = dice.uniform(25, 70), dice.angle(), dice.uniform(0.3, 1.0)
    image = torch.zeros(tuple(shape), dtype=torch.float64)
    for sign, flux in ((1, 1.0), (-1, ratio)):
        size, stretch, turn = dice.uniform(4, 9), dice.uniform(1.0, 1.8), dice.angle()
        y = north - centre[0] - sign * distance / 2 * math.cos(angle)
        x = east - centre[1] - sign * distance / 2 * math.sin(angle)
        along, across = math.cos(turn) * y + math.sin(turn) * x, -math.sin(turn) * y + math.cos(turn) * x
        square = (along / stretch).square() + across.square()
        image = image + flux / (size**2 * stretch) * torch.exp(-0.5 * square / size**2)
    return image


class CompactSources(Rings):
    """Draws whole images (1, H, W), each kind equally often.

    Arguments:
        shape: Height and width; training.crops must be the same.
        fov: Field of view along the longer side, microarcseconds.
        kinds: Which of crescent, ring, disc and double.
        transform: See `scidiff.transforms`; none by default.
    """

    def __init__(
        self,
        shape: Sequence[int] = (64, 64),
        fov: float = 160.0,
        kinds: Sequence[str] = KINDS,
        transform: dict[str, Any] | None = None,
    ) -> None:
        if not kinds or set(kinds) - set(KINDS):
            raise ValueError(f"kinds must be some of {', '.join(KINDS)}, got {list(kinds)}.")
        self.kinds = tuple(kinds)
        super().__init__(shape, fov, transform)

    def image(self, generator: Generator) -> Tensor:
        kind = self.kinds[int(torch.randint(len(self.kinds), (), generator=generator))]
        return compact_source(kind, self.shape, generator, self.fov)
