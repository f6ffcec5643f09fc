"""Tables of radio telescopes: names, positions, sensitivities."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from scidiff.errors import InputError

__all__ = ["EHT2017_SEFD", "Station", "read_array"]

EHT2017_SEFD = {"AA": 74.0, "AP": 5700.0, "AZ": 8600.0, "JC": 21000.0, "LM": 4500.0, "PV": 5900.0, "SM": 9900.0}
"""System equivalent flux densities in jansky, fitted to the noise of the public data of 11 April 2017 (low band)."""


@dataclass(frozen=True)
class Station:
    """A telescope.

    Arguments:
        name: As in the data.
        xyz: Geocentric position, metres.
        sefd: System equivalent flux density, jansky.
    """

    name: str
    xyz: tuple[float, float, float]
    sefd: float


def read_array(path: str | os.PathLike[str]) -> tuple[Station, ...]:
    """Reads a table of stations: lines ``name X Y Z SEFD ...``, metres and jansky; ``#`` begins a comment.

    Raises:
        InputError: no such file, or a line without five columns of that kind.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; expected a table of stations.")
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        cells = line.partition("#")[0].split()
        if not cells:
            continue
        try:
            x, y, z, sefd = map(float, cells[1:5])
        except ValueError as error:
            raise InputError(f"{path}: line {number}: expected 'name X Y Z SEFD', found {line.strip()!r}.") from error
        if not sefd > 0:
            raise InputError(f"{path}: line {number}: 'SEFD' must be positive, found {sefd:g} Jy.")
        found.append(Station(cells[0], (x, y, z), sefd))
    if len(found) < 2:
        raise InputError(f"{path}: {len(found)} stations; an interferometer needs two.")
    return tuple(found)
