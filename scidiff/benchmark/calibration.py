r"""Is a sampler calibrated where nobody knows its posterior? Simulation-based calibration and TARP, for fields.

Draw truths from the prior, observe them, sample. If the sampler draws from the posterior, a truth and its M members
are exchangeable given the data, so the rank of :math:`q(x^*, y)` among :math:`q(x_m, y)` is uniform on 0 ... M for
*every* number q. A sampler fails where some q has ranks that are not. Which q are asked decides what can be found:

======================  ==========================================================================================
``log likelihood``      :math:`\log p(y | x)`; finds members that ignore the data, which no q of x alone can
``mean``, ``energy``    mean and mean square of the state
``projection i``        along fixed random directions: shifts and widths
``distance``            :math:`|u - r(y)|` to a reference point: TARP, whose curve is :math:`P(\text{rank} < \alpha)`
======================  ==========================================================================================

The reference :math:`r(y)` has to know the data: with references drawn at random, a sampler that returns the prior
passes. Ours is a random state after steps of steepest descent on :math:`|S_y^{-1/2}(y - A(x))|^2`; operators without
gradients, and noise that is not Gaussian, get the random state, and the result says so.

States are ``u`` of an affine prior, else fields in their own units. Ties are broken at random. The tests are
chi-square, corrected for their number (Holm).

References:
    Validating Bayesian inference algorithms with simulation-based calibration (Talts et al., 2018), arXiv:1804.06788.
    Simulation-based calibration checking for Bayesian computation: the choice of test quantities shapes sensitivity
    (Modrák et al., 2023), arXiv:2211.02383. Sampling-based accuracy testing of posterior estimators for general
    inference (Lemos et al., 2023), arXiv:2302.03026.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor

from scidiff.benchmark.statistics import holm, uniformity
from scidiff.inference import Ensemble, Likelihood, Posterior
from scidiff.metrics._shared import real_view
from scidiff.protocols import Noise, Operator
from scidiff.rng import explicit

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "Calibration",
    "Simulate",
    "calibrate",
    "exact_draws",
    "from_name",
    "from_prior",
    "rank_of",
    "reference_point",
    "state_of",
]

Simulate = Callable[[int, Generator], tuple[Posterior, Tensor]]
r"""``simulate(n, generator)``: a posterior of n observations and the n truths behind them, (n, \*X)."""

Contestant = Callable[[Posterior, int, Generator], "Ensemble | Tensor"]
r"""A sampler of `scidiff.posterior`, or any function of (posterior, members, generator) that returns (M, B, \*X)."""

DESCENTS = 5


@dataclass(frozen=True)
class Calibration:
    """Ranks of truths among members.

    Arguments:
        quantities: Names of the Q numbers whose ranks were taken.
        ranks: 0 ... M, (N, Q).
        members: M.
        informed: Whether the reference points of ``distance`` knew the data.
    """

    quantities: tuple[str, ...]
    ranks: Tensor
    members: int
    informed: bool

    @property
    def p_values(self) -> dict[str, float]:
        """Probability of ranks this uneven if the sampler is exact, by quantity, corrected for their number (Holm)."""
        plain = [uniformity(self.ranks[:, q], self.members) for q in range(len(self.quantities))]
        return dict(zip(self.quantities, holm(plain), strict=True))

    def flagged(self, level: float = 0.01) -> list[str]:
        """Quantities whose ranks are not uniform; an exact sampler has any with probability ``level``."""
        return [name for name, p in self.p_values.items() if p < level]

    def curve(self, quantity: str = "distance") -> tuple[Tensor, Tensor]:
        r"""Credibility :math:`\alpha` and coverage :math:`P(\text{rank} / (M + 1) < \alpha)`, (M + 2,) each."""
        counts = torch.bincount(self.ranks[:, self.quantities.index(quantity)], minlength=self.members + 1)
        share = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(torch.float64) / len(self.ranks)
        return torch.linspace(0, 1, self.members + 2, dtype=torch.float64), share

    def table(self) -> str:
        """Markdown: mean rank (1/2 if unbiased), its spread over that of a uniform rank, and the p-value."""
        lines = ["| quantity | mean rank | spread of ranks / uniform | p (Holm) |", "| --- | --- | --- | --- |"]
        for q, (name, p) in enumerate(self.p_values.items()):
            rank = (self.ranks[:, q].to(torch.float64) + 0.5) / (self.members + 1)
            uniform = ((1 - (self.members + 1) ** -2) / 12) ** 0.5
            lines.append(f"| {name} | {rank.mean():.3f} | {rank.std() / uniform:.3f} | {p:.2g} |")
        return "\n".join(lines)

    def to_dataset(self) -> xr.Dataset:
        """Ranks (simulation, quantity) and p-values (quantity)."""
        import xarray as xr

        return xr.Dataset(
            {
                "rank": (("simulation", "quantity"), self.ranks.numpy()),
                "p_value": ("quantity", list(self.p_values.values())),
            },
            {"quantity": list(self.quantities)},
            {"members": self.members, "informed_reference": int(self.informed)},
        )


def from_prior(prior: Any, operator: Operator, noise: Noise) -> Simulate:
    """Truths from the prior itself (`sample(n, generator)`), observed with the operator that samplers get."""

    def simulate(n: int, generator: Generator) -> tuple[Posterior, Tensor]:
        truth = prior.sample(n, generator)
        y = noise.sample(operator(truth), generator)
        return Posterior(prior, Likelihood(operator, noise, y)), truth

    return simulate


def from_name(name: str) -> Simulate:
    """`from_prior` with the prior, operator and noise of a problem, see `scidiff.benchmark.questions`.

    Raises:
        ValueError: unknown problem.
        TypeError: its prior cannot be drawn from directly, or there are several instruments.
    """
    from scidiff.benchmark.questions import question

    posterior = question(name, 0).posterior
    part, *others = posterior.likelihoods
    if others or not callable(getattr(posterior.prior, "sample", None)):
        raise TypeError(f"{name}: calibration draws truths with `prior.sample` and observes them with one operator.")
    return from_prior(posterior.prior, part.operator, part.noise)


def exact_draws(posterior: Posterior, members: int, generator: Generator) -> Tensor:
    r"""Draws of the exact posterior of a prior that has one, (M, B, \*X): what every calibration must pass."""
    likelihood, prior = posterior.likelihoods[0], posterior.prior
    if len(posterior.likelihoods) > 1 or not hasattr(prior, "condition"):
        raise TypeError("exact draws need a prior with `condition` and one likelihood.")
    each = [
        prior.condition(likelihood.operator, likelihood.noise, y[None]).sample(members, generator)  # type: ignore[attr-defined]
        for y in likelihood.y
    ]
    return torch.stack(each, dim=1)


def calibrate(
    simulate: Simulate,
    sampler: Contestant,
    simulations: int = 200,
    members: int = 19,
    batch: int = 50,
    projections: int = 4,
    generator: Generator | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Calibration:
    """Ranks of truths among the members that a sampler draws from their observations.

    Arguments:
        simulate: Where truths and observations come from, see `from_prior`.
        sampler: What is examined. It gets ``batch`` observations at once: rows that influence each other show.
        simulations: Truths N; a spread that is wrong by a fifth is found with about 200.
        members: M; ``M + 1`` with many divisors gives even bins (19, 39, 99).
        batch: Observations per call of the sampler.
        projections: Random directions.
        generator: Source of everything random.
        progress: Called after each batch with the number of simulations done and asked for.

    Raises:
        ValueError: fewer than 20 simulations or 3 members, or members of another shape than (M, B, field).
    """
    if simulations < 20 or members < 3 or batch < 1:
        raise ValueError(
            f"at least 20 simulations of at least 3 members are needed, got {simulations} of {members} (batch {batch})."
        )
    generator, done, ranks, informed = explicit(generator), 0, [], True
    directions: Tensor | None = None
    while done < simulations:
        n = min(batch, simulations - done)
        posterior, truth = simulate(n, generator)
        own = Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))
        drawn = sampler(posterior, members, own)
        samples = drawn.samples if isinstance(drawn, Ensemble) else drawn
        if samples.shape != (members, *truth.shape):
            raise ValueError(
                f"the sampler returned {tuple(samples.shape)}, expected (members, observations, field) = "
                f"{(members, *truth.shape)}."
            )
        reference, knows = reference_point(posterior, generator)
        informed = informed and knows
        both = torch.cat([truth[None], samples])
        states = torch.stack([state_of(posterior, x) for x in both])  # (1 + M, B, d)
        if directions is None:
            directions = torch.randn(states.shape[-1], projections, generator=generator).to(states)
        likelihood = torch.stack([sum(part.log_prob(x) for part in posterior.likelihoods) for x in both])  # type: ignore[misc]
        numbers = [likelihood, states.mean(-1), states.square().mean(-1)]
        numbers += list((states @ directions / states.shape[-1] ** 0.5).unbind(-1))
        numbers.append((states - state_of(posterior, reference)).norm(dim=-1))
        ranks.append(torch.stack([rank_of(q, generator) for q in numbers], dim=-1))
        done += n
        progress(done, simulations)
    names = ("log likelihood", "mean", "energy", *(f"projection {i + 1}" for i in range(projections)), "distance")
    return Calibration(names, torch.cat(ranks), members, informed)


def state_of(posterior: Posterior, x: Tensor) -> Tensor:
    """What is compared, (B, d) real."""
    return (posterior.prior.encode(x) if posterior.prior.affine else real_view(x)).flatten(1)


def rank_of(q: Tensor, generator: Generator) -> Tensor:
    """Rank of the first row among the others (1 + M, B) -> (B,), ties at random."""
    below, equal = (q[1:] < q[0]).sum(0), (q[1:] == q[0]).sum(0)
    chance = torch.rand(below.shape, generator=generator).to(q.device)
    return (below + (chance * (equal + 1)).long().clamp(max=equal)).cpu()


def reference_point(posterior: Posterior, generator: Generator) -> tuple[Tensor, bool]:
    r"""A field per observation that knows the data (True), or a random one (False): (B, \*X)."""
    assert posterior.shape is not None
    u = torch.randn(posterior.batch, *posterior.shape, generator=generator).to(posterior.device, posterior.dtype)
    if not all(part.whitens and part.differentiable for part in posterior.likelihoods):
        return posterior.prior.decode(u), False
    for _ in range(DESCENTS):
        with torch.enable_grad():
            v = u.detach().requires_grad_()
            r = posterior.residual(v)
            if not r.requires_grad:
                return posterior.prior.decode(u), False
            (slope,) = torch.autograd.grad(0.5 * r.square().sum(), v)
        with torch.no_grad():
            size = slope.flatten(1).norm(dim=1)
            h = _rows(1e-2 * u.flatten(1).norm(dim=1) / size.clamp_min(1e-30), u)
            change = (posterior.residual(u - h * slope) - r) / h.reshape(-1, 1)
            step = size.square() / change.square().sum(1).clamp_min(1e-30)  # exact for linear measurements
            u = u - _rows(step, u) * slope
    return posterior.prior.decode(u), True


def _rows(scalar: Tensor, like: Tensor) -> Tensor:
    return scalar.reshape(-1, *[1] * (like.ndim - 1))
