r"""Sequential Monte Carlo: the core of `tds`, `mcgdiff` and `fps`.

K particles follow a chain of levels :math:`s_0 > s_1 > \dots > s_N = 0`. A step goes from level a to level b and has
the prior transition

.. math:: p(u_b | u_a) = N(m, v I), \qquad m = \tfrac{b^2}{a^2} u_a + \bigl(1 - \tfrac{b^2}{a^2}\bigr) D', \qquad
          v = b^2\bigl(1 - \tfrac{b^2}{a^2}\bigr),

of DPM-Solver++ 2M SDE: :math:`D' = D + \frac{1}{2r}(D - D_-)` extrapolates from the step before (see
`scidiff.samplers.dpm_solver`); the last step gives :math:`u_0 = D`. With :math:`D' = D` it is DDPM, whose draws are
too narrow on coarse grids. SMC corrects towards the law of this chain, so that steps are the one source of error that
more particles do not remove.

A particle's **log weight** gathers :math:`\log \frac{p(u_b|u_a)\,\psi_b(u_b)}{q(u_b|u_a)\,\psi_a(u_a)}` for a proposal
q and twists :math:`\psi` with :math:`\psi_0 = p(y|u_0)`; twists cancel in the product, so any positive ones are right
and good ones keep the weights even. When the effective sample size :math:`1/\sum W^2` falls below a fraction of K,
particles are **resampled** systematically: particle k is copied :math:`\lfloor K W_k\rfloor` or
:math:`\lceil K W_k\rceil` times, :math:`K W_k` on average. The product of the mean weights is an unbiased estimate of
the evidence p(y) of the chain.

References:
    An Introduction to Sequential Monte Carlo (Chopin and Papaspiliopoulos, 2020), chapters 9 and 10.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scidiff.errors import NumericalError
from scidiff.posterior.base import Run
from scidiff.posterior.population import PopulationSampler
from scidiff.samplers.base import Path
from scidiff.samplers.ddpm import DDPM
from scidiff.schedules import Schedule, describe, log_linear

__all__ = ["Center", "Particles", "SMCSampler", "likelihood_constant", "log_normal", "systematic"]


def systematic(log_w: Tensor, uniform: Tensor) -> Tensor:
    r"""Ancestors (K, B) of K particles with log weights (K, B), from one uniform number per observation, (B,)."""
    edges = torch.softmax(log_w, 0).cumsum(0)
    points = (torch.arange(len(log_w), dtype=edges.dtype, device=edges.device)[:, None] + uniform) / len(log_w)
    chosen = torch.searchsorted(edges.mT.contiguous(), points.mT.contiguous(), right=True)
    return chosen.clamp_max(len(log_w) - 1).mT


def log_normal(r: Tensor, variance: Tensor | float) -> Tensor:
    """Log density of independent normal numbers ``r`` of mean zero (broadcast), element by element, in float64."""
    variance = torch.as_tensor(variance, dtype=torch.float64, device=r.device)
    return -0.5 * (r.double().square() / variance + torch.log(2 * math.pi * variance))


class Particles:
    """Log weights of the particles, evidence and effective sample sizes of one run; rows are particle slowest.

    Arguments:
        run: The run; resampling draws from the stream of each observation's first particle, once per call, so that
            observations do not depend on each other.
        threshold: Fraction of K below which the effective sample size makes particles be resampled.
    """

    def __init__(self, run: Run, threshold: float) -> None:
        self.run, self.threshold = run, threshold
        self.K, self.B = len(run.streams.members), run.streams.batch
        self.log_w = torch.zeros(self.K, self.B, dtype=torch.float64, device=run.posterior.device)
        self.log_evidence = self.log_w.new_zeros(self.B)
        self.count = self.log_w.new_zeros(self.B)
        self.flags: list[tuple[float, Tensor]] = []

    def weigh(self, increment: Tensor, sigma: float) -> None:
        """Adds to the log weights (K * B,); a particle without weight stays so. ``sigma`` names the level in errors."""
        increment = increment.double().reshape(self.K, self.B)
        self.log_w = torch.where(self.log_w == -torch.inf, self.log_w, self.log_w + increment)
        self.flags.append((sigma, torch.isfinite(torch.logsumexp(self.log_w, 0)).all()))
        if len(self.flags) == 16:
            self.check()

    def check(self) -> None:
        """Raises NumericalError at the first level where no particle had weight, or one had a NaN."""
        finite = torch.stack([flag for _, flag in self.flags]).tolist() if self.flags else []
        for (sigma, _), good in zip(self.flags, finite, strict=True):
            if not good:
                raise NumericalError(
                    f"no particle has a positive, finite weight at noise level {sigma:.4g}; take more particles, "
                    "or check the forward model and the noise level of the data."
                )
        self.flags.clear()

    def resample(self, *states: Tensor, force: bool = False) -> list[Tensor]:
        """The states (K * B, ...) after resampling the observations that need it, or all with ``force``."""
        ess = 1 / torch.softmax(self.log_w, 0).square().sum(0)
        self.run.trace("ess", ess.mean())
        draws = [torch.rand((), generator=g, dtype=torch.float64) for g in self.run.streams.generators[: self.B]]
        poor = (ess < self.threshold * self.K) | force
        ancestors = systematic(self.log_w, torch.stack(draws).to(ess.device))
        own = torch.arange(self.K, device=ess.device)[:, None]
        rows = self.rows(torch.where(poor, ancestors, own))
        mean = torch.logsumexp(self.log_w, 0) - math.log(self.K)
        self.log_evidence = self.log_evidence + torch.where(poor, mean, 0)
        self.log_w = torch.where(poor, 0, self.log_w)
        self.count = self.count + poor
        return [state[rows] for state in states]

    def rows(self, index: Tensor) -> Tensor:
        """Rows of the particles ``index`` (K, B), (K * B,)."""
        return (index * self.B + torch.arange(self.B, device=index.device)).flatten()

    def finish(self, u: Tensor, constant: Tensor | float = 0.0) -> Tensor:
        """Equally weighted particles in random order; reports resamplings and, per observation, the log evidence.

        Without the order any few members would descend from the same few particles, as systematic resampling sorts.

        Arguments:
            u: Particles at level zero.
            constant: What the log weights left out of the log evidence, () or (B,).
        """
        self.check()
        (u,) = self.resample(u, force=True)
        order = [torch.randperm(self.K, generator=g) for g in self.run.streams.generators[: self.B]]
        u = u[self.rows(torch.stack(order, 1).to(u.device))]
        self.run.note("resamplings", (self.count - 1).mean())
        for value in self.log_evidence + constant:
            self.run.trace("log_evidence", value)
        return u


class Center:
    """The extrapolated denoised state D' of the prior transition."""

    def __init__(self) -> None:
        self.h = math.inf

    def __call__(self, D: Tensor, last: Tensor, a: float, b: float) -> Tensor:
        """D' of the step from ``a`` to ``b`` given the denoised state of the step before (ignored at the first)."""
        h = math.log(a / b) if b > 0 else math.inf
        middle = D if b == 0 or math.isinf(self.h) else D + h / (2 * self.h) * (D - last)
        self.h = h
        return middle


@dataclass(frozen=True, repr=False)
class SMCSampler(PopulationSampler):
    """What the sequential Monte Carlo samplers share.

    Arguments:
        particles: Number K of particles per population.
        steps: Number of levels, one network call each.
        schedule: Noise levels. Data much less noisy than the last level before zero need a smaller one.
        threshold: Fraction of K below which the effective sample size makes particles be resampled.
    """

    steps: int = 100
    schedule: Schedule = log_linear
    threshold: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        DDPM(self.steps, self.schedule)  # validates both
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must lie between 0 and 1, got {self.threshold}.")

    def __repr__(self) -> str:
        return describe(self)

    def path(self, run: Run) -> Path:
        """The steps of one run."""
        return Path(type(self).__name__, self.schedule(self.steps).tolist(), run.callback)


def likelihood_constant(run: Run, y: Tensor) -> Tensor:
    r"""What :math:`\log p(y|u)` adds to :math:`-|\bar y - s c|^2/2`, Gaussian noise: (B,). ``y`` (rows, k)."""
    batch = run.streams.batch
    with torch.no_grad():
        zero = torch.zeros(batch, *(run.posterior.shape or ()), dtype=y.dtype, device=y.device)
        whole = run.posterior.rows(batch).log_likelihood(zero)
    return whole.double() + 0.5 * y[:batch].double().square().sum(1)
