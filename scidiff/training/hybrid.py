r"""DDPM with a learned reverse variance: the hybrid loss.

Levels :math:`0 = \sigma_0 < \sigma_1 < \dots < \sigma_T`. For a step from :math:`a = \sigma_i` to
:math:`b = \sigma_{i-1}`, in :math:`u_\sigma = u + \sigma\epsilon`,

.. math::
    q(u_b | u_a, u) &= N\big(u + \tfrac{b^2}{a^2}(u_a - u),\; \tilde\beta\big), \qquad
        \tilde\beta = \tfrac{b^2 (a^2 - b^2)}{a^2},\\
    p(u_b | u_a) &= N\big(D + \tfrac{b^2}{a^2}(u_a - D),\; \Sigma\big), \qquad
        \ln\Sigma = v\ln\beta + (1 - v)\ln\tilde\beta, \quad \beta = \tfrac{(1 + b^2)(a^2 - b^2)}{1 + a^2}.

The network has twice the channels of :math:`u`: the second half is :math:`2v - 1`. The loss is
:math:`\|\hat\epsilon - \epsilon\|^2/n + \lambda T L_i`, with :math:`L_i = KL(q\,\|\,p)` in bits per number (for
:math:`i = 1` the negative log density of :math:`u`), where no gradient passes through the mean of :math:`p`.

References:
    Nichol & Dhariwal, Improved denoising diffusion probabilistic models, 2021, arXiv:2102.09672, eq. 15 and 16, and
    section 3.2 for the cosine levels. Kullback-Leibler divergences do not change under the scaling from the paper's
    variance-preserving states.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from scidiff.priors.diffusion import Network, precondition_all

__all__ = ["HybridLoss", "cosine_levels", "linear_levels", "log_variance"]


def cosine_levels(steps: int = 1000, offset: float = 0.008) -> list[float]:
    """The T levels of improved DDPM (eq. 17), smallest first; beta is at most 0.999."""
    f = [math.cos((i / steps + offset) / (1 + offset) * math.pi / 2) ** 2 for i in range(steps + 1)]
    return _from_betas([min(1 - f[i + 1] / f[i], 0.999) for i in range(steps)])


def linear_levels(steps: int = 1000, low: float = 1e-4, high: float = 0.02) -> list[float]:
    """The T levels of DDPM (section 4), smallest first."""
    return _from_betas(torch.linspace(low, high, steps, dtype=torch.float64).tolist())


def _from_betas(betas: Sequence[float]) -> list[float]:
    levels, kept = [], 1.0
    for beta in betas:
        kept *= 1 - beta
        levels.append(math.sqrt(1 / kept - 1))
    return levels


def log_variance(v: Tensor, a: Tensor, b: Tensor, floor: Tensor) -> Tensor:
    r"""The learned reverse variance :math:`\ln\Sigma`; ``floor`` stands in for :math:`\tilde\beta` where it is zero."""
    wide = (1 + b.square()) * (a.square() - b.square()) / (1 + a.square())
    narrow = torch.where(b > 0, b.square() * (a.square() - b.square()) / a.square(), floor)
    return v * wide.log() + (1 - v) * narrow.log()


class HybridLoss:
    r"""Simple loss plus a small multiple of the variational bound, which trains the variance only.

    Arguments:
        levels: The T noise levels, smallest first, T at least 2.
        weight: :math:`\lambda`, 0.001 in the paper.
    """

    def __init__(self, levels: Sequence[float] | None = None, weight: float = 1e-3) -> None:
        levels = cosine_levels() if levels is None else list(levels)
        if len(levels) < 2 or levels[0] <= 0 or any(b <= a for a, b in zip(levels, levels[1:], strict=False)):
            raise ValueError("levels must be at least two positive numbers, smallest first.")
        self.levels = torch.tensor([0.0, *levels], dtype=torch.float64)
        self.weight = weight
        s1, s2 = (float(s) ** 2 for s in levels[:2])
        self.floor = s1 * (s2 - s1) / s2  # the posterior variance of the second step, as in the paper's code

    def draw(self, generator: Generator) -> Tensor:
        """The index i of a level, 1 to T."""
        return torch.randint(1, len(self.levels), (), generator=generator).float()

    def __call__(self, network: Network, u: Tensor, time: Tensor, eps: Tensor) -> Tensor:
        mse, bound = self.terms(network, u, time, eps)
        return mse + self.weight * (len(self.levels) - 1) * bound

    def terms(self, network: Network, u: Tensor, time: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Squared error of the noise and :math:`L_i` in bits per number, each (B,)."""
        index = time.round().long()
        table = self.levels.to(u)
        a, b = (table[i].reshape(-1, *(1,) * (u.ndim - 1)) for i in (index, index - 1))
        denoised, rest = precondition_all(network, u + a * eps, table[index])
        if rest.shape != u.shape:
            raise ValueError(
                f"the hybrid loss needs a network with {2 * u.shape[1]} outputs, the second half for the variance; "
                f"it has {denoised.shape[1] + rest.shape[1]}. Set network.outputs."
            )
        denoised = denoised.to(u.dtype)
        mse = ((denoised - u) / a).square().flatten(1).mean(1)
        logvar = log_variance((rest.to(u.dtype) + 1) / 2, a, b, torch.full_like(a, self.floor))
        # Means of q and p differ by (1 - b^2/a^2)(D - u); at b = 0 the bound is the density of u itself.
        gap = ((1 - b.square() / a.square()) * (denoised.detach() - u)).square()
        true = b.square() * (a.square() - b.square()) / a.square()
        inside = torch.where(b > 0, true, torch.ones_like(true))
        kl = 0.5 * (logvar - inside.log() - 1 + (inside + gap) * (-logvar).exp())
        nll = 0.5 * (logvar + math.log(2 * math.pi) + gap * (-logvar).exp())
        bound = torch.where(b > 0, kl, nll).flatten(1).mean(1) / math.log(2)
        return mse, bound
