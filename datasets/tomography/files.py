"""Scans from files: DXchange HDF5 as tomopy writes it, TIFF sinograms and stacks, MATLAB and NumPy arrays."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scidiff.datasets.kspace import sha256
from scidiff.datasets.tomography.raw import Raw, read_hdf5, read_mat, read_numpy, read_tiff
from scidiff.datasets.tomography.scan import degrees, make_scan
from scidiff.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["read_scan"]

_READERS = {
    ".h5": read_hdf5,
    ".hdf5": read_hdf5,
    ".hdf": read_hdf5,
    ".tif": read_tiff,
    ".tiff": read_tiff,
    ".mat": read_mat,
    ".npy": read_numpy,
    ".npz": read_numpy,
}
Source = str | os.PathLike[str]


def read_scan(
    path: Source,
    *,
    angles: Sequence[float] | np.ndarray | Source | None = None,
    angle_units: str | None = None,
    white: float | np.ndarray | Source | None = None,
    dark: float | np.ndarray | Source | None = None,
    kind: str = "counts",
    dims: str | None = None,
    bin_width: float | None = None,
    gain: float | None = None,
    variable: str | None = None,
) -> xr.Dataset:
    """Reads a tomographic scan; see `scidiff.datasets.tomography.scan` for what comes back.

    Arguments:
        path: ``.h5`` with ``exchange/data``, ``data_white``, ``data_dark``, ``theta`` (DXchange); ``.tif`` with one
            sinogram (angle, bin) or a page for each projection; ``.mat``, ``.npy`` or ``.npz`` with one array. A folder
            is read as a stack of TIFF files, in the order of the numbers in their names.
        angles: For files that hold none (or wrong ones): one number for each projection; or two, the first and the last
            angle, both included; or a text or ``.npy`` file of them.
        angle_units: ``"degree"`` or ``"radian"``; by default what the file states, else degrees.
        white: Beam without the object, for files that hold none: a number, an array, or a file like ``path``.
        dark: Detector without a beam, likewise; absent means zero.
        kind: ``"counts"``, or ``"sinogram"`` for files that hold line integrals already.
        dims: Order of the axes, such as ``"bin angle"`` or ``"row angle bin"``; by default ``"angle bin"`` for two and
            ``"angle row bin"`` for three axes.
        bin_width: Width of a detector bin in mm, where the file does not state it.
        gain: Variance of the counts over their mean.
        variable: Name of the array, for files that hold several.

    Raises:
        InputError: naming file and field: a missing, truncated or foreign file, missing or too few angles, angles in
            the wrong unit, negative counts, no white field, wrong dimensions.
    """
    path = Path(path)
    raw = load(path, variable)
    name = os.fspath(path)
    data = _arranged(raw.data, dims or raw.dims, f"{name}: '{raw.variable}'")
    views = data.shape[1]
    if isinstance(white, (str, os.PathLike)):
        white = _beam(white, dims, data.shape)
    if isinstance(dark, (str, os.PathLike)):
        dark = _beam(dark, dims, data.shape)
    found = _angles(raw, angles, angle_units, views, name)
    return make_scan(
        data,
        found,
        raw.white if white is None else white,
        raw.dark if dark is None else dark,
        kind=kind,
        bin_width=raw.bin_width if bin_width is None else bin_width,
        gain=gain,
        name=name,
        field=raw.variable,
        attrs={"source_file": path.name, "source_variable": raw.variable, **_checksum(path), **raw.attrs},
    )


def load(path: Path, variable: str | None = None) -> Raw:
    """What the file holds, by the ending of its name."""
    if path.is_dir():
        return read_tiff(path, variable)
    if not path.is_file():
        raise InputError(f"{path}: cannot read a scan, there is no such file.")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: unknown kind of scan '{path.suffix}'; expected one of {', '.join(_READERS)}.")
    return reader(path, variable)


def _checksum(path: Path) -> dict[str, Any]:
    return {"sha256": sha256(path)} if path.is_file() else {}


def _arranged(data: np.ndarray, dims: str, where: str) -> np.ndarray:
    """(row, angle, bin) of an array whose axes are named."""
    data = data.reshape([n for n in data.shape if n > 1]) if data.ndim > 3 else data
    if not dims:
        dims = {2: "angle bin", 3: "angle row bin"}.get(data.ndim, "")
    names = dims.split()
    if sorted(names) not in (["angle", "bin"], ["angle", "bin", "row"]):
        raise InputError(
            f"{where} has shape {data.shape} and axes {dims!r}; expected the words angle, bin and perhaps row, in the "
            "order of the axes."
        )
    if data.ndim != len(names):
        raise InputError(f"{where} has shape {data.shape}, which does not fit the axes {dims!r}.")
    if "row" not in names:
        data, names = data[None], ["row", *names]
    return data.transpose([names.index(n) for n in ("row", "angle", "bin")])


def _beam(source: Source, dims: str | None, shape: tuple[int, ...]) -> np.ndarray:
    """A white or dark field from a file: like the data, or frames of (row, bin)."""
    raw = load(Path(source))
    where = f"{os.fspath(source)}: '{raw.variable}'"
    if raw.data.ndim <= 2 and dims is None and raw.data.size in (shape[0] * shape[2], shape[2]):
        return raw.data.reshape(-1, shape[2])
    if raw.data.ndim == 3 and raw.data.shape[1:] == (shape[0], shape[2]):
        return raw.data
    found = _arranged(raw.data, dims or raw.dims, where)
    if found.shape != shape:
        raise InputError(f"{where} has shape {found.shape} (row, angle, bin), but the data have {shape}.")
    return found


def _angles(
    raw: Raw, angles: Sequence[float] | np.ndarray | Source | None, units: str | None, views: int, name: str
) -> np.ndarray:
    if angles is None:
        if raw.angles is None:
            raise InputError(
                f"{name}: there are no angles: expected '{raw.angles_field}'. Give them: angles=[first, last] in "
                f"degrees, or one for each of the {views} projections."
            )
        return degrees(raw.angles, units or raw.angle_units, f"{name}: '{raw.angles_field}'")
    where = "angles"
    if isinstance(angles, (str, os.PathLike)):
        where = f"{os.fspath(angles)}: 'angles'"
        try:
            angles = np.load(angles, allow_pickle=False) if os.fspath(angles).endswith(".npy") else np.loadtxt(angles)
        except (OSError, ValueError) as error:
            raise InputError(
                f"{where} cannot be read ({error}); expected one number a line, or a .npy file."
            ) from error
    values = degrees(np.asarray(angles, dtype=np.float64), units, where)
    return np.linspace(values[0], values[1], views) if len(values) == 2 and views > 2 else values
