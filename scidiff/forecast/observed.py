"""Measurements in a Dataset as observations of the states before initial times."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from scidiff.assimilation.observations import Observations
from scidiff.errors import InputError
from scidiff.fields import convert_units
from scidiff.forecast import stacking
from scidiff.forecast.inputs import open_dataset
from scidiff.forecast.state import StateSpec, Variable
from scidiff.forecast.times import advance, same_time
from scidiff.noise import GaussianNoise
from scidiff.operators.mask import Mask

__all__ = ["observations_before"]


def observations_before(
    source: Any, init_times: Any, spec: StateSpec, window: int, needed: bool
) -> tuple[dict[Any, list[Observations]], str]:
    """Observations of the ``window`` states up to each initial time, by that time, and a digest of all that was used.

    Arguments:
        source: Dataset or path, as `PosteriorForecaster.observe` describes.
        init_times: Initial times.
        spec: What the model expects.
        window: Past states.
        needed: Refuse initial times without observations.

    Raises:
        InputError: see `PosteriorForecaster.observe`.
    """
    ds = open_dataset(source, "the observations")
    times = stacking.times_of(ds)
    if times is None or "time" not in ds.dims:
        raise InputError("the observations need a dimension time with a coordinate.")
    y, std = _normalised(ds, spec)
    digest = hashlib.sha256()
    found: dict[Any, list[Observations]] = {}
    init_times = np.atleast_1d(init_times)
    for time in init_times:
        wanted = np.atleast_1d(advance(time, np.arange(1 - window, 1), spec.step))
        parts = []
        for step, place in enumerate(same_time(wanted, times, spec.step)):
            if place < 0:
                continue
            seen = torch.isfinite(y[place])
            if not bool(seen.any()):
                continue
            error = std.expand(seen.shape)[seen]
            parts.append(Observations((step,), Mask(seen), GaussianNoise(error), y[place][seen][None, None]))
            digest.update(f"{time} {step}".encode() + y[place].numpy().tobytes() + error.numpy().tobytes())
        if needed and not parts:
            raise InputError(
                f"no observation lies in the {window} states up to the initial time {time}; give some, or give "
                "background_std, so that the initial state counts."
            )
        found[time.item() if isinstance(time, np.generic) else time] = parts
    return found, digest.hexdigest()


def _normalised(ds: xr.Dataset, spec: StateSpec) -> tuple[Tensor, Tensor]:
    r"""Measurements (T, C, \*grid) in units of the states, NaN where there is none, and their errors (C, \*1)."""
    known = [v for v in spec.variables if v.name in ds]
    if not known:
        raise InputError(f"the observations hold none of the variables {', '.join(spec.prognostic)}.")
    shape = (ds.sizes["time"], *spec.grid.shape)
    parts, errors = [], []
    for v in spec.variables:
        count = len(v.channels)
        if v not in known:
            parts.append(torch.full((shape[0], count, *shape[1:]), torch.nan, dtype=torch.float64))
            errors.append(torch.ones(count, dtype=torch.float64))
            continue
        nowhere = torch.zeros(count, *spec.grid.shape, dtype=torch.bool)
        parts.append(stacking.read(ds[[v.name]], [v], spec.grid, None, nowhere, torch.float64))
        errors.append(torch.full((count,), _error(ds[v.name], v), dtype=torch.float64))
    scale = spec.scale.double()
    y = (torch.cat(parts, 1) - spec.loc.double()) / scale
    if spec.mask is not None:
        y = y.where(spec.mask, torch.nan)
    return y, torch.cat(errors).reshape(-1, *(1,) * len(spec.grid.shape)) / scale


def _error(array: xr.DataArray, variable: Variable) -> float:
    """Its standard deviation of error in the units of the model."""
    std = array.attrs.get("error_std")
    if std is None or not float(std) > 0:
        raise InputError(
            f"observations of {variable.name} need the attribute error_std, their standard deviation of error, "
            f"positive and in their own units; found {std!r}."
        )
    pair = xr.DataArray(np.array([0.0, float(std)]), attrs=array.attrs, name=variable.name)
    units = variable.attrs.get("units")
    if units is not None and str(array.attrs.get("units")) != units:
        pair = convert_units(pair, units)
    return float(pair[1] - pair[0])
