r"""Lorenz' two chaotic systems: convection in three numbers, and a ring of weather.

.. math:: \text{63:}\quad \dot x = s (y - x), \quad \dot y = x (r - z) - y, \quad \dot z = x y - b z

.. math:: \text{96:}\quad \dot x_i = (x_{i+1} - x_{i-2})\, x_{i-1} - x_i + F, \qquad i \text{ on a ring of } N

Both are dissipative. The products of Lorenz-96 conserve :math:`\sum_i x_i^2`.

References:
    Lorenz, Deterministic nonperiodic flow, Journal of the Atmospheric Sciences 20, 1963. Lorenz, Predictability: a
    problem partly solved, Seminar on Predictability, ECMWF, 1996.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["lorenz63", "lorenz96"]


def lorenz63(x: Tensor, s: float = 10.0, r: float = 28.0, b: float = 8 / 3) -> Tensor:
    """The rate of change of states (..., 3)."""
    x, y, z = x.unbind(-1)
    return torch.stack([s * (y - x), x * (r - z) - y, x * y - b * z], -1)


def lorenz96(x: Tensor, F: float = 8.0) -> Tensor:
    """The rate of change of states (..., N), N at least 4; 8 is the usual forcing, chaotic for N = 40."""
    return (x.roll(-1, -1) - x.roll(2, -1)) * x.roll(1, -1) - x + F
