"""A series of DICOM images as one CT volume in Hounsfield units, in the layout of `scidiff.datasets.volumes`.

Axes: ``z`` from inferior to superior, ``y`` rows from anterior to posterior, ``x`` columns from left to right.

References:
    Digital Imaging and Communications in Medicine (DICOM) Standard PS3.3, Information Object Definitions: Image Plane
    Module (C.7.6.2) and CT Image Module (C.8.2.1).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scidiff.errors import InputError
from scidiff.optional import optional

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["read_dicom_series"]

_NEEDED = ("SeriesInstanceUID", "Rows", "Columns", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient")


def read_dicom_series(folder: str | os.PathLike[str]) -> xr.DataArray:
    """Reads the axial CT images in a folder as one volume.

    Arguments:
        folder: Holds the files of one series, and nothing else that is DICOM.

    Returns:
        (z, y, x) float32 in Hounsfield units with coordinates in mm from the centre.

    Raises:
        InputError: naming file and field: no DICOM file, several series, another modality than CT, images of different
            size, orientation or spacing, tilted planes, missing or doubled slices, no rescale slope.
        MissingPackageError: pydicom is absent.
    """
    import xarray as xr

    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder with the files of one DICOM series, there is none.")
    images = _images(folder)
    first_path, first = images[0]
    series: dict[str, list[str]] = {}
    for path, image in images:
        series.setdefault(str(image.SeriesInstanceUID), []).append(path.name)
    if len(series) > 1:
        listing = "; ".join(f"{len(names)} files such as {names[0]}" for names in series.values())
        raise InputError(
            f"{folder}: 'SeriesInstanceUID' differs: {len(series)} series are mixed ({listing}). Keep one in a folder."
        )
    if str(getattr(first, "Modality", "")) != "CT":
        raise InputError(f"{first_path}: 'Modality' is {getattr(first, 'Modality', None)}, expected CT.")
    for path, image in images[1:]:
        for name in ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient"):
            if not np.allclose(_numbers(first, name), _numbers(image, name), rtol=1e-4, atol=1e-4):
                raise InputError(f"{path}: '{name}' is {getattr(image, name)}, but {getattr(first, name)} in others.")
    flips = _axial(first, first_path)
    images.sort(key=lambda pair: float(pair[1].ImagePositionPatient[2]))
    heights = np.array([float(image.ImagePositionPatient[2]) for _, image in images])
    spacing = _spacing(heights, folder)
    slices = []
    for path, image in images:
        slices.append(_hounsfield(image, path))
    volume = np.stack(slices)
    volume = volume[:, :: -1 if flips[0] else 1, :: -1 if flips[1] else 1]
    steps = (spacing, *(float(s) for s in first.PixelSpacing))
    coords = {
        dim: (dim, (np.arange(n) - (n - 1) / 2) * step, {"units": "mm"})
        for dim, n, step in zip("zyx", volume.shape, steps, strict=True)
    }
    attrs: dict[str, Any] = {
        "units": "HU",
        "long_name": "radiodensity",
        "source_file": folder.name,
        "series": next(iter(series)),
        "voxel_size": list(steps),
        "voxel_size_units": "mm",
    }
    energy = getattr(first, "KVP", None)
    if energy is not None:
        attrs["tube_voltage_kV"] = float(energy)
    return xr.DataArray(np.ascontiguousarray(volume), coords, ("z", "y", "x"), "image", attrs)


def _images(folder: Path) -> list[tuple[Path, Any]]:
    pydicom = optional("pydicom", extra="io")
    found = []
    for path in sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")):
        try:
            image = pydicom.dcmread(path)
        except pydicom.errors.InvalidDicomError:
            continue
        except (OSError, EOFError, ValueError, AttributeError) as error:
            raise InputError(f"{path}: a damaged or truncated DICOM file ({error}).") from error
        if "PixelData" not in image:
            continue
        missing = [name for name in _NEEDED if name not in image]
        if missing:
            raise InputError(f"{path}: the DICOM image lacks {', '.join(missing)}.")
        found.append((path, image))
    if not found:
        raise InputError(f"{folder}: the folder holds no DICOM images.")
    return found


def _numbers(image: Any, name: str) -> np.ndarray:
    return np.atleast_1d(np.asarray(getattr(image, name), dtype=float))


def _axial(image: Any, path: Path) -> tuple[bool, bool]:
    """Whether rows and columns must be turned round. Patient axes point left, back and up."""
    direction = _numbers(image, "ImageOrientationPatient").reshape(2, 3)
    along_columns, along_rows = direction
    if abs(along_columns[0]) < 0.99 or abs(along_rows[1]) < 0.99:
        raise InputError(
            f"{path}: 'ImageOrientationPatient' is {list(map(float, direction.ravel()))}: the planes are tilted or not "
            "axial; resample the series to axial planes first."
        )
    return bool(along_rows[1] < 0), bool(along_columns[0] > 0)


def _spacing(heights: np.ndarray, folder: Path) -> float:
    if len(heights) < 2:
        return 1.0
    steps = np.diff(heights)
    usual = float(np.median(steps))
    if not usual > 0 or (steps < 0.01 * usual).any():
        raise InputError(f"{folder}: 'ImagePositionPatient': several images lie at one height; slices are doubled.")
    wrong = np.abs(steps - usual) > 0.05 * usual
    if wrong.any():
        i = int(wrong.argmax())
        raise InputError(
            f"{folder}: 'ImagePositionPatient': the slices at {heights[i]:.2f} and {heights[i + 1]:.2f} mm are "
            f"{steps[i]:.2f} mm apart, others {usual:.2f} mm; slices are missing."
        )
    return usual


def _hounsfield(image: Any, path: Path) -> np.ndarray:
    for name in ("RescaleSlope", "RescaleIntercept"):
        if name not in image:
            raise InputError(f"{path}: the DICOM image lacks {name}, without which it is not in Hounsfield units.")
    try:
        stored = np.asarray(image.pixel_array)
    except Exception as error:  # pydicom raises what its decoders raise
        raise InputError(f"{path}: 'PixelData' cannot be decoded, truncated or compressed ({error}).") from error
    if stored.ndim != 2:
        raise InputError(f"{path}: 'PixelData' has shape {stored.shape}, expected one image (rows, columns).")
    return (stored * float(image.RescaleSlope) + float(image.RescaleIntercept)).astype(np.float32)
