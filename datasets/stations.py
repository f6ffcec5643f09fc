"""Daily temperatures at weather stations: a reader of files, and a simulated network for where there are none."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Generator

from scidiff.datasets.station_law import StationLaw, season_of
from scidiff.errors import InputError
from scidiff.fields import convert_units

__all__ = ["read_stations", "simulate_stations"]

NAMES = ("tmax", "tmin", "tavg", "temperature")
RANGE = (150.0, 350.0)
"""Kelvin; what lies outside is a wrong unit or a code for missing values."""


def read_stations(path: str | os.PathLike[str]) -> xr.Dataset:
    """Temperatures at stations from an ``.npz`` or NetCDF-4 file.

    The file holds ``tmax`` (or ``tmin``, ``tavg``, ``temperature``) (time, station), NaN where nothing was reported;
    ``lat`` and ``lon`` (station) in degrees north and east; ``time``. An ``.npz`` also holds ``units``, a NetCDF has
    the attribute.

    Returns:
        Dataset with ``temperature`` (time, station) in kelvin, ``station_lat``, ``station_lon`` (station) and ``time``.

    Raises:
        InputError: naming file and field.
    """
    what = Path(path)
    if not what.is_file():
        raise InputError(f"{what}: there is no such file; expected temperatures at stations (.npz or NetCDF).")
    try:
        raw = _npz(what) if what.suffix.lower() == ".npz" else xr.load_dataset(what, engine="h5netcdf")
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{what}: cannot be read as {what.suffix or 'NetCDF'} ({error}).") from error
    name = next((n for n in NAMES if n in raw), None)
    if name is None:
        raise InputError(f"{what}: expected one of {', '.join(NAMES)}, found {', '.join(map(str, raw.variables))}.")
    lat, lon = (_place(raw, n, limit, what) for n, limit in (("lat", 90.0), ("lon", 360.0)))
    if set(raw[name].dims) != {"time", "station"} or "time" not in raw.coords:
        raise InputError(f"{what}: '{name}' has dimensions {raw[name].dims}, expected (time, station) and times.")
    time = raw["time"].values
    if time.dtype.kind != "M" or len(time) == 0 or (np.diff(time) <= np.timedelta64(0)).any():
        raise InputError(f"{what}: 'time' must hold dates that increase, found {time.dtype}.")
    values = np.asarray(raw[name].values)
    if values.dtype.kind not in "fiu":
        raise InputError(f"{what}: '{name}' holds {values.dtype}, expected temperatures.")
    array = convert_units(raw[name].astype(np.float64).transpose("time", "station"), "K")
    kelvin = np.asarray(array.values)
    if np.isnan(kelvin).all():
        raise InputError(f"{what}: '{name}' holds no number.")
    low, high = float(np.nanmin(kelvin)), float(np.nanmax(kelvin))
    if not (low > RANGE[0] and high < RANGE[1]):
        raise InputError(
            f"{what}: '{name}' ranges from {low:.4g} to {high:.4g} K, expected {RANGE[0]:g} to {RANGE[1]:g} K; check "
            "its units, and write NaN where nothing was reported."
        )
    return _network(kelvin, lat, lon, time)


def _network(kelvin: np.ndarray, lat: np.ndarray, lon: np.ndarray, time: np.ndarray) -> xr.Dataset:
    attrs = {"units": "K", "long_name": "air temperature", "standard_name": "air_temperature"}
    return xr.Dataset(
        {"temperature": (("time", "station"), kelvin, attrs)},
        {
            "time": time.astype("datetime64[ns]"),
            "station_lat": ("station", lat, {"units": "degrees_north", "standard_name": "latitude"}),
            "station_lon": ("station", lon, {"units": "degrees_east", "standard_name": "longitude"}),
        },
    )


def _npz(path: Path) -> xr.Dataset:
    with np.load(path, allow_pickle=False) as file:
        parts: dict[str, Any] = {name: file[name] for name in file.files}
    for name in ("lat", "lon", "time", "units"):
        if name not in parts:
            raise InputError(f"{path}: expected '{name}' beside the temperatures, found {', '.join(parts)}.")
    time = np.asarray(parts["time"])
    if time.dtype.kind == "M":
        time = time.astype("datetime64[ns]")
    found = xr.Dataset(
        coords={"time": ("time", time), "lat": ("station", parts["lat"]), "lon": ("station", parts["lon"])}
    )
    for name in NAMES:
        if name in parts:
            if parts[name].shape != (len(time), len(parts["lat"])):
                raise InputError(
                    f"{path}: '{name}' has shape {parts[name].shape}, expected (times, stations) = "
                    f"{(len(time), len(parts['lat']))}."
                )
            units = np.atleast_1d(parts["units"])
            found[name] = (("time", "station"), parts[name], {"units": str(units[0])})
    return found


def _place(raw: xr.Dataset, name: str, limit: float, what: Path) -> np.ndarray:
    if name not in raw.variables or raw[name].dims != ("station",):
        raise InputError(f"{what}: expected '{name}' with the dimension (station,), in degrees.")
    values = np.asarray(raw[name].values, dtype=np.float64)
    if not np.isfinite(values).all() or np.abs(values).max() > limit:
        raise InputError(f"{what}: '{name}' must hold degrees between {-limit:g} and {limit:g}.")
    return (values + 180) % 360 - 180 if name == "lon" else values


def simulate_stations(
    generator: Generator,
    stations: int = 60,
    days: int = 730,
    law: StationLaw | None = None,
    box: tuple[float, float, float, float] = (32.0, 46.0, -100.0, -80.0),
    missing: float = 0.01,
) -> xr.Dataset:
    """A network of stations drawn from a known law, as `read_stations` gives it; days are independent.

    Arguments:
        generator: Source of places, weather and gaps.
        stations, days: Their numbers; days begin with 1990.
        law: By default `StationLaw.typical`.
        box: South, north, west and east of the domain in degrees.
        missing: Share of values that were not reported.
    """
    law = law or StationLaw.typical()
    south, north, west, east = box
    places = torch.rand(2, stations, generator=generator, dtype=torch.float64).numpy()
    lat, lon = south + (north - south) * places[0], west + (east - west) * places[1]
    time = np.datetime64("1990-01-01", "ns") + np.arange(days) * np.timedelta64(1, "D")
    values = law.climatology(lat, lon, time)
    draws = torch.randn(2, days, stations, generator=generator, dtype=torch.float64).numpy()
    seasons = np.array([season_of(t) for t in time])
    for season in np.unique(seasons):
        root = np.linalg.cholesky(law.covariance(lat, lon, lat, lon, season) + 1e-9 * np.eye(stations))
        on = seasons == season
        values[on] += draws[0, on] @ root.T + law.nugget[season] * draws[1, on]
    gaps = torch.rand(days, stations, generator=generator, dtype=torch.float64).numpy() < missing
    values[gaps] = np.nan
    return _network(values, lat, lon, time)
