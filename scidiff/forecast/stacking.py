r"""From variables to channels: reading, checking and fitting for `StateSpec`. The only xarray code of states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from scidiff.errors import InputError
from scidiff.fields import convert_units, parse_units
from scidiff.forecast.grid import Grid
from scidiff.forecast.state import KEPT, LEVELS, SAMPLES, Variable
from scidiff.forecast.times import Step, step_of

__all__ = ["fit", "leading", "read", "take", "times_of"]


def take(ds: xr.Dataset, variable: Variable, grid: Grid, here: str = "the model was trained on") -> xr.DataArray:
    r"""One variable on the grid, in the units of the specification, its dimensions in the order of channels.

    The answer has dimensions (others, [time], [level], \*grid); ``here`` as in `Grid.align`.
    """
    if variable.name not in ds:
        raise InputError(f"variable {variable.name!r} is missing; the data hold {', '.join(map(str, ds.data_vars))}.")
    array = ds[variable.name]
    units = variable.attrs.get("units")
    if units is not None and str(array.attrs.get("units")) != units:
        array = convert_units(array, units)
    array = grid.align(array, here)
    inner = grid.dims
    if variable.level:
        array, inner = _levels(array, variable), (variable.level, *grid.dims)
    outer = [str(d) for d in array.dims if d not in inner and d != "time"]
    return array.transpose(*outer, *(["time"] if "time" in array.dims else []), *inner)


def _levels(array: xr.DataArray, variable: Variable) -> xr.DataArray:
    if variable.level not in array.coords:
        raise InputError(f"{variable.name} has no coordinate {variable.level!r}, expected {list(variable.levels)}.")
    given = np.atleast_1d(np.asarray(array[variable.level].values, np.float64))
    places = [int(np.argmin(np.abs(given - value))) for value in variable.levels]
    missing = [v for v, i in zip(variable.levels, places, strict=True) if not np.isclose(given[i], v, rtol=1e-6)]
    if missing:
        raise InputError(f"{variable.name} has levels {given.tolist()}; {missing} of the model are missing.")
    return array.isel({variable.level: places}) if variable.level in array.dims else array.expand_dims(variable.level)


def leading(array: xr.DataArray, variable: Variable, grid: Grid) -> tuple[str, ...]:
    """Dimensions of `take`'s answer before level and grid."""
    inner = {variable.level, *grid.dims}
    return tuple(str(d) for d in array.dims if d not in inner)


def times_of(ds: xr.Dataset) -> np.ndarray | None:
    """The coordinate time; None where there is none."""
    if "time" not in ds.coords:
        return None
    times = np.atleast_1d(ds["time"].values)
    if times.dtype.kind not in "mMfiu":
        raise InputError(f"time must hold datetime64 or numbers, got {times.dtype}; decode the times with xarray.")
    return times


def read(
    ds: xr.Dataset,
    variables: Sequence[Variable],
    grid: Grid,
    step: Step | None,
    mask: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    r"""The channels of a Dataset in the units of the specification, checked: (others, T, C, \*grid)."""
    arrays = [take(ds, v, grid) for v in variables]
    times = times_of(ds)
    if step is not None and times is not None and len(times) > 1:
        step_of(times, "time", step)
    dims = leading(arrays[0], variables[0], grid)
    parts, start = [], 0
    for variable, array in zip(variables, arrays, strict=True):
        if leading(array, variable, grid) != dims:
            raise InputError(
                f"{variable.name} has dimensions {array.dims}; expected {dims} before the grid, as {variables[0].name}."
            )
        values = np.asarray(array.values)
        values = values if variable.level else np.expand_dims(values, len(dims))
        count = len(variable.channels)
        check_finite(variable, values, None if mask is None else mask[start : start + count].numpy())
        parts.append(torch.tensor(np.ascontiguousarray(values), dtype=dtype))
        start += count
    x = torch.cat(parts, len(dims))
    return x if "time" in dims else x.unsqueeze(len(dims))


def check_finite(variable: Variable, values: np.ndarray, mask: np.ndarray | None) -> None:
    """Refuses NaN and infinity where the field exists."""
    bad = ~np.isfinite(values)
    if mask is not None:
        bad &= mask
    if bad.any():
        where = "where the mask of the model has the field" if mask is not None else "and the model knows no mask"
        help_ = "fill them first" if mask is not None else "fill them, or fit the model's StateSpec with mask='missing'"
        raise InputError(f"{variable.name} holds {bad.sum()} NaN or infinite values of {bad.size} {where}; {help_}.")


# Fitting


def describe(ds: xr.Dataset, name: str, grid_dims: Sequence[str]) -> Variable:
    """Levels and attributes of a variable."""
    if name not in ds:
        raise InputError(f"variable {name!r} is missing; the data hold {', '.join(map(str, ds.data_vars))}.")
    array = ds[name]
    attrs = {k: str(v) for k, v in array.attrs.items() if k in KEPT}
    if "units" in attrs:
        parse_units(attrs["units"])
    level = next((str(d) for d in array.dims if d in LEVELS and d not in grid_dims), None)
    if level is None:
        return Variable(name, attrs)
    if level not in array.coords:
        raise InputError(f"{name} has a dimension {level!r} without values; give it a coordinate.")
    return Variable(name, attrs, level, tuple(float(v) for v in array[level].values))


def fit(
    ds: xr.Dataset,
    prognostic: tuple[str, ...],
    forcing: tuple[str, ...],
    static: tuple[str, ...],
    *,
    per: str,
    mask: Any,
    dims: Sequence[str] | None,
    step: Step | None,
) -> dict[str, Any]:
    """The arguments of `StateSpec` from training data."""
    if not prognostic:
        raise ValueError("name at least one prognostic variable.")
    if per not in ("channel", "pixel"):
        raise ValueError(f"per must be 'channel' or 'pixel', got {per!r}.")
    if prognostic[0] not in ds:
        describe(ds, prognostic[0], ())
    first = ds[prognostic[0]]
    if dims is None:
        dims = [str(d) for d in first.dims if d != "time" and d not in LEVELS and d not in SAMPLES]
    grid = Grid.of(first, tuple(dims))
    times = times_of(ds)
    if times is None and step is None:
        raise InputError("the data have no coordinate time; add one, or give step.")
    step = step if step is not None else step_of(times)  # type: ignore[arg-type]
    variables, forcings, statics = (
        tuple(describe(ds, n, grid.dims) for n in part) for part in (prognostic, forcing, static)
    )
    keep = _mask(ds, variables, grid, mask)
    stats = [_moments(ds, v, grid, k, per) for v, k in zip(variables, keep, strict=True)]
    outside = [_moments(ds, v, grid, None, "channel") for v in forcings]
    ones = [1] * len(grid.dims)
    fields = []
    for v in statics:
        loc, scale = _moments(ds, v, grid, None, "channel")
        x = torch.from_numpy(_numbers(take(ds, v, grid), v, 0))
        fields.append(((x - loc) / scale).float())
    has = any(k is not None for k in keep)
    full = [
        np.ones((len(v.channels), *grid.shape), bool) if k is None else k for v, k in zip(variables, keep, strict=True)
    ]
    none = torch.zeros(0, *ones, dtype=torch.float64)
    return {
        "variables": variables,
        "forcings": forcings,
        "statics": statics,
        "grid": grid,
        "step": step,
        "loc": torch.cat([loc for loc, _ in stats]),
        "scale": torch.cat([scale for _, scale in stats]),
        "forcing_loc": torch.cat([loc for loc, _ in outside]) if outside else none,
        "forcing_scale": torch.cat([scale for _, scale in outside]) if outside else none,
        "static_fields": torch.cat(fields) if fields else torch.zeros(0, *grid.shape),
        "mask": torch.from_numpy(np.concatenate(full)) if has else None,
    }


def _numbers(array: xr.DataArray, variable: Variable, outer: int) -> np.ndarray:
    values = np.asarray(array.values, np.float64)
    return values if variable.level else np.expand_dims(values, outer)


def _blocks(ds: xr.Dataset, variable: Variable, grid: Grid) -> Iterator[np.ndarray]:
    r"""The variable in float64, about 32 MB at a time: (N, channels, \*grid)."""
    array = take(ds, variable, grid)
    dims = leading(array, variable, grid)
    shape = (-1, len(variable.channels), *grid.shape)
    if "time" not in dims:
        yield _numbers(array, variable, len(dims)).reshape(shape)
        return
    length = max(1, (1 << 22) * array.sizes["time"] // max(1, array.size))
    for start in range(0, array.sizes["time"], length):
        part = array.isel(time=slice(start, start + length))
        yield _numbers(part, variable, len(dims)).reshape(shape)


def _mask(ds: xr.Dataset, variables: Sequence[Variable], grid: Grid, mask: Any) -> list[np.ndarray | None]:
    """Per variable, where it exists: (channels, *grid), or None for everywhere."""
    if mask is None:
        return [None] * len(variables)
    if isinstance(mask, str):
        if mask != "missing":
            raise ValueError(f"mask must be an array, 'missing' or None, got {mask!r}.")
        found = [np.any([np.isfinite(b).any(0) for b in _blocks(ds, v, grid)], axis=0) for v in variables]
        return [None if k.all() else k for k in found]
    mask = grid.align(mask).transpose(*grid.dims)
    if mask.dtype != bool:
        raise InputError(f"mask must be boolean, True where the field exists, got {mask.dtype}; write `mask > 0`.")
    return [np.broadcast_to(mask.values, (len(v.channels), *grid.shape)).copy() for v in variables]


def _moments(
    ds: xr.Dataset, variable: Variable, grid: Grid, keep: np.ndarray | None, per: str
) -> tuple[Tensor, Tensor]:
    r"""Mean and standard deviation, (channels, \*1) or (channels, \*grid), in two passes of constant memory."""
    weight = np.broadcast_to(grid.area, (len(variable.channels), *grid.shape))
    weight = weight if keep is None else weight * keep
    space = tuple(range(1, 1 + len(grid.dims)))
    if (weight.sum(space) <= 0).any():
        raise InputError(f"{variable.name} is missing everywhere; the mask leaves no point.")
    pixel, count = np.zeros(weight.shape), 0
    for block in _blocks(ds, variable, grid):
        check_finite(variable, block, keep)
        block = block if keep is None else np.where(keep, block, 0)
        pixel += block.sum(0)
        count += len(block)
    pixel /= count
    whole = (pixel * weight).sum(space, keepdims=True) / weight.sum(space, keepdims=True)
    centre = pixel if per == "pixel" else whole
    square, about = np.zeros(weight.shape), np.zeros(weight.shape)
    for block in _blocks(ds, variable, grid):
        block = block if keep is None else np.where(keep, block, 0)
        square += np.square(block - centre).sum(0)
        about += np.square(block - whole).sum(0)
    channel = np.sqrt((about / count * weight).sum(space, keepdims=True) / weight.sum(space, keepdims=True))
    if not (channel > 1e-12 * np.maximum(np.abs(whole), 1e-300)).all():
        raise InputError(f"{variable.name} is constant in the data, so it cannot be normalised; leave it out.")
    if per == "channel":
        return torch.from_numpy(whole), torch.from_numpy(channel)
    scale = np.sqrt(square / count)
    scale = np.where(scale > 1e-6 * channel, scale, channel)
    loc = pixel if keep is None else np.where(keep, pixel, whole)
    return torch.from_numpy(loc), torch.from_numpy(np.ascontiguousarray(scale))
