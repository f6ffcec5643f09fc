r"""One variable of a forecast, scored: where its numbers are, and their running means."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from scidiff.errors import InputError
from scidiff.forecast.grid import Grid
from scidiff.forecast.inputs import open_dataset
from scidiff.forecast.score_table import choose
from scidiff.forecast.stacking import describe, take, times_of
from scidiff.forecast.state import Variable
from scidiff.forecast.times import Step, same_time, text_step
from scidiff.metrics import Accumulator, Metric

__all__ = ["Scorer", "open_forecast"]

ALIASES = {
    "number": "member",
    "ensemble": "member",
    "realization": "member",
    "sample": "member",
    "init": "init_time",
    "forecast_reference_time": "init_time",
    "lead": "lead_time",
    "prediction_timedelta": "lead_time",
    "step": "lead_time",
}
HERE = "the forecast lies on"
BLOCK_NUMBERS = 1 << 23
"""Numbers of a forecast that are read at once, 32 MB of float32."""


def open_forecast(source: Any, what: str) -> xr.Dataset:
    """A finished forecast with dimensions init_time, member and lead_time; other names of them are understood.

    Raises:
        InputError: the path is absent or unreadable, the forecast is not finished, or has no initial or lead times.
    """
    ds = open_dataset(source, what)
    ds = ds.rename({old: new for old, new in ALIASES.items() if old in ds.dims and new not in ds.dims})
    if ds.attrs.get("complete", 1) == 0:
        raise InputError(f"{what} is not finished; finish it with `scidiff forecast --resume`.")
    for dim in ("init_time", "lead_time"):
        if dim not in ds.dims:
            if dim not in ds.coords:
                raise InputError(f"{what} has no dimension {dim!r}; it has {', '.join(map(str, ds.dims))}.")
            ds = ds.expand_dims(dim)
    return ds if "member" in ds.dims else ds.expand_dims("member")


def _valid(ds: xr.Dataset) -> tuple[np.ndarray, Step | None]:
    """Valid times (init_time, lead_time) and the step, if it matters for comparing them."""
    step = text_step(ds.attrs["step"]) if "step" in ds.attrs else None
    if "valid_time" in ds.coords and set(ds["valid_time"].dims) == {"init_time", "lead_time"}:
        return ds["valid_time"].transpose("init_time", "lead_time").values, step
    return ds["init_time"].values[:, None] + ds["lead_time"].values, step


@dataclass
class Scorer:
    """One variable: where its numbers are, and the running means."""

    variable: Variable
    grid: Grid
    forecast: xr.DataArray
    valid: np.ndarray
    truth: xr.DataArray
    places: np.ndarray
    climatology: xr.DataArray | None
    baseline: Any
    scalars: dict[str, Metric]
    arrays: dict[str, Metric]
    weight: Tensor
    by: tuple[str, ...]
    leads: xr.DataArray
    starts: np.ndarray
    model: dict[tuple[int, int], tuple[Accumulator, Accumulator]] = field(default_factory=dict)
    rival: dict[tuple[int, int], Accumulator] = field(default_factory=dict)

    @classmethod
    def make(
        cls,
        name: str,
        fc: xr.Dataset,
        tr: xr.Dataset,
        cl: xr.Dataset | None,
        baseline: Any,
        metrics: Sequence[str],
        thresholds: Sequence[float],
        weights: Any,
        fair: float,
        by: Sequence[str],
        seed: int,
    ) -> Scorer:
        """Finds and checks everything before a number is read."""
        outer = ("init_time", "member", "lead_time")
        if name not in fc:
            raise InputError(f"the forecast holds no {name!r}; it has {', '.join(map(str, fc.data_vars))}.")
        found = describe(fc, name, ())
        grid = Grid.of(fc[name], tuple(str(d) for d in fc[name].dims if d not in (*outer, found.level)))
        array = take(fc, found, grid).transpose(*outer, *([found.level] if found.level else []), *grid.dims)
        valid, step = _valid(fc)
        times = times_of(tr)
        if times is None:
            raise InputError("the truth has no coordinate time.")
        truth = take(tr if "time" in tr.dims else tr.expand_dims("time"), found, grid, HERE)
        places = same_time(valid.ravel(), times, step).reshape(valid.shape)
        start = same_time(fc["init_time"].values, times, step)
        rival = baseline
        if isinstance(baseline, xr.Dataset):
            rival = _Rival.make(baseline, found, grid, fc["init_time"].values, valid)
            places = np.where(rival.leads >= 0, places, -1)
        elif baseline == "persistence":
            places = np.where(start[:, None] >= 0, places, -1)
        if (places < 0).all():
            raise InputError(
                f"the truth of {name!r} ({times.min()} to {times.max()}) holds no valid time of the forecast "
                f"({valid.min()} to {valid.max()}), or the baseline holds none of its cases."
            )
        if weights is None:
            weight = torch.ones(grid.shape, dtype=torch.float64)
        elif isinstance(weights, str):
            if weights != "area":
                raise ValueError(f"weights must be 'area', None or an array, got {weights!r}.")
            weight = torch.tensor(grid.area)
        else:
            aligned = grid.align(weights.rename("weights"), HERE).transpose(*grid.dims)
            weight = torch.tensor(np.asarray(aligned.values, np.float64))
        clim = None if cl is None else take(cl, found, grid, HERE)
        scalars, arrays = choose(metrics, thresholds, fair, grid, seed, array.sizes["member"])
        return cls(
            found,
            grid,
            array,
            valid,
            truth,
            places,
            clim,
            rival,
            scalars,
            arrays,
            weight,
            tuple(by),
            fc["lead_time"],
            start,
        )

    # Reading

    def groups(self) -> list[range]:
        """Leads that lie in one chunk of the store, so that nobody reads what another one has read."""
        count, chunks = self.forecast.sizes["lead_time"], self.forecast.encoding.get("preferred_chunks") or {}
        size = chunks.get("lead_time", 1)
        size = size if isinstance(size, int) else max(size)
        return [range(k, min(k + size, count)) for k in range(0, count, size)]

    def run(self, only: range | None = None) -> None:
        """Reads all cases, in order of initial time, and adds them up; those of some leads only, if wanted."""
        for times, leads in self._blocks():
            if only is not None:
                leads = slice(max(leads.start, only.start), min(leads.stop, only.stop))
                if leads.start >= leads.stop:
                    continue
            block = np.asarray(self.forecast[times, :, leads].values)
            for column, lead in enumerate(range(leads.start, leads.stop)):
                rows = [r for r in range(times.start, times.stop) if self.places[r, lead] >= 0]
                if rows:
                    self._add(rows, lead, block[[r - times.start for r in rows], :, column])

    def _blocks(self) -> Iterator[tuple[slice, slice]]:
        count, members, leads = self.forecast.shape[:3]
        case = members * math.prod(self.forecast.shape[3:])
        wide = min(leads, max(1, BLOCK_NUMBERS // case))
        high = min(count, max(1, BLOCK_NUMBERS // (case * wide)))
        for i in range(0, count, high):
            for k in range(0, leads, wide):
                yield slice(i, min(i + high, count)), slice(k, min(k + wide, leads))

    def _at(self, array: xr.DataArray, dim: str, places: np.ndarray) -> np.ndarray:
        unique, back = np.unique(places, return_inverse=True)
        return np.asarray(array.isel({dim: unique}).values)[back]

    def _clim(self, rows: list[int], lead: int) -> np.ndarray | None:
        array = self.climatology
        if array is None:
            return None
        dim = next((d for d in ("dayofyear", "month", "time") if d in array.dims), None)
        if dim is None:
            return np.broadcast_to(np.asarray(array.values), (len(rows), *array.shape))
        valid = self.valid[rows, lead]
        wanted = valid if dim == "time" else np.asarray(getattr(xr.DataArray(valid, dims="c").dt, dim).values)
        places = same_time(wanted, array[dim].values)
        if (places < 0).any():
            raise InputError(f"the climatology holds no {dim} {wanted[places < 0][0]}.")
        return self._at(array.transpose(dim, ...), dim, places)

    def _add(self, rows: list[int], lead: int, samples: np.ndarray) -> None:
        """Adds cases (rows, member, [level], grid) of one lead."""
        truth = self._at(self.truth, "time", self.places[rows, lead])
        clim, rival = self._clim(rows, lead), None
        if isinstance(self.baseline, _Rival):
            rival = self.baseline.read(rows, lead)
        elif self.baseline == "persistence":
            rival = self._at(self.truth, "time", self.starts[rows])[:, None]
        elif self.baseline == "climatology":
            rival = None if clim is None else np.asarray(clim)[:, None]
        if not self.variable.level:
            samples, truth = samples[:, :, None], truth[:, None]
            clim, rival = (None if clim is None else clim[:, None]), (None if rival is None else rival[:, :, None])
        key = lead if "lead_time" in self.by else 0
        for k in range(samples.shape[2]):
            x, y = _tensor(samples[:, :, k]).transpose(0, 1), _tensor(truth[:, k])
            c = None if clim is None else _tensor(clim[:, k]).to(y)
            keep = y.isfinite() & x.isfinite().all(0)
            r = None if rival is None else _tensor(rival[:, :, k]).transpose(0, 1)
            keep = keep if r is None else keep & r.isfinite().all(0)
            some = keep.flatten(1).any(1)  # a truth that is missing everywhere is no case
            if not bool(some.any()):
                continue
            y = y.where(keep, torch.nan)[some]  # both forecasts are scored on the same points
            c = None if c is None else c[some]
            scalar, array = self.model.setdefault(
                (key, k), (Accumulator(list(self.scalars.values()), True), Accumulator(list(self.arrays.values())))
            )
            scalar.update(x[:, some], y, self.weight, c)
            if self.arrays:
                array.update(x[:, some], y, self.weight, c)
            if r is not None:
                own = [m for m in self.scalars.values() if m.least <= len(r)]
                self.rival.setdefault((key, k), Accumulator(own, True)).update(r[:, some].to(y), y, self.weight, c)


@dataclass
class _Rival:
    """A baseline forecast and where its cases are."""

    array: xr.DataArray
    cases: np.ndarray
    leads: np.ndarray

    @classmethod
    def make(cls, ds: xr.Dataset, variable: Variable, grid: Grid, starts: np.ndarray, valid: np.ndarray) -> _Rival:
        """Pairs cases by initial time and valid time; -1 where the baseline has none."""
        array = take(ds, variable, grid, HERE)
        level = (variable.level,) if variable.level else ()
        array = array.transpose("init_time", "member", "lead_time", *level, *grid.dims)
        own, step = _valid(ds)
        cases = same_time(starts, ds["init_time"].values, step)
        leads = np.full(valid.shape, -1)
        for row, case in enumerate(cases):
            if case >= 0:
                leads[row] = same_time(valid[row], own[case], step)
        return cls(array, cases, leads)

    def read(self, rows: list[int], lead: int) -> np.ndarray:
        """Cases (rows, member, [level], grid) of one lead."""
        values = [np.asarray(self.array[int(self.cases[r]), :, int(self.leads[r, lead])].values) for r in rows]
        return np.stack(values)


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))
