r"""DiffusionPDE: a joint prior of coefficient and solution, guided by few observations and by the equation's residual.

The posterior has several likelihoods: those of the observations, and last the equation. Its operator is the residual
:math:`R(a, u)` of a pair, its measurement 0 and its noise what the residual may be:

.. math:: p(a, u \mid y) \propto p(a, u)\; N\big(y;\, A(a, u),\, s^2\big)\; N\big(0;\, R(a, u),\, s_R^2\big).

After each step of Heun's method from level a to b, without noise, the state is kicked along the gradients of all
likelihoods k. With the whitened residual :math:`r_k` and slope :math:`\tilde A_k` at the denoised state
:math:`D = D(u_a, a)` and the slope J of the denoiser,

.. math:: u_b = \mathrm{Heun}(u_a) + \sum_k \frac{w_k\, a^2}{1 + a^2 \lambda_k}\, g_k, \qquad
          g_k = J^T \tilde A_k^T r_k, \qquad \lambda_k = \|g_k\|^2 / \|r_k\|^2 .

:math:`\lambda_k` is the squared gain of the likelihood, seen through the denoiser, along its own residual: with weight
1 a kick is the step of steepest descent that would remove all of :math:`r_k` if it lay along one direction. Where
:math:`a^2 \lambda_k < 1` the data are noisier than the state and the kicks fade. Nothing depends on units, on the grid
or on how stiff the equation is: without J in :math:`\lambda` the gain of a Laplacian, dominated by shortest waves
that the denoiser removes anyway, makes the kicks of the residual vanish.

**What differs from the publication.** Its kicks are gradients of norms times constants tuned per equation, those of
the observations divided by ten in the last fifth of the steps, where those of the residual join them (``start`` is the
noise level below which the residual guides). Its gradients pass through the second network call of a step, ours
through the first. The published residual of Darcy's equation lacks the grid spacing and is no smaller at the solution
than at zero; residuals of `scidiff.operators.pde` vanish at solutions, at second order.

**A heuristic.** Kicks do not follow from the law of the clean state given the noised one: members are near the data
and the equation, their mean can be close to the exact one, but their spread is not that of the posterior. Where the
solution operator is at hand, put it into the forward model and take `MMPS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scidiff.posterior.base import MemberSampler, Run, differentiate
from scidiff.posterior.guidance import pull
from scidiff.samplers import Heun
from scidiff.samplers.base import level
from scidiff.schedules import Schedule, describe, karras

__all__ = ["DiffusionPDE"]


@dataclass(frozen=True, repr=False)
class DiffusionPDE(MemberSampler):
    r"""Observations and the residual of an equation guide a joint prior, by Heun's method; a heuristic.

    With one likelihood there is no residual, and all of it is observation.

    Arguments:
        steps: Steps N of Heun's method, two network calls (the last: one) and a product per likelihood each. The
            publication takes 2000.
        observation_weight: :math:`w` of all likelihoods but the last.
        residual_weight: :math:`w` of the last.
        start: Noise level below which the residual guides; by default all.
        schedule: Noise levels. Smooth fields need a large first one, see docs/pde.md.

    References:
        DiffusionPDE: Generative PDE-Solving Under Partial Observation (Huang, Yang, Wang and Park, 2024),
        arXiv:2406.17763, algorithm 1.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"gradient", "variance"})

    steps: int = 200
    observation_weight: float = 0.5
    residual_weight: float = 0.5
    start: float = float("inf")
    schedule: Schedule = karras

    def __post_init__(self) -> None:
        Heun(max(1, 2 * self.steps - 1), self.schedule)
        if self.observation_weight < 0 or self.residual_weight < 0:
            raise ValueError(f"weights must not be negative, got {self.observation_weight} and {self.residual_weight}.")
        if not self.start > 0:
            raise ValueError(f"start is a noise level and must be positive, got {self.start}.")

    def __repr__(self) -> str:
        return describe(self)

    def draw(self, run: Run) -> Tensor:
        base, p = Heun(2 * self.steps - 1, self.schedule), run.posterior
        u = base.start(run.streams, p.shape or (), p.device, p.dtype)
        with torch.no_grad():
            path = base.path(run.callback)
            for a, b in path:
                leaf, D = differentiate(run, u, level(u, a))
                kick = self.kick(run, leaf, D, a)
                d = (u - D.detach()) / a
                u_b = u + (b - a) * d
                if b > 0:
                    u_b = u + (b - a) * (d + (u_b - run.denoise(u_b, level(u, b))) / b) / 2
                u = path.report(u_b + kick)
        return u

    def kick(self, run: Run, u: Tensor, D: Tensor, sigma: float) -> Tensor:
        """The sum over likelihoods, without graph."""
        parts = run.posterior.likelihoods
        weights = [self.observation_weight] * len(parts)
        if len(parts) > 1:
            weights[-1] = self.residual_weight if sigma <= self.start else 0.0
        near = run.measurement.linearise(D.detach())
        sizes = [part.y[0].numel() * (2 if part.y.is_complex() else 1) for part in parts]
        total = torch.zeros_like(u)
        for k, r in enumerate(near.residual.split(sizes, 1)):
            if weights[k] == 0:
                continue
            alone = [r if j == k else r.new_zeros(len(r), n) for j, n in enumerate(sizes)]
            g = pull(run, u, D, near.adjoint(torch.cat(alone, 1)))
            gain = g.flatten(1).square().sum(1) / r.square().sum(1).clamp(min=torch.finfo(r.dtype).tiny)
            length = weights[k] * sigma**2 / (1 + sigma**2 * gain)
            total += length.reshape(-1, *[1] * (u.ndim - 1)) * g
        return total
