"""Named real series for forecasters: one split by time for everybody, and departures from the season.

The functions read one file each; where it lies is up to the caller. Splits are fixed here so that numbers of different
forecasters can be compared: training first, then validation, the last years for test.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from scidiff.datasets.radar import radar_series
from scidiff.datasets.seasons import anomalies, with_season
from scidiff.datasets.series import read_series, split_times
from scidiff.errors import InputError

__all__ = ["radar", "sea_level_pressure", "series", "temperature", "tropical_pacific"]

Stretch = Sequence[str] | None


def series(
    file: str | os.PathLike[str],
    variables: Sequence[str] | str | None = None,
    units: Mapping[str, str] | None = None,
    validation: Stretch = None,
    test: Stretch = None,
    departures: bool = False,
    season: bool = False,
) -> xr.Dataset:
    """Any series that `read_series` reads.

    Arguments:
        file: NetCDF, Zarr, GRIB or npz.
        variables, units: As in `read_series`.
        validation, test: First and last date of the stretches kept apart; without both, all is for training.
        departures: Subtract the seasonal cycle of the training times.
        season: Add the time of year as ``annual_cos`` and ``annual_sin``, for use as forcings.
    """
    data = split_times(read_series(file, variables, units), validation, test)
    data = anomalies(data) if departures else data
    return with_season(data) if season else data


def sea_level_pressure(
    file: str | os.PathLike[str],
    validation: Stretch = ("2006", "2006"),
    test: Stretch = ("2007", "2008"),
    departures: bool = True,
    season: bool = True,
) -> xr.Dataset:
    """Daily sea-level pressure ``slp`` in Pa: 2001-2005 for training, 2006 for validation, 2007-2008 for test."""
    return series(file, "slp", None, validation, test, departures, season)


def temperature(
    file: str | os.PathLike[str],
    validation: Stretch = ("2016", "2016"),
    test: Stretch = ("2017", "2018"),
    departures: bool = True,
    season: bool = True,
) -> xr.Dataset:
    """Daily 2 m temperature ``t`` in K: 2008-2015 for training, 2016 for validation, 2017-2018 for test."""
    return series(file, "t", None, validation, test, departures, season)


def tropical_pacific(
    file: str | os.PathLike[str],
    validation: Stretch = ("1990", "1992"),
    test: Stretch = ("1993", "2003"),
    season: bool = True,
) -> xr.Dataset:
    """Monthly departures of sea surface temperature ``sst_anom`` in K: to 1989 for training, from 1993 for test.

    The file's own departures are kept, whose reference period includes the test years; the seasonal mean of the
    training times that is left in them is subtracted.
    """
    return series(file, "sst_anom", None, validation, test, True, season)


def radar(
    file: str | os.PathLike[str],
    coarsen: int = 2,
    log: bool = True,
    training: float = 0.5,
    validation: float = 0.18,
) -> xr.Dataset:
    """Rain as `radar_series` gives it: the first share of the frames for training, then validation, the rest for test.

    Arguments:
        file, coarsen, log: As in `radar_series`.
        training, validation: Shares of the frames.
    """
    if not (0 < training < 1 and 0 <= validation < 1 - training):
        raise InputError(f"training and validation are shares that leave some for test, got {training}, {validation}.")
    data = radar_series(file, coarsen, log=log)
    count = data.sizes["time"]
    edges = round(training * count), round((training + validation) * count)
    split = np.repeat(np.array(("train", "validation", "test")), np.diff([0, *edges, count]))
    return data.assign_coords(split=("time", split))
