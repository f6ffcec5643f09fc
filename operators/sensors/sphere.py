"""Sensors on a grid of latitudes and longitudes, once around the Earth or on a part of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from scidiff.linalg.sphere import EARTH_RADIUS
from scidiff.linalg.sphere import great_circle as plain_distance
from scidiff.operators.sensors.axes import axis_values, bracket, sensor_values, within
from scidiff.operators.sensors.weighted import WeightedSensors
from scidiff.operators.units import is_quantity, magnitude

__all__ = ["EARTH_RADIUS", "LatLonGrid", "LatLonPoints", "destination", "great_circle"]


def great_circle(lat1: Any, lon1: Any, lat2: Any, lon2: Any, radius: float = EARTH_RADIUS) -> Tensor:
    """Distance along the sphere in units of ``radius``, see `scidiff.linalg.sphere`; arguments broadcast.

    Arguments:
        lat1, lon1: Places in degrees (numbers, arrays or tensors) or pint angles.
        lat2, lon2: Other places.
        radius: Of the sphere, by default the Earth's in km.
    """
    a, b, c, d = (degrees(v, "an angle") for v in (lat1, lon1, lat2, lon2))
    return plain_distance(a, b, c, d, radius)


def destination(lat: float, lon: float, east: np.ndarray, north: np.ndarray, radius: float) -> np.ndarray:
    """Places (m, 2) reached from one along great circles, by the distances ``east`` and ``north`` of the tangent plane.

    The distance is kept (azimuthal equidistant projection); areas are wrong by (d / R)^2 / 6.
    """
    d, bearing = np.hypot(east, north) / radius, np.arctan2(east, north)
    phi, lam = np.deg2rad(lat), np.deg2rad(lon)
    sine = np.clip(np.sin(phi) * np.cos(d) + np.cos(phi) * np.sin(d) * np.cos(bearing), -1, 1)
    turn = np.arctan2(np.sin(bearing) * np.sin(d) * np.cos(phi), np.cos(d) - np.sin(phi) * sine)
    return np.stack([np.rad2deg(np.arcsin(sine)), np.rad2deg(lam + turn)], 1)


def degrees(value: Any, name: str) -> Any:
    """Degrees of an angle, plain or pint."""
    return magnitude(value, "degree", name)


class LatLonGrid:
    """Latitudes and longitudes of a grid; longitudes once around the Earth close to a circle.

    Arguments:
        lat: Latitudes in degrees north, increasing or decreasing, (H,).
        lon: Longitudes in degrees east, (W,).
    """

    def __init__(self, lat: Any, lon: Any) -> None:
        self.lat = axis_values(degrees(lat, "lat"), "lat")
        self.lon = axis_values(degrees(lon, "lon"), "lon")
        if np.abs(self.lat).max() > 90 + 1e-9:
            raise ValueError(f"lat must lie between -90 and 90 degrees, got {self.lat.min():g} to {self.lat.max():g}.")
        gap = 360 - abs(self.lon[-1] - self.lon[0])
        if gap < -1e-6:
            raise ValueError(f"lon spans more than 360 degrees, from {self.lon[0]:g} to {self.lon[-1]:g}.")
        if gap < 1e-6:
            raise ValueError("lon holds the first meridian twice; leave out the last column.")
        self.around = bool(gap < 1.5 * np.abs(np.diff(self.lon)).max())
        self.shape = (len(self.lat), len(self.lon))
        reach, spacing = np.array([self.lat.min(), self.lat.max()]), np.abs(np.diff(self.lat)).max()
        closes = self.around & (90 - np.abs(reach) <= spacing) & (np.sign(reach) == [-1, 1])
        self._reach = np.where(closes, [-90.0, 90.0], reach)

    def places(self, lat: Any, lon: Any) -> np.ndarray:
        """Sensors (m, 2) with longitudes in the grid's own range.

        Raises:
            ValueError: if one lies outside.
        """
        unit = "degree"
        lat = sensor_values(degrees(lat, "lat_s") if is_quantity(lat) else lat, unit, "lat_s")
        lon = self.wrapped(sensor_values(degrees(lon, "lon_s") if is_quantity(lon) else lon, unit, "lon_s"))
        if len(lat) != len(lon):
            raise ValueError(f"sensors need a latitude and a longitude each, got {len(lat)} and {len(lon)}.")
        within(lat, self._reach, "latitude", unit)
        if not self.around:
            within(lon, self.lon, "longitude", unit)
        return np.stack([lat, lon], 1)

    def wrapped(self, lon: np.ndarray) -> np.ndarray:
        """Longitudes shifted by whole turns to lie within the grid's range where they can."""
        low = min(self.lon[0], self.lon[-1])
        turned = low + (lon - low) % 360
        # a rounding below the first meridian must not become a whole turn
        return np.where(turned - low > 360 - 1e-7, turned - 360, turned)

    def inside(self, places: np.ndarray) -> np.ndarray:
        """Which places (m, 2) lie in the domain, boolean (m,)."""
        lat, lon = places[:, 0], self.wrapped(places[:, 1])
        kept = (lat >= self._reach[0]) & (lat <= self._reach[1])
        return kept if self.around else kept & (lon >= self.lon.min()) & (lon <= self.lon.max())

    def neighbours(self, places: np.ndarray) -> tuple[Tensor, Tensor]:
        """The four entries of the flattened grid around each place, and their weights, (m, 4).

        Beyond the last circle of latitude the neighbour is the same circle half a turn on, across the pole.
        """
        lat, lon = places[:, 0], self.wrapped(places[:, 1])
        period = 360.0 if self.around else None
        i, v = bracket(np.clip(lat, self.lat.min(), self.lat.max()), self.lat)
        j, w = bracket(lon, self.lon, period)
        index = (i[:, :, None] * self.shape[1] + j[:, None]).flatten(1)
        weight = (v[:, :, None] * w[:, None]).flatten(1)
        for row, pole in ((int(self.lat.argmax()), 90.0), (int(self.lat.argmin()), -90.0)):
            edge = self.lat[row]
            beyond = np.flatnonzero((lat - edge) * np.sign(pole) > 0)
            if not len(beyond) or abs(pole - edge) < 1e-9:
                continue
            t = torch.from_numpy((lat[beyond] - edge) / (2 * (pole - edge)))[:, None]
            far, far_w = bracket(self.wrapped(lon[beyond] + 180), self.lon, period)
            near, near_w = j[beyond], w[beyond]
            index[beyond] = row * self.shape[1] + torch.cat([near, far], 1)
            weight[beyond] = torch.cat([(1 - t) * near_w, t * far_w], 1)
        return index, weight


class LatLonPoints(WeightedSensors):
    r"""Observes a field on latitudes and longitudes at stations, bilinearly: (B, \*R, H, W) to (B, \*R, m).

    A grid that reaches around the Earth is closed in longitude, and across a pole where its circles of latitude reach
    within one spacing of it. Longitudes of stations and grid may count from 0 to 360 or from -180 to 180.

    Arguments:
        lat: Latitudes of the grid in degrees north (H,), increasing or decreasing; plain or pint.
        lon: Longitudes of the grid in degrees east (W,).
        lat_s, lon_s: Latitudes and longitudes of the stations, (m,).

    Raises:
        ValueError: a station outside the domain, coordinates that are not sorted.
    """

    def __init__(self, lat: Any, lon: Any, lat_s: Any, lon_s: Any) -> None:
        grid = LatLonGrid(lat, lon)
        super().__init__(grid.shape, *grid.neighbours(grid.places(lat_s, lon_s)))

    def __repr__(self) -> str:
        return f"LatLonPoints({self.count} on a grid {self.grid})"
