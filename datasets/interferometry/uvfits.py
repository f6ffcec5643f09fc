r"""UVFITS: visibilities as random groups of a FITS file, with the antennas in a table (``AIPS AN``).

Baselines are stored in seconds, :math:`u = \mathtt{UU} \cdot f`. A group holds correlations of circular (RR, LL, RL,
LR) or linear (XX, YY, XY, YX) feeds or Stokes parameters, each with a weight :math:`1 / \sigma^2`; a weight that is not
positive marks a correlation that was not measured. Total intensity of two feeds is

.. math:: I = \tfrac12 (V_1 + V_2), \qquad \sigma_I = \tfrac12 \sqrt{\sigma_1^2 + \sigma_2^2},

and of a station that received only one of them that one, :math:`I = V_1`, which is right for unpolarised sources. Of
several channels and intermediate frequencies each gives rows of its own.

References:
    AIPS Memo 117, AIPS FITS File Format, Greisen, 2003 (revised 2020).
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scidiff.datasets.interferometry.visibilities import band_name, make_visibilities
from scidiff.errors import InputError
from scidiff.optional import optional

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["read_uvfits"]

PARAMETERS = (("UU",), ("VV",), ("BASELINE",), ("DATE",))
MJD_ZERO = 2400000.5
# Values of the Stokes axis: pairs of parallel hands whose mean is total intensity, and total intensity itself.
PAIRS = ((-1, -2), (-5, -6))


def read_uvfits(path: str | os.PathLike[str]) -> xr.Dataset:
    """Reads one UVFITS file with one source.

    Returns:
        See `scidiff.datasets.interferometry.visibilities`, with ``ra``, ``dec`` (degrees) and the stations' geocentric
        positions as attributes ``stations`` and ``station_xyz`` (metres, flattened).

    Raises:
        InputError: no such file, not UVFITS, truncated, no antenna table, a group parameter or polarisation missing.
        MissingPackageError: ``astropy`` is absent.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; expected UVFITS.")
    fits: Any = optional("astropy.io.fits", "eht", "astropy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # astropy warns of what is an error here: truncation, odd keywords
        try:
            with fits.open(path, memmap=False) as hdus:
                return _read(hdus, path)
        except InputError:
            raise
        except (OSError, TypeError, ValueError, IndexError) as error:
            raise InputError(
                f"{path}: not a whole UVFITS file, the data of the groups cannot be read ({error})."
            ) from error


def _read(hdus: Any, path: Path) -> xr.Dataset:
    from scidiff.datasets.kspace import sha256

    header, first = hdus[0].header, hdus[0]
    if not header.get("GROUPS") or not hasattr(first.data, "parnames"):
        raise InputError(
            f"{path}: no random groups ('GROUPS' is not T): this is a FITS file, but not UVFITS visibilities."
        )
    size = int(first.fileinfo()["datLoc"]) + abs(header["BITPIX"]) // 8 * header["GCOUNT"] * (
        header["PCOUNT"] + int(np.prod([header[f"NAXIS{k}"] for k in range(2, header["NAXIS"] + 1)]))
    )
    if path.stat().st_size < size:
        raise InputError(
            f"{path}: truncated: the groups of 'GCOUNT' end at byte {size}, the file at {path.stat().st_size}."
        )
    names = {hdu.name for hdu in hdus}
    if "AIPS AN" not in names:
        raise InputError(
            f"{path}: no antenna table 'AIPS AN' (found {', '.join(sorted(names))}); stations are unknown."
        )
    antennas = hdus["AIPS AN"].data
    stations = {int(r["NOSTA"]): str(r["ANNAME"]).strip() for r in antennas}
    group = first.data
    value = {key: _parameter(group, key, path) for (key,) in PARAMETERS}
    axes = {header.get(f"CTYPE{k}", "").strip(): k for k in range(2, header["NAXIS"] + 1)}
    for axis in ("COMPLEX", "STOKES", "FREQ"):
        if axis not in axes:
            raise InputError(f"{path}: no axis '{axis}'; found {', '.join(filter(None, axes))}.")
    vis, sigma = _intensity(_ordered(group.data, axes, header), _axis(header, axes["STOKES"]), path)
    frequencies = _frequencies(hdus, header, axes)
    if vis.shape[1] != len(frequencies):
        raise InputError(f"{path}: {vis.shape[1]} channels in the groups, but 'AIPS FQ' states {len(frequencies)}.")
    code = np.rint(value["BASELINE"]).astype(int)
    pair = np.stack([code // 256, code % 256], -1)
    unknown = sorted(set(pair.ravel().tolist()) - set(stations))
    if unknown:
        raise InputError(f"{path}: 'BASELINE' names antenna {unknown[0]}, which the table 'AIPS AN' does not hold.")
    day = np.floor(value["DATE"].min() - MJD_ZERO)
    row, channel = np.nonzero(np.isfinite(sigma))
    if not len(row):
        raise InputError(f"{path}: all weights are zero or negative: nothing was measured.")
    nu = frequencies[channel]
    columns = {
        "u": value["UU"][row] * nu,
        "v": value["VV"][row] * nu,
        "visibility": vis[row, channel],
        "sigma": sigma[row, channel],
        "time": (value["DATE"][row] - MJD_ZERO - day) * 24,
        "t1": [stations[k] for k in pair[row, 0]],
        "t2": [stations[k] for k in pair[row, 1]],
        "mjd": day,
        "frequency": nu,
        "band": [band_name(f, path) for f in nu],
    }
    attrs = {
        "source": str(header.get("OBJECT", "unknown")).strip(),
        "source_file": path.name,
        "sha256": sha256(path),
        "licence": "not stated in the file",
        "stations": ",".join(stations.values()),
        "station_xyz": np.array([r["STABXYZ"] for r in antennas], float).ravel(),
    }
    for name, keys in (("ra", ("OBSRA", "CRVAL6")), ("dec", ("OBSDEC", "CRVAL7"))):
        found = [float(header[k]) for k in keys if k in header]
        if found:
            attrs[name] = found[0]
    return make_visibilities(columns, attrs, str(path))


def _parameter(group: Any, key: str, path: Path) -> np.ndarray:
    """Sum of the group parameters whose name is ``key`` or begins with it and dashes (``UU---SIN``), in float64."""
    place = [k for k, name in enumerate(group.parnames) if name.strip().partition("-")[0] == key]
    if not place:
        raise InputError(f"{path}: no group parameter '{key}'; found {', '.join(group.parnames)}.")
    return sum(np.asarray(group.par(k), float) for k in place)  # type: ignore[return-value]


def _axis(header: Any, k: int) -> np.ndarray:
    """Coordinates along an axis of the groups."""
    index = np.arange(header[f"NAXIS{k}"]) + 1
    return header[f"CRVAL{k}"] + (index - header[f"CRPIX{k}"]) * header[f"CDELT{k}"]


def _ordered(data: np.ndarray, axes: dict[str, int], header: Any) -> np.ndarray:
    """(group, channel of all intermediate frequencies, Stokes, 3)."""
    # numpy's axes run backwards: NAXIS2 is the last, NAXIS<n> the first after the groups.
    count = header["NAXIS"]
    wanted = [count - axes[name] + 1 for name in ("FREQ", "STOKES", "COMPLEX")]
    rest = [k for k in range(1, count) if k not in wanted]
    array = np.transpose(np.asarray(data, float), [0, *rest, *wanted])
    return array.reshape(len(array), -1, *array.shape[-2:])


def _frequencies(hdus: Any, header: Any, axes: dict[str, int]) -> np.ndarray:
    """Frequency of every channel in the order of `_ordered`, Hz."""
    channels = _axis(header, axes["FREQ"])
    if "IF" not in axes or "AIPS FQ" not in {hdu.name for hdu in hdus}:
        return channels
    offsets = np.atleast_1d(np.asarray(hdus["AIPS FQ"].data["IF FREQ"][0], float))
    return (offsets[:, None] + channels).ravel()


def _intensity(data: np.ndarray, stokes: np.ndarray, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Stokes I (group, channel) and sigma; NaN where nothing was measured."""
    values = np.rint(stokes).astype(int).tolist()
    if data.shape[-1] < 3:
        raise InputError(f"{path}: axis 'COMPLEX' has {data.shape[-1]} numbers, expected real, imaginary and weight.")
    vis, weight = data[..., 0] + 1j * data[..., 1], data[..., 2]
    sigma = np.where(weight > 0, 1 / np.sqrt(np.where(weight > 0, weight, 1)), np.nan)
    if 1 in values:
        return vis[..., values.index(1)], sigma[..., values.index(1)]
    hands = [k for pair in PAIRS for k in pair if k in values]
    if not hands:
        raise InputError(f"{path}: axis 'STOKES' holds {values}; expected I (1), RR, LL (-1, -2) or XX, YY (-5, -6).")
    index = [values.index(k) for k in hands[:2]]
    v, s = vis[..., index], sigma[..., index]
    count = np.isfinite(s).sum(-1)
    total = np.where(np.isfinite(s), v, 0).sum(-1)
    spread = np.sqrt(np.nansum(s**2, -1))
    some = np.maximum(count, 1)
    return total / some, np.where(count > 0, spread / some, np.nan)
