r"""Ancestral sampling of DDPM written for variance-exploding noise.

.. math:: u_b = u_a - t\,(u_a - D) + b\sqrt{t}\,z, \qquad t = 1 - b^2/a^2, \quad z \sim N(0, I)

This is the exact law of :math:`u_b` given :math:`u_a` and :math:`u_0 = D` (the smaller of the two variances in the
paper). It ignores the variance of :math:`u_0` given :math:`u_a`, so draws are too narrow on coarse grids.

**Learned variance.** Networks trained with `scidiff.training.hybrid.HybridLoss` have outputs :math:`2v - 1` that say,
number by number, where the variance lies between this one and the one that is exact for data of unit variance,

.. math:: \ln\Sigma = v\ln\beta + (1 - v)\ln\tilde\beta, \qquad
          \beta = \frac{(1 + b^2)(a^2 - b^2)}{1 + a^2}, \quad \tilde\beta = b^2 t .

The second formula holds for the levels of any schedule, so a network trained on 1000 levels is sampled on fewer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scidiff.inference import Cost
from scidiff.protocols import Callback, Denoiser, Prior
from scidiff.rng import Streams
from scidiff.samplers.base import Correction, Sampler, level
from scidiff.schedules import Schedule, vp_linear

__all__ = ["DDPM", "ancestral"]


def ancestral(u: Tensor, D: Tensor, a: float, b: float, streams: Streams) -> Tensor:
    """One step from level ``a`` to level ``b``; no noise is drawn when ``b`` is zero."""
    t = 1 - b**2 / a**2
    u = u - t * (u - D)
    return u + b * t**0.5 * streams.randn_like(u) if b > 0 else u


class LearnedVariance:
    """The denoiser of a prior whose network also learned the reverse variance; counts its calls."""

    def __init__(self, prior: Prior, cost: Cost) -> None:
        self.prior, self.cost = prior, cost
        if not callable(getattr(prior, "denoise_all", None)):
            raise TypeError(f"{type(prior).__name__} offers no learned variance; take DDPM(learned=False).")

    def __call__(self, u: Tensor, sigma: Tensor) -> Tensor:
        self.cost.denoiser += 1
        return self.prior.denoise(u, sigma)

    def all(self, u: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """The denoised state and v, both of the shape of ``u``."""
        self.cost.denoiser += 1
        D, rest = self.prior.denoise_all(u, sigma)  # type: ignore[attr-defined]
        if rest.shape != u.shape:
            raise TypeError(
                f"the network says {rest.shape[1]} numbers beyond the {u.shape[1]} channels of the denoised state, a "
                f"learned variance needs {u.shape[1]}; train it with HybridLoss or take DDPM(learned=False)."
            )
        return D, (rest + 1) / 2


@dataclass(frozen=True, repr=False)
class DDPM(Sampler):
    """Denoising diffusion probabilistic model.

    Arguments:
        steps: Number of steps, equal to the number of denoiser calls.
        schedule: Noise levels; the default takes ``steps`` of the 1000 published levels.
        learned: Takes the reverse variance of the network, for priors that have one; not inside posterior samplers.

    References:
        Denoising Diffusion Probabilistic Models (Ho, Jain and Abbeel, 2020), arXiv:2006.11239, algorithm 2.
        Improved Denoising Diffusion Probabilistic Models (Nichol and Dhariwal, 2021), arXiv:2102.09672, equation (15).
    """

    steps: int = 1000
    schedule: Schedule = vp_linear
    learned: bool = False

    def denoiser(self, prior: Prior, cost: Cost) -> Denoiser:
        return LearnedVariance(prior, cost) if self.learned else super().denoiser(prior, cost)

    def integrate(
        self,
        denoise: Denoiser,
        u: Tensor,
        streams: Streams,
        callback: Callback | None = None,
        correct: Correction | None = None,
    ) -> Tensor:
        path = self.path(callback, correct)
        for a, b in path:
            if self.learned and b > 0:
                if not isinstance(denoise, LearnedVariance):
                    raise TypeError("the denoiser of a posterior has no learned variance; take DDPM(learned=False).")
                D, v = denoise.all(u, level(u, a))
                t = 1 - b**2 / a**2
                wide, narrow = (1 + b**2) * (a**2 - b**2) / (1 + a**2), b**2 * t
                deviation = torch.exp((v * math.log(wide) + (1 - v) * math.log(narrow)) / 2)
                u = path.report(u - t * (u - D) + deviation * streams.randn_like(u))
            else:
                D = denoise(u, level(u, a))
                u = path.report(ancestral(u, D, a, b, streams))
        return u
