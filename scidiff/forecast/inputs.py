"""What a forecast starts from and what is prescribed to it, checked before anything is computed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from scidiff.datasets.series import GRIB, read_series
from scidiff.errors import InputError
from scidiff.forecast.stacking import times_of
from scidiff.forecast.state import StateSpec
from scidiff.forecast.times import advance, same_time, step_of

__all__ = ["Forcing", "Initial", "open_dataset", "time_of_year"]


def open_dataset(source: Any, what: str = "the data") -> xr.Dataset:
    """A Dataset as it is; a path to NetCDF or Zarr opened lazily, GRIB and npz read by `scidiff.datasets.read_series`.

    Raises:
        InputError: the path is absent or unreadable, or the object is no Dataset.
    """
    if isinstance(source, xr.Dataset):
        return source
    if isinstance(source, xr.DataArray):
        if source.name is None:
            raise InputError(f"{what} is an array without a name; write array.to_dataset(name=...).")
        return source.to_dataset()
    if not isinstance(source, (str, os.PathLike)):
        raise InputError(f"{what} must be a Dataset or a path, got {type(source).__name__}.")
    path = Path(source)
    if not path.exists():
        raise InputError(f"{path}: no such file.")
    if path.suffix.lower() in {*GRIB, ".npz"}:
        return read_series(path)
    try:
        if path.is_dir():
            return xr.open_zarr(path, chunks=None, consolidated=(path / ".zmetadata").exists())
        return xr.open_dataset(path, engine="scipy" if _classic(path) else "h5netcdf")
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} is neither NetCDF nor Zarr that can be read: {error}") from error


def _classic(path: Path) -> bool:
    with open(path, "rb") as stream:
        return stream.read(3) == b"CDF"


class Initial:
    r"""Initial states by initial time.

    Dimensions of the Dataset: (time, \*grid), where every time with ``window - 1`` predecessors is an initial time; or
    (init_time, [time = window], \*grid); in both cases with ``member`` if members start from different states.

    Arguments:
        ds: Holds the prognostic variables.
        spec: What the model expects.
        window: Past states that the model needs.
        members: Number of members.
        init_times: Take these of the times only.

    Raises:
        InputError: anything `StateSpec.to_tensor` refuses; too few or unequally spaced times; repeated times.
    """

    def __init__(
        self, ds: xr.Dataset, spec: StateSpec, window: int, members: int, init_times: Sequence[Any] | None = None
    ) -> None:
        self.spec, self.window = spec, window
        self.grouped = "init_time" in ds.dims
        self.ds = ds if self.grouped or "time" in ds.dims else ds.expand_dims("time")
        times = self._times()
        self.places = np.arange(len(times))
        if init_times is not None:
            wanted = np.asarray(init_times, dtype=times.dtype)
            self.places = same_time(wanted, times)
            if (self.places < 0).any():
                raise InputError(f"the initial data hold no state at {wanted[self.places < 0][0]}.")
        self.times = times[self.places]
        if len(np.unique(self.times)) < len(self.times):
            raise InputError("initial times repeat; give every one once.")
        size = ds.sizes.get("member", members)
        if size != members:
            raise InputError(f"the initial data hold {size} members and {members} are asked for; both must be equal.")

    def _times(self) -> np.ndarray:
        spec, window = self.spec, self.window
        if self.grouped:
            lags = self.ds.sizes.get("time", 1)
            if lags != window:
                raise InputError(
                    f"the model needs {window} past states; the initial data hold {lags} for an init_time."
                )
            return self._dated(self.ds["init_time"].values)
        times = times_of(self.ds)
        if times is None:
            if isinstance(spec.step, np.timedelta64):
                raise InputError("the initial data have no coordinate time; assign one, so that leads can be dated.")
            times = np.arange(self.ds.sizes["time"]) * float(spec.step)
        times = self._dated(times)
        if len(times) < window:
            raise InputError(f"the model needs {window} past states; the initial data hold {len(times)} times.")
        if window > 1:
            step_of(times, "time of the initial data", spec.step)
        return times[window - 1 :]

    def _dated(self, times: np.ndarray) -> np.ndarray:
        dated = isinstance(self.spec.step, np.timedelta64)
        if dated != (times.dtype.kind in "mM"):
            kind = "dates" if dated else "numbers"
            raise InputError(f"the initial data have times of type {times.dtype}; the model was trained on {kind}.")
        return times.astype("datetime64[ns]") if times.dtype.kind == "M" else times

    def read(self, index: int, dtype: torch.dtype = torch.float32) -> Tensor:
        r"""Normalised states of one initial time: (1 or members, window, C, \*grid)."""
        place = int(self.places[index])
        if self.grouped:
            part = self.ds.isel(init_time=place).drop_vars(["init_time", "time"], errors="ignore")
        else:
            part = self.ds.isel(time=slice(place, place + self.window))
        try:
            u = self.spec.to_tensor(part, dtype)
        except InputError as error:
            raise InputError(f"initial state at {self.times[index]}: {error}") from error
        extra = u.ndim - 1 - len(self.spec.shape)
        if extra > 1 or (extra == 1 and "member" not in self.ds.dims):
            levels = {v.level for v in self.spec.variables}
            known = {"time", "init_time", "member", *levels, *self.spec.grid.dims}
            raise InputError(
                f"the initial data have dimensions {sorted(set(map(str, self.ds.dims)) - known)}; select one."
            )
        return u if extra else u[None]

    def digest(self, dtype: torch.dtype = torch.float32) -> str:
        """The sha256 of all states and times; reads, and so checks, every one."""
        total = hashlib.sha256(np.ascontiguousarray(self.times).tobytes())
        for index in range(len(self.times)):
            total.update(self.read(index, dtype).numpy().tobytes())
        return total.hexdigest()


def time_of_year(spec: StateSpec, times: np.ndarray) -> xr.Dataset | None:
    """The forcing of a model whose only forcing is the time of year; None for any other."""
    if not spec.forcing or not set(spec.forcing) <= {"annual_cos", "annual_sin"}:
        return None
    from scidiff.datasets.seasons import with_season

    empty = np.zeros((len(times), *spec.grid.shape), np.float32)
    like = xr.Dataset({"like": (("time", *spec.grid.dims), empty)}, {**spec.grid.coords(), "time": times})
    return with_season(like).drop_vars("like")


class Forcing:
    """Prescribed fields by valid time.

    Arguments:
        ds: Holds the forcings with ``time``; None for a model without.
        spec: What the model expects.
        needed: Valid times that will be asked for.

    Raises:
        InputError: a forcing is absent, ends early or has a gap. Nearest times are never taken.
    """

    def __init__(self, ds: xr.Dataset | None, spec: StateSpec, needed: np.ndarray) -> None:
        self.spec, self.ds = spec, ds
        if ds is not None and not spec.forcings:
            raise InputError("the model takes no forcing, but one was given.")
        if not spec.forcings:
            return
        if ds is None:
            raise InputError(f"the model needs the forcing {', '.join(spec.forcing)}; none was given.")
        times = times_of(ds)
        if times is None:
            raise InputError("the forcing has no coordinate time.")
        self.times = times.astype("datetime64[ns]") if times.dtype.kind == "M" else times
        absent = same_time(needed, self.times, spec.step) < 0
        if absent.any():
            first = needed[absent][0]
            verb = (
                "ends early" if first > self.times.max() else "begins late" if first < self.times.min() else "has a gap"
            )
            raise InputError(
                f"the forcing {', '.join(spec.forcing)} {verb}: it runs from {self.times.min()} to {self.times.max()}; "
                f"the forecast, which predicts whole windows, needs {needed.min()} to {needed.max()}, and {first} is "
                "absent."
            )
        self._one(self.times[:1])  # names, units and grid, before anything is computed

    def _one(self, times: np.ndarray) -> Tensor:
        assert self.ds is not None
        places = same_time(times, self.times, self.spec.step)
        return self.spec.forcing_tensor(self.ds.isel(time=places), gaps=True)

    def read(self, init_times: np.ndarray, steps: np.ndarray, dtype: torch.dtype) -> Tensor | None:
        r"""Forcings for rows: (B, len(steps), K, \*grid); None for a model without."""
        spec = self.spec
        if not spec.forcing_channels:
            return None
        if not spec.forcings:
            static = spec.static_fields.to(dtype)
            return static.expand(len(init_times), len(steps), *static.shape)
        valid = advance(init_times[:, None], steps, spec.step)
        unique, back = np.unique(valid, return_inverse=True)
        return self._one(unique).to(dtype)[torch.from_numpy(back.reshape(valid.shape))]

    def fingerprint(self) -> str:
        """The sha256 of the times and of the first field."""
        if self.ds is None or not self.spec.forcings:
            return ""
        first = self._one(self.times[:1]).numpy()
        return hashlib.sha256(np.ascontiguousarray(self.times).tobytes() + first.tobytes()).hexdigest()
