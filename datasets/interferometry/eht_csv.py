"""Public tables of the Event Horizon Telescope: one line per baseline and time, Stokes I.

::

    #SRC:M87,DATE(MJD):57854,FREQ:227.0707GHz
    #time(UTC),T1,T2,U(lambda),V(lambda),Iamp(Jy),Iphase(d),Isigma(Jy)
    00.53472224,AA,PV,-4395897344.0000,-4509549056.0000,0.15549293,176.6557,0.00384135

The data of April 2017 (release 2019-D01-01) are in the public domain.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scidiff.datasets.interferometry.visibilities import band_name, make_visibilities
from scidiff.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["read_eht_csv"]

COLUMNS = ("time", "T1", "T2", "U", "V", "Iamp", "Iphase", "Isigma")


def read_eht_csv(path: str | os.PathLike[str]) -> xr.Dataset:
    """Reads one table (one day, one band).

    Returns:
        See `scidiff.datasets.interferometry.visibilities`; ``ra`` and ``dec`` are not in such files.

    Raises:
        InputError: no such file, header or column; a line that is cut off, is no number or has a sigma that is not
            positive. The message names file, line and column.
    """
    from scidiff.datasets.kspace import sha256

    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; expected a table of visibilities (.csv).")
    try:
        text = path.read_text(encoding="ascii")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text table ({error}).") from error
    lines = text.splitlines()
    header = [line[1:] for line in lines if line.startswith("#")]
    facts = dict(re.findall(r"(SRC|DATE\(MJD\)|FREQ):([^,]+)", header[0] if header else ""))
    for key in ("SRC", "DATE(MJD)", "FREQ"):
        if key not in facts:
            raise InputError(
                f"{path}: the first line must state '{key}:', as in '#SRC:M87,DATE(MJD):57854,FREQ:227GHz'."
            )
    names = [name.partition("(")[0].strip() for name in header[-1].split(",")]
    missing = [name for name in COLUMNS if name not in names]
    if missing or len(header) < 2:
        raise InputError(
            f"{path}: there is no column '{missing[0] if missing else COLUMNS[0]}'; expected "
            f"{', '.join(COLUMNS)}, found {', '.join(names)}."
        )
    frequency = _frequency(facts["FREQ"], path)
    try:
        mjd = float(facts["DATE(MJD)"])
    except ValueError as error:
        raise InputError(f"{path}: 'DATE(MJD)' is {facts['DATE(MJD)']!r}, expected a number.") from error
    columns: dict[str, list] = {name: [] for name in COLUMNS}
    places = {name: names.index(name) for name in COLUMNS}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        cells = line.split(",")
        if len(cells) != len(names) or (number == len(lines) and not text.endswith("\n")):
            raise InputError(
                f"{path}: line {number} has {len(cells)} of {len(names)} columns; 'Isigma' is missing or cut off. Is "
                "the file truncated?"
            )
        for name in COLUMNS:
            columns[name].append(
                cells[places[name]] if name in ("T1", "T2") else _number(cells, places, name, path, number)
            )
        if columns["Isigma"][-1] <= 0:
            raise InputError(f"{path}: line {number}: 'Isigma' must be positive, found {columns['Isigma'][-1]:g} Jy.")
    phase = np.deg2rad(np.asarray(columns["Iphase"], float))
    found = {
        "u": columns["U"],
        "v": columns["V"],
        "visibility": np.asarray(columns["Iamp"], float) * np.exp(1j * phase),
        "sigma": columns["Isigma"],
        "time": columns["time"],
        "t1": columns["T1"],
        "t2": columns["T2"],
        "mjd": mjd,
        "frequency": frequency,
        "band": band_name(frequency, path),
    }
    attrs = {
        "source": facts["SRC"],
        "source_file": path.name,
        "sha256": sha256(path),
        "licence": "see the release; EHT 2019-D01-01: public domain (ODC-PDDL)",
    }
    return make_visibilities(found, attrs, str(path))


def _frequency(text: str, path: Path) -> float:
    match = re.fullmatch(r"\s*([0-9.]+)\s*([MG]?Hz)\s*", text)
    if not match:
        raise InputError(f"{path}: 'FREQ' is {text!r}, expected a number with Hz, MHz or GHz.")
    return float(match.group(1)) * {"Hz": 1.0, "MHz": 1e6, "GHz": 1e9}[match.group(2)]


def _number(cells: list[str], places: dict[str, int], name: str, path: Path, line: int) -> float:
    try:
        return float(cells[places[name]])
    except ValueError as error:
        raise InputError(f"{path}: line {line}: '{name}' is {cells[places[name]]!r}, expected a number.") from error
