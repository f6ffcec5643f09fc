r"""Scores of an answer that mean the same on every problem.

================  ====================================================================================================
``rmse``          root mean square error of the mean, units of the field
``relative_l2``   :math:`\|\bar x - x^*\| / \|x^*\|`
``psnr``          :math:`20 \log_{10}` of the truth's range over ``rmse``, dB
``crps``          fair continuous ranked probability score, mean over the field; of one estimate its absolute error
``spread_skill``  predicted over actual error of the mean, 1 if calibrated
``coverage``      share of the field inside its 90 % interval
``rank``          of the truth among the members in distance to a reference point that knows the data (TARP), 0 to 1
``rank_mean``     of the truth among the members in the mean of the field, 0 to 1
``rank_misfit``   in the mean squared whitened residual; for Gaussian noise this ranks the log likelihood
``chi2``          median over members of the mean squared whitened residual
``farthest``      root mean square of the state u of the member where it is largest; u has unit variance
================  ====================================================================================================

A single estimate has no ``spread_skill``, ``coverage`` and ranks; ``farthest`` needs an affine prior.
Calls of the operator made here are not counted.
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
    misfit = None
    with torch.no_grad():
        if any(part.whitens for part in asked.posterior.likelihoods):
            misfit = torch.stack([_misfit(asked, member) for member in x])
            found["chi2"] = float(misfit.median())
        if asked.posterior.prior.affine:
            states = torch.stack([state_of(asked.posterior, member)[0] for member in x])
            found["farthest"] = float(states.double().square().mean(1).max().sqrt())
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
    found["rank"] = _scaled_rank(distance, generator)
    counts: Any = rank_histogram(x, truth, generator)[0]
    found["rank_mean"] = _scaled_rank(torch.stack([_mean(member) for member in both])[:, None], generator)
    if misfit is not None:
        with torch.no_grad():
            found["rank_misfit"] = _scaled_rank(torch.cat([_misfit(asked, truth)[None], misfit])[:, None], generator)
    return found, [int(n) for n in counts]


def _scaled_rank(q: Tensor, generator: Generator) -> float:
    return (float(rank_of(q, generator)[0]) + 0.5) / len(q)


def _misfit(asked: Question, x: Tensor) -> Tensor:
    parts = [part for part in asked.posterior.likelihoods if part.whitens]
    return torch.cat([part.residual(x) for part in parts], 1).square().mean()


def _mean(x: Tensor) -> Tensor:
    return x.mean().real


def _distance(asked: Question, x: Tensor, reference: Tensor) -> Tensor:
    return (state_of(asked.posterior, x) - state_of(asked.posterior, reference)).norm(dim=-1)
