r"""Diffusion posterior sampling with a Gaussian-smoothed gradient (DPS-GSG): DPS without the operator's derivative.

The gradient of the deviance (see `scidiff.posterior.queries`) at the denoised state is estimated from q queries,

.. math:: \hat g = \frac1q \sum_j \frac{\Delta(D + \mu\xi_j) - \Delta(D)}{\mu}\,\xi_j, \qquad \xi_j \sim N(0, I),

(central: :math:`(\Delta(D + \mu\xi_j) - \Delta(D - \mu\xi_j)) / 2\mu` with half as many directions), and the step
is that of `scidiff.posterior.dps`, with the gradient of :math:`\sqrt\Delta / c`:

.. math:: u_b = \mathrm{DDPM}(u_a, D) - \zeta\sqrt{(1 + a^2)(1 + b^2)}\;J^\top\frac{\hat g}{2 c\sqrt{\Delta(D)}} .

For linear operators and Gaussian noise the estimate has no bias; its relative error falls as :math:`\sqrt{d/q}`. It is
the same heuristic as DPS, with the noise of the estimate on top.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scidiff.posterior.base import MemberSampler, Run, differentiate
from scidiff.posterior.dpg import expand
from scidiff.posterior.queries import candidates, deviances, directions, mark, numbers, variability
from scidiff.samplers.base import level
from scidiff.samplers.ddpm import DDPM, ancestral
from scidiff.schedules import Schedule, describe, vp_linear

__all__ = ["DPSGSG", "smoothed_gradient"]


@dataclass(frozen=True, repr=False)
class DPSGSG(MemberSampler):
    """DPS with a gradient from finite differences in random directions; a heuristic, for black boxes.

    Arguments:
        steps: Number of steps; each is one denoiser call, one vector-Jacobian product of the denoiser and
            ``queries + 1`` operator calls. Authors: 1000; fewer steps kick less in total, which is closer to exact
            posteriors.
        queries: q per step. Authors: 1000 to 2000, for fields of 10000 pixels or more.
        mu: Length of the differences, in standard deviations of the field; authors' value.
        central: Whether differences are central: curvature adds no noise, at two queries a direction.
        zeta: Length of the kick, as for `DPS`.
        schedule: Noise levels.

    References:
        Ensemble Kalman Diffusion Guidance: A Derivative-free Method for Inverse Problems (Zheng et al., 2024),
        arXiv:2409.20175, appendix; Diffusion Posterior Sampling for General Noisy Inverse Problems (Chung et al.,
        2023), arXiv:2209.14687.
    """

    requires: ClassVar[frozenset[str]] = frozenset()

    steps: int = 200
    queries: int = 64
    mu: float = 0.01
    central: bool = False
    zeta: float = 0.5
    schedule: Schedule = vp_linear

    def __post_init__(self) -> None:
        DDPM(self.steps, self.schedule)  # validates both
        if self.queries < 1 + self.central:
            raise ValueError(f"queries must be at least {1 + self.central}, got {self.queries}.")
        if self.mu <= 0 or self.zeta < 0:
            raise ValueError(f"mu must be positive and zeta not negative, got {self.mu} and {self.zeta}.")

    def __repr__(self) -> str:
        return describe(self)

    def draw(self, run: Run) -> Tensor:
        base, p = DDPM(self.steps, self.schedule), run.posterior
        u = base.start(run.streams, p.shape or (), p.device, p.dtype)
        with torch.no_grad():
            c = variability(run, u)
            path = base.path(run.callback)
            for a, b in path:
                leaf, D = differentiate(run, u, level(u, a))
                center = D.detach()
                deviance = deviances(run, center)
                g = smoothed_gradient(run, center, deviance, self.mu, self.queries, self.central)
                size = 2 * c * deviance.clamp(min=1e-4 * numbers(run)).sqrt()  # a residual of 1 % of the noise
                run.cost.denoiser_vjp += 1
                (g,) = torch.autograd.grad(D, leaf, g / expand(size, u))
                kick = self.zeta * ((1 + a**2) * (1 + b**2)) ** 0.5
                u = path.report(ancestral(u, center, a, b, run.streams) - kick * g)
        return u


def smoothed_gradient(run: Run, D: Tensor, deviance: Tensor, mu: float, queries: int, central: bool = False) -> Tensor:
    r"""The estimate :math:`\hat g` of :math:`\nabla\Delta` at the states ``D`` (rows, \*S) of deviance ``deviance``."""
    count, g = queries // (1 + central), torch.zeros_like(D)
    counts = torch.full_like(deviance, count)
    for e in directions(run, D, count):
        ahead = candidates(run, D + mu * e)
        slope = (ahead - candidates(run, D - mu * e)) / (2 * mu) if central else (ahead - deviance) / mu
        if run.lost:  # queries for which the operator failed are left out
            gone = slope.isnan()
            counts, slope = counts - gone.sum(0), slope.masked_fill(gone, 0)
        g += (expand(slope.flatten(), e[0]).unflatten(0, slope.shape) * e).sum(0)
    if run.lost:
        mark(run, counts < 1)
        counts = counts.clamp(min=1)
    return g / expand(counts, D)
