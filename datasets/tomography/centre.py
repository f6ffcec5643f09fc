r"""Where the axis of rotation projects to: opposite projections are mirror images of each other about it.

A parallel projection at angle :math:`\theta + 180` degrees is the one at :math:`\theta` read backwards:
:math:`p_{\theta + 180}(s) = p_\theta(2 c - s)`. For every trial :math:`c` the two are compared where both were
measured; the best half bin is refined by a parabola through the misfits beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scidiff.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["centre_of_rotation"]


def centre_of_rotation(sinogram: xr.DataArray, pairs: int = 16, name: str = "the scan") -> float:
    """The detector coordinate of the axis, in bins: 0 is the middle of the first bin.

    Arguments:
        sinogram: Line integrals (angle, bin), or (row, angle, bin), of which all rows are used.
        pairs: Most pairs of opposite projections that are compared. A scan that ends one step short of half a turn has
            one pair, of which the second is extrapolated from the last two projections.
        name: How messages call the scan.

    Raises:
        InputError: the scan holds no two opposite projections.
    """
    array = sinogram if "row" in sinogram.dims else sinogram.expand_dims("row")
    values = np.asarray(array.transpose("angle", "row", "bin").values, dtype=np.float64)
    angles = np.asarray(array["angle"].values, dtype=np.float64)
    order = np.argsort(angles)
    values, angles = values[order], angles[order]
    step = float(np.median(np.diff(angles)))
    found = []
    for i in range(len(angles)):
        opposite = _at(values, angles, angles[i] + 180.0, step)
        if opposite is not None:
            found.append((values[i], opposite[..., ::-1]))
    if not found:
        raise InputError(
            f"{name}: 'angle' spans {np.ptp(angles):.4g} degrees: no two projections are opposite, which the search "
            "for the centre of rotation needs. Give it: centre=..., in bins."
        )
    chosen = [found[i] for i in np.unique(np.linspace(0, len(found) - 1, min(pairs, len(found))).round().astype(int))]
    first, mirrored = (np.concatenate(part) for part in zip(*chosen, strict=True))
    return _best(first, mirrored)


def _at(values: np.ndarray, angles: np.ndarray, target: float, step: float) -> np.ndarray | None:
    """The projection at an angle: interpolated, or extrapolated by at most one step and a bit; None beyond."""
    if target > angles[-1] + 1.05 * step or target < angles[0]:
        return None
    j = int(np.clip(np.searchsorted(angles, target), 1, len(angles) - 1))
    width = angles[j] - angles[j - 1]
    if width <= 0:
        return values[j]
    t = (target - angles[j - 1]) / width
    return (1 - t) * values[j - 1] + t * values[j]


def _best(first: np.ndarray, mirrored: np.ndarray) -> float:
    """The centre for which (n, bin) and mirrored (n, bin) agree best."""
    bins = first.shape[-1]
    # Index s of the one meets index bins - 1 - (2 c - s) of the mirrored other: a shift by 2 c - (bins - 1).
    shifts = np.arange(-(bins // 2), bins // 2 + 1)
    misfit = np.empty(len(shifts))
    for k, shift in enumerate(shifts):
        a = first[:, max(0, shift) : bins + min(0, shift)]
        b = mirrored[:, max(0, -shift) : bins + min(0, -shift)]
        # What lies beyond the overlap has no partner; counting it as unexplained keeps small overlaps from winning.
        beyond = (first**2).sum() - (a**2).sum() + (mirrored**2).sum() - (b**2).sum()
        misfit[k] = ((a - b) ** 2).sum() + beyond
    k = int(misfit.argmin())
    offset = 0.0
    if 0 < k < len(shifts) - 1:
        left, middle, right = misfit[k - 1 : k + 2]
        curvature = left - 2 * middle + right
        offset = 0.5 * (left - right) / curvature if curvature > 0 else 0.0
    return float((bins - 1 + shifts[k] + offset) / 2)
