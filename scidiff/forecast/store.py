r"""Where the windows of a forecast go: a Zarr store that is filled, or arrays in memory.

The store is Zarr format 2 with consolidated metadata, which every reader knows. Windows not yet computed are NaN.

While a run is under way, a hidden folder beside the store, ``.<name>.restart/``, holds

- ``run.json``: what decides the numbers (model, initial states, seed, ...);
- ``tile_00003.npz``: the last states of one tile of rows and the number of its windows that are in the store.

A tile's restart file is written, whole or not at all, after its windows are in the store. A run that is killed and
resumed repeats the window that was cut, and every window draws from streams of its own name, so the numbers are those
of an unbroken run. When all windows are written the folder is removed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from scidiff.errors import InputError
from scidiff.fields import atomic, write_json
from scidiff.store import differences

__all__ = ["MemoryStore", "Region", "ZarrStore"]

Region = tuple[slice, slice, slice]
"""Initial times, members and leads."""


class MemoryStore:
    """Keeps a forecast in memory.

    Arguments:
        coords: Dataset with the coordinates of the answer.
        variables: Dimensions, shape, attributes and type by name.
    """

    def __init__(self, coords: xr.Dataset, variables: Mapping[str, tuple[tuple[str, ...], tuple[int, ...], dict, Any]]):
        self.coords = coords
        self.arrays = {
            n: (dims, np.full(shape, np.nan, kind), attrs) for n, (dims, shape, attrs, kind) in variables.items()
        }

    def write(self, region: Region, fields: Mapping[str, np.ndarray]) -> None:
        """Puts one window of one tile in its place."""
        for name, values in fields.items():
            self.arrays[name][1][region] = values

    def restart(self, tile: int) -> tuple[np.ndarray, int] | None:
        """Nothing is kept."""
        return None

    def keep(self, tile: int, state: np.ndarray, windows: int) -> None:
        """Nothing to do."""

    def finish(self) -> xr.Dataset:
        """The whole forecast."""
        return self.coords.assign(self.arrays).assign_attrs(complete=1)


class ZarrStore:
    """A forecast as a Zarr group, one chunk per tile and window.

    Arguments:
        path: Folder of the group.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = path.with_name(f".{path.name}.restart")
        self.group: Any = None

    @property
    def unfinished(self) -> bool:
        """Whether a run that was cut stands here."""
        return (self.folder / "run.json").is_file()

    def claim(self, resume: bool, overwrite: bool) -> None:
        """Refuses to touch what exists, unless told to.

        Raises:
            InputError: a store or an unfinished run exists, or the path is something else than a Zarr store.
        """
        path = self.path
        if path.exists() and not (path / "zarr.json").is_file() and not (path / ".zgroup").is_file():
            raise InputError(f"{path} exists and is no Zarr store; choose another name.")
        if resume or overwrite:
            return
        if self.unfinished:
            raise InputError(
                f"{path} holds an unfinished forecast; go on with --resume or start again with --overwrite."
            )
        if path.exists():
            raise InputError(f"{path} exists; choose another name, or replace it with --overwrite.")

    def identity(self) -> dict[str, Any]:
        """What decides the numbers of the run that stands here, unfinished or not."""
        if self.unfinished:
            return json.loads((self.folder / "run.json").read_text(encoding="utf-8"))
        with xr.open_zarr(self.path, chunks=None, consolidated=True) as ds:
            return json.loads(ds.attrs.get("identity", "{}"))

    def check(self, identity: Mapping[str, Any]) -> None:
        """Compares with the run that stands here.

        Raises:
            InputError: something that decides the numbers differs; the message names it with both values.
        """
        found = differences(self.identity(), identity)
        if found:
            raise InputError(
                f"{self.path}: cannot resume, this is another forecast: {'; '.join(found)}. "
                "Resume with the settings of the first run, or start again with --overwrite."
            )

    def start(self, identity: Mapping[str, Any]) -> None:
        """Removes what stands here and writes down what decides the numbers."""
        if self.folder.exists():
            (self.folder / "run.json").unlink(missing_ok=True)
            for leftover in self.folder.glob("tile_*.npz"):
                leftover.unlink()
        if self.path.exists():
            shutil.rmtree(self.path)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "run.json", identity)

    def create(
        self,
        coords: xr.Dataset,
        variables: Mapping[str, tuple[tuple[str, ...], tuple[int, ...], dict, Any]],
        chunks: tuple[int, int, int],
    ) -> None:
        """Makes the empty store, whole or not at all; opens it where it exists."""
        import zarr

        if not self.path.exists():
            temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
            coords.drop_encoding().to_zarr(temporary, mode="w", zarr_format=2, consolidated=False)
            group = zarr.open_group(temporary, mode="r+", use_consolidated=False)
            extra = " ".join(sorted(str(c) for c in coords.coords if c not in coords.dims))
            for name, (dims, shape, attrs, kind) in variables.items():
                group.create_array(
                    name,
                    shape=shape,
                    chunks=(*chunks, *shape[3:]),
                    dtype=kind,
                    fill_value=float("nan"),
                    attributes={**attrs, "coordinates": extra, "_ARRAY_DIMENSIONS": list(dims)},
                )
            zarr.consolidate_metadata(temporary)
            os.replace(temporary, self.path)
        self.group = zarr.open_group(self.path, mode="r+", use_consolidated=False)

    def write(self, region: Region, fields: Mapping[str, np.ndarray]) -> None:
        """Puts one window of one tile in its place."""
        for name, values in fields.items():
            self.group[name][region] = values

    def _tile(self, tile: int) -> Path:
        return self.folder / f"tile_{tile:05d}.npz"

    def restart(self, tile: int) -> tuple[np.ndarray, int] | None:
        """Last states and number of finished windows of a tile; None at its beginning."""
        path = self._tile(tile)
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as kept:
                return kept["state"], int(kept["windows"])
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise InputError(f"{path} is unreadable ({error}); start again with --overwrite.") from error

    def keep(self, tile: int, state: np.ndarray, windows: int) -> None:
        """Writes down where a tile can go on; its windows must be in the store."""
        with atomic(self._tile(tile)) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, state=state, windows=np.int64(windows))

    def finish(self) -> xr.Dataset:
        """Marks the store as complete, removes the restart files and opens it lazily."""
        import zarr

        self.group.attrs.update({"complete": 1})
        zarr.consolidate_metadata(self.path)
        (self.folder / "run.json").unlink(missing_ok=True)
        for leftover in self.folder.glob("*"):
            if leftover.name != ".lock":
                leftover.unlink()
        return self.open()

    def open(self) -> xr.Dataset:
        """The store, read when it is used."""
        return xr.open_zarr(self.path, chunks=None, consolidated=True)
