"""What each format of a scan gives before it is validated. Used by `scidiff.datasets.tomography.files`.

References:
    Scientific data exchange: a schema for HDF5-based storage of raw and analyzed data. De Carlo et al., Journal of
    Synchrotron Radiation 21, 2014.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from scidiff.errors import InputError

__all__ = ["Raw", "read_hdf5", "read_mat", "read_numpy", "read_tiff"]


@dataclass
class Raw:
    """Arrays as a file holds them; ``dims`` names the axes of the data where the format fixes them."""

    data: np.ndarray
    variable: str
    dims: str = ""
    angles: np.ndarray | None = None
    angles_field: str = "theta"
    angle_units: str | None = None
    white: np.ndarray | None = None
    dark: np.ndarray | None = None
    bin_width: float | None = None
    attrs: dict[str, Any] = field(default_factory=dict)


def read_hdf5(path: Path, variable: str | None) -> Raw:
    """DXchange: ``exchange/data`` (angle, row, bin), ``data_white``, ``data_dark`` (frame, row, bin), ``theta``."""
    import h5py

    # A file that is cut off fails when it is opened, or only when a part that is missing is read.
    try:
        with h5py.File(path, "r") as file:
            group = file.get("exchange")
            if not isinstance(group, h5py.Group):
                found = ", ".join(file) or "nothing"
                raise InputError(f"{path}: expected the group 'exchange' of a DXchange file, found {found}.")
            name = variable or "data"
            if not isinstance(group.get(name), h5py.Dataset):
                raise InputError(f"{path}: expected 'exchange/{name}' (angle, row, bin), found {', '.join(group)}.")
            parts: dict[str, Any] = {}
            units = None
            for key in (name, "data_white", "data_dark", "theta"):
                item = group.get(key)
                if isinstance(item, h5py.Dataset):
                    parts[key] = _read(item, path, f"exchange/{key}")
                    if key == "theta":
                        units = _text(item.attrs.get("units"))
            data = parts[name]
            if data.ndim != 3:
                raise InputError(f"{path}: 'exchange/{name}' has shape {data.shape}, expected (angle, row, bin).")
            return Raw(
                data,
                f"exchange/{name}",
                "angle row bin",
                parts.get("theta"),
                "exchange/theta",
                units,
                parts.get("data_white"),
                parts.get("data_dark"),
                _pixel(file, path),
            )
    except OSError as error:
        raise InputError(f"{path}: not a whole HDF5 file, perhaps truncated ({error}).") from error


def _read(item: Any, path: Path, name: str) -> np.ndarray:
    try:
        return np.asarray(item[()])
    except (OSError, RuntimeError) as error:
        raise InputError(f"{path}: '{name}' cannot be read, the file is truncated or damaged ({error}).") from error


def _text(value: Any) -> str | None:
    return value.decode() if isinstance(value, bytes) else None if value is None else str(value)


def _pixel(file: Any, path: Path) -> float | None:
    """Width of a detector bin in mm, divided by the magnification of the objective, where the file states it."""
    import h5py

    from scidiff.fields import parse_units

    item = file.get("measurement/instrument/detector/x_actual_pixel_size")
    item = file.get("measurement/instrument/detector/pixel_size_x") if item is None else item
    if not isinstance(item, h5py.Dataset):
        return None
    unit = parse_units(_text(item.attrs.get("units")) or "m")
    try:
        return float(unit._REGISTRY.Quantity(float(np.ravel(item[()])[0]), unit).to("mm").magnitude)
    except Exception as error:  # pint raises unrelated types
        raise InputError(f"{path}: '{item.name}' has units {unit}, expected a length.") from error


def read_tiff(path: Path, variable: str | None) -> Raw:
    """One sinogram, a page for each projection, or a folder with a file for each projection."""
    import tifffile

    files = [path]
    if path.is_dir():
        files = sorted(path.glob("*.tif*"), key=lambda p: [int(n) for n in re.findall(r"\d+", p.stem)] or [0])
        if not files:
            raise InputError(f"{path}: the folder holds no TIFF files (.tif).")
    pages = []
    for one in files:
        try:
            with tifffile.TiffFile(one) as file:
                pages.append(np.asarray(file.asarray()))
        except (tifffile.TiffFileError, ValueError, OSError, IndexError, KeyError) as error:
            raise InputError(f"{one}: not a whole TIFF file, perhaps truncated ({error}).") from error
    shapes = {page.shape for page in pages}
    if len(shapes) > 1:
        raise InputError(f"{path}: the projections have different shapes: {sorted(shapes)}.")
    return Raw(pages[0] if len(pages) == 1 else np.stack(pages), "pages")


def read_mat(path: Path, variable: str | None) -> Raw:
    """The only numeric matrix of a MATLAB file of version 5 or 7.3, in MATLAB's order of axes."""
    import h5py
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        if h5py.is_hdf5(path):
            with h5py.File(path, "r") as file:
                arrays = {n: _read(d, path, n).T for n, d in file.items() if isinstance(d, h5py.Dataset)}
        else:
            loaded = loadmat(path)
            arrays = {n: a for n, a in loaded.items() if not n.startswith("__") and isinstance(a, np.ndarray)}
    except (ValueError, TypeError, MatReadError, NotImplementedError, OSError, EOFError) as error:
        raise InputError(f"{path}: not a whole MATLAB file, perhaps truncated ({error}).") from error
    return _from_arrays(path, arrays, variable)


def read_numpy(path: Path, variable: str | None) -> Raw:
    """One array of a NumPy file; of an ``.npz`` also ``theta``, ``white`` and ``dark``."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return Raw(loaded, "array")
        with loaded:
            arrays = {name: loaded[name] for name in loaded.files}
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{path}: not a whole NumPy file of numbers (objects are never loaded; {error}).") from error
    return _from_arrays(path, arrays, variable)


def _from_arrays(path: Path, arrays: dict[str, np.ndarray], variable: str | None) -> Raw:
    def first(*names: str) -> str | None:
        return next((n for n in names if n in arrays), None)

    angles, white, dark = first("theta", "angles"), first("white", "data_white", "blank"), first("dark", "data_dark")
    listing = ", ".join(f"{n} {a.shape} {a.dtype}" for n, a in arrays.items()) or "nothing"
    if variable is not None and variable not in arrays:
        raise InputError(f"{path}: there is no variable '{variable}'; found {listing}.")
    named = [n for n in ("data", "counts", "sinogram") if n in arrays]
    taken = (angles, white, dark)
    rest = [n for n, a in arrays.items() if n not in taken and a.dtype.kind in "fiu" and min(a.shape, default=0) > 1]
    chosen = variable or (named[0] if named else rest[0] if len(rest) == 1 else None)
    if chosen is None:
        raise InputError(f"{path}: expected one array of projections, found {listing}; name one with `variable`.")
    parts = [None if name is None else arrays[name] for name in taken]
    theta = None if parts[0] is None else parts[0].ravel()
    return Raw(arrays[chosen], chosen, "", theta, angles or "theta", None, parts[1], parts[2])
