r"""Fields from NetCDF, HDF5 and Zarr archives, read while training.

An archive is opened once by xarray and never read whole. One item is one position along the sample dimensions (time,
say); a random window of it becomes a row (C, \*grid). Chunks of the store are read one after the other for the
statistics, and kept in a small cache while training.

Statistics are computed once over the training part, as running sums (Chan's update), per variable, after the variable's
transform if it has one. The split is by position: the last fraction of the first sample dimension is held out, so that
neighbours in time do not stand on both sides.

References:
    Chan, Golub & LeVeque, Algorithms for computing the sample variance, 1983 (pairwise update of mean and variance).
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Generator, Tensor

from scidiff.errors import InputError
from scidiff.transforms import Transform, make_transform

__all__ = ["Statistics", "StoredFields", "open_archive"]

_CACHE = 256 * 2**20
"""Bytes of decoded blocks kept in memory."""


def open_archive(path: Path) -> xr.Dataset:
    """Opens an archive lazily, whatever its format.

    Raises:
        InputError: Absent, or no archive that xarray can read.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or store; data files are relative to --data or to the configuration.")
    try:
        if path.is_dir():
            return xr.open_zarr(path, chunks=None, consolidated=_consolidated(path))
        return xr.open_dataset(path, engine="h5netcdf", phony_dims="access")
    except Exception as error:  # each engine has exceptions of its own
        raise InputError(f"{path}: expected NetCDF-4, HDF5 or Zarr, but it cannot be opened ({error}).") from error


def _consolidated(store: Path) -> bool:
    """Whether a Zarr store keeps all its metadata in one place, as format 2 or 3."""
    table = store / "zarr.json"
    return (store / ".zmetadata").exists() or (table.exists() and '"consolidated_metadata": {' in table.read_text())


@dataclass
class Statistics:
    """Count, mean and sum of squared deviations, updated block by block."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def update(self, values: np.ndarray) -> None:
        """Takes more values."""
        values = values.astype(np.float64, copy=False)
        n, mean = values.size, float(values.mean())
        total, gap = self.count + n, mean - self.mean
        self.squares += float(np.square(values - mean).sum()) + gap**2 * self.count * n / total
        self.mean += gap * n / total
        self.count = total

    @property
    def std(self) -> float:
        """Standard deviation, of the population."""
        return math.sqrt(self.squares / self.count)


@dataclass
class StoredFields:
    r"""Random windows of stored fields, a source of the training loop.

    Arguments:
        paths: Archives with the same variables; their items are joined.
        variables: Names, in the order of the channels of ``u``.
        dims: The grid's dimensions, in order; all others are sample dimensions.
        condition: Names of variables that are given and not learned; then a draw is a pair (field, condition).
        transforms: Variable -> transform, see `scidiff.transforms`.
        units: Variable -> units it shall have; by default those of the first file. Units that differ are refused.
        loc, scale: Statistics per variable, if they are known.
    """

    paths: Sequence[Path]
    variables: Sequence[str]
    dims: Sequence[str]
    condition: Sequence[str] = ()
    transforms: Mapping[str, Transform] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    loc: dict[str, float] = field(default_factory=dict)
    scale: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.paths or not self.variables or not self.dims:
            raise InputError("[data] needs files, variables and dims, for example dims = ['y', 'x'].")
        self.names = [*self.variables, *self.condition]
        self.archives = [open_archive(Path(path)) for path in self.paths]
        self.arrays = [self._arrays(Path(p), a) for p, a in zip(self.paths, self.archives, strict=True)]
        self.samples = [self._sizes(Path(p), arrays) for p, arrays in zip(self.paths, self.arrays, strict=True)]
        self.ranges = [range(sizes[0]) for sizes in self.samples]
        self._blocks: OrderedDict[tuple, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def _arrays(self, path: Path, archive: xr.Dataset) -> dict[str, xr.DataArray]:
        found = {}
        for name in self.names:
            if name not in archive:
                raise InputError(f"{path}: no variable '{name}'; it holds {', '.join(map(str, archive.data_vars))}.")
            array = archive[name]
            lacking = [d for d in self.dims if d not in array.dims]
            if lacking:
                raise InputError(f"{path}: '{name}' has dimensions {tuple(array.dims)}; data.dims asks for {lacking}.")
            units = str(array.attrs.get("units", "1"))
            wanted = self.units.setdefault(name, units)
            if units != wanted:
                raise InputError(
                    f"{path}: '{name}' is in '{units}', the files before it (or data.units) in '{wanted}'; convert one."
                )
            found[name] = array.transpose(..., *self.dims)
        return found

    def _sizes(self, path: Path, arrays: Mapping[str, xr.DataArray]) -> tuple[int, ...]:
        shapes = {name: array.shape for name, array in arrays.items()}
        if len(set(shapes.values())) != 1:
            raise InputError(f"{path}: variables must share dimensions and sizes, found {shapes}.")
        sizes = next(iter(shapes.values()))[: -len(self.dims)]
        return sizes or (1,)

    @property
    def grid(self) -> tuple[int, ...]:
        """Sides of the stored fields of the first archive."""
        return tuple(next(iter(self.arrays[0].values())).shape[-len(self.dims) :])

    def __len__(self) -> int:
        return sum(self._counts())

    def _counts(self) -> list[int]:
        return [len(r) * math.prod(s[1:]) for r, s in zip(self.ranges, self.samples, strict=True)]

    def split(self, fraction: float) -> tuple[StoredFields, StoredFields]:
        """The first part and the last ``fraction`` of each archive's first sample dimension.

        Raises:
            InputError: One of them would be empty.
        """
        parts = []
        for held_out in (False, True):
            part = StoredFields(**{name: getattr(self, name) for name in self.__dataclass_fields__})
            cuts = [len(r) - round(fraction * len(r)) for r in part.ranges]
            part.ranges = [r[cut:] if held_out else r[:cut] for r, cut in zip(part.ranges, cuts, strict=True)]
            if not len(part):
                what = "validation" if held_out else "training"
                raise InputError(
                    f"data.split = {fraction:g} leaves no fields for {what}: the archives hold "
                    f"{sum(map(len, self.ranges))} positions along the first sample dimension; choose another split."
                )
            parts.append(part)
        return parts[0], parts[1]

    def measure(self) -> None:
        """Computes mean and standard deviation of each variable over all fields, chunk by chunk."""
        for name in self.names:
            statistics = Statistics()
            for file, positions in enumerate(self.ranges):
                step = self._step(file, name)
                for start in range(positions.start, positions.stop, step):
                    statistics.update(self._read(file, name, start, min(start + step, positions.stop)))
            if not statistics.std > 0:
                raise InputError(f"{self.paths[0]}: '{name}' is constant; a prior needs fields that vary.")
            self.loc[name], self.scale[name] = statistics.mean, statistics.std

    def _step(self, file: int, name: str) -> int:
        """Positions per read: those of a chunk, at least one and at most what fills 1/8 of the cache."""
        array = self.arrays[file][name]
        kept = array.encoding.get("preferred_chunks") or {}
        chunk = int(kept.get(array.dims[0], 0)) if len(array.dims) > len(self.dims) else 1
        size = max(1, 4 * math.prod(array.shape[1:]))
        return max(1, min(chunk or 16, _CACHE // 8 // size, self.samples[file][0]))

    def _read(self, file: int, name: str, start: int, stop: int) -> np.ndarray:
        """Positions start to stop of the first sample dimension, transformed: (n, ..., *grid), float32."""
        array, path = self.arrays[file][name], self.paths[file]
        if len(array.dims) > len(self.dims):
            array = array[start:stop]
        where = f"{path}: '{name}', positions {start} to {stop - 1}"
        try:
            values = np.asarray(array.values, dtype=np.float32)
        except Exception as error:  # the engines, the codecs and the file system each have their own
            raise InputError(f"{where}: the store cannot be read ({type(error).__name__}: {error}).") from error
        if not Path(path).exists():  # asked after reading: Zarr takes chunks that are gone for fill values
            raise InputError(f"{where}: the store has vanished while it was read; bring it back.")
        bad = int(np.count_nonzero(~np.isfinite(values)))
        if bad:
            raise InputError(f"{where}: {bad} of {values.size} values are NaN or infinite; mask or fill them first.")
        values = values.reshape(stop - start, *self.samples[file][1:], *self.grid_of(file))
        transform = self.transforms.get(name)
        if transform is None:
            return values
        try:
            return transform.encode(torch.from_numpy(np.ascontiguousarray(values)).double()).float().numpy()
        except InputError as error:
            raise InputError(f"{where}: {error}") from error

    def grid_of(self, file: int) -> tuple[int, ...]:
        """Sides of the fields of an archive."""
        return tuple(next(iter(self.arrays[file].values())).shape[-len(self.dims) :])

    def _block(self, file: int, name: str, position: int) -> np.ndarray:
        """One position, by way of the cache of blocks."""
        step = self._step(file, name)
        start = position // step * step
        key = (file, name, start)
        with self._lock:
            if key in self._blocks:
                self._blocks.move_to_end(key)
            else:
                self._blocks[key] = self._read(file, name, start, min(start + step, self.samples[file][0]))
                while len(self._blocks) > 1 and sum(b.nbytes for b in self._blocks.values()) > _CACHE:
                    self._blocks.popitem(last=False)
            return self._blocks[key][position - start]

    def __call__(self, generator: Generator, crop: tuple[int, ...]) -> Tensor | tuple[Tensor, Tensor]:
        r"""A random window of a random field: (C, \*crop), or with its condition (K, \*crop)."""
        counts = self._counts()
        item = int(torch.randint(sum(counts), (), generator=generator))
        file = 0
        while item >= counts[file]:
            item, file = item - counts[file], file + 1
        inner = np.unravel_index(item, (len(self.ranges[file]), *self.samples[file][1:]))
        grid = self.grid_of(file)
        if len(grid) != len(crop) or any(n < c for n, c in zip(grid, crop, strict=True)):
            raise InputError(f"{self.paths[file]}: fields have the grid {grid}, training.crops asks for {crop}.")
        corner = [int(torch.randint(n - c + 1, (), generator=generator)) for n, c in zip(grid, crop, strict=True)]
        window = tuple(slice(k, k + c) for k, c in zip(corner, crop, strict=True))
        rows = []
        for name in self.names:
            block = self._block(file, name, self.ranges[file][int(inner[0])])
            values = block[tuple(int(i) for i in inner[1:])][window]
            rows.append((values - np.float32(self.loc[name])) / np.float32(self.scale[name]))
        out, c = torch.from_numpy(np.stack(rows)), len(self.variables)
        return (out[:c], out[c:]) if self.condition else out

    @property
    def card(self) -> dict[str, Any]:
        """What a prior's card keeps: names, units, grid and the condition's statistics."""
        rows = {"variables": list(self.variables), "dims": list(self.dims), "grid": list(self.grid)}
        rows |= {"variable_units": {name: self.units[name] for name in self.names}}
        if self.transforms:
            rows["transforms"] = [self.transforms[n].card if n in self.transforms else None for n in self.variables]
        if self.condition:
            loc, scale = ([v[n] for n in self.condition] for v in (self.loc, self.scale))
            rows["condition"] = {"variables": list(self.condition), "loc": loc, "scale": scale}
        return rows

    @staticmethod
    def transforms_of(tables: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> dict[str, Transform]:
        """Transforms from a configuration: variable -> {kind = ..., ...}."""
        unknown = sorted(set(tables) - set(names))
        if unknown:
            raise InputError(f"data.transforms names {unknown}, which are no variables of data: {list(names)}.")
        return {name: make_transform(**table) for name, table in tables.items()}
