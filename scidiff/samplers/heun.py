r"""Heun's method of EDM, with or without churn.

.. math:: \hat a = a(1 + \gamma), \quad \hat u = u_a + S_{noise}\sqrt{\hat a^2 - a^2}\,z, \quad
          d = \frac{\hat u - D(\hat u, \hat a)}{\hat a}, \quad u' = \hat u + (b - \hat a) d, \quad
          d' = \frac{u' - D(u', b)}{b}, \quad u_b = \hat u + (b - \hat a)\,\frac{d + d'}{2}

with :math:`\gamma = \min(S_{churn}/n, \sqrt 2 - 1)` where :math:`S_{tmin} \le a \le S_{tmax}`, else 0. The last step,
to level zero, is :math:`u_b = D`. Order 2 without churn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from scidiff.protocols import Callback, Denoiser
from scidiff.rng import Streams
from scidiff.samplers.base import Correction, Sampler, level

__all__ = ["Heun"]


@dataclass(frozen=True, repr=False)
class Heun(Sampler):
    """EDM's sampler; deterministic while ``S_churn`` is 0.

    Arguments:
        steps: Budget of denoiser calls. ``n = (steps + 1) // 2`` steps are made with 2 calls each, save the last
            with 1: ``2 n - 1`` calls, which is ``steps`` when odd and ``steps - 1`` when even.
        schedule: Noise levels.
        S_churn: Amount of noise renewed over the whole run.
        S_tmin: Smallest noise level where noise is renewed.
        S_tmax: Largest noise level where noise is renewed.
        S_noise: Standard deviation of the renewed noise, slightly above 1 to make up for lost variance.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), arXiv:2206.00364,
        algorithms 1 and 2.
    """

    steps: int = 35  # 18 steps, the setting of table 2 of the paper for CIFAR-10
    S_churn: float = 0.0
    S_tmin: float = 0.0
    S_tmax: float = math.inf
    S_noise: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.S_churn < 0 or self.S_noise < 0:
            raise ValueError(f"S_churn and S_noise must not be negative, got {self.S_churn} and {self.S_noise}.")

    @property
    def intervals(self) -> int:
        return (self.steps + 1) // 2

    @property
    def calls(self) -> int:
        return 2 * self.intervals - 1

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
            gamma = min(self.S_churn / len(path), math.sqrt(2) - 1) if self.S_tmin <= a <= self.S_tmax else 0.0
            if gamma > 0:
                raised = a * (1 + gamma)
                u = u + self.S_noise * math.sqrt(raised**2 - a**2) * streams.randn_like(u)
                a = raised
            d = (u - denoise(u, level(u, a))) / a
            u_b = u + (b - a) * d
            if b > 0:
                d_b = (u_b - denoise(u_b, level(u, b))) / b
                u_b = u + (b - a) * (d + d_b) / 2
            u = path.report(u_b)
        return u
