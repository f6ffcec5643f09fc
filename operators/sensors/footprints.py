r"""Sensors that average over a neighbourhood: the field of view of a radiometer, the aperture of a probe.

.. math:: y_i = \int k(s - s_i)\, x(s)\, ds, \qquad \int k(s)\, ds = 1

The integral is a sum over a cloud of points around the sensor, with weights that sum to one, each point read from the
multilinear interpolant of the field. So footprints may be narrower than the grid's spacing, symmetric ones are exact
for linear functions, and constants are seen as they are. Points of the cloud are at most half a grid spacing and a
tenth of the footprint apart. Where a footprint reaches beyond the domain, its mean is over the part inside.

======================  ======================================================================
`GaussianFootprint`     :math:`k \propto e^{-|s|^2 / 2 w^2}`, cut off at four standard deviations
`DiscFootprint`         constant within a radius
`BoxFootprint`          constant within a rectangle
======================  ======================================================================
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scidiff.operators.recorded import Recorded
from scidiff.operators.sensors.points import Grid
from scidiff.operators.sensors.sphere import EARTH_RADIUS, LatLonGrid, destination
from scidiff.operators.sensors.weighted import WeightedSensors, gathered
from scidiff.operators.units import is_quantity, magnitude

__all__ = ["BoxFootprint", "DiscFootprint", "Footprints", "GaussianFootprint", "LatLonFootprints"]

CUT = 4.0
"""Standard deviations after which a Gaussian footprint ends; outside lies 6e-5 of the weight in one dimension."""
FINE, LEAST = 2, 10
"""Points of the cloud per grid spacing, and across half a footprint."""


@dataclass(frozen=True)
class GaussianFootprint(Recorded):
    """Weights that fall off as a Gaussian.

    Arguments:
        width: Standard deviation in the unit of the axes; a number or pint quantity.
    """

    width: Any

    def halves(self, n: int, unit: str | None) -> list[float]:
        """Half sides of the box that holds the footprint in n dimensions, in a unit."""
        return [CUT * _length(self.width, unit, "width")] * n

    def weights(self, offsets: np.ndarray, unit: str | None) -> np.ndarray:
        """Weights of points at offsets (q, n) from the sensor, not normalised."""
        square = (offsets / _length(self.width, unit, "width")) ** 2
        return np.exp(-0.5 * square.sum(1)) * (square.sum(1) <= CUT**2)


@dataclass(frozen=True)
class DiscFootprint(Recorded):
    """Equal weights within a radius (in one dimension an interval, in three a ball).

    Arguments:
        radius: In the unit of the axes; a number or pint quantity.
    """

    radius: Any

    def halves(self, n: int, unit: str | None) -> list[float]:
        """As for `GaussianFootprint`."""
        return [_length(self.radius, unit, "radius")] * n

    def weights(self, offsets: np.ndarray, unit: str | None) -> np.ndarray:
        """As for `GaussianFootprint`."""
        return (np.square(offsets).sum(1) <= _length(self.radius, unit, "radius") ** 2).astype(float)


@dataclass(frozen=True)
class BoxFootprint(Recorded):
    """Equal weights within a rectangle along the axes.

    Arguments:
        sides: Full side along each axis, in the unit of the axes; numbers or pint quantities.
    """

    sides: Sequence[Any]

    def halves(self, n: int, unit: str | None) -> list[float]:
        """As for `GaussianFootprint`."""
        if len(self.sides) != n:
            raise ValueError(f"a box needs one side per axis, {n}, got {len(self.sides)}.")
        return [_length(side, unit, "sides") / 2 for side in self.sides]

    def weights(self, offsets: np.ndarray, unit: str | None) -> np.ndarray:
        """As for `GaussianFootprint`."""
        return np.ones(len(offsets))


Footprint = GaussianFootprint | DiscFootprint | BoxFootprint


def _length(value: Any, unit: str | None, name: str) -> float:
    if is_quantity(value) and unit is None:
        raise ValueError(f"{name} has units {str(value.units)!r}, but the axes are plain numbers; give both units.")
    found = float(magnitude(value, unit, name) if unit else value)
    if not (found > 0 and math.isfinite(found)):
        raise ValueError(f"the {name} of a footprint must be positive and finite, got {value}.")
    return found


def cloud(footprint: Footprint, spacings: Sequence[float], unit: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Offsets (q, n) of the points of a footprint on a grid with these spacings, and their weights (q,), sum one.

    Cells of a midpoint rule, which is symmetric, so that the centre of the weights is the sensor.
    """
    lines = []
    for half, spacing in zip(footprint.halves(len(spacings), unit), spacings, strict=True):
        count = 2 * max(LEAST, math.ceil(FINE * half / spacing))
        lines.append(half * (2 * np.arange(count) + 1 - count) / count)
    offsets = np.stack([axis.ravel() for axis in np.meshgrid(*lines, indexing="ij")], 1)
    weights = footprint.weights(offsets, unit)
    kept = weights > 0
    return offsets[kept], weights[kept] / weights[kept].sum()


def seen(grid: Grid | LatLonGrid, places: np.ndarray, weights: np.ndarray) -> tuple[Tensor, Tensor]:
    """Entries that one sensor sees and their weights: the part of its cloud inside the domain, normalised."""
    kept = grid.inside(places)
    index, weight = grid.neighbours(places[kept])
    mass = torch.from_numpy(weights[kept] / weights[kept].sum())[:, None]
    return index.flatten(), (weight * mass).flatten()


class Footprints(WeightedSensors):
    r"""Observes weighted means around points, (B, \*R, \*grid) to (B, \*R, m).

    Arguments:
        axes, sensors, periods: As for `Points`; all axes in one unit.
        footprint: One for all sensors, see the module.

    Raises:
        ValueError: a sensor (its centre) outside the domain, a footprint that is not positive, units that do not fit.
    """

    def __init__(
        self, axes: Sequence[Any], sensors: Sequence[Any], footprint: Footprint, periods: Sequence[Any] | None = None
    ) -> None:
        grid = Grid(axes, periods)
        if len(set(grid.units)) > 1:
            raise ValueError(f"a footprint needs all axes in one unit, got {grid.units}; convert them.")
        offsets, weights = cloud(footprint, [float(np.abs(np.diff(a)).min()) for a in grid.axes], grid.units[0])
        rows = [seen(grid, place + offsets, weights) for place in grid.places(sensors)]
        super().__init__(grid.shape, *gathered(rows))

    def __repr__(self) -> str:
        return f"Footprints({self.count} on a grid {self.grid}, {self.arguments['footprint']})"


class LatLonFootprints(WeightedSensors):
    r"""Observes weighted means around stations on the sphere, (B, \*R, H, W) to (B, \*R, m).

    Arguments:
        lat, lon, lat_s, lon_s: As for `LatLonPoints`.
        footprint: In kilometres (or pint lengths) along great circles; a box has its sides north and east.

    Raises:
        ValueError: as for `Footprints`.
    """

    def __init__(self, lat: Any, lon: Any, lat_s: Any, lon_s: Any, footprint: Footprint) -> None:
        grid = LatLonGrid(lat, lon)
        rows, km = [], EARTH_RADIUS * math.pi / 180
        for phi, lam in grid.places(lat_s, lon_s):
            across = max(math.cos(math.radians(phi)), 0.1)  # finer than needed only near a pole
            spacings = [
                km * float(np.abs(np.diff(grid.lat)).min()),
                km * across * float(np.abs(np.diff(grid.lon)).min()),
            ]
            offsets, weights = cloud(footprint, spacings, "km")
            rows.append(seen(grid, destination(phi, lam, offsets[:, 1], offsets[:, 0], EARTH_RADIUS), weights))
        super().__init__(grid.shape, *gathered(rows))

    def __repr__(self) -> str:
        return f"LatLonFootprints({self.count} on a grid {self.grid}, {self.arguments['footprint']})"
