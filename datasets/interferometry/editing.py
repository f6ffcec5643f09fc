r"""What is done to visibilities before imaging: averaging in time, flagging, systematic errors, stacking.

Each function returns a new Dataset and notes in its attribute ``history`` what it did.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from scidiff.datasets.interferometry.visibilities import LONG_NAMES, UNITS, validate_visibilities
from scidiff.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["add_systematic", "average", "flag", "scans", "stack"]


def _noted(data: xr.Dataset, text: str) -> xr.Dataset:
    before = data.attrs.get("history")
    return data.assign_attrs(history=f"{before}; {text}" if before else text)


def _setups(data: xr.Dataset) -> np.ndarray:
    """Number of the day and frequency of every row, (rows,)."""
    pairs = np.stack([data["mjd"].values, data["frequency"].values], 1)
    return np.unique(pairs, axis=0, return_inverse=True)[1].ravel()


def scans(data: xr.Dataset, gap: float = 60.0) -> np.ndarray:
    """Number of the scan of every row: times of one day and frequency that follow each other within ``gap`` seconds.

    Arguments:
        data: Visibilities.
        gap: Longest pause inside of a scan, seconds.
    """
    setup, time = _setups(data), np.asarray(data["time"].values, float)
    order = np.lexsort((time, setup))
    new = (np.diff(setup[order]) != 0) | (np.diff(time[order]) * 3600 > gap)
    number = np.empty(len(order), int)
    number[order] = np.concatenate([[0], np.cumsum(new)])
    return number


def average(data: xr.Dataset, seconds: float | None = None, gap: float = 60.0) -> xr.Dataset:
    r"""Coherent averages over time, with the weights :math:`w = 1/\sigma^2`.

    .. math:: \bar V = \frac{\sum w V}{\sum w}, \qquad \bar\sigma = \Big(\sum w\Big)^{-1/2}, \qquad
              \bar u = \frac{\sum w u}{\sum w} .

    All baselines of an average share one time, the mean over their rows, so that closure quantities find each other.
    Averaging presumes phases that stand still: at most some minutes for data whose atmosphere has been corrected.

    Arguments:
        data: Visibilities.
        seconds: Length of an average, counted from the first row of each scan; None averages whole scans.
        gap: Longest pause inside of a scan, seconds.

    Raises:
        InputError: ``seconds`` is not positive.
    """
    if seconds is not None and not seconds > 0:
        raise InputError(f"'seconds' must be positive, got {seconds}; None averages whole scans.")
    scan, time = scans(data, gap), np.asarray(data["time"].values, float)
    first = np.full(scan.max() + 1, np.inf)
    np.minimum.at(first, scan, time)
    step = np.zeros(len(scan)) if seconds is None else np.floor((time - first[scan]) * 3600 / seconds + 1e-6)
    bins = np.unique(np.stack([scan, step], 1), axis=0, return_inverse=True)[1].ravel()
    pairs = np.array([f"{a} {b}" for a, b in zip(data["t1"].values, data["t2"].values, strict=True)])
    _, baseline = np.unique(pairs, return_inverse=True)
    key, start, group = np.unique(np.stack([bins, baseline], 1), axis=0, return_index=True, return_inverse=True)
    group = group.ravel()
    weight = 1 / np.asarray(data["sigma"].values, float) ** 2
    total = np.bincount(group, weight)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(group, weight * values) / total

    vis = data["visibility"].values
    times = np.bincount(bins, time) / np.bincount(bins)
    new = {"visibility": mean(np.real(vis)) + 1j * mean(np.imag(vis)), "sigma": total**-0.5, "time": times[key[:, 0]]}
    new |= {name: mean(data[name].values) for name in ("u", "v")}
    averaged = data.isel(row=start)
    for name, values in new.items():
        averaged[name] = (("row",), values, data[name].attrs)
    what = "whole scans" if seconds is None else f"{seconds:g} s"
    return _noted(averaged, f"averaged coherently over {what}")


def flag(
    data: xr.Dataset,
    stations: Sequence[str] = (),
    baselines: Sequence[tuple[str, str]] = (),
    shortest: float = 0.0,
    longest: float = np.inf,
    snr: float = 0.0,
    keep_mjd: Sequence[float] | None = None,
) -> xr.Dataset:
    r"""Leaves out rows.

    Arguments:
        data: Visibilities.
        stations: Stations to leave out.
        baselines: Pairs of stations to leave out, in any order.
        shortest: Baselines shorter than this many wavelengths are left out. Stations at one place see a jet that is
            much larger than any image of the core: 1e8 leaves these out.
        longest: Baselines longer than this are left out.
        snr: Rows with :math:`|V| < \mathrm{snr}\,\sigma` are left out.
        keep_mjd: Days that are kept; all by default.

    Raises:
        InputError: A station that the data do not hold, or nothing is left.
    """
    t1, t2 = (np.asarray(data[k].values).astype(str) for k in ("t1", "t2"))
    known = set(t1) | set(t2)
    named = {*stations, *(s for pair in baselines for s in pair)}
    if named - known:
        raise InputError(
            f"there is no station '{min(named - known)}' in the data; stations are {', '.join(sorted(known))}."
        )
    length = np.hypot(data["u"].values, data["v"].values)
    keep = ~(np.isin(t1, list(stations)) | np.isin(t2, list(stations)))
    for a, b in baselines:
        keep &= ~(((t1 == a) & (t2 == b)) | ((t1 == b) & (t2 == a)))
    keep &= (length >= shortest) & (length <= longest)
    keep &= np.abs(data["visibility"].values) >= snr * data["sigma"].values
    if keep_mjd is not None:
        keep &= np.isin(data["mjd"].values, list(keep_mjd))
    kept = data.isel(row=np.flatnonzero(keep))
    return validate_visibilities(_noted(kept, f"{int((~keep).sum())} of {len(keep)} rows flagged"), "the flagged data")


def add_systematic(data: xr.Dataset, fraction: float) -> xr.Dataset:
    r"""Adds errors that do not average out, :math:`\sigma^2 \leftarrow \sigma^2 + (f |V|)^2`.

    Arguments:
        data: Visibilities, averaged already.
        fraction: :math:`f`; residual polarisation leakage and the like. For the data of April 2017, 0.02.

    Raises:
        InputError: The fraction is negative.

    References:
        First M87 Event Horizon Telescope Results III, The EHT Collaboration, 2019, doi:10.3847/2041-8213/ab0c57
        (baseline systematic errors of at most 2 % in amplitude and 1 degree in phase).
    """
    if not fraction >= 0:
        raise InputError(f"'fraction' must not be negative, got {fraction}.")
    sigma = np.hypot(data["sigma"].values, fraction * np.abs(data["visibility"].values))
    attrs = data["sigma"].attrs | {"long_name": "thermal noise and systematic error per real component"}
    noted = _noted(data.assign(sigma=(("row",), sigma, attrs)), f"{fraction:g} systematic error added")
    return noted.assign_attrs(systematic=float(np.hypot(data.attrs.get("systematic", 0.0), fraction)))


def stack(*parts: xr.Dataset) -> xr.Dataset:
    """Rows of several days or bands in one Dataset.

    Attributes that all parts share stay; others are joined by semicolons.

    Raises:
        InputError: No part, sources that differ, or the same day and band twice.
    """
    import xarray as xr

    if not parts:
        raise InputError("there is nothing to stack; give at least one Dataset of visibilities.")
    sources = {str(part.attrs.get("source")) for part in parts}
    if len(sources) > 1:
        raise InputError(f"'source' differs: {', '.join(sorted(sources))}; stack visibilities of one source only.")
    seen: set[tuple[float, float]] = set()
    for number, part in enumerate(parts):
        own = set(zip(part["mjd"].values.tolist(), part["frequency"].values.tolist(), strict=True))
        if seen & own:
            mjd, frequency = min(seen & own)
            raise InputError(
                f"part {number}: MJD {mjd:g} at {frequency / 1e9:g} GHz is there already; the data repeat."
            )
        seen |= own
    joined = {}
    for name in UNITS:
        attrs = {"long_name": LONG_NAMES[name]} | parts[0][name].attrs
        joined[name] = (("row",), np.concatenate([part[name].values for part in parts]), attrs)
    attrs = {}
    for key in dict.fromkeys(key for part in parts for key in part.attrs):
        values = list({str(part.attrs[key]): part.attrs[key] for part in parts if key in part.attrs}.values())
        attrs[key] = values[0] if len(values) == 1 else "; ".join(map(str, values))
    return validate_visibilities(xr.Dataset(joined, attrs=attrs), "the stacked data")
