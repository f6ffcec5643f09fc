r"""Diffusion policy gradient (DPG): the gradient of the fit from the values of the operator near the denoised state.

With :math:`D = D(u_a, a)`, samples :math:`x_j = D + \rho\,\epsilon_j`, :math:`\epsilon_j \sim N(0, I)`, and the
deviance :math:`\Delta` of `scidiff.posterior.queries`,

.. math:: w_j = e^{-(\Delta(x_j) - \Delta(D)) / (c^2 Z)}, \qquad
    v = \frac1m \sum_j (w_j - \bar w_j)\,\frac{\epsilon_j}{\rho}, \qquad g = J^\top v,

where :math:`\bar w_j` is the mean of the other weights. The expectation of v is the gradient of :math:`E[w]` with
respect to D: the policy gradient. Only the network is differentiated. Then a DDPM step and a kick of fixed length,

.. math:: u_b = \mathrm{DDPM}(u_a, D) + s\,\beta\sqrt{d\,(1 + b^2)}\;\frac{\tilde g}{\|\tilde g\|}, \qquad
    \beta = 1 - \frac{1 + b^2}{1 + a^2}, \quad \tilde g = m_t\,g_{\mathrm{last}} + (1 - m_t)\,g .

**Units.** Z is the running mean of :math:`\Delta(D)/c^2` of each row, held above the :math:`n/c^2` that the noise of n
data alone gives, and :math:`\rho = \sqrt{Z/n}/2`. The authors assume fields and data of unit size; here c, the root
mean square of the whitened residual of the prior mean, measures the data in units of their own variability. Their kick
:math:`\beta B` for fields of d pixels is ours with :math:`B = s\sqrt d` (their B = 64 to 300 at d = 3 x 256 x 256:
s = 0.15 to 0.7), carried to our variables.

**DPG is a heuristic**: the length of the kick does not depend on what the data say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scidiff.posterior.base import MemberSampler, Run, differentiate
from scidiff.posterior.queries import candidates, deviances, directions, mark, numbers, variability
from scidiff.samplers.base import level
from scidiff.samplers.ddpm import DDPM, ancestral
from scidiff.schedules import Schedule, describe, vp_linear

__all__ = ["DPG", "policy_gradient"]


@dataclass(frozen=True, repr=False)
class DPG(MemberSampler):
    r"""Diffusion policy gradient: a kick along the gradient estimated from operator values; for black boxes.

    Arguments:
        steps: Number of steps; each is one denoiser call, one vector-Jacobian product of the denoiser and
            ``samples + 1`` operator calls. Authors: 1000.
        samples: m per step; the estimate's relative error falls as :math:`\sqrt{d/m}`. Authors: 1000 to 5000, for
            fields of 200000 numbers.
        strength: s. The default is the best of 0.3 to 2.5 on exact posteriors; the authors' is 0.15 to 0.7.
        decay: Weight of the last value in the running mean Z; authors' value.
        momentum: :math:`m_t` at the first step, falling to zero at the last; authors' value.
        schedule: Noise levels.

    References:
        Solving General Noisy Inverse Problem via Posterior Sampling: A Policy Gradient Viewpoint (Tang et al., 2024),
        arXiv:2403.10585.
    """

    requires: ClassVar[frozenset[str]] = frozenset()

    steps: int = 200
    samples: int = 64
    strength: float = 1.0
    decay: float = 0.9
    momentum: float = 0.1
    schedule: Schedule = vp_linear

    def __post_init__(self) -> None:
        DDPM(self.steps, self.schedule)  # validates both
        if self.samples < 2:
            raise ValueError(f"samples must be at least 2, got {self.samples}.")
        if self.strength < 0:
            raise ValueError(f"strength must not be negative, got {self.strength}.")
        if not (0 <= self.decay < 1 and 0 <= self.momentum < 1):
            raise ValueError(f"decay and momentum must lie in [0, 1), got {self.decay} and {self.momentum}.")

    def __repr__(self) -> str:
        return describe(self)

    def draw(self, run: Run) -> Tensor:
        base, p, n = DDPM(self.steps, self.schedule), run.posterior, numbers(run)
        u = base.start(run.streams, p.shape or (), p.device, p.dtype)
        with torch.no_grad():
            square = variability(run, u).square()
            path, Z, last = base.path(run.callback), None, None
            for step, (a, b) in enumerate(path):
                leaf, D = differentiate(run, u, level(u, a))
                center = D.detach()
                deviance = deviances(run, center)
                Z = deviance / square if Z is None else self.decay * Z + (1 - self.decay) * deviance / square
                Z = torch.maximum(Z, n / square)
                rho = expand((Z / n).sqrt() / 2, u)
                v = policy_gradient(run, center, rho, deviance, square * Z, self.samples)
                run.cost.denoiser_vjp += 1
                (g,) = torch.autograd.grad(D, leaf, v)
                m = self.momentum * (1 - (step + 1) / self.steps)
                mixed, last = g if last is None else m * last + (1 - m) * g, g
                size = expand(torch.linalg.vector_norm(mixed.flatten(1), dim=1), u)
                beta = 1 - (1 + b**2) / (1 + a**2)
                kick = self.strength * beta * ((1 + b**2) * u[0].numel()) ** 0.5
                u = ancestral(u, center, a, b, run.streams)
                u = path.report(u + kick * mixed / size.clamp(min=torch.finfo(u.dtype).tiny))
        return u


def expand(x: Tensor, like: Tensor) -> Tensor:
    r"""One number per row, (rows,), beside states (rows, \*S)."""
    return x.reshape(-1, *[1] * (like.ndim - 1))


def policy_gradient(run: Run, D: Tensor, rho: Tensor, deviance: Tensor, temperature: Tensor, samples: int) -> Tensor:
    r"""The estimate v of :math:`\nabla_D E_\epsilon\, e^{-(\Delta(D + \rho\epsilon) - \Delta(D))/\tau}`, (rows, \*S).

    Arguments:
        run: Run whose random numbers and operator are used.
        D: States (rows, \*S).
        rho: Standard deviations of the samples, (rows, 1, ...).
        deviance: :math:`\Delta(D)`, (rows,).
        temperature: :math:`\tau`, (rows,).
        samples: m.
    """
    weights, products, sums = torch.zeros_like(deviance), torch.zeros_like(D), torch.zeros_like(D)
    counts = torch.full_like(deviance, samples)
    for e in directions(run, D, samples):
        w = torch.exp(-(candidates(run, D + rho * e) - deviance) / temperature)
        if run.lost:  # samples for which the operator failed are left out
            gone = w.isnan()
            counts -= gone.sum(0)
            w, e = w.masked_fill(gone, 0), e * expand((~gone).flatten(), e[0]).unflatten(0, w.shape)
        weights += w.sum(0)
        sums += e.sum(0)
        products += (expand(w.flatten(), e[0]).unflatten(0, w.shape) * e).sum(0)
    if run.lost:
        mark(run, counts < 2)
        counts = counts.clamp(min=2)
    return (products - expand(weights / counts, D) * sums) / expand(counts - 1, D) / rho
