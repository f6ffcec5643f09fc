r"""Arrays of stations on the turning Earth: which baselines they offer, and how noisy each is.

With positions :math:`(X, Y, Z)` fixed to the Earth (Z to the north pole, X to longitude 0), a source of declination
:math:`\delta` and Greenwich hour angle :math:`H` (sidereal time at Greenwich minus right ascension) sees the
projections

.. math::
    u = (X \sin H + Y \cos H) / \lambda, \qquad
    v = (-X \cos H \sin\delta + Y \sin H \sin\delta + Z \cos\delta) / \lambda

towards east and north; the baseline of stations i, j has :math:`u_i - u_j, v_i - v_j`. The source stands above the
horizon of a station (of a sphere) by the angle between it and the station's position, less than 90 degrees.

References:
    Interferometry and Synthesis in Radio Astronomy, chapter 4. Thompson, Moran and Swenson, 2017, Springer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scidiff.operators.interferometry.units import wavelengths
from scidiff.operators.units import magnitude

__all__ = ["EHT_2017", "UVTracks", "greenwich_hour_angle", "thermal_noise", "uv_tracks"]

EHT_2017: Mapping[str, tuple[float, float, float]] = {
    "AA": (2225060.8136, -5440059.59994, -2481681.15054),  # ALMA, Chile
    "AP": (2225039.5297, -5441197.6292, -2479303.3597),  # APEX, Chile
    "AZ": (-1828796.2, -5054406.8, 3427865.2),  # SMT, Arizona
    "JC": (-5464584.676, -2493001.17, 2150653.982),  # JCMT, Hawaii
    "LM": (-768715.632, -5988507.072, 2063354.852),  # LMT, Mexico
    "PV": (5088967.74544, -301681.18586, 3825012.20561),  # IRAM 30 m, Spain
    "SM": (-5464555.493, -2492927.989, 2150797.176),  # SMA, Hawaii
}
"""Positions in metres of the stations that saw M87* in April 2017, from the antenna table of the public files."""


@dataclass(frozen=True)
class UVTracks:
    """Baselines at successive times.

    Arguments:
        uv: In wavelengths, float64 (n, 2).
        stations: The two stations i < j of each, (n, 2).
        scans: Number of the time of each, (n,).
    """

    uv: Tensor
    stations: Tensor
    scans: Tensor

    def __len__(self) -> int:
        return len(self.uv)


def greenwich_hour_angle(mjd: Any, right_ascension: Any) -> np.ndarray:
    """Greenwich mean sidereal time minus right ascension, hours in [0, 24); good to a second of time.

    Arguments:
        mjd: Modified Julian day (UTC), any shape.
        right_ascension: Hours, or a pint angle.
    """
    if hasattr(right_ascension, "to"):
        right_ascension = magnitude(right_ascension, "degree", "right_ascension") / 15
    days = np.asarray(mjd, float) - 51544.5  # since noon of 1 January 2000
    return (18.697374558 + 24.06570982441908 * days - right_ascension) % 24


def uv_tracks(
    positions: Any, declination: Any, frequency: Any, hour_angles: Any, min_elevation: Any = 10.0
) -> UVTracks:
    """Baselines of an array that follows a source.

    Arguments:
        positions: Of the stations, Earth-fixed, (N, 3) metres or a pint length; or a mapping such as `EHT_2017`.
        declination: Of the source, degrees or a pint angle.
        frequency: Hertz or a pint frequency.
        hour_angles: Greenwich hour angles of the scans, (T,) sidereal hours (15 degrees each) or a pint time.
        min_elevation: Stations that see the source lower than this sit a scan out, degrees or a pint angle.

    Raises:
        ValueError: if shapes or units are wrong, or no two stations ever see the source together.
    """
    if isinstance(positions, Mapping):
        positions = list(positions.values())
    xyz = np.asarray(magnitude(positions, "metre", "positions"), float)
    if xyz.ndim != 2 or xyz.shape[1] != 3 or len(xyz) < 2:
        raise ValueError(f"positions must be (N, 3) with N >= 2, got shape {xyz.shape}.")
    delta = np.deg2rad(magnitude(declination, "degree", "declination"))
    low = np.deg2rad(magnitude(min_elevation, "degree", "min_elevation"))
    hours = np.atleast_1d(np.asarray(magnitude(hour_angles, "hour", "hour_angles"), float))
    h = np.deg2rad(15 * hours)
    source = np.stack([np.cos(delta) * np.cos(h), -np.cos(delta) * np.sin(h), np.full_like(h, np.sin(delta))], -1)
    up = (source @ xyz.T) / np.linalg.norm(xyz, axis=1) >= np.sin(low)  # (T, N)
    x, y, z = wavelengths(xyz, frequency).T
    u = np.sin(h)[:, None] * x + np.cos(h)[:, None] * y
    v = (-np.cos(h)[:, None] * x + np.sin(h)[:, None] * y) * np.sin(delta) + z * np.cos(delta)
    i, j = np.triu_indices(len(xyz), 1)
    scan, pair = np.nonzero(up[:, i] & up[:, j])
    if len(scan) == 0:
        raise ValueError("no two stations see the source together; check declination, hour angles and elevation.")
    i, j = i[pair], j[pair]
    uv = np.stack([u[scan, i] - u[scan, j], v[scan, i] - v[scan, j]], -1)
    return UVTracks(torch.as_tensor(uv), torch.as_tensor(np.stack([i, j], -1)), torch.as_tensor(scan))


def thermal_noise(sefd: Any, stations: Any, bandwidth: Any, time: Any, efficiency: float = 0.88) -> Tensor:
    r"""Noise of a baseline per real component, :math:`\sigma_{ij} = \sqrt{S_i S_j / 2 \Delta\nu \tau} / \eta`, Jy.

    Arguments:
        sefd: System equivalent flux densities :math:`S` of the stations, Jy, (N,).
        stations: Pairs (n, 2).
        bandwidth: :math:`\Delta\nu`, hertz or a pint frequency.
        time: :math:`\tau`, seconds or a pint time.
        efficiency: :math:`\eta` of the sampling, 0.88 for two bits.
    """
    hertz, seconds = magnitude(bandwidth, "hertz", "bandwidth"), magnitude(time, "second", "time")
    s = torch.as_tensor(sefd, dtype=torch.float64)
    i, j = torch.as_tensor(stations).T
    return (s[i] * s[j] / (2 * hertz * seconds)).sqrt() / efficiency
