r"""Loss-guided diffusion with Monte Carlo (LGD-MC): a kick along the smoothed likelihood's gradient.

The law of :math:`u_0` given :math:`u_a` is taken as :math:`N(D, \rho^2 I)`, :math:`\rho^2 = a^2 / (1 + a^2)`, and the
likelihood is averaged over n draws of it,

.. math:: F = -\log \frac1n \sum_{j=1}^n \exp(-\tfrac12 d(D + \rho\,\epsilon_j)), \qquad
          u_b = \mathrm{DDPM}(u_a, D) - \zeta\sqrt{(1 + a^2)(1 + b^2)}\;\nabla_{u_a} \frac{\sqrt{2F}}{c},

where the deviance :math:`d(u_0) = 2\log p(y | z = y) - 2\log p(y | u_0)` is the squared whitened residual for Gaussian
noise, and its usual counterpart for counts and others: any law with a differentiable ``log_prob`` will do.

The paper leaves the length of the step to a tuned weight. Here it is that of `DPS`: the gradient of a square root, in
units of the data's variability :math:`c = \max(1, \sqrt{d(0)/k})` for k numbers of data. With one draw and
:math:`\rho = 0` it is DPS. A row all of whose draws are impossible gets no kick.

**A heuristic**: the mean of n exponentials of large numbers is the largest of them, so with many precise data the
average smooths little. See docs/certificate.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scidiff.posterior.base import MemberSampler, Run, differentiate
from scidiff.posterior.dps import kick_length
from scidiff.posterior.guidance import pull
from scidiff.samplers.base import level
from scidiff.samplers.ddpm import DDPM, ancestral
from scidiff.schedules import Schedule, describe, vp_linear

__all__ = ["LGD"]


@dataclass(frozen=True, repr=False)
class LGD(MemberSampler):
    r"""Loss-guided diffusion: like DPS, with the likelihood averaged over random clean states; any noise.

    Arguments:
        steps: Number of steps; each is one denoiser call and vector-Jacobian product, and ``draws`` operator calls
            and vector-Jacobian products. More than 250 changed nothing on the exact problems.
        draws: Number n of clean states per step; 10 in the paper.
        zeta: Length of the kick; None takes :math:`15\,k^{3/8}` over ``steps``, k real numbers of data; see `DPS`.
        schedule: Noise levels.

    References:
        Loss-Guided Diffusion Models for Plug-and-Play Controllable Generation (Song et al., 2023), ICML, PMLR 202.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"gradient"})

    steps: int = 250
    draws: int = 10
    zeta: float | None = None
    schedule: Schedule = vp_linear

    def __post_init__(self) -> None:
        DDPM(self.steps, self.schedule)  # validates both
        if self.draws < 1:
            raise ValueError(f"draws must be at least 1, got {self.draws}.")
        if self.zeta is not None and self.zeta < 0:
            raise ValueError(f"zeta must not be negative, got {self.zeta}.")

    def __repr__(self) -> str:
        return describe(self)

    def draw(self, run: Run) -> Tensor:
        base, p = DDPM(self.steps, self.schedule), run.posterior
        u = base.start(run.streams, p.shape or (), p.device, p.dtype)
        parts = p.likelihoods
        k = sum(part.y[0].numel() * (2 if part.y.is_complex() else 1) for part in parts)
        zeta = kick_length(k, self.steps) if self.zeta is None else self.zeta
        with torch.no_grad():
            first = run.measurement.log_prob(torch.zeros_like(u))  # also checks the shape of y
            best = torch.stack([part.noise.log_prob(part.y, part.y) for part in parts]).sum(0)
            c = (2 * (best - first) / k).clamp(min=1).sqrt()
            path = base.path(run.callback)
            for a, b in path:
                D, gradient = self.guide(run, u, a, best)
                kick = zeta * ((1 + a**2) * (1 + b**2)) ** 0.5 / c.reshape(-1, *[1] * (u.ndim - 1))
                u = path.report(ancestral(u, D, a, b, run.streams) - kick * gradient)
        return u

    def guide(self, run: Run, u: Tensor, a: float, best: Tensor) -> tuple[Tensor, Tensor]:
        r"""The denoised state and :math:`\nabla_u \sqrt{2F}`; ``best`` is :math:`\log p(y | z = y)`, (rows,)."""
        u, D = differentiate(run, u, level(u, a))
        rho = a / (1 + a**2) ** 0.5
        with torch.enable_grad():
            center = D.detach().requires_grad_()
            noise = run.streams.randn((self.draws, *u.shape[1:]), u.device, u.dtype).unbind(1)
            logs = torch.stack([run.measurement.log_prob(center + rho * e) for e in noise]) - best  # -d / 2, (n, rows)
        top = logs.detach().amax(0).clamp(min=torch.finfo(logs.dtype).min)
        weights = (logs.detach() - top).exp()  # zero where impossible
        total = weights.sum(0)
        F = -(total / self.draws).log() - top
        size = (2 * F).clamp(min=torch.finfo(F.dtype).tiny).sqrt()
        share = weights / (total.clamp(min=torch.finfo(F.dtype).tiny) * size)
        run.cost.operator_vjp += self.draws
        (v,) = torch.autograd.grad(logs, center, -share)
        return D.detach(), pull(run, u, D, v)
