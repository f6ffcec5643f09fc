r"""Series of rain seen by weather radar, from ``.npz`` archives: rain rate in mm/h on a plane, every five minutes.

Two kinds are known by what they hold: sums of five minutes as whole numbers (``rain``, ``scale_mm_per_5min``, ``mask``
of the valid area), and reflectivity :math:`Z` as bytes (``refl``, dBZ = (value - 64) / 2; 0 no echo, 255 no data),
turned into rain by :math:`Z = 200 R^{1.6}`.

References:
    Marshall and Palmer, The distribution of raindrops with size, Journal of Meteorology 5, 1948 (Z and R).
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from scidiff.datasets.series import split_times
from scidiff.errors import InputError

__all__ = ["radar_series"]

FAINT = 10.0
"""dBZ below which an echo is no rain."""


def radar_series(
    file: str | os.PathLike[str],
    coarsen: int = 2,
    spacing: float = 2.0,
    log: bool = True,
    validation: Sequence[str] | None = None,
    test: Sequence[str] | None = None,
) -> xr.Dataset:
    r"""Rain (time, y, x), float32, with ``land`` (y, x) true where the radar never sees.

    Arguments:
        file: The archive.
        coarsen: Side of the squares of pixels that are averaged.
        spacing: Of the pixels in the file, in km.
        log: Gives ``log_rain`` :math:`= \log_{10}(1 + R / (\text{1 mm/h}))`, whose distribution has less of a tail,
            in place of ``rain`` :math:`R` in mm/h.
        validation, test: Stretches kept apart, see `split_times`.

    Raises:
        InputError: naming file and field.
    """
    what = Path(file)
    try:
        with np.load(what, allow_pickle=False) as archive:
            parts = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{what}: cannot be read as a radar archive ({error}).") from error
    if not {"time", "rain", "scale_mm_per_5min", "mask"} <= set(parts) and not {"time", "refl"} <= set(parts):
        raise InputError(
            f"{what}: expected time with rain, scale_mm_per_5min and mask, or with refl; found {', '.join(parts)}."
        )
    if "rain" in parts:
        rate = parts["rain"].astype(np.float64) * float(parts["scale_mm_per_5min"]) * 12
        valid = parts["mask"].astype(bool)
    else:
        dbz = (parts["refl"].astype(np.float64) - 64) / 2
        rate = np.where(dbz >= FAINT, (10 ** (dbz / 10) / 200) ** (1 / 1.6), 0.0)
        valid = (parts["refl"] != 255).all(0)
    time = parts["time"]
    if rate.ndim != 3 or time.shape != rate.shape[:1] or valid.shape != rate.shape[1:] or time.dtype.kind != "M":
        raise InputError(
            f"{what}: shapes {rate.shape}, {time.shape}, {valid.shape} are not (time, y, x), time, (y, x)."
        )
    height, width = (n // coarsen if coarsen >= 1 else 0 for n in valid.shape)
    if min(height, width) < 1:
        raise InputError(f"coarsen must lie between 1 and {min(valid.shape)}, got {coarsen}.")

    def blocks(x: np.ndarray) -> np.ndarray:
        x = x[..., : height * coarsen, : width * coarsen]
        return x.reshape(*x.shape[:-2], height, coarsen, width, coarsen)

    rate, valid = blocks(rate).mean((-3, -1)), blocks(valid).all((-3, -1))
    if not valid.any():
        raise InputError(f"{what}: no square of {coarsen} x {coarsen} pixels is valid at all times.")
    values = np.where(valid, np.log10(1 + rate) if log else rate, np.nan).astype(np.float32)
    about = {"units": "1", "long_name": "log10(1 + rain rate / (mm/h))"} if log else {"units": "mm h-1"}
    sides = {
        n: (n, (np.arange(k) + 0.5) * spacing * coarsen, {"units": "km"})
        for n, k in zip(("y", "x"), (height, width), strict=True)
    }
    data = xr.Dataset(
        {"log_rain" if log else "rain": (("time", "y", "x"), values, about)},
        {"time": time.astype("datetime64[ns]"), **sides},
        {"source_file": what.name},
    )
    data["land"] = (("y", "x"), ~valid, {"units": "1", "long_name": "points that the radar does not see"})
    return data if validation is None and test is None else split_times(data, validation, test)
