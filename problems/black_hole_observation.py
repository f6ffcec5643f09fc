r"""Observations of a compact source: prepared from files, or simulated with thermal noise and unknown station gains.

A simulated visibility of the stations i and j in scan t is

.. math:: V_{ijt} = g_{it}\, g_{jt}^* \int I\, e^{2\pi i(ux + vy)} + n, \qquad n \sim N(0, \sigma_{ij}^2)
          \text{ per real component},

with gains whose log amplitudes are normal and whose phases are random over the whole circle: only closure quantities
remain. The brightness comes from a grid ``FINER`` times as fine as that of the inversion.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Generator, Tensor

from scidiff.datasets.interferometry import (
    EHT2017_SEFD,
    add_systematic,
    average,
    flag,
    make_visibilities,
    read_array,
    read_visibilities,
    stack,
    validate_visibilities,
)
from scidiff.errors import InputError
from scidiff.operators.interferometry import Visibilities
from scidiff.operators.interferometry.arrays import EHT_2017, greenwich_hour_angle, thermal_noise, uv_tracks
from scidiff.operators.interferometry.gains import StationGains, draw_gains
from scidiff.operators.interferometry.likelihoods import VisibilityData

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "Editing",
    "coverage",
    "microarcseconds",
    "observed",
    "prepare",
    "read",
    "trivial_closures",
    "visibility_data",
]

FINER = 4
MICROARCSECOND = np.pi / 180 / 3600e6
RA_M87, DEC_M87, MJD = 187.7059, 12.3911, 57854.0
SCAN, CADENCE, FREQUENCY, BANDWIDTH = 300.0, 900.0, 227.07e9, 1.856e9
SAME_PLACE = 1e7  # wavelengths: stations closer than this see the source as one point


def microarcseconds(value: float) -> float:
    """In radians."""
    return value * MICROARCSECOND


@dataclass(frozen=True)
class Editing:
    """What is done to visibilities before imaging.

    Arguments:
        seconds: Length of coherent averages; None averages whole scans, 0 keeps the rows.
        shortest: Shortest baseline kept, wavelengths.
        systematic: Systematic error as a fraction of the amplitude.
        stations: Stations that are left out.
    """

    seconds: float | None
    shortest: float
    systematic: float
    stations: tuple[str, ...] = ()


def read(source: Any) -> xr.Dataset:
    """Visibilities of a file, of several files (days or bands, stacked), or of a Dataset, validated."""
    if isinstance(source, (str, os.PathLike)):
        return read_visibilities(source)
    if isinstance(source, (list, tuple)):
        return stack(*(read(part) for part in source))
    if isinstance(source, np.ndarray):
        raise InputError("visibilities are no plain array: give a file (.csv, .uvfits, .nc) or a Dataset of them.")
    return validate_visibilities(source)


def prepare(data: xr.Dataset, editing: Editing) -> xr.Dataset:
    """Averages, adds systematic errors, measures the closures that must vanish, and flags; in that order."""
    if editing.seconds is None or editing.seconds > 0:
        data = average(data, editing.seconds)
    data = add_systematic(data, editing.systematic)
    trivial = dict(
        zip(("trivial_phase_chi2", "trivial_amplitude_chi2", "trivial_closures"), trivial_closures(data), strict=True)
    )
    data = flag(data, editing.stations, shortest=editing.shortest)
    return data.assign_attrs(prepared=1, **trivial)


def visibility_data(observation: xr.Dataset) -> VisibilityData:
    """Rows as tensors; scans are rows of equal day, frequency and time."""
    names = sorted({*observation["t1"].values.tolist(), *observation["t2"].values.tolist()})
    number = {name: k for k, name in enumerate(names)}
    pairs = zip(observation["t1"].values.tolist(), observation["t2"].values.tolist(), strict=True)
    keys = np.stack([observation[key].values for key in ("mjd", "frequency", "time")], 1)
    return VisibilityData(
        torch.as_tensor(np.stack([observation["u"].values, observation["v"].values], 1)),
        torch.tensor([[number[a], number[b]] for a, b in pairs]),
        torch.as_tensor(np.unique(keys, axis=0, return_inverse=True)[1].ravel()),
        torch.as_tensor(observation["visibility"].values.astype(np.complex64)),
        torch.as_tensor(observation["sigma"].values.astype(np.float32)),
    )


def trivial_closures(data: xr.Dataset, snr: float = 3.0) -> tuple[float, float, int]:
    r"""Do the errors explain what no source can change? Chi2 of phases and log amplitudes, and their number.

    Two stations a and b at one place see the same visibility of a compact source. With any two others, X and Y, the
    gains cancel in :math:`V_{aX} V_{bY} / V_{bX} V_{aY}`, whose phase and logarithm are then zero. Of each scan and
    pair, Y is the station with the least noise. NaN if there are none.
    """
    rows = visibility_data(data)
    snr_of, vis, pairs = rows.snr.double(), rows.vis.to(torch.complex128), rows.stations.tolist()
    short = (torch.hypot(*rows.uv.T) < SAME_PLACE).tolist()
    scans: dict[int, dict[tuple[int, int], tuple[complex, float]]] = {}
    places: dict[int, list[tuple[int, int]]] = {}
    for k, scan in enumerate(rows.scans.tolist()):
        i, j = pairs[k]
        if short[k]:
            places.setdefault(scan, []).append((i, j))
        elif float(snr_of[k]) >= snr:
            value, variance = complex(vis[k]), float(snr_of[k]) ** -2
            scans.setdefault(scan, {}).update({(i, j): (value, variance), (j, i): (value.conjugate(), variance)})
    phase, amplitude, count = 0.0, 0.0, 0
    for scan, twins in places.items():
        links = scans.get(scan, {})
        for a, b in twins:
            others = {x for i, x in links if i == a} & {x for i, x in links if i == b}
            ratios = {x: (links[a, x][0] / links[b, x][0], links[a, x][1] + links[b, x][1]) for x in others}
            if len(ratios) < 2:
                continue
            best = min(ratios, key=lambda x: ratios[x][1])
            for x in ratios.keys() - {best}:
                ratio, variance = ratios[x][0] / ratios[best][0], ratios[x][1] + ratios[best][1]
                phase += np.angle(ratio) ** 2 / variance
                amplitude += np.log(abs(ratio)) ** 2 / variance
                count += 1
    return (float(phase / count), float(amplitude / count), count) if count else (float("nan"), float("nan"), 0)


def coverage(array: str | os.PathLike[str], frequency: float = FREQUENCY) -> xr.Dataset:
    """Baselines and noise of simulated cases; the visibilities are those of the file, or zero.

    Arguments:
        array: ``"eht2017"``, M87 seen by seven stations in April 2017; a table of stations (``.txt``); or a file of
            real visibilities, whose baselines and noise are taken.
        frequency: Of simulated arrays, Hz.

    Raises:
        InputError: what the readers refuse.
    """
    if str(array) != "eht2017" and Path(array).suffix.lower() != ".txt":
        return average(read_visibilities(array))
    if str(array) == "eht2017":
        names = list(EHT_2017)
        xyz, sefd = list(EHT_2017.values()), [EHT2017_SEFD[name] for name in names]
    else:
        table = read_array(array)
        names, xyz, sefd = [s.name for s in table], [s.xyz for s in table], [s.sefd for s in table]
    hours = np.arange(0, 24, CADENCE / 3600)
    angle = greenwich_hour_angle(MJD + hours / 24, RA_M87 / 15)
    try:
        tracks = uv_tracks(xyz, DEC_M87, frequency, angle)
    except ValueError as error:
        raise InputError(f"{array}: {error}") from error
    first, second = (tracks.stations[:, k].numpy() for k in (0, 1))
    columns = {
        "u": tracks.uv[:, 0].numpy(),
        "v": tracks.uv[:, 1].numpy(),
        "visibility": np.zeros(len(tracks), complex),
        "sigma": thermal_noise(sefd, tracks.stations, BANDWIDTH, SCAN).numpy(),
        "time": hours[tracks.scans.numpy()],
        "t1": np.array(names)[first],
        "t2": np.array(names)[second],
        "mjd": MJD,
        "frequency": frequency,
        "band": f"{frequency / 1e9:.1f}GHz",
    }
    attrs = {"source": "simulated", "ra": RA_M87, "dec": DEC_M87, "source_file": "none", "licence": "MIT"}
    return make_visibilities(columns, attrs, str(array))


def observed(image: Tensor, pixel: float, where: xr.Dataset, gain: float, generator: Generator) -> xr.Dataset:
    """Visibilities of a picture on given baselines, with their noise and random gains.

    Arguments:
        image: Brightness (H, W), Jy per pixel.
        pixel: Side of its pixels, microarcseconds.
        where: Baselines and noise.
        gain: Standard deviation of the log amplitudes of the gains.
        generator: Of gains and noise.
    """
    rows = visibility_data(where)
    operator = Visibilities(rows.uv, tuple(image.shape), microarcseconds(pixel))
    clean = operator(image.double()[None, None])[0]
    stations, scans = int(rows.stations.max()) + 1, int(rows.scans.max()) + 1
    gains = draw_gains(scans, stations, gain, generator=generator)
    corrupted = StationGains(gains, rows.stations, rows.scans)(clean[None])[0]
    noise = torch.randn(len(rows), 2, dtype=torch.float64, generator=generator)
    noisy = corrupted.numpy() + where["sigma"].values * torch.view_as_complex(noise).numpy()
    attrs = where["visibility"].attrs
    return where.assign(visibility=(("row",), noisy, attrs)).assign_attrs(source="simulated", gain_std=gain)


def sky_axes(shape: Sequence[int], pixel: float) -> dict[str, Any]:
    """Coordinates y (towards the north) and x (towards the east), microarcseconds, falling: north up and east left."""
    names = {"y": "relative declination", "x": "relative right ascension"}
    return {
        d: (d, ((n - 1) / 2 - np.arange(n)) * pixel, {"units": "microarcsecond", "long_name": names[d]})
        for d, n in zip(("y", "x"), shape, strict=True)
    }
