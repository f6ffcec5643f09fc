r"""Point sensors anywhere between the points of a grid.

The field at a sensor is the multilinear interpolant: the product over axes of the weights of
`scidiff.operators.sensors.axes`. It is exact for functions that are linear along every axis and of second order for
smooth ones. A sensor on a grid point sees that point alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from scidiff.operators.sensors.axes import axis_values, bracket, checked_period, outer, sensor_values, unit_of, within
from scidiff.operators.sensors.weighted import WeightedSensors
from scidiff.operators.units import magnitude

__all__ = ["Grid", "Points"]


class Grid:
    """Axes of a rectangular grid and their periods, which turn places into neighbours and weights.

    Arguments:
        axes: Coordinates of the grid along its n axes, plain or pint, see `Points`.
        periods: One per axis, None where an axis has ends.
    """

    def __init__(self, axes: Sequence[Any], periods: Sequence[Any] | None = None) -> None:
        self.names = [f"axis {i}" for i in range(len(axes))]
        self.units = [unit_of(axis) for axis in axes]
        self.axes = [axis_values(axis, name) for axis, name in zip(axes, self.names, strict=True)]
        if not self.axes:
            raise ValueError("a grid needs at least one axis.")
        if periods is not None and len(periods) != len(self.axes):
            raise ValueError(f"periods must be one per axis, {len(self.axes)}, got {len(periods)}; None for no period.")
        self.periods = [
            checked_period(magnitude(p, u, "period") if u else p, a, n)
            for p, u, a, n in zip(periods or [None] * len(self.axes), self.units, self.axes, self.names, strict=True)
        ]
        self.shape = tuple(map(len, self.axes))

    def places(self, sensors: Sequence[Any]) -> np.ndarray:
        """Coordinates (m, n) of sensors in the units of the axes.

        Raises:
            ValueError: if a sensor lies outside, or their numbers or units differ.
        """
        if len(sensors) != len(self.axes):
            raise ValueError(
                f"sensors must be one array of coordinates per axis, {len(self.axes)}, got {len(sensors)}; "
                "write (y, x), not a list of points."
            )
        columns = [
            sensor_values(s, u, f"sensors[{i}]") for i, (s, u) in enumerate(zip(sensors, self.units, strict=True))
        ]
        if len({len(c) for c in columns}) > 1:
            raise ValueError(f"sensors need one coordinate per axis, got {[len(c) for c in columns]} of them.")
        for column, axis, period, name, unit in zip(
            columns, self.axes, self.periods, self.names, self.units, strict=True
        ):
            if period is None:
                within(column, axis, name, unit)
        return np.stack(columns, 1)

    def neighbours(self, places: np.ndarray) -> tuple[Tensor, Tensor]:
        """Entries of the flattened grid around places (m, n) inside it, and their weights, (m, 2^n)."""
        parts = [bracket(places[:, i], axis, self.periods[i]) for i, axis in enumerate(self.axes)]
        return outer(parts, self.shape)

    def inside(self, places: np.ndarray) -> np.ndarray:
        """Which places (m, n) lie in the domain, boolean (m,)."""
        kept = np.ones(len(places), dtype=bool)
        for column, axis, period in zip(places.T, self.axes, self.periods, strict=True):
            if period is None:
                kept &= (column >= min(axis[0], axis[-1])) & (column <= max(axis[0], axis[-1]))
        return kept


class Points(WeightedSensors):
    r"""Observes a field at points off the grid by multilinear interpolation, (B, \*R, \*grid) to (B, \*R, m).

    All axes but the last n pass through, so that a movie (B, T, H, W) gives time series (B, T, m).

    Arguments:
        axes: Coordinates of the grid along its n axes, each increasing or decreasing, not necessarily evenly spaced:
            ``(y, x)`` for fields (B, C, H, W). Plain numbers or pint quantities.
        sensors: Coordinates of the m sensors, one array (m,) per axis: ``(y_s, x_s)``. Plain numbers are in the unit of
            the axis; quantities are converted to it.
        periods: Per axis its period in the unit of the axis (the last point has the first one as its neighbour), or
            None for an axis with ends.

    Raises:
        ValueError: a sensor outside the domain, axes that are not sorted, units that do not fit.
    """

    def __init__(self, axes: Sequence[Any], sensors: Sequence[Any], periods: Sequence[Any] | None = None) -> None:
        grid = Grid(axes, periods)
        super().__init__(grid.shape, *grid.neighbours(grid.places(sensors)))

    def __repr__(self) -> str:
        return f"Points({self.count} on a grid {self.grid})"
