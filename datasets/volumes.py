"""Head volumes from NIfTI or .npz files, in one layout: axial slices, ready to be looked at or trained on.

Axes: ``z`` from inferior to superior, ``y`` rows from anterior to posterior, ``x`` columns from left to right.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scidiff.datasets.kspace import sha256
from scidiff.errors import InputError
from scidiff.optional import optional

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["read_volume"]


def read_volume(path: str | os.PathLike[str]) -> xr.DataArray:
    """Reads a three-dimensional magnitude image.

    Arguments:
        path: ``.nii`` or ``.nii.gz`` in any orientation; or ``.npz`` with ``vol`` (z, y, x) in the layout of this file
            and, optionally, ``voxel_mm`` (3,).

    Returns:
        (z, y, x) float32 with coordinates in mm from the centre; ``attrs`` hold the file's name and checksum.

    Raises:
        InputError: Missing or unreadable file, wrong dimensions, complex or non-finite values.
        MissingPackageError: If a NIfTI file is given and nibabel is absent.
    """
    import xarray as xr

    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: cannot read a volume, there is no such file.")
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        volume, voxel = _nifti(path)
    elif name.endswith(".npz"):
        volume, voxel = _npz(path)
    else:
        raise InputError(f"{path}: unknown kind of volume; expected .nii, .nii.gz or .npz.")
    if volume.ndim != 3:
        raise InputError(f"{path}: wrong dimensions: expected a volume (z, y, x), found shape {volume.shape}.")
    if volume.dtype.kind not in "fiub":
        raise InputError(f"{path}: expected real intensities, found {volume.dtype}.")
    volume = volume.astype(np.float32)
    if not np.isfinite(volume).all():
        raise InputError(f"{path}: the volume holds NaN or infinite values.")
    units = "1" if voxel is None else "mm"
    steps = (1.0, 1.0, 1.0) if voxel is None else voxel
    coords = {
        dim: (dim, (np.arange(n) - (n - 1) / 2) * step, {"units": units})
        for dim, n, step in zip("zyx", volume.shape, steps, strict=True)
    }
    attrs = {"units": "a.u.", "long_name": "magnitude", "source_file": path.name, "sha256": sha256(path)}
    if voxel is not None:
        attrs |= {"voxel_size": list(voxel), "voxel_size_units": "mm"}
    return xr.DataArray(volume, coords, ("z", "y", "x"), "image", attrs)


def _nifti(path: Path) -> tuple[np.ndarray, tuple[float, ...]]:
    nibabel = optional("nibabel", extra="io")
    try:
        # RAS+: axes run to the right, anterior, superior.
        image = nibabel.as_closest_canonical(nibabel.load(path))
        volume = np.asanyarray(image.dataobj)
    except (nibabel.filebasedimages.ImageFileError, OSError, EOFError, ValueError) as error:
        raise InputError(f"{path}: not a readable NIfTI file ({error}).") from error
    volume = np.squeeze(volume, tuple(range(3, volume.ndim))) if all(n == 1 for n in volume.shape[3:]) else volume
    zooms = tuple(float(z) for z in image.header.get_zooms()[:3])
    return (volume.transpose(2, 1, 0)[:, ::-1] if volume.ndim == 3 else volume), zooms[::-1]


def _npz(path: Path) -> tuple[np.ndarray, tuple[float, ...] | None]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{path}: not a readable .npz file of numbers ({error}).") from error
    if "vol" not in found:
        raise InputError(f"{path}: expected an array 'vol', found {', '.join(found) or 'nothing'}.")
    voxel = found.get("voxel_mm")
    if voxel is not None and (voxel.shape != (3,) or not (voxel > 0).all()):
        raise InputError(f"{path}: 'voxel_mm' must be three positive numbers, found {voxel}.")
    return found["vol"], None if voxel is None else tuple(float(v) for v in voxel)
