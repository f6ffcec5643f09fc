r"""Ancestral sampling of DDPM written for variance-exploding noise.

.. math:: u_b = u_a - t\,(u_a - D) + b\sqrt{t}\,z, \qquad t = 1 - b^2/a^2, \quad z \sim N(0, I)

This is the exact law of :math:`u_b` given :math:`u_a` and :math:`u_0 = D` (the smaller of the two variances in the
paper). It ignores the variance of :math:`u_0` given :math:`u_a`, so draws are too narrow on coarse grids.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from scidiff.protocols import Callback, Denoiser
from scidiff.rng import Streams
from scidiff.samplers.base import Correction, Sampler, level
from scidiff.schedules import Schedule, vp_linear

__all__ = ["DDPM", "ancestral"]


def ancestral(u: Tensor, D: Tensor, a: float, b: float, streams: Streams) -> Tensor:
    """One step from level ``a`` to level ``b``; no noise is drawn when ``b`` is zero."""
    t = 1 - b**2 / a**2
    u = u - t * (u - D)
    return u + b * t**0.5 * streams.randn_like(u) if b > 0 else u


@dataclass(frozen=True, repr=False)
class DDPM(Sampler):
    """Denoising diffusion probabilistic model.

    Arguments:
        steps: Number of steps, equal to the number of denoiser calls.
        schedule: Noise levels; the default takes ``steps`` of the 1000 published levels.

    References:
        Denoising Diffusion Probabilistic Models (Ho, Jain and Abbeel, 2020), arXiv:2006.11239, algorithm 2.
    """

    steps: int = 1000
    schedule: Schedule = vp_linear

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
            D = denoise(u, level(u, a))
            u = path.report(ancestral(u, D, a, b, streams))
        return u
