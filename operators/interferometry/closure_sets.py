r"""Sums of phases and of log amplitudes that no station can corrupt: closed triangles and quadrangles of baselines.

A station's gain :math:`g_i` turns :math:`V_{ij}` into :math:`g_i V_{ij} g_j^\ast`. Within one scan (one time stamp)

======================  =======================================================================  =====================
closure phase           :math:`\psi_{ijk} = \phi_{ij} + \phi_{jk} + \phi_{ki}`                   free of gain phases
log closure amplitude   :math:`\log|V_{ij}| + \log|V_{km}| - \log|V_{ik}| - \log|V_{jm}|`        free of |gains|
======================  =======================================================================  =====================

Both are rows of a matrix :math:`D` with entries -1, 0, 1 acting on the phases :math:`\phi` (log amplitudes) of a scan's
baselines. Most triangles are sums of others. A set of rows that are linearly independent and span all the others says
everything, once: for a scan of N stations with all their baselines :math:`(N-1)(N-2)/2` closure phases and
:math:`N(N-3)/2` log closure amplitudes. Which such set is used does not matter to a Gaussian likelihood with the full
covariance :math:`D\,\mathrm{diag}(s^2)\,D^T`. Here the rows of smallest variance are taken, by the greedy algorithm.

Noise: with thermal noise of standard deviation :math:`\sigma` per real component, phase and log amplitude both have
:math:`s = \sigma / |V|` to first order and are uncorrelated with each other. The mean of :math:`\log|V|` is that of the
noiseless one up to :math:`e^{-|V|^2 / 2\sigma^2}`, because the logarithm is harmonic: no debiasing.

References:
    Closure Statistics in Interferometric Data. Blackburn, Pesce, Johnson, Wielgus, Chael, Christian and Doeleman, 2020.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scidiff.linalg.blocks import BlockDiagonal
from scidiff.operators.recorded import Recorded

__all__ = ["ClosureSet", "quadrangles", "triangles"]


@dataclass(frozen=True)
class ClosureSet(Recorded):
    r"""Independent rows of the matrix :math:`D`, each with the same number r of entries.

    Arguments:
        index: Visibilities that enter each row, (m, r) integers.
        sign: Their entries of :math:`D`, (m, r), -1 or 1.
        stations: Stations of each row in the order of the formula, (m, 3) or (m, 4).
        scan: Number of the scan of each row, (m,), not decreasing.
        visibilities: Number n of visibilities.
    """

    index: Tensor
    sign: Tensor
    stations: Tensor
    scan: Tensor
    visibilities: int

    def __len__(self) -> int:
        return len(self.index)

    def design(self) -> Tensor:
        """The matrix :math:`D`, (m, n), float64."""
        return torch.zeros(len(self), self.visibilities, dtype=torch.float64).scatter_add_(
            1, self.index, self.sign.to(torch.float64)
        )

    def __call__(self, values: Tensor) -> Tensor:
        """``D values``: (..., n) to (..., m)."""
        return (values[..., self.index.to(values.device)] * self.sign.to(values)).sum(-1)

    def covariance(self, std: Any) -> BlockDiagonal:
        r""":math:`D\,\mathrm{diag}(s^2)\,D^T`, one block per scan.

        Arguments:
            std: Standard deviation :math:`s` of the phases or log amplitudes, (n,): :math:`\sigma / |V|`.

        Raises:
            ValueError: if it has another shape, or is not positive and finite where a row needs it.
        """
        std = torch.as_tensor(std).detach().to("cpu", torch.float64)
        if std.shape != (self.visibilities,):
            raise ValueError(f"std must have one entry per visibility, ({self.visibilities},), got {tuple(std.shape)}.")
        used = std[self.index]
        if not bool((used > 0).all()) or not bool(torch.isfinite(used).all()):
            raise ValueError("std = sigma / |V| must be positive and finite; leave out visibilities that are zero.")
        blocks = []
        for rows in torch.split(
            torch.arange(len(self)), torch.unique_consecutive(self.scan, return_counts=True)[1].tolist()
        ):
            index, place = torch.unique(self.index[rows], return_inverse=True)
            d = torch.zeros(len(rows), len(index), dtype=torch.float64).scatter_add_(1, place, self.sign[rows].double())
            d = d * std[index]
            blocks.append(d @ d.mT)
        return BlockDiagonal(blocks)


def triangles(stations: Any, scans: Any, std: Any = None) -> ClosureSet:
    """A minimal set of closed triangles.

    Arguments:
        stations: The two stations i, j of every visibility, (n, 2) integers; each pair at most once per scan.
        scans: Number of the scan (or its time) of every visibility, (n,).
        std: Standard deviation of every phase, (n,): triangles of small variance are preferred. By default all alike,
            so that triangles through the station of lowest number come first.

    Raises:
        ValueError: wrong shapes, a baseline of a station with itself, or one listed twice in a scan.
    """
    return _closed(stations, scans, std, 3, _triangles)


def quadrangles(stations: Any, scans: Any, std: Any = None) -> ClosureSet:
    """A minimal set of closed quadrangles, arguments as in `triangles`, ``std`` that of the log amplitudes."""
    return _closed(stations, scans, std, 4, _quadrangles)


Links = dict[tuple[int, int], tuple[int, int]]
"""Place in the list of visibilities and sign of the phase, for both directions of every baseline of a scan."""


def _triangles(names: list[int], links: Links) -> list[tuple]:
    found = []
    for i, j, k in combinations(names, 3):
        sides = [links.get(s) for s in ((i, j), (j, k), (k, i))]
        if None not in sides:
            found.append((tuple(s[0] for s in sides), tuple(s[1] for s in sides), (i, j, k)))  # type: ignore[index]
    return found


def _quadrangles(names: list[int], links: Links) -> list[tuple]:
    found = []
    for a, b, c, d in combinations(names, 4):
        for i, j, k, m in ((a, b, c, d), (a, b, d, c), (a, c, d, b)):  # the third ratio is the quotient of two
            sides = [links.get(s) for s in ((i, j), (k, m), (i, k), (j, m))]
            if None not in sides:
                found.append((tuple(s[0] for s in sides), (1, 1, -1, -1), (i, j, k, m)))  # type: ignore[index]
    return found


def _closed(
    stations: Any, scans: Any, std: Any, corners: int, list_all: Callable[[list[int], Links], list[tuple]]
) -> ClosureSet:
    pairs, times = np.asarray(stations), np.asarray(scans)
    n = len(pairs)
    if pairs.shape != (n, 2) or pairs.dtype.kind not in "iu":
        raise ValueError(f"stations must be pairs of whole numbers, (n, 2), got {pairs.dtype} {pairs.shape}.")
    if times.shape != (n,):
        raise ValueError(f"scans must have one entry per visibility, ({n},), got {times.shape}.")
    if bool((pairs[:, 0] == pairs[:, 1]).any()):
        raise ValueError(f"visibility {int((pairs[:, 0] == pairs[:, 1]).argmax())} joins a station with itself.")
    variance = np.ones(n) if std is None else np.asarray(std, float) ** 2
    if variance.shape != (n,) or not bool((variance > 0).all()):
        raise ValueError(f"std must be positive with one entry per visibility, ({n},), got shape {variance.shape}.")
    rows: list[tuple] = []
    numbers = []
    known: dict[bytes, list[tuple]] = {}  # without std, scans of the same baselines have the same rows
    order = np.argsort(times, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(times[order])) + 1) if n else []
    for number, members in enumerate(groups):
        inside = pairs[members]
        ordered = np.sort(inside, 1)
        if len(np.unique(ordered, axis=0)) < len(inside):
            raise ValueError(
                f"scan {times[members[0]]} lists a baseline twice; average them, or give them other scans."
            )
        key = inside.tobytes()
        if std is not None or key not in known:
            links: Links = {}
            for place, (i, j) in enumerate(inside.tolist()):
                links[i, j], links[j, i] = (place, 1), (place, -1)
            candidates = list_all(sorted(set(inside.ravel().tolist())), links)
            own = variance[members].tolist()
            candidates.sort(key=lambda row: sum(own[k] for k in row[0]))  # stable  # noqa: B023
            known[key] = _independent(candidates, len(inside))
        for index, sign, names in known[key]:
            rows.append((members[list(index)], sign, names))
            numbers.append(number)
    shape = (len(rows), corners)
    return ClosureSet(
        torch.as_tensor(np.array([r[0] for r in rows], int).reshape(shape)),
        torch.as_tensor(np.array([r[1] for r in rows], int).reshape(shape)),
        torch.as_tensor(np.array([r[2] for r in rows], int).reshape(shape)),
        torch.as_tensor(np.array(numbers, int)),
        n,
    )


def _independent(candidates: list[tuple], columns: int) -> list[tuple]:
    """The rows that are no combination of earlier ones, by elimination."""
    if not candidates:
        return []
    rest = np.zeros((len(candidates), columns))
    rest[np.arange(len(candidates))[:, None], [row[0] for row in candidates]] = [row[1] for row in candidates]
    kept = []
    while True:
        left = np.abs(rest).max(1) > 1e-9
        first = int(left.argmax())
        if not left[first]:
            return kept
        kept.append(candidates[first])
        row = rest[first].copy()
        pivot = int(np.abs(row).argmax())
        rest -= np.outer(rest[:, pivot] / row[pivot], row)
        rest[first] = 0
