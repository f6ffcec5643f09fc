r"""From counts to line integrals: white and dark fields, zingers, and counts that have no logarithm.

.. math:: T = \frac{n - d}{w - d}, \qquad p = -\ln T, \qquad
          \operatorname{var} p \approx \frac{g\,(n - d) + r^2}{(n - d)^2} + \frac{g\,(w - d) + r^2}{F\,(w - d)^2}

with counts :math:`n`, dark field :math:`d`, white field :math:`w` (mean of :math:`F` frames), gain :math:`g` and read
noise :math:`r`. The second term is common to all angles of a bin; it is counted as independent, which is right for few
angles and says too little of rings for many. The logarithm is biased by about half the variance of its first term:
below some 20 photons a bin, use the law of the counts itself.

Nothing is repaired in silence: readings without information are marked in ``valid`` and left out by what follows.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from scidiff.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["line_integrals", "zingers"]


def zingers(counts: np.ndarray, std: np.ndarray, limit: float) -> np.ndarray:
    """Readings far above their neighbours, (..., angle, bin): hit by something that did not come through the object.

    Arguments:
        counts: Counts.
        std: Their standard deviation.
        limit: How many standard deviations above the median of the 3 x 3 neighbourhood is too much.
    """
    from scipy.ndimage import median_filter

    size = (*(1,) * (counts.ndim - 2), 3, 3)
    return counts - median_filter(counts, size=size, mode="nearest") > limit * std


def line_integrals(
    scan: xr.Dataset,
    nonpositive: str = "mask",
    zinger_limit: float | None = None,
    air: int = 0,
    name: str = "the scan",
) -> xr.Dataset:
    """Line integrals with their standard deviation, and which of them can be used.

    Arguments:
        scan: Of `read_scan` or `make_scan`, with ``counts`` or ``sinogram``.
        nonpositive: What to do with readings that are not above the dark field, which have no logarithm: ``"mask"``
            them (with a warning) or raise an ``"error"``.
        zinger_limit: Mask readings that are so many standard deviations above their neighbours (30 is cautious); None
            looks for none.
        air: This many bins at both ends of the detector see no object in any projection: the straight line through
            their means is subtracted from each projection, which corrects a beam that drifts. 0 corrects nothing.
        name: How messages call the scan.

    Returns:
        ``sinogram``, ``noise_std`` (NaN where the file holds line integrals and no counts) and ``valid``, all
        (row, angle, bin); 0 where not valid.

    Raises:
        InputError: readings without a logarithm that shall be an error, or a bin that is never lit.
    """
    import xarray as xr

    if nonpositive not in ("mask", "error"):
        raise InputError(f"nonpositive must be 'mask' or 'error', got {nonpositive!r}.")
    dims = ("row", "angle", "bin")
    if "sinogram" in scan:
        p = np.asarray(scan["sinogram"].transpose(*dims).values, dtype=np.float64)
        std, valid = np.full(p.shape, np.nan), np.ones(p.shape, bool)
    else:
        n = np.asarray(scan["counts"].transpose(*dims).values, dtype=np.float64)
        w, d = (_spread_out(scan, part, n.shape) for part in ("white", "dark"))
        gain, read, frames = (
            float(scan.attrs.get(k, v)) for k, v in (("gain", 1), ("read_noise", 0), ("white_frames", 1))
        )
        signal, beam = n - d, w - d
        if not (beam > 0).any():
            raise InputError(f"{name}: 'white' is nowhere above 'dark': the beam was off, or they were swapped.")
        variance = gain * np.maximum(signal, 0) + read**2
        valid = (signal > 0) & (beam > 0)
        dead = int(np.count_nonzero(~(beam > 0)))
        without = int(np.count_nonzero(~(signal > 0) & (beam > 0)))
        if without and nonpositive == "error":
            raise InputError(
                f"{name}: 'counts': {without} of {n.size} readings are not above the dark field and have no logarithm."
            )
        if without or dead:
            warnings.warn(
                f"{name}: 'counts': {without} of {n.size} readings are not above the dark field, and {dead} have no "
                "beam in the white field; they are left out.",
                stacklevel=2,
            )
        if zinger_limit is not None:
            valid &= ~zingers(n, np.sqrt(np.maximum(variance, gain)), zinger_limit)
        safe_n, safe_w = np.where(valid, signal, 1.0), np.where(valid, beam, 1.0)
        p = np.where(valid, np.log(safe_w / safe_n), 0.0)
        blank = (gain * safe_w + read**2) / (frames * safe_w**2)
        std = np.where(valid, np.sqrt(variance / safe_n**2 + blank), 0.0)
    if not valid.any():
        raise InputError(f"{name}: 'counts': no reading is above the dark field.")
    if air:
        p = np.where(valid, p - _background(p, valid, air, name), 0.0)
    parts = {
        "sinogram": (dims, p.astype(np.float32), {"units": "1", "long_name": "line integral of the attenuation"}),
        "noise_std": (dims, std.astype(np.float32), {"units": "1", "long_name": "standard deviation of the noise"}),
        "valid": (dims, valid, {"long_name": "readings that can be used"}),
    }
    return xr.Dataset(parts, {k: scan[k] for k in ("angle", "bin")}, scan.attrs)


def _spread_out(scan: xr.Dataset, part: str, shape: tuple[int, ...]) -> np.ndarray:
    if part not in scan:
        return np.zeros(shape)
    values = np.asarray(scan[part].values, dtype=np.float64)
    return np.broadcast_to(values if "angle" in scan[part].dims else values[:, None], shape)


def _background(p: np.ndarray, valid: np.ndarray, air: int, name: str) -> np.ndarray:
    """The straight line through the means of the outermost bins of each projection, (row, angle, bin)."""
    bins = p.shape[-1]
    if not 0 < air <= bins // 4:
        raise InputError(f"{name}: air must lie between 0 and a quarter of the {bins} bins, got {air}.")
    ends = []
    for part in (slice(None, air), slice(-air, None)):
        seen = valid[..., part].sum(-1)
        if not (seen > 0).all():
            raise InputError(f"{name}: some projections have no valid reading in the {air} outermost bins; lower air.")
        ends.append((p[..., part].sum(-1) / seen)[..., None])
    first, last = (air - 1) / 2, bins - 1 - (air - 1) / 2
    t = (np.arange(bins) - first) / (last - first)
    return (1 - t) * ends[0] + t * ends[1]
