r"""The seasonal cycle of a series, departures from it, and the time of year as a forcing.

For daily data the cycle at every point is a mean and a few harmonics of the year,

.. math:: c(d) = a_0 + \sum_{k=1}^{K} a_k \cos(2 \pi k d / 365.2425) + b_k \sin(2 \pi k d / 365.2425),

fitted by least squares (smoother than the mean of each day of the year, whose errors would be counted as skill or lack
of it); for monthly data it is the mean of each month. Only training times may be used: the years kept for test must not
know themselves.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from scidiff.errors import InputError

__all__ = ["anomalies", "seasonal_cycle", "with_season"]

YEAR = 365.2425


def _day(time: xr.DataArray) -> np.ndarray:
    """Days since the beginning of the year, with fractions."""
    values = time.values.astype("datetime64[ns]")
    return (values - values.astype("datetime64[Y]").astype("datetime64[ns]")) / np.timedelta64(1, "D")


def _monthly(data: xr.Dataset) -> bool:
    return data.sizes["time"] > 1 and float(np.diff(data["time"].values).min() / np.timedelta64(1, "D")) > 25


def _basis(day: np.ndarray, harmonics: int) -> np.ndarray:
    angle = 2 * np.pi * day[:, None] / YEAR * np.arange(1, harmonics + 1)
    return np.concatenate([np.ones((len(day), 1)), np.cos(angle), np.sin(angle)], 1)


def seasonal_cycle(data: xr.Dataset, harmonics: int = 3) -> xr.Dataset:
    """The cycle of every variable with time: by ``month`` (1 ... 12), or by ``dayofyear`` (1 ... 366).

    Arguments:
        data: Series; if it has a coordinate ``split``, only training times are used.
        harmonics: K, for data more often than monthly.

    Raises:
        InputError: training times cover too little of the year to tell.
    """
    train = data.isel(time=np.flatnonzero(data["split"].values == "train")) if "split" in data.coords else data
    names = [n for n in train.data_vars if "time" in train[n].dims]
    if _monthly(data):
        if len(np.unique(train["time"].dt.month)) < 12:
            raise InputError("a seasonal cycle by month needs training data of all twelve months.")
        return train[names].astype(np.float64).groupby("time.month").mean(keep_attrs=True)
    day = _day(train["time"])
    if np.diff(np.concatenate([np.sort(day), [day.min() + YEAR]])).max() > YEAR / (2 * harmonics + 1):
        raise InputError(
            f"training times leave a gap in the year too long for {harmonics} harmonics; take fewer, or more data."
        )
    inverse, every = np.linalg.pinv(_basis(day, harmonics)), _basis(np.arange(366.0), harmonics)
    cycle = {}
    for name in names:
        array = train[name].transpose("time", ...)
        fitted = np.tensordot(every @ inverse, array.values.astype(np.float64), axes=1)
        cycle[name] = (("dayofyear", *array.dims[1:]), fitted, array.attrs)
    coords = {c: train[c] for c in train.coords if "time" not in train[c].dims}
    return xr.Dataset(cycle, {**coords, "dayofyear": np.arange(1, 367)})


def anomalies(data: xr.Dataset, cycle: xr.Dataset | None = None, harmonics: int = 3) -> xr.Dataset:
    """Departures of every variable from the seasonal cycle, float32; those of degrees Celsius are in kelvin.

    Arguments:
        data: Series.
        cycle: Made by `seasonal_cycle`; by default of the training times of ``data``.
        harmonics: As in `seasonal_cycle`.
    """
    cycle = seasonal_cycle(data, harmonics) if cycle is None else cycle
    found = data.copy()
    time = data["time"].dt
    for name in cycle.data_vars:
        if "month" in cycle.dims:
            mean = cycle[name].sel(month=time.month)
        else:
            # A value belongs to its day; of hourly data the daily course stays in the departures.
            mean = cycle[name].sel(dayofyear=time.dayofyear)
        part = (data[name] - mean).transpose(*data[name].dims).astype(np.float32)
        found[name] = part.drop_vars(["month", "dayofyear"], errors="ignore")
        long = data[name].attrs.get("long_name", str(name))
        units = data[name].attrs["units"]
        units = "K" if units in ("degC", "celsius", "Celsius", "degree_Celsius") else units  # of a difference
        found[name].attrs = {"units": units, "long_name": f"{long}, departure from the season"}
    return found


def with_season(data: xr.Dataset) -> xr.Dataset:
    r"""Adds ``annual_cos`` and ``annual_sin``, of the angle :math:`2 \pi d / 365.2425`, at every time and point.

    As forcings they tell a forecaster the time of year.
    """
    first = next(a for a in data.data_vars.values() if "time" in a.dims)
    angle = 2 * np.pi * _day(data["time"]) / YEAR
    dims = [d for d in first.dims if d not in ("trajectory", "level")]
    like = xr.zeros_like(first.isel({d: 0 for d in first.dims if d not in dims}, drop=True).astype(np.float32))
    found = data.copy()
    for name, values in (("annual_cos", np.cos(angle)), ("annual_sin", np.sin(angle))):
        found[name] = (xr.zeros_like(like.fillna(0)) + xr.DataArray(values.astype(np.float32), dims="time")).transpose(
            *dims
        )
        found[name].attrs = {"units": "1", "long_name": "time of the year as a place on a circle"}
    return found
