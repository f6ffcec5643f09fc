r"""Fields in time for forecasters: simulators with a known truth and real series, all as one kind of Dataset.

A Dataset has a dimension ``time`` (datetime64; one second per unit of time where a model has no units, from
2000-01-01), the dimensions of the grid (y, x or lat, lon or place) and, if it was simulated, ``trajectory`` before
them. Every variable has the attribute ``units``; the Dataset's attributes hold all parameters and the seed, so that
``trajectories(name, **attributes)`` makes it again. The coordinate ``split`` says for each trajectory, or for each time
of a real series, whether it is for ``train``, ``validation`` or ``test``; `part_of` selects.

==================== ============================================================================================
name                 fields
==================== ============================================================================================
stochastic-transport a carried, decaying, randomly stirred field with an exact predictive law
spring-mesh          a damped sheet of masses and springs, by the rules of a published benchmark
obstacles            flow through a channel past discs
kolmogorov           vorticity of forced two-dimensional turbulence
lorenz96             a chaotic ring of weather
slp                  daily sea-level pressure (``file=``)
t2m                  daily 2 m temperature (``file=``)
sst                  monthly sea surface temperature of the tropical Pacific (``file=``)
radar                rain every five minutes (``file=``)
series               any series in NetCDF, Zarr, GRIB or npz (``file=``)
oisst                boxes of daily sea surface temperature (``folder=``, ``boxes=``)
==================== ============================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from inspect import signature
from typing import Any, Literal

import numpy as np
import xarray as xr

from scidiff.errors import InputError

__all__ = ["TRAJECTORIES", "part_of", "split_counts", "trajectories", "trajectory_dataset"]

TRAJECTORIES = {
    "stochastic-transport": "scidiff.datasets.stochastic_transport:simulate",
    "spring-mesh": "scidiff.datasets.spring_mesh:simulate",
    "obstacles": "scidiff.datasets.obstacles:simulate",
    "kolmogorov": "scidiff.datasets.chaotic_flows:simulate_kolmogorov",
    "lorenz96": "scidiff.datasets.chaotic_flows:simulate_lorenz96",
    "slp": "scidiff.datasets.climate:sea_level_pressure",
    "t2m": "scidiff.datasets.climate:temperature",
    "sst": "scidiff.datasets.climate:tropical_pacific",
    "radar": "scidiff.datasets.climate:radar",
    "series": "scidiff.datasets.climate:series",
    "oisst": "scidiff.datasets.series:oisst_boxes",
}
"""Name -> function that makes the Dataset."""

Part = Literal["train", "validation", "test"]
PARTS = ("train", "validation", "test")
ORIGIN = np.datetime64("2000-01-01", "ns")


def trajectories(name: str, **options: Any) -> xr.Dataset:
    """The Dataset of that name; the options are the arguments of its function.

    Raises:
        InputError: Unknown name or option, an option out of range, or a file that is not what it should be.
    """
    if name not in TRAJECTORIES:
        near = get_close_matches(name, TRAJECTORIES, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"expected one of {', '.join(TRAJECTORIES)}."
        raise InputError(f"there are no trajectories '{name}'; {hint}")
    module, attribute = TRAJECTORIES[name].split(":")
    make = getattr(import_module(module), attribute)
    known = list(signature(make).parameters)
    for option in options:
        if option not in known:
            near = get_close_matches(option, known, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"it has {', '.join(known)}."
            raise InputError(f"trajectories '{name}' have no option '{option}'; {hint}")
    try:
        return make(**options)
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        raise InputError(f"trajectories '{name}': {error}") from error


def part_of(data: xr.Dataset, part: Part) -> xr.Dataset:
    """The trajectories, or the times, that are kept for ``part``.

    Raises:
        InputError: No such part, or it is empty.
    """
    if part not in PARTS:
        raise InputError(f"expected a part among {', '.join(PARTS)}, got '{part}'.")
    if "split" not in data.coords:
        raise InputError("the Dataset has no coordinate 'split'; expected what scidiff.datasets.trajectories returns.")
    split = data["split"]
    chosen = data.isel({split.dims[0]: np.flatnonzero(split.values == part)})
    if not chosen.sizes[split.dims[0]]:
        raise InputError(f"no {split.dims[0]} is kept for '{part}'.")
    return chosen


def split_counts(train: int, validation: int, test: int) -> np.ndarray:
    """``split`` of trajectories: the first for training, then validation, the last for test."""
    if train < 1 or validation < 0 or test < 0:
        raise ValueError(f"expected at least one training trajectory, got {train}, {validation} and {test}.")
    return np.repeat(np.array(PARTS), [train, validation, test])


def trajectory_dataset(
    variables: Mapping[str, tuple[np.ndarray, Mapping[str, str]]],
    dims: Sequence[str],
    coords: Mapping[str, tuple[np.ndarray, Mapping[str, str]]],
    split: np.ndarray,
    step: float,
    attrs: Mapping[str, Any],
) -> xr.Dataset:
    r"""A Dataset of simulated states.

    Arguments:
        variables: Name -> array (trajectory, time, \*dims) and its attributes, ``units`` among them.
        dims: Names of the dimensions of the grid.
        coords: Their coordinates and attributes.
        split: Of the trajectories.
        step: Time between two states in seconds.
        attrs: Of the Dataset: the arguments that make it again.
    """
    count = next(iter(variables.values()))[0].shape[1]
    time = ORIGIN + (np.arange(count) * round(step * 1e9)).astype("timedelta64[ns]")
    whole = ("trajectory", "time", *dims)
    return xr.Dataset(
        {name: (whole, values, dict(about)) for name, (values, about) in variables.items()},
        {
            "trajectory": np.arange(len(split)),
            "time": time,
            "split": ("trajectory", split),
            **{name: (name, values, dict(about)) for name, (values, about) in coords.items()},
        },
        dict(attrs),
    )
