r"""DPM-Solver++ 2S, the single step solver of second order in the log of the noise level.

.. math:: s = \sqrt{ab}, \qquad u_s = \frac{s}{a} u_a + \Big(1 - \frac{s}{a}\Big) D(u_a, a), \qquad
          u_b = \frac{b}{a} u_a + \Big(1 - \frac{b}{a}\Big) D(u_s, s)

A step uses nothing of the step before, so its size may change at will. The last step, to level zero, is
:math:`u_0 = D`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from scidiff.protocols import Callback, Denoiser
from scidiff.rng import Streams
from scidiff.samplers.base import Correction, Sampler, level
from scidiff.schedules import Schedule, log_linear

__all__ = ["DPMSolver2S"]


@dataclass(frozen=True, repr=False)
class DPMSolver2S(Sampler):
    """DPM-Solver++ 2S; two denoiser calls per step, order 2.

    Arguments:
        steps: Budget of denoiser calls, which is used up: two per step and one for the last. Where it is even, the
            last step but one takes one call (DDIM).
        schedule: Noise levels; evenly spaced in their log by default, as the paper does.

    References:
        DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models (Lu et al., 2022),
        arXiv:2211.01095, algorithm 1 with r = 1/2.
    """

    schedule: Schedule = log_linear

    @property
    def intervals(self) -> int:
        return 1 + self.steps // 2

    def integrate(
        self,
        denoise: Denoiser,
        u: Tensor,
        streams: Streams,
        callback: Callback | None = None,
        correct: Correction | None = None,
    ) -> Tensor:
        path = self.path(callback, correct)
        for i, (a, b) in enumerate(path):
            D = denoise(u, level(u, a))
            if i < (self.steps - 1) // 2:
                s = math.sqrt(a * b)
                D = denoise((s / a) * u + (1 - s / a) * D, level(u, s))
            u = path.report((b / a) * u + (1 - b / a) * D)
        return u
