r"""Exact line integrals of ellipses: data that no projector made, to simulate from and to test against.

With the half axes a and b, turned counterclockwise by :math:`\phi`, the line at the distance s from the centre of an
ellipse whose normal points to :math:`\theta` runs through it for

.. math:: \frac{2ab}{r^2}\sqrt{r^2 - s^2}, \qquad r^2 = a^2\cos^2(\theta - \phi) + b^2\sin^2(\theta - \phi).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scidiff.operators.tomography.projector import Projector
from scidiff.operators.units import magnitude

__all__ = ["Ellipse", "ellipse_field", "ellipse_sinogram"]


@dataclass(frozen=True)
class Ellipse:
    """An ellipse of constant attenuation.

    Arguments:
        attenuation: In 1/mm, added to that of other ellipses; may be negative.
        centre: Position (u, v) in mm from the rotation axis, u to the right, v upwards.
        axes: Half axes (a, b) in mm.
        turn: Angle of a from the horizontal, counterclockwise, in degrees.

    Lengths, angle and attenuation may be pint quantities.
    """

    attenuation: Any
    centre: tuple[Any, Any]
    axes: tuple[Any, Any]
    turn: Any = 0.0

    def numbers(self) -> tuple[float, float, float, float, float, float]:
        """Attenuation, u, v, a, b in mm, and the angle in radians."""
        lengths = [float(magnitude(v, "mm", "an ellipse")) for v in (*self.centre, *self.axes)]
        if not min(lengths[2:]) > 0:
            raise ValueError(f"the half axes of an ellipse must be positive, got {self.axes}.")
        attenuation = float(magnitude(self.attenuation, "1/mm", "attenuation"))
        u, v, a, b = lengths
        return attenuation, u, v, a, b, math.radians(float(magnitude(self.turn, "degree", "turn")))


def ellipse_sinogram(projector: Projector, ellipses: Sequence[Ellipse]) -> Tensor:
    """What a projector's rays measure of ellipses, (1, 1, views, bins) in float64, averaged over the rays of a bin."""
    point, direction = projector.rays()
    theta = np.arctan2(direction[:, 1], direction[:, 0]) - math.pi / 2  # of the normal
    distance = (point * np.stack([np.cos(theta), np.sin(theta)], -1)).sum(-1)
    total = np.zeros(len(point))
    for ellipse in ellipses:
        attenuation, u, v, a, b, turn = ellipse.numbers()
        r2 = (a * np.cos(theta - turn)) ** 2 + (b * np.sin(theta - turn)) ** 2
        s = distance - (u * np.cos(theta) + v * np.sin(theta))
        total += attenuation * 2 * a * b / r2 * np.sqrt(np.maximum(r2 - s**2, 0))
    mean = total.reshape(projector.views, projector.bins, -1).mean(-1)
    return torch.from_numpy(mean)[None, None]


def ellipse_field(projector: Projector, ellipses: Sequence[Ellipse], points: int = 8) -> Tensor:
    """Mean attenuation of ellipses in every pixel of a projector's field, (1, 1, H, W) in float64, 1/mm.

    Arguments:
        projector: Gives the grid.
        ellipses: Their sum is the field.
        points: Points along each side of a pixel over which the mean is taken.
    """
    (height, width), (dy, dx) = projector.shape, projector.pixel
    u = ((np.arange(width * points) + 0.5) / points - width / 2) * dx
    v = (height / 2 - (np.arange(height * points) + 0.5) / points) * dy
    total = np.zeros((height, width))
    for ellipse in ellipses:
        attenuation, u0, v0, a, b, turn = ellipse.numbers()
        across, up = u - u0, (v - v0)[:, None]
        along = (across * math.cos(turn) + up * math.sin(turn)) / a
        inside = along**2 + ((up * math.cos(turn) - across * math.sin(turn)) / b) ** 2 <= 1
        total += attenuation * inside.reshape(height, points, width, points).mean((1, 3))
    return torch.from_numpy(total)[None, None]
