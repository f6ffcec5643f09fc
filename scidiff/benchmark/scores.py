r"""How far an ensemble is from the exact posterior: numbers with their standard errors.

With the exact mean :math:`m`, variances :math:`v_i` and M members of mean :math:`\hat m`:

==============  =====================================================================================================
``mean_error``  root mean square over entries of :math:`(\hat m_i - m_i) / \sqrt{v_i}`; chance: :math:`1/\sqrt M`
``trace_ratio`` sum of the ensemble's variances (factor 1/(M-1)) over the sum of :math:`v_i`; exact draws have 1
``coverage``    fraction of entries of members inside the exact central 90 % interval of their marginal
``gap``         expected root mean square error of :math:`\hat m` over that of :math:`m`, the best possible one:
                :math:`\sqrt{1 + |\hat m - m|^2 / \sum_i v_i}`; exact draws have :math:`\sqrt{1 + 1/M}`
``distance``    what the problem names, beside ``floor``, its value for exact draws
==============  =====================================================================================================

Distances: ``modes`` is Wasserstein 2 between the exact independent Gaussians of all Hartley modes and Gaussians with
each mode's mean and variance in the ensemble, over the root of the prior's trace; correlations between modes do not
enter. ``sliced`` is sliced Wasserstein 1 to as many exact draws, in the units of the field, a mean over four sets of
them. ``relative`` is the L2 error of the ensemble mean over the norm of the truth; its floor is that of the exact mean.

Standard errors are jackknife estimates over groups of members and take members as independent. Where they are not (a
population), only the scatter between seeds tells; see `scidiff.benchmark.report`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from scidiff.benchmark.exact import ExactProblem, hartley
from scidiff.metrics.transport import sliced_wasserstein

__all__ = ["LEVEL", "scores"]

LEVEL = 0.9
GROUPS = 20
REFERENCES = 4
PROJECTIONS = 128


def scores(problem: ExactProblem, samples: Tensor, generator: Generator) -> dict[str, tuple[float, float]]:
    r"""Every number as (value, standard error); NaN stands for what is not known or does not apply.

    Arguments:
        problem: The problem.
        samples: Draws (M, \*X), M at least 2.
        generator: Source of the random directions and of the exact draws that distances are measured to.
    """
    samples, exact, M = samples.to(torch.float64), problem.exact, len(samples)
    if M < 2:
        raise ValueError("a comparison needs at least two members.")
    u = exact.encode(samples).flatten(1)  # exact mean 0
    variance = (exact.variance.to(u) / exact.scale**2).flatten()
    cdf = exact.marginal_cdf(samples).flatten(1)
    inside = ((cdf >= (1 - LEVEL) / 2) & (cdf <= (1 + LEVEL) / 2)).to(u).mean(1)
    gap = _gap(problem, generator)

    def numbers(rows: Tensor) -> Tensor:
        part = u[rows]
        mean, spread = part.mean(0), part.var(0).sum()
        error = (mean.square() / variance).mean().sqrt()
        return torch.stack([error, spread / variance.sum(), inside[rows].mean(), gap(samples[rows].mean(0))])

    everyone = torch.arange(M)
    groups = min(GROUPS, M) if M > 2 else 0
    left_out = [numbers(everyone[everyone % groups != g]) for g in range(groups)]
    value = numbers(everyone)
    error = torch.full_like(value, math.nan)
    if groups:
        jack = torch.stack(left_out)
        error = ((groups - 1) / groups * (jack - jack.mean(0)).square().sum(0)).sqrt()
    names = ("mean_error", "trace_ratio", "coverage", "gap")
    found = {name: (float(v), float(e)) for name, v, e in zip(names, value, error, strict=True)}
    distance, floor = _distance(problem, samples, generator)
    return {**found, "distance": (distance, math.nan), "floor": (floor, math.nan)}


def _gap(problem: ExactProblem, generator: Generator) -> Callable[[Tensor], Tensor]:
    """The gap of an estimate (``*X``)."""
    exact = problem.exact
    mean = exact.mean.to(torch.float64)
    if problem.readout is None:
        total, read = exact.variance.to(torch.float64).sum(), lambda x: x
    else:
        read = problem.readout
        draws = read(exact.sample(256, generator).to(torch.float64) - mean)
        total = draws.flatten(1).square().sum(1).mean()
    return lambda estimate: (1 + read((estimate - mean)[None]).square().sum() / total).sqrt()


def _distance(problem: ExactProblem, samples: Tensor, generator: Generator) -> tuple[float, float]:
    if problem.distance == "modes":
        return _modes(problem, samples)
    if problem.distance == "sliced":
        return _sliced(problem, samples, generator)
    if problem.distance == "relative":
        return _relative(problem, samples)
    return math.nan, math.nan


def _modes(problem: ExactProblem, samples: Tensor) -> tuple[float, float]:
    exact, M = problem.exact, len(samples)
    c = hartley(samples)
    mean, v = hartley(exact.mean[None].to(c))[0], exact.cov.eigenvalues
    squared = (c.mean(0) - mean).square() + (c.std(0) - v.sqrt()).square()
    bias = math.sqrt(2 / (M - 1)) * math.exp(math.lgamma(M / 2) - math.lgamma((M - 1) / 2))  # E std / std
    floor = float(v.expand(exact.shape).sum()) * (1 / M + 2 - 2 * bias)
    trace = problem.posterior.prior.cov.trace  # type: ignore[attr-defined]
    return math.sqrt(float(squared.sum()) / trace), math.sqrt(floor / trace)


def _sliced(problem: ExactProblem, samples: Tensor, generator: Generator) -> tuple[float, float]:
    M, truth = len(samples), problem.exact.sample
    references = [truth(M, generator).to(torch.float64).flatten(1) for _ in range(REFERENCES)]
    others = [truth(M, generator).to(torch.float64).flatten(1) for _ in range(REFERENCES)]

    def mean(firsts: list[Tensor]) -> float:
        pairs = zip(firsts, references, strict=True)
        return sum(sliced_wasserstein(a, b, PROJECTIONS, 1, generator) for a, b in pairs) / REFERENCES

    return mean([samples.flatten(1)] * REFERENCES), mean(others)


def _relative(problem: ExactProblem, samples: Tensor) -> tuple[float, float]:
    assert problem.truth is not None
    read = problem.readout or (lambda x: x)
    truth = read(problem.truth.to(torch.float64))

    def error(estimate: Tensor) -> float:
        return float((read(estimate.to(torch.float64)[None]) - truth).norm() / truth.norm())

    return error(samples.mean(0)), error(problem.exact.mean)
