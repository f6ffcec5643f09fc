"""Stacks of a microscope from TIFF files, with voxel sizes where the file states them.

ImageJ writes the spacing of planes and pixels per unit length, OME-TIFF writes physical sizes; other files hold numbers
only, and the voxel size is given by whoever took the stack.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from scidiff.datasets.kspace import sha256
from scidiff.errors import InputError
from scidiff.optional import optional

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["read_stack"]

_MICRONS = {
    "micron": 1.0,
    "um": 1.0,
    "µm": 1.0,
    "μm": 1.0,
    "micrometer": 1.0,
    "nm": 1e-3,
    "mm": 1e3,
    "cm": 1e4,
    "inch": 25400.0,
}


def read_stack(path: str | os.PathLike[str], voxel: Sequence[float] | None = None) -> xr.DataArray:
    """Reads a stack of planes.

    Arguments:
        path: ``.tif`` or ``.tiff`` with one page per plane.
        voxel: Spacing along z, y and x in micrometres, instead of what the file states.

    Returns:
        (z, y, x) float32 with coordinates in micrometres, or in voxels where no size is known; ``attrs`` hold units
        (``count``), file name, checksum and ``voxel_size``.

    Raises:
        InputError: Missing or unreadable file, not three dimensions, complex, negative or non-finite values.
        MissingPackageError: If tifffile is absent.
    """
    import xarray as xr

    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: cannot read a stack, there is no such file.")
    tifffile = optional("tifffile")
    try:
        with tifffile.TiffFile(path) as file:
            values = file.asarray()
            stated = _stated(file)
    except (tifffile.TiffFileError, OSError, ValueError, IndexError, KeyError) as error:
        raise InputError(f"{path}: not a readable TIFF file ({error}).") from error
    if values.ndim != 3 or min(values.shape) < 1:
        raise InputError(f"{path}: expected a stack (z, y, x), one page per plane; found shape {values.shape}.")
    if values.dtype.kind not in "fiu":
        raise InputError(f"{path}: expected real intensities, found {values.dtype}.")
    values = values.astype(np.float32)
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise InputError(f"{path}: the stack holds {bad} NaN or infinite values.")
    if values.min() < 0:
        raise InputError(f"{path}: intensities are counts, found negative ones, down to {values.min():.4g}.")
    size = stated if voxel is None else tuple(float(v) for v in voxel)
    if size is not None and (len(size) != 3 or not min(size) > 0):
        raise InputError(f"{path}: voxel sizes must be three positive numbers (z, y, x) in micrometres, got {size}.")
    units = "voxel" if size is None else "um"
    coords = {
        dim: (dim, np.arange(n, dtype=float) * step, {"units": units if units == "um" else "1"})
        for dim, n, step in zip("zyx", values.shape, size or (1.0, 1.0, 1.0), strict=True)
    }
    attrs: dict[str, Any] = {
        "units": "count",
        "long_name": "camera counts",
        "source_file": path.name,
        "sha256": sha256(path),
    }
    if size is not None:
        attrs |= {"voxel_size": list(size), "voxel_size_units": "um"}
    return xr.DataArray(values, coords, ("z", "y", "x"), "stack", attrs)


def _stated(file: Any) -> tuple[float, float, float] | None:
    """Voxel size (z, y, x) in micrometres, where the file states all three."""
    if file.is_ome:
        for element in ElementTree.fromstring(file.ome_metadata).iter():
            if element.tag.endswith("Pixels"):
                names = [f"PhysicalSize{axis}" for axis in "ZYX"]
                factors = [_MICRONS.get(element.get(f"{name}Unit", "µm").strip(), 0.0) for name in names]
                if all(element.get(name) for name in names) and all(factors):
                    z, y, x = (float(element.get(n, "0")) * f for n, f in zip(names, factors, strict=True))
                    return z, y, x
    if file.is_imagej:
        about = file.imagej_metadata or {}
        unit = re.sub(r"\\\\u00b5", "µ", str(about.get("unit", ""))).strip()
        tags = file.pages[0].tags
        if "spacing" in about and unit in _MICRONS and {"XResolution", "YResolution"} <= {t.name for t in tags}:
            per_unit = [tags[name].value for name in ("YResolution", "XResolution")]
            if all(top > 0 and bottom > 0 for top, bottom in per_unit):
                y, x = (_MICRONS[unit] * bottom / top for top, bottom in per_unit)
                return float(about["spacing"]) * _MICRONS[unit], y, x
    return None
