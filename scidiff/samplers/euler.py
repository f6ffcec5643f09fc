r"""Euler's method on the probability-flow ODE.

.. math:: \frac{du}{d\sigma} = \frac{u - D(u, \sigma)}{\sigma}, \qquad u_b = u_a + (b - a)\,\frac{u_a - D}{a}

The same numbers as DDIM with eta = 0. Order 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from scidiff.protocols import Callback, Denoiser
from scidiff.rng import Streams
from scidiff.samplers.base import Correction, Sampler, level

__all__ = ["Euler"]


@dataclass(frozen=True, repr=False)
class Euler(Sampler):
    r"""Euler steps :math:`u_b = D + (b/a)(u_a - D)`; one denoiser call each.

    Arguments:
        steps: Number of steps, equal to the number of denoiser calls.
        schedule: Noise levels.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), arXiv:2206.00364.
    """

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
            u = path.report(D + (b / a) * (u - D))
        return u
