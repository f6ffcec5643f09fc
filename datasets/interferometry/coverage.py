r"""Where an array of telescopes samples the plane of baselines while the Earth turns.

With stations at geocentric positions :math:`X` (metres), the source at right ascension :math:`\alpha` and declination
:math:`\delta`, and the hour angle :math:`H = \theta - \alpha` of the Greenwich meridian (:math:`\theta`, Greenwich
sidereal time), the unit vectors towards east and north on the sky are

.. math:: e = (\sin H, \cos H, 0), \qquad n = (-\sin\delta\cos H, \sin\delta\sin H, \cos\delta),

and the baseline of stations 1 and 2 is :math:`(u, v) = (X_1 - X_2) \cdot (e, n) \, f / c` for visibilities
:math:`V = \int I e^{+2\pi i(ux + vy)}`, the sign of the public data. A station sees the source while it stands higher than a smallest elevation.
The noise of a baseline follows from the stations' sensitivities (SEFD, jansky), the bandwidth and the time,

.. math:: \sigma = \frac{1}{\eta} \sqrt{\frac{S_1 S_2}{2\, \Delta\nu\, \tau}} ,

with :math:`\eta = 0.88` for two bits a sample.

References:
    Interferometry and Synthesis in Radio Astronomy, Thompson, Moran & Swenson, 2017, chapters 4 and 6.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scidiff.datasets.interferometry.visibilities import make_visibilities
from scidiff.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["EHT2017", "Station", "coverage", "read_array"]

LIGHT = 299_792_458.0
EFFICIENCY = 0.88


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


# Positions from the antenna table of the public data (release 2019-D01-01, public domain), rounded to metres.
# Sensitivities: fitted to the noise of those data (11 April, low band) by the formula above, rounded to two digits.
EHT2017 = (
    Station("AA", (2225061.0, -5440060.0, -2481681.0), 74.0),
    Station("AP", (2225040.0, -5441198.0, -2479303.0), 5700.0),
    Station("AZ", (-1828796.0, -5054407.0, 3427865.0), 8600.0),
    Station("JC", (-5464585.0, -2493001.0, 2150654.0), 21000.0),
    Station("LM", (-768716.0, -5988507.0, 2063355.0), 4500.0),
    Station("PV", (5088968.0, -301681.0, 3825012.0), 5900.0),
    Station("SM", (-5464555.0, -2492928.0, 2150797.0), 9900.0),
)


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


def sidereal_angle(mjd: float, hours: np.ndarray) -> np.ndarray:
    """Greenwich mean sidereal time in radians, to a second of time; no nutation, UT1 taken as UTC."""
    days = mjd - 51544.5 + np.asarray(hours) / 24
    return np.deg2rad((280.46061837 + 360.98564736629 * days) % 360)


def coverage(
    stations: tuple[Station, ...] = EHT2017,
    ra: float = 187.7059,
    dec: float = 12.3911,
    mjd: float = 57854.0,
    hours: tuple[float, float] = (0.0, 24.0),
    cadence: float = 600.0,
    integration: float = 240.0,
    frequency: float = 227.07e9,
    bandwidth: float = 1.856e9,
    elevation: float = 10.0,
    name: str = "simulated",
) -> xr.Dataset:
    """Baselines and thermal noise of an array that looks at one source; visibilities are zero.

    Arguments:
        stations: At least two.
        ra, dec: Of the source, degrees; those of M87 by default.
        mjd: Day of the observation.
        hours: First and last time, hours UTC.
        cadence: Time from scan to scan, seconds.
        integration: Length of a scan, seconds; it sets the noise.
        frequency, bandwidth: Hz.
        elevation: Smallest elevation, degrees above a sphere's horizon.
        name: Of the source.

    Raises:
        InputError: Fewer than two stations, or none that sees the source together with another.
    """
    if len(stations) < 2:
        raise InputError(f"{len(stations)} stations; an interferometer needs two.")
    time = np.arange(hours[0], hours[1], cadence / 3600) + integration / 7200
    hour_angle = sidereal_angle(mjd, time) - math.radians(ra)
    delta, H = math.radians(dec), hour_angle
    east = np.stack([np.sin(H), np.cos(H), np.zeros_like(H)], -1)
    north = np.stack(
        [-math.sin(delta) * np.cos(H), math.sin(delta) * np.sin(H), np.full_like(H, math.cos(delta))], -1
    )
    towards = np.stack(
        [math.cos(delta) * np.cos(H), -math.cos(delta) * np.sin(H), np.full_like(H, math.sin(delta))], -1
    )
    xyz = np.array([s.xyz for s in stations])
    up = xyz / np.linalg.norm(xyz, axis=1, keepdims=True)
    seen = towards @ up.T > math.sin(math.radians(elevation))
    first, second = np.triu_indices(len(stations), 1)
    when, pair = np.nonzero(seen[:, first] & seen[:, second])
    if not len(when):
        raise InputError("no two stations see the source together; change 'dec', 'hours' or the stations.")
    i, j = first[pair], second[pair]
    baseline = (xyz[i] - xyz[j]) * frequency / LIGHT
    sefd = np.array([s.sefd for s in stations])
    names = np.array([s.name for s in stations])
    columns = {
        "u": (baseline * east[when]).sum(1),
        "v": (baseline * north[when]).sum(1),
        "visibility": np.zeros(len(when), complex),
        "sigma": np.sqrt(sefd[i] * sefd[j] / (2 * bandwidth * integration)) / EFFICIENCY,
        "time": time[when],
        "t1": names[i],
        "t2": names[j],
        "mjd": mjd,
        "frequency": frequency,
        "band": f"{frequency / 1e9:.1f}GHz",
    }
    attrs = {"source": name, "ra": ra, "dec": dec, "source_file": "none", "sha256": "none", "licence": "MIT"}
    return make_visibilities(columns, attrs, "the simulated coverage")
