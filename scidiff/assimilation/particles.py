r"""The bootstrap particle filter, and trajectories drawn by simulation backwards: the smoother for any model.

Forwards: particles follow the model and are weighted by the likelihood,
:math:`w^i \propto w^i p(y_t | x_t^i)`; where the effective number :math:`1 / \sum_i (w^i)^2` falls below a share of N
they are drawn again (systematic resampling). The mean weight at each step estimates the evidence :math:`p(y)` without bias.

Backwards: a trajectory ends at a particle drawn by its last weight; the state before :math:`x_{t+1}` is drawn among the
stored particles with probability :math:`\propto w_t^i\, p(x_{t+1} | x_t^i)`. That is exact for
:math:`N \to \infty`, and keeps diversity at early times, where following ancestors does not.

References:
    Novel approach to nonlinear/non-Gaussian Bayesian state estimation, Gordon, Salmond and Smith, 1993. Monte Carlo
    smoothing for nonlinear time series, Godsill, Doucet and West, 2004, algorithm 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from scidiff.assimilation.observations import Observations
from scidiff.assimilation.state_space import StateSpace
from scidiff.errors import NumericalError
from scidiff.rng import explicit

__all__ = ["ParticleAnswer", "ParticleSmoother"]


@dataclass(frozen=True)
class ParticleAnswer:
    r"""What the particles say.

    Arguments:
        samples: Trajectories from the smoother, (M, C, L, \*grid).
        log_evidence: Estimate of :math:`\log p(y)`.
        effective: Effective number of particles after each observation, a list of pairs (step, number).
    """

    samples: Tensor
    log_evidence: float
    effective: list[tuple[int, float]]


@dataclass(frozen=True)
class ParticleSmoother:
    """Bootstrap filter and backward simulation.

    Arguments:
        particles: Number N.
        threshold: Resample where fewer than this share of N are effective.
        chunk: Pairs of particles compared at once.
    """

    particles: int = 16384
    threshold: float = 0.5
    chunk: int = 2**22

    def __post_init__(self) -> None:
        if self.particles < 2 or not 0 < self.threshold <= 1 or self.chunk < 1:
            raise ValueError(
                "expected at least 2 particles, a threshold in (0, 1] and a positive chunk, got "
                f"{self.particles}, {self.threshold} and {self.chunk}."
            )

    def __call__(
        self,
        model: StateSpace,
        observations: Observations,
        length: int,
        members: int = 256,
        generator: Generator | None = None,
    ) -> ParticleAnswer:
        """Draws ``members`` trajectories given one observed trajectory (B = 1).

        Raises:
            InputError: a model without noise, whose transition has no density.
            NumericalError: every particle contradicts the data.
        """
        if len(observations.y) != 1:
            raise ValueError(f"one observed trajectory at a time, got {len(observations.y)}; use observations.row(b).")
        model.whiten(torch.zeros(1, model.dim, dtype=torch.float64))  # a perfect model is refused before the work
        generator = explicit(generator)
        clouds, logs, evidence, effective = self._forward(model, observations, length, generator)
        x = self._backward(model, clouds, logs, members, generator)
        return ParticleAnswer(model.fields(x), evidence, effective)

    def _forward(self, model: StateSpace, observations: Observations, length: int, generator: Generator):  # noqa: ANN202
        N = self.particles
        x, log = model.start(N, generator).to(torch.float64), torch.full((N,), -math.log(N), dtype=torch.float64)
        clouds: list[Tensor] = []
        logs: list[Tensor] = []
        evidence, effective = 0.0, []
        for t in range(length):
            if t:
                if 1 / float(log.exp().square().sum()) < self.threshold * N:
                    x = x[_systematic(log.exp(), N, generator)]
                    log = torch.full_like(log, -math.log(N))
                x = model.advance(x, generator, t)
            y = observations.of(t)
            if y is not None:
                z = observations.operator(x.unflatten(-1, model.shape))
                log = log + observations.noise.log_prob(y.to(z).expand_as(z), z)
                total = float(torch.logsumexp(log, 0))
                if not math.isfinite(total):
                    raise NumericalError(f"particle filter: no particle explains the observation at step {t}.")
                evidence += total
                log = log - total
                effective.append((t, 1 / float(log.exp().square().sum())))
            clouds.append(x)
            logs.append(log)
        return clouds, logs, evidence, effective

    def _backward(
        self, model: StateSpace, clouds: list[Tensor], logs: list[Tensor], members: int, generator: Generator
    ) -> Tensor:
        last = torch.multinomial(logs[-1].exp(), members, True, generator=generator)
        found, rows = [clouds[-1][last]], max(1, self.chunk // self.particles)
        for cloud, log in zip(clouds[-2::-1], logs[-2::-1], strict=True):
            white = model.whiten(model.step(cloud))
            base = log - white.square().sum(-1) / 2
            after = model.whiten(found[-1])
            parts = []
            for first in range(0, members, rows):
                score = torch.addmm(base[None], after[first : first + rows], white.mT)  # up to a constant per row
                weights = (score - score.amax(1, keepdim=True)).exp_()
                sums = weights.cumsum_(1)
                level = torch.rand(len(sums), 1, generator=generator, dtype=sums.dtype) * sums[:, -1:]
                parts.append(torch.searchsorted(sums, level).clamp_max(len(cloud) - 1)[:, 0])
            found.append(cloud[torch.cat(parts)])
        return torch.stack(found[::-1], 1)


def _systematic(weights: Tensor, count: int, generator: Generator) -> Tensor:
    """Indices of ``count`` draws with one random offset."""
    offset = torch.rand((), generator=generator, dtype=weights.dtype)
    points = (torch.arange(count, dtype=weights.dtype) + offset) / count
    return torch.searchsorted(weights.cumsum(0), points).clamp_max(len(weights) - 1)
