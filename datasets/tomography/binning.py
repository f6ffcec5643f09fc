"""Coarser detectors: neighbouring bins joined, counts added up as one large bin would have counted them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scidiff.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["binned"]


def binned(scan: xr.Dataset, factor: int) -> xr.Dataset:
    """The scan as seen by a detector whose bins are ``factor`` times as wide; bins left over at the end are dropped.

    Counts, white and dark fields are added up (the gain stays, the variance of the read noise adds up), line integrals
    are averaged. The detector coordinate ``c`` of an axis becomes ``(c - (factor - 1) / 2) / factor``.

    Arguments:
        scan: Of `read_scan`, with ``counts`` or ``sinogram``.
        factor: How many bins become one.
    """
    bins = scan.sizes["bin"]
    if factor < 1 or bins // factor < 4:
        raise InputError(f"'bin': {bins} bins cannot be joined by {factor}: at least 4 must remain.")
    if factor == 1:
        return scan
    whole = scan.isel(bin=slice(bins // factor * factor))
    parts = {}
    for name, array in whole.data_vars.items():
        if "bin" not in array.dims:
            parts[name] = array
            continue
        window = array.coarsen(bin=factor)
        joined = window.mean() if name == "sinogram" else window.sum()  # type: ignore[attr-defined]
        parts[name] = joined.assign_attrs(array.attrs)
    width = float(scan.attrs["bin_width"]) * factor
    first = float(scan["bin"][0]) + (factor - 1) / 2 * float(scan.attrs["bin_width"])
    coordinate = first + np.arange(bins // factor) * width
    found = whole.coords.to_dataset().drop_vars("bin").assign(parts)
    found = found.assign_coords(bin=("bin", coordinate, scan["bin"].attrs))
    attrs = {**scan.attrs, "bin_width": width, "binning": int(scan.attrs.get("binning", 1)) * factor}
    if "read_noise" in attrs:
        attrs["read_noise"] = float(attrs["read_noise"]) * factor**0.5
    return found.assign_attrs(attrs)
