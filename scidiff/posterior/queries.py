r"""Many operator calls per row, for methods that know an operator by its values alone.

The deviance :math:`\Delta(u) = 2 \log p(y | y) - 2 \log p(y | u)` is a misfit without units: the squared whitened
residual :math:`\|r(u)\|^2` for Gaussian noise, the Poisson deviance for counts; constants of the density cancel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from scidiff.inference import Cost
from scidiff.posterior.base import Run
from scidiff.posterior.measurement import Measurement

__all__ = ["AT_ONCE", "candidates", "deviances", "directions", "mark", "numbers", "variability"]

AT_ONCE = 32
"""Queries of each row in one operator call. Fixed, so that a member draws the same numbers alone and with others."""


def numbers(run: Run) -> int:
    """Real numbers n in the data of one row."""
    return sum(math.prod(p.y.shape[1:]) * (2 if p.y.is_complex() else 1) for p in run.posterior.likelihoods)


def candidates(run: Run, u: Tensor, deviance: bool = True) -> Tensor:
    r"""Deviances (k, rows), or log likelihoods, of the states ``u`` (k, rows, \*S); k operator calls per row.

    NaN where the operator failed; ``run.lost`` then holds a failure of each row. See `mark`.
    """
    k, rows = u.shape[:2]
    tiled = run.posterior.tile(k)
    measurement = Measurement(tiled, Cost(), lambda row, failure: run.failed(row % rows, failure))
    if not deviance:
        value = measurement.log_prob(u.flatten(0, 1))
    elif all(part.whitens for part in tiled.likelihoods):
        value = measurement.residual(u.flatten(0, 1)).square().sum(1)
    else:
        perfect = torch.stack([p.noise.log_prob(p.y, p.y) for p in tiled.likelihoods]).sum(0)
        value = 2 * (perfect - measurement.log_prob(u.flatten(0, 1)))
    run.cost.operator += k
    run.measurement.sums.extend(measurement.sums)
    if measurement.failed:
        value = value.index_fill(0, torch.tensor(sorted(measurement.failed), device=u.device), torch.nan)
        run.lost.update({row % rows: failure for row, failure in measurement.failed.items()})
    return value.unflatten(0, (k, rows))


def deviances(run: Run, u: Tensor) -> Tensor:
    r"""Deviances (rows,) of the states ``u`` (rows, \*S); n, and the row marked, where the operator failed."""
    value = candidates(run, u[None])[0].clamp(min=0)
    return torch.where(mark(run, value.isnan()), float(numbers(run)), value) if run.lost else value


def mark(run: Run, rows: Tensor) -> Tensor:
    """Marks the rows of the run that cannot go on, boolean (rows,), since too many of their queries failed."""
    for row in rows.nonzero()[:, 0].tolist():
        if row in run.lost:
            run.measurement.failed[row] = run.lost[row]
    return rows


def variability(run: Run, like: Tensor) -> Tensor:
    r"""Root mean square :math:`c = \max(1, \sqrt{\Delta(0)/n})` of the whitened residual of the prior mean, (rows,)."""
    return (deviances(run, torch.zeros_like(like)) / numbers(run)).sqrt().clamp(min=1)


def directions(run: Run, like: Tensor, count: int) -> Iterator[Tensor]:
    r"""Standard normal directions (k, rows, \*S), at most `AT_ONCE` at a time and ``count`` in total."""
    for first in range(0, count, AT_ONCE):
        k = min(AT_ONCE, count - first)
        yield run.streams.randn((k, *like.shape[1:]), like.device, like.dtype).transpose(0, 1)
