r"""Diffusion posterior sampling (DPS) with the published, normalised step.

A DDPM step from level :math:`a` to level :math:`b` is followed by a kick along the gradient of the residual norm,

.. math:: u_b = \mathrm{DDPM}(u_a, D) - \zeta\sqrt{(1 + a^2)(1 + b^2)}\;\nabla_{u_a} \frac{\|r(D)\|_2}{c},
          \qquad D = D(u_a, a).

The paper writes the step for :math:`x_t = u / \sqrt{1 + \sigma^2}`; the square root is the exact change of variables
(one factor for the gradient, one for the state).

**Units.** The paper takes the norm of :math:`y - A(\hat x_0)` for images and measurements of about unit size. Here
:math:`r = S_y^{-1/2}(y - A(\mathrm{decode}(D)))` is whitened and divided by

.. math:: c = \max\big(1, \sqrt{\|r(0)\|^2 / n}\big),

the root mean square of the whitened residual of the prior mean :math:`u = 0`, one number per row. Where the noise is
the same everywhere it cancels, and :math:`r/c` is the paper's residual in units of the variability of the data, and
the paper's own for data of unit variance. Rescaling the field, or the measurement with its operator and noise, changes
nothing.
The 1 in the maximum is the noise itself: it matters only where the data hold nothing else.

**Length of the kick.** The gradient of a norm has the same length for 30 data as for 30 000, so a published
:math:`\zeta` is one for the authors' images. The kicks of all steps also add up. The default
is :math:`\zeta = 15\,n^{3/8}/N` for N steps and n real numbers of data (`kick_length`). The power joins two ends: on
the exact problems of `scidiff.benchmark.exact`, 24 and 32 data and 1000 steps, 0.05 to 0.06 was best of 0.03 to 1; for
the paper's 1000 steps and 16 000 data (its random inpainting) the rule gives 0.57, where the paper has 0.3 to 1.

**DPS is a heuristic**: the kick does not follow from the noise level of the data, and the ensemble is not one of the
posterior. Measured numbers are in docs/certificate.md.

`AnnealedDPS` is the same idea as a posterior denoiser, hence for every integrator and any number of steps. DPS takes
:math:`p(y | u_\sigma) \approx p(y | u_0 = D)`, whose gradient, with the covariance :math:`S_y` alone, is far too steep
while :math:`D` is uncertain. Here the covariance is :math:`\tau^2 S_y`,

.. math:: D_y = D + \sigma^2 J^T \tilde A^T r / \tau^2, \qquad
          \tau^2 = 1 + \frac{\sigma^2}{1 + \sigma^2}\,\frac{\|\tilde A^T r\|^2}{\|r\|^2},

one number per row: the variance, in units of the noise and along the residual, of data whose field has the variance
:math:`\sigma^2/(1 + \sigma^2)` of white fields given :math:`u_\sigma`. It is `PiGDM` where
:math:`\tilde A\tilde A^T` is a multiple of the identity (masks), and needs no solver elsewhere. Of
three choices tried (also the residual's own mean square, and the variance of the data) it had the smallest errors on
nonlinear problems with one or two data.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from scidiff.posterior.base import GuidedSampler, MemberSampler, Run, differentiate
from scidiff.posterior.guidance import pull, steepest
from scidiff.protocols import Denoiser
from scidiff.samplers import DPMSolver, Sampler
from scidiff.samplers.base import level
from scidiff.samplers.ddpm import DDPM, ancestral
from scidiff.schedules import Schedule, describe, vp_linear

__all__ = ["DPS", "AnnealedDPS", "kick_length"]


def kick_length(n: int, steps: int) -> float:
    r""":math:`15\,n^{3/8}/N`: the default :math:`\zeta` for n real numbers of data and N steps, see above."""
    return 15 * n**0.375 / steps


@dataclass(frozen=True, repr=False)
class DPS(MemberSampler):
    r"""Diffusion posterior sampling: a DDPM step, then a kick along the residual's gradient; a heuristic.

    Counts (`PoissonNoise`) are weighed with their variance at the data, as in the paper's section 3.3.

    Arguments:
        steps: Number of steps; each is one denoiser call, one vector-Jacobian product of the denoiser, one operator
            call and one vector-Jacobian product of the operator. One more operator call measures ``c``.
        zeta: Length of the kick; None takes :math:`15\,n^{3/8}` over ``steps``. Authors' code, for 1000 steps and
            images of 256x256 pixels: 0.5 for inpainting, 0.3 for deblurring and super-resolution.
        schedule: Noise levels.

    References:
        Diffusion Posterior Sampling for General Noisy Inverse Problems (Chung et al., 2023), arXiv:2209.14687,
        algorithm 1.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"gradient", "variance"})

    steps: int = 1000
    zeta: float | None = None
    schedule: Schedule = vp_linear

    def __post_init__(self) -> None:
        DDPM(self.steps, self.schedule)  # validates both
        if self.zeta is not None and self.zeta < 0:
            raise ValueError(f"zeta must not be negative, got {self.zeta}.")

    def __repr__(self) -> str:
        return describe(self)

    def draw(self, run: Run) -> Tensor:
        base, p = DDPM(self.steps, self.schedule), run.posterior
        u = base.start(run.streams, p.shape or (), p.device, p.dtype)
        with torch.no_grad():
            r = run.measurement.residual(torch.zeros_like(u))
            c = r.square().mean(1).sqrt().clamp(min=1)
            zeta = kick_length(r.shape[1], self.steps) if self.zeta is None else self.zeta
            path = base.path(run.callback)
            for a, b in path:
                D, gradient = self.guide(run, u, a, c)
                kick = zeta * ((1 + a**2) * (1 + b**2)) ** 0.5
                u = path.report(ancestral(u, D, a, b, run.streams) - kick * gradient)
        return u

    def guide(self, run: Run, u: Tensor, a: float, c: Tensor) -> tuple[Tensor, Tensor]:
        r"""The denoised state and :math:`\nabla_u \|r(D)\| / c`, one norm per row."""
        u, D = differentiate(run, u, level(u, a))
        with torch.enable_grad():
            norm = torch.linalg.vector_norm(run.measurement.residual(D), dim=1) / c
        run.cost.operator_vjp += 1
        run.cost.denoiser_vjp += 1
        (gradient,) = torch.autograd.grad(norm, u, torch.ones_like(norm))  # one gradient per row: rows do not mix
        return D.detach(), gradient


@dataclass(frozen=True)
class AnnealedDPS(GuidedSampler):
    """DPS as a posterior denoiser, the likelihood widened by one number; a heuristic for any integrator.

    Arguments:
        sampler: Integrator.

    References:
        Diffusion Posterior Sampling for General Noisy Inverse Problems (Chung et al., 2023), arXiv:2209.14687.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"gradient", "variance"})

    sampler: Sampler = field(default_factory=lambda: DPMSolver(64, stochastic=True))

    def condition(self, run: Run) -> Denoiser:
        def denoise(u: Tensor, sigma: Tensor) -> Tensor:
            u, D = differentiate(run, u, sigma)
            g, gain = steepest(run.measurement.linearise(D.detach()))
            tau2 = (1 + sigma**2 / (1 + sigma**2) * gain).reshape(-1, *[1] * (u.ndim - 1))
            return D.detach() + sigma**2 * pull(run, u, D, g / tau2)

        return denoise
