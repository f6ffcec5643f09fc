r"""Visibilities of an interferometer as one `xarray.Dataset`: what readers return and `write` keeps.

A visibility is the correlation of two stations; in the plane of baselines (u, v), in wavelengths,

.. math:: V(u, v) = \int I(x, y)\, e^{+2 \pi i (u x + v y)}\, dx\, dy ,

``x`` towards the east and ``y`` towards the north in radians. One row is one baseline at one time:

==============  ============================================================================
``u, v``        baseline, wavelengths
``visibility``  complex Stokes I, Jy
``sigma``       thermal standard deviation per real component, Jy
``time``        hours since 0 h UTC of ``mjd``
``t1, t2``      names of the stations
``mjd``         modified Julian day of 0 h UTC (whole number)
``frequency``   Hz
``band``        name of the frequency band, as ``lo``
==============  ============================================================================

Attributes: ``source``, ``ra`` and ``dec`` in degrees (where the file states them), ``source_file``, ``sha256``,
``licence``. Rows of several days or bands stand in one Dataset (`scidiff.datasets.interferometry.stack`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scidiff.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["make_visibilities", "read_visibilities", "validate_visibilities", "write_visibilities"]

UNITS = {
    "u": "1",
    "v": "1",
    "visibility": "Jy",
    "sigma": "Jy",
    "time": "h",
    "t1": None,
    "t2": None,
    "mjd": "day",
    "frequency": "Hz",
    "band": None,
}
LONG_NAMES = {
    "u": "baseline towards the east, wavelengths",
    "v": "baseline towards the north, wavelengths",
    "visibility": "Stokes I visibility",
    "sigma": "thermal noise per real component",
    "time": "time since 0 h UTC of mjd",
    "t1": "first station",
    "t2": "second station",
    "mjd": "modified Julian day",
    "frequency": "observing frequency",
    "band": "frequency band",
}


def make_visibilities(columns: Mapping[str, Any], attrs: Mapping[str, Any], name: str) -> xr.Dataset:
    """A validated Dataset from columns; ``mjd``, ``frequency`` and ``band`` may be one value for all rows.

    Arguments:
        columns: The variables of the table above.
        attrs: Attributes of the Dataset.
        name: How messages call the data, such as the file's path.

    Raises:
        InputError: See `validate_visibilities`.
    """
    import xarray as xr

    rows = len(np.asarray(columns["u"]))
    found = {}
    for key, units in UNITS.items():
        values = np.asarray(columns[key])
        values = values.astype(str if units is None else complex if key == "visibility" else float)
        extra = {"long_name": LONG_NAMES[key]} | ({"units": units} if units else {})
        found[key] = (("row",), np.broadcast_to(values, (rows,)).copy() if not values.ndim else values, extra)
    return validate_visibilities(xr.Dataset(found, attrs=dict(attrs)), name)


def validate_visibilities(data: xr.Dataset, name: str = "the visibilities") -> xr.Dataset:
    """The same Dataset, if it holds visibilities.

    Raises:
        InputError: naming what is missing or wrong: a variable, its dimension, NaN or infinite numbers, a sigma that is
            not positive, or no rows.
    """
    for key in UNITS:
        if key not in data:
            raise InputError(f"{name}: expected a variable '{key}', found {', '.join(map(str, data.variables))}.")
        if data[key].dims != ("row",):
            raise InputError(f"{name}: '{key}' has dimensions {data[key].dims}, expected ('row',).")
    if not data.sizes["row"]:
        raise InputError(f"{name}: there are no rows; nothing was measured, or everything was flagged.")
    for key in ("u", "v", "visibility", "sigma", "time", "mjd", "frequency"):
        values = np.asarray(data[key].values)
        bad = ~np.isfinite(values)
        if bad.any():
            raise InputError(
                f"{name}: '{key}' holds {int(bad.sum())} NaN or infinite values of {len(values)}, the first in row "
                f"{int(bad.argmax())}; leave such rows out."
            )
    if not np.iscomplexobj(data["visibility"].values):
        raise InputError(f"{name}: 'visibility' holds {data['visibility'].dtype}, expected complex numbers (Jy).")
    for key in ("sigma", "frequency"):
        values = np.asarray(data[key].values)
        if (values <= 0).any():
            row = int((values <= 0).argmax())
            raise InputError(f"{name}: '{key}' must be positive, found {values[row]:g} in row {row}.")
    same = np.asarray(data["t1"].values) == np.asarray(data["t2"].values)
    if same.any():
        row = int(same.argmax())
        raise InputError(
            f"{name}: 't2' in row {row} is '{data['t2'].values[row]}', the same station as 't1'; leave out "
            "autocorrelations."
        )
    return data


def band_name(frequency: float, path: str | os.PathLike[str]) -> str:
    """``lo`` or ``hi`` where the file's name says so, else the frequency as ``227.1GHz``."""
    found = re.search(r"(?:^|_)(lo|hi)(?=[_.])", Path(path).name)
    return found.group(1) if found else f"{frequency / 1e9:.1f}GHz"


def write_visibilities(data: xr.Dataset, path: str | os.PathLike[str]) -> None:
    """Writes NetCDF, whole or not at all; `read_visibilities` gives the same Dataset back."""
    from scidiff.fields import write_dataset

    write_dataset(validate_visibilities(data), path)


def read_visibilities(path: str | os.PathLike[str]) -> xr.Dataset:
    """Reads visibilities from a public EHT table (``.csv``), a UVFITS file or a file of `write_visibilities` (``.nc``).

    Raises:
        InputError: missing or unreadable file, unknown kind, or what the reader of its kind refuses.
        MissingPackageError: UVFITS without the package ``astropy``.
    """
    path = Path(path)
    if not path.is_file():
        found = "it is a folder" if path.is_dir() else "there is no such file"
        raise InputError(f"{path}: cannot read visibilities, {found}.")
    kind = path.suffix.lower()
    if kind in (".csv", ".txt"):
        from scidiff.datasets.interferometry.eht_csv import read_eht_csv

        return read_eht_csv(path)
    if kind in (".uvfits", ".uvf", ".fits"):
        from scidiff.datasets.interferometry.uvfits import read_uvfits

        return read_uvfits(path)
    if kind == ".nc":
        from scidiff.fields import open_result

        with open_result(path) as stored:
            data = stored.load()
        for key in {"t1", "t2", "band"} & set(data.data_vars):
            data[key] = data[key].astype(str)
        return validate_visibilities(data, str(path))
    raise InputError(f"{path}: unknown kind of file '{path.suffix}'; expected .csv, .uvfits or .nc.")
