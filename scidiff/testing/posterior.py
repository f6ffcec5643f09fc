"""Checks of samplers: ensembles against exact posteriors, and the same problem in other units."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Generator, Tensor

from scidiff.inference import Ensemble, Posterior
from scidiff.protocols import PosteriorSampler
from scidiff.testing.numbers import norm, require

__all__ = ["ExactPosterior", "PosteriorReport", "check_posterior", "check_unit_independence", "compare_with_exact"]


def check_unit_independence(
    sampler: PosteriorSampler,
    build: Callable[[float], Posterior],
    *,
    factors: Sequence[float] = (1e-6, 1e3),
    members: int = 4,
    tolerance: float = 1e-3,
    convert: Callable[[Tensor, float], Tensor] = lambda samples, factor: samples / factor,
    generator: Generator | None = None,
) -> float:
    r"""Checks that a problem written in other units gives the same ensemble in those units.

    Arguments:
        sampler: The sampler, or any function of (posterior, members, generator=...) that returns an ensemble.
        build: ``build(factor)`` is one problem whose field, operator, noise and measurement are in units in which
            all values of the field are ``factor`` times those of ``build(1.0)``.
        factors: Changes of units to try.
        members: Members to draw.
        tolerance: Largest accepted difference relative to the root mean square deviation from the ensemble mean.
        convert: Takes samples of ``build(factor)`` back to the units of ``build(1.0)``; give your own for units with
            an offset (kelvin and degrees Celsius).
        generator: Source of randomness, equal for all draws; a fixed one by default.

    Returns:
        The largest relative difference.

    Raises:
        AssertionError: if the ensembles differ.
    """
    state = (generator if generator is not None else Generator().manual_seed(0)).get_state()

    def draw(factor: float) -> Tensor:
        fresh = Generator().set_state(state)
        return sampler(build(factor), members=members, generator=fresh).samples

    reference = draw(1.0)
    spread = float(norm((reference - reference.mean(0)).flatten()[None]))
    require(spread > 0, "all members are equal, so the ensemble has no scale to compare with.")
    worst = 0.0
    for factor in factors:
        difference = float(norm((convert(draw(factor), factor) - reference).flatten()[None])) / spread
        require(
            difference <= tolerance,
            f"in units {factor:g} times as fine the ensemble differs by {difference:.3g} of its spread (accepted "
            f"{tolerance:.3g}): a step size, clipping or constant depends on the units.",
        )
        worst = max(worst, difference)
    return worst


class ExactPosterior(Protocol):
    """What `check_posterior` needs of the truth; `GaussianPrior` and `GaussianMixturePrior` have it."""

    scale: float

    @property
    def variance(self) -> Tensor: ...

    @property
    def covariance(self) -> Tensor: ...

    def encode(self, x: Tensor) -> Tensor: ...

    def marginal_cdf(self, x: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class PosteriorReport:
    r"""How an ensemble compares with the exact posterior.

    Arguments:
        mean_error: Root mean square over entries of (ensemble mean - exact mean) / exact standard deviation.
        mean_floor: What ``members`` exact draws have on average, :math:`1/\sqrt{M}`.
        trace_ratio: Trace of the ensemble covariance (factor 1/(M-1)) over the exact trace.
        trace_floor: Standard deviation of the trace ratio of ``members`` exact draws of a Gaussian.
        coverage: Fraction of all entries of all members inside the exact central interval of their marginal; exact
            draws have ``level`` on average.
        level: Probability of that interval.
        members: Number of members.
    """

    mean_error: float
    mean_floor: float
    trace_ratio: float
    trace_floor: float
    coverage: float
    level: float
    members: int

    def as_dict(self) -> dict[str, Any]:
        """The numbers by name."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"mean error {self.mean_error:.4f} (floor {self.mean_floor:.4f}), trace ratio {self.trace_ratio:.4f} "
            f"(+- {self.trace_floor:.4f}), {self.level:.0%} coverage {self.coverage:.4f}, {self.members} members"
        )


def compare_with_exact(samples: Tensor, exact: ExactPosterior, level: float = 0.9) -> PosteriorReport:
    r"""Compares draws (M, \*X) with the exact posterior; complex entries count as two real ones."""
    members = len(samples)
    if members < 2:
        raise ValueError("a comparison needs at least two members.")
    samples = samples.to(torch.complex128 if samples.is_complex() else torch.float64)
    u = exact.encode(samples)  # centred and scaled: exact mean 0, no loss of digits far from zero
    variance = exact.variance.to(u) / exact.scale**2
    mean = u.mean(0)
    trace = variance.sum()
    eigenvalues = exact.covariance.to(u).square().sum() / exact.scale**4
    cdf = exact.marginal_cdf(samples)
    tail = (1 - level) / 2
    return PosteriorReport(
        mean_error=float((mean.square() / variance).mean().sqrt()),
        mean_floor=members**-0.5,
        trace_ratio=float((u - mean).square().sum() / (members - 1) / trace),
        trace_floor=math.sqrt(2 * float(eigenvalues) / (members - 1)) / float(trace),
        coverage=float(((cdf >= tail) & (cdf <= 1 - tail)).to(torch.float64).mean()),
        level=level,
        members=members,
    )


def check_posterior(
    sampler: PosteriorSampler,
    posterior: Posterior,
    exact: ExactPosterior | Sequence[ExactPosterior],
    *,
    members: int = 512,
    mean_error: float = 0.06,
    trace_ratio: tuple[float, float] = (0.97, 1.03),
    coverage: tuple[float, float] = (0.885, 0.915),
    level: float = 0.9,
    generator: Generator | None = None,
) -> PosteriorReport:
    r"""Draws an ensemble and compares it with the exact posterior.

    Arguments:
        sampler: The sampler, or any function of (posterior, members, generator=...) that returns an ensemble.
        posterior: The problem, B fields.
        exact: Its exact posterior, ``prior.condition(operator, noise, y)``; a sequence of B of them if B > 1.
        members: Members to draw.
        mean_error: Largest accepted error of the mean in posterior standard deviations (root mean square).
        trace_ratio: Accepted range of the ratio of total variances.
        coverage: Accepted range of the fraction of entries in the central interval.
        level: Probability of the central interval.
        generator: Source of randomness; a fixed one by default.

    Returns:
        The report; of B fields the average.

    Raises:
        AssertionError: if a number is outside its range.
    """
    generator = generator if generator is not None else Generator().manual_seed(0)
    truths = list(exact) if isinstance(exact, Sequence) else [exact]
    if len(truths) != posterior.batch:
        raise ValueError(f"the problem has {posterior.batch} fields, but {len(truths)} exact posteriors were given.")
    ensemble: Ensemble = sampler(posterior, members=members, generator=generator)
    require(len(ensemble.samples) == members, f"{members} members were asked for, {len(ensemble.samples)} came.")
    reports = [compare_with_exact(ensemble.samples[:, b], truth, level) for b, truth in enumerate(truths)]
    averages = {name: sum(r.as_dict()[name] for r in reports) / len(reports) for name in reports[0].as_dict()}
    report = PosteriorReport(**{**averages, "members": members})
    wrong = []
    if not report.mean_error <= mean_error:
        wrong.append(f"mean error {report.mean_error:.4f} > {mean_error}")
    if not trace_ratio[0] <= report.trace_ratio <= trace_ratio[1]:
        wrong.append(f"trace ratio {report.trace_ratio:.4f} outside {list(trace_ratio)}")
    if not coverage[0] <= report.coverage <= coverage[1]:
        wrong.append(f"coverage {report.coverage:.4f} outside {list(coverage)}")
    require(not wrong, f"not the exact posterior: {'; '.join(wrong)}. All numbers: {report}.")
    return report
