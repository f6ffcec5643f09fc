r"""Scores of an answer that mean the same on every problem.

================  ====================================================================================================
``rmse``          root mean square error of the mean, units of the field
``relative_l2``   :math:`\|\bar x - x^*\| / \|x^*\|`
``psnr``          :math:`20 \log_{10}` of the truth's range over ``rmse``, dB
``crps``          fair continuous ranked probability score, mean over the field; of one estimate its absolute error
``spread_skill``  predicted over actual error of the mean, 1 if calibrated
``coverage``      share of the field inside its 90 % interval
``rank``          of the truth among the members in distance to a reference point that knows the data (TARP), 0 to 1
``chi2``          median over members of the mean squared whitened residual
================  ====================================================================================================

A single estimate has no ``spread_skill``, ``coverage`` and ``rank``. Calls of the operator made here are not counted.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from scidiff.benchmark.calibration import rank_of, reference_point, state_of
from scidiff.benchmark.questions import Question
from scidiff.inference import Ensemble
from scidiff.metrics import coverage, crps, psnr, rank_histogram, rmse, spread_skill

__all__ = ["judge"]


def judge(asked: Question, ensemble: Ensemble) -> tuple[dict[str, float], list[int]]:
    """Scores by name, and how often the truth has each rank among the members, point by point (empty if unknown)."""
    x, generator = ensemble.samples, Generator().manual_seed(asked.seed + 77_001)
    found: dict[str, float] = {}
    with torch.no_grad():
        parts = [part for part in asked.posterior.likelihoods if part.whitens]
        if parts:
            each = [torch.cat([part.residual(member) for part in parts], 1).square().mean() for member in x]
            found["chi2"] = float(torch.stack(each).median())
    if asked.truth is None:
        return found, []
    truth = asked.truth.to(x)
    mean = x.mean(0)
    size = truth.abs() if truth.is_complex() else truth
    span = float(size.max() - size.min()) if not truth.is_complex() else float(size.max())
    found |= {
        "rmse": float(rmse(mean, truth)),
        "relative_l2": float((mean - truth).abs().square().sum().sqrt() / truth.abs().square().sum().sqrt()),
    }
    if span > 0:
        found["psnr"] = float(psnr(mean, truth, span))
    if len(x) < 2:
        return found | {"crps": float(crps(x, truth, fair=False).mean())}, []
    found |= {
        "crps": float(crps(x, truth).mean()),
        "spread_skill": float(spread_skill(x, truth)),
        "coverage": float(coverage(x, truth, 0.9)),
    }
    reference, _ = reference_point(asked.posterior, generator)
    both = torch.cat([truth[None], x])
    distance = torch.stack([_distance(asked, member, reference) for member in both])
    found["rank"] = (float(rank_of(distance, generator)[0]) + 0.5) / (len(x) + 1)
    counts: Any = rank_histogram(x, truth, generator)[0]
    return found, [int(n) for n in counts]


def _distance(asked: Question, x: Tensor, reference: Tensor) -> Tensor:
    return (state_of(asked.posterior, x) - state_of(asked.posterior, reference)).norm(dim=-1)
