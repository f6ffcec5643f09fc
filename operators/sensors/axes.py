r"""Coordinates of grids and sensors in physical units, and linear interpolation along one axis.

Between neighbours :math:`s_j \le s \le s_{j+1}` of an axis, :math:`x(s) \approx (1 - t)\,x_j + t\,x_{j+1}` with
:math:`t = (s - s_j) / (s_{j+1} - s_j)`: exact for linear functions, wrong by at most
:math:`\tfrac18 h^2 \max|x''|` for others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scidiff.operators.units import is_quantity, magnitude

__all__ = ["axis_values", "bracket", "sensor_values", "unit_of", "within"]


def unit_of(axis: Any) -> str | None:
    """The unit of a pint axis, in pint's spelling; None where it is plain numbers."""
    return str(axis.units) if is_quantity(axis) else None


def axis_values(axis: Any, name: str) -> np.ndarray:
    """Coordinates of a grid along one axis as float64.

    Raises:
        ValueError: if they are not at least two finite numbers that increase or decrease.
    """
    values = np.asarray(axis.magnitude if is_quantity(axis) else axis, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"{name} must be at least two finite coordinates along one dimension, got {values.shape}.")
    steps = np.diff(values)
    if not ((steps > 0).all() or (steps < 0).all()):
        raise ValueError(f"{name} must increase or decrease from one grid point to the next; sort it (and the field).")
    return values


def sensor_values(values: Any, unit: str | None, name: str) -> np.ndarray:
    """Coordinates (m,) of sensors in the unit of their axis, as float64.

    Raises:
        ValueError: if they are not finite, or have units where the axis has none or others.
    """
    if is_quantity(values):
        if unit is None:
            raise ValueError(f"{name} has units {str(values.units)!r}, but its axis is plain numbers; give both units.")
        values = magnitude(values, unit, name)
    found = np.atleast_1d(np.asarray(values, dtype=np.float64))
    if found.ndim != 1 or len(found) == 0 or not np.isfinite(found).all():
        raise ValueError(f"{name} must be one finite number per sensor, got shape {found.shape}.")
    return found


def within(points: np.ndarray, axis: np.ndarray, name: str, unit: str | None = None) -> None:
    """Raises ValueError where a sensor lies outside an axis, but for rounding: one error that names the sensors."""
    low, high = min(axis[0], axis[-1]), max(axis[0], axis[-1])
    slack = 1e-9 * (high - low)
    outside = np.flatnonzero((points < low - slack) | (points > high + slack))
    if len(outside):
        shown = ", ".join(f"{i} at {points[i]:g}" for i in outside[:5]) + (", ..." if len(outside) > 5 else "")
        raise ValueError(
            f"{len(outside)} of {len(points)} sensors lie outside the domain in {name}, which reaches from {low:g} to "
            f"{high:g}{f' {unit}' if unit else ''}: sensor {shown}. Leave them out, or extend the grid."
        )


def bracket(points: np.ndarray, axis: np.ndarray, period: float | None = None) -> tuple[Tensor, Tensor]:
    """The two neighbours (m, 2) of each point on an axis and their weights (m, 2); points must lie within.

    With a period the axis has a neighbour beyond its end: its first point, one period on.
    """
    sign = 1.0 if axis[-1] > axis[0] else -1.0
    s, x = sign * axis, sign * points
    n = len(s)
    if period is not None:
        x = s[0] + (x - s[0]) % period
        s = np.append(s, s[0] + period)
    j = np.clip(np.searchsorted(s, x, side="right") - 1, 0, len(s) - 2)
    t = np.clip((x - s[j]) / (s[j + 1] - s[j]), 0.0, 1.0)
    index = torch.from_numpy(np.stack([j, (j + 1) % n if period is not None else j + 1], 1))
    return index, torch.from_numpy(np.stack([1 - t, t], 1))


def outer(parts: Sequence[tuple[Tensor, Tensor]], grid: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Neighbours and weights (m, K) on the flattened grid from those along each axis."""
    index, weight = torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1, dtype=torch.float64)
    for (j, w), n in zip(parts, grid, strict=True):
        index = (index[:, :, None] * n + j[:, None, :]).flatten(1)
        weight = (weight[:, :, None] * w[:, None, :]).flatten(1)
    return index, weight


def checked_period(period: float | None, axis: np.ndarray, name: str) -> float | None:
    """A period that is longer than its axis; None where there is none."""
    if period is None:
        return None
    if not period > abs(axis[-1] - axis[0]) * (1 + 1e-12):
        raise ValueError(
            f"the period {period:g} of {name} must be longer than the axis, which spans {abs(axis[-1] - axis[0]):g}; "
            "leave out the grid point that repeats the first one."
        )
    return float(period)
