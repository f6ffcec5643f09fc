r"""Raw k-space from files: .npy, .npz, .mat, fastMRI HDF5 and ISMRMRD, validated, as one `xarray.Dataset`.

==========  =====================================================================================
``kspace``  (coil, ky, kx) complex64, arbitrary units, zero frequency at index (ky // 2, kx // 2)
``mask``    (ky, kx) boolean: the points that were measured
==========  =====================================================================================

Coordinates ky, kx are spatial frequencies in 1/mm where the file states a field of view, else cycles per field of view
(dimensionless). A point that is exactly zero in every coil was not measured: receivers always have noise.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from scidiff.datasets.kspace_raw import Raw, choose_variable
from scidiff.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["read_kspace", "sha256", "validate_kspace"]

_KINDS = (".npy", ".npz", ".mat", ".h5", ".hdf5", ".mrd")


def read_kspace(
    path: str | os.PathLike[str],
    slice: int | None = None,
    zeros: Literal["missing", "measured"] = "missing",
    variable: str | None = None,
    coil_axis: int = 0,
) -> xr.Dataset:
    """Reads one slice of centred Cartesian k-space.

    Arguments:
        path: A file: ``.npy``; ``.npz``; ``.mat`` (version 5 or 7.3); HDF5 with a dataset ``kspace`` (fastMRI) or an
            ISMRMRD group ``dataset``.
        slice: Which slice of a file that holds several; the middle one by default.
        zeros: What points that are exactly zero in every coil are: ``"missing"`` or ``"measured"``.
        variable: Name of the array, for files that hold several.
        coil_axis: Which axis of a three-dimensional array counts the coils.

    Raises:
        InputError: Missing or unreadable file, not k-space, wrong dimensions, NaN, or only zeros.
        MissingPackageError: If an ISMRMRD file is given and the package ``ismrmrd`` is absent.
    """
    path = Path(path)
    if zeros not in ("missing", "measured"):
        raise InputError(f"zeros must be 'missing' or 'measured', got {zeros!r}.")
    if not path.is_file():
        found = "it is a folder" if path.is_dir() else "there is no such file"
        raise InputError(f"{path}: cannot read k-space, {found}. Give a file of kind {', '.join(_KINDS)}.")
    raw = _load(path, slice, variable)
    array = _arrange(raw, path, coil_axis)
    data = validate_kspace(array, zeros, raw.mask, raw.voxel_mm, f"{path}: '{raw.variable}'")
    data.attrs.update(source_file=path.name, source_variable=raw.variable, sha256=sha256(path), **raw.attrs)
    return data


def validate_kspace(
    array: np.ndarray,
    zeros: Literal["missing", "measured"] = "missing",
    mask: np.ndarray | None = None,
    voxel_mm: tuple[float, float] | None = None,
    name: str = "k-space",
) -> xr.Dataset:
    """Checks an array (coil, ky, kx) or (ky, kx) and gives it its mask, coordinates and units.

    Arguments:
        array: Complex samples, zero frequency in the middle.
        zeros: What points that are exactly zero in every coil are.
        mask: Points measured according to the file, (ky, kx) or one per column (kx,); points outside it are missing.
        voxel_mm: Size of a pixel of the image along ky and kx.
        name: How messages call the array.

    Raises:
        InputError: Not complex, wrong dimensions, NaN or infinite, or only zeros.
    """
    import xarray as xr

    array = np.asarray(array)
    if array.dtype.kind != "c":
        hint = "a magnitude image is not k-space" if array.dtype.kind in "fiub" else "k-space is an array of numbers"
        raise InputError(f"{name} is not k-space: expected complex numbers, found {array.dtype}; {hint}.")
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or min(array.shape[1:]) < 2:
        raise InputError(
            f"{name} has wrong dimensions: expected (coil, ky, kx) or (ky, kx), found shape {array.shape}. "
            "Cut out one slice first."
        )
    if array.shape[0] > max(array.shape[1:]):
        raise InputError(
            f"{name} has wrong dimensions: expected (coil, ky, kx), found shape {array.shape}, with more coils than "
            "points. If the coils are another axis, name it: coil_axis=-1."
        )
    bad = int((~np.isfinite(array)).sum())
    if bad:
        raise InputError(f"{name} holds {bad} NaN or infinite values of {array.size}; zero them if they are missing.")
    with np.errstate(over="ignore"):
        array = array.astype(np.complex64)
    if not np.isfinite(array).all():
        raise InputError(f"{name} holds values beyond the range of complex64; rescale it.")
    nonzero = (array != 0).any(0)
    if not nonzero.any():
        raise InputError(f"{name} holds only zeros: nothing was measured.")
    measured = np.ones(nonzero.shape, bool)
    if mask is not None:
        mask = np.asarray(mask).astype(bool)
        if mask.shape not in (nonzero.shape, nonzero.shape[1:]):
            raise InputError(
                f"{name}: the file's mask has shape {mask.shape}, expected {nonzero.shape} (ky, kx) or (kx,)."
            )
        measured = np.broadcast_to(mask, nonzero.shape).copy()
    empty = int((measured & ~nonzero).sum())
    if empty:
        _warn_zeros(name, empty, nonzero.size, zeros)
        measured &= nonzero | (zeros == "measured")
    if not measured.any():
        raise InputError(f"{name}: the mask samples nothing.")
    _warn_centre(name, array)
    coords = {
        dim: (dim, *_frequencies(n, None if voxel_mm is None else voxel_mm[i]))
        for i, (dim, n) in enumerate(zip(("ky", "kx"), nonzero.shape, strict=True))
    }
    attrs: dict[str, Any] = {"fraction_sampled": float(measured.mean()), "zeros": zeros}
    if voxel_mm is not None:
        attrs |= {"voxel_size": [float(v) for v in voxel_mm], "voxel_size_units": "mm"}
    return xr.Dataset(
        {
            "kspace": (("coil", "ky", "kx"), array, {"units": "a.u.", "long_name": "k-space"}),
            "mask": (("ky", "kx"), measured, {"long_name": "points measured"}),
        },
        coords,
        attrs,
    )


def sha256(path: str | os.PathLike[str]) -> str:
    """Checksum of a file, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _load(path: Path, slice: int | None, variable: str | None) -> Raw:
    kind = path.suffix.lower()
    if kind in (".npy", ".npz"):
        return _numpy(path, variable)
    if kind in (".mat", ".h5", ".hdf5", ".mrd"):
        from scidiff.datasets.kspace_hdf5 import read_hdf5, read_mat

        return read_mat(path, variable) if kind == ".mat" else read_hdf5(path, slice, variable)
    raise InputError(f"{path}: unknown kind of file '{path.suffix}'; expected one of {', '.join(_KINDS)}.")


def _numpy(path: Path, variable: str | None) -> Raw:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return Raw(loaded, "array")
        with loaded:
            arrays = {name: loaded[name] for name in loaded.files}
    except (ValueError, OSError, EOFError) as error:
        # What NumPy says of objects and of files in no format of its own is advice to load them unsafely.
        with open(path, "rb") as stream:
            numpy_format = stream.read(6) in (b"\x93NUMPY", b"PK\x03\x04\x14\x00", b"PK\x03\x04-\x00")
        found = "a damaged file or Python objects (a pickle" if numpy_format else "another format (perhaps a pickle"
        raise InputError(
            f"{path}: not k-space: expected a NumPy file of complex numbers, found {found}, which is never loaded)."
        ) from error
    name = choose_variable(path, {name: (a.shape, a.dtype) for name, a in arrays.items()}, variable)
    return Raw(arrays[name], name)


def _arrange(raw: Raw, path: Path, coil_axis: int) -> np.ndarray:
    array = raw.array
    if array.ndim == 3 and raw.layout == "coil ky kx":
        if not -3 <= coil_axis < 3:
            raise InputError(f"{path}: coil_axis must be between -3 and 2, got {coil_axis}.")
        array = np.moveaxis(array, coil_axis, 0)
    return array


def _frequencies(size: int, voxel_mm: float | None) -> tuple[np.ndarray, dict[str, str]]:
    index = np.arange(size) - size // 2
    if voxel_mm is None:
        return index.astype(float), {"units": "1", "long_name": "cycles per field of view"}
    return index / (size * voxel_mm), {"units": "1/mm", "long_name": "spatial frequency"}


def _warn_zeros(name: str, empty: int, points: int, zeros: str) -> None:
    action = (
        "They are treated as NOT MEASURED. If they are data, say so: zeros='measured'."
        if zeros == "missing"
        else "They are treated as data, as asked, although no receiver measures exact zeros."
    )
    share = f"{empty} of {points} points ({empty / points:.1%})"
    warnings.warn(f"{name}: {share} are exactly zero in every coil. {action}", stacklevel=4)


def _warn_centre(name: str, array: np.ndarray) -> None:
    power = (np.abs(array) ** 2).sum(0)
    peak = np.unravel_index(int(power.argmax()), power.shape)
    middle = tuple(n // 2 for n in power.shape)
    if any(abs(p - m) > max(2, n // 8) for p, m, n in zip(peak, middle, power.shape, strict=True)):
        warnings.warn(
            f"{name}: the strongest point is at {tuple(map(int, peak))}, but the zero frequency is expected at "
            f"{middle}. Is this an image, or k-space that is not centred (numpy.fft.fftshift it)?",
            stacklevel=4,
        )
