r"""DiffusionPDE: a joint prior of coefficient and solution, guided by few observations and by the equation's residual.

The posterior has several likelihoods: those of the observations, and last the equation. Its operator is the residual
:math:`R(a, u)` of a pair, its measurement 0 and its noise what the residual may be:

.. math:: p(a, u \mid y) \propto p(a, u)\; N\big(y;\, A(a, u),\, s^2\big)\; N\big(0;\, R(a, u),\, s_R^2\big).

Each likelihood k has its whitened residual :math:`r_k(u)`, slope :math:`\tilde A_k` and weight :math:`w_k`, and

.. math:: D_y = D + \sigma^2 J^T \sum_k \frac{w_k}{1 + \sigma^2\lambda_k}\; \tilde A_k^T r_k, \qquad
          \lambda_k = \|\tilde A_k^T r_k\|^2 / \|r_k\|^2,

is the guided denoiser that Heun's method integrates, without noise, from white noise to a pair. :math:`\lambda_k` is
the squared gain of the likelihood along its own residual, as in `SDA`: a likelihood alone with weight 1 moves
:math:`D` at most as far as explains it, whatever its units and however stiff its operator.

**What differs from the publication.** Its steps subtract gradients of norms after each step of Heun's method, with
constants tuned per equation (gradients of the observations' norm, divided by ten in the last fifth of the steps, where
that of the residual joins them). The same idea is here a denoiser with scale-free weights, so that units, grids and
equations need no constants; ``start`` keeps the residual out of the early steps. The published residual of Darcy's
equation lacks the grid spacing and is no smaller at the solution than at zero. Residuals of
`scidiff.operators.pde` vanish at solutions, at second order.

**A heuristic.** :math:`D_y` is not :math:`E[u_0|u, y]`, so that members are plausible, near the data and the
equation, but not draws of the posterior. And the residual of an elliptic equation is dominated by its
shortest waves: its gradient says next to nothing of the longest. Where the solution operator is at hand, put it
into the forward model and take `MMPS`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from scidiff.posterior.base import GuidedSampler, Run, differentiate
from scidiff.posterior.guidance import pull
from scidiff.protocols import Denoiser
from scidiff.samplers import Heun, Sampler

__all__ = ["DiffusionPDE"]


@dataclass(frozen=True)
class DiffusionPDE(GuidedSampler):
    r"""Observations and the residual of an equation guide a joint prior, by Heun's method; a heuristic.

    With one likelihood there is no residual, and all of it is observation.

    Arguments:
        sampler: Integrator; ``steps`` of it is the number of guided network calls. The publication takes 2000 steps of
            two calls.
        observation_weight: :math:`w` of all likelihoods but the last.
        residual_weight: :math:`w` of the last.
        start: Noise level below which the residual guides; by default all.

    References:
        DiffusionPDE: Generative PDE-Solving Under Partial Observation (Huang, Yang, Wang and Park, 2024),
        arXiv:2406.17763, algorithm 1.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"gradient", "variance"})

    sampler: Sampler = field(default_factory=lambda: Heun(199))
    observation_weight: float = 1.0
    residual_weight: float = 1.0
    start: float = float("inf")

    def __post_init__(self) -> None:
        if self.observation_weight < 0 or self.residual_weight < 0:
            raise ValueError(
                f"weights must not be negative, got {self.observation_weight} and {self.residual_weight}."
            )
        if not self.start > 0:
            raise ValueError(f"start is a noise level and must be positive, got {self.start}.")

    def condition(self, run: Run) -> Denoiser:
        parts = run.posterior.likelihoods
        sizes = [part.y[0].numel() * (2 if part.y.is_complex() else 1) for part in parts]
        weights = [self.observation_weight] * len(parts)
        if len(parts) > 1:
            weights[-1] = self.residual_weight

        def denoise(u: Tensor, sigma: Tensor) -> Tensor:
            u, D = differentiate(run, u, sigma)
            near = run.measurement.linearise(D.detach())
            guidance = torch.zeros_like(D)
            for k, r in enumerate(near.residual.split(sizes, 1)):
                late = k == 0 or k < len(parts) - 1 or float(sigma.max()) <= self.start
                if weights[k] == 0 or not late:
                    continue
                alone = [r if j == k else r.new_zeros(len(r), n) for j, n in enumerate(sizes)]
                g = near.adjoint(torch.cat(alone, 1))
                gain = g.flatten(1).square().sum(1) / r.square().sum(1).clamp(min=torch.finfo(r.dtype).tiny)
                guidance += g * (weights[k] / (1 + sigma**2 * gain)).reshape(-1, *[1] * (u.ndim - 1))
            return D.detach() + sigma**2 * pull(run, u, D, guidance)

        return denoise
