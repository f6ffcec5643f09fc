r"""DPM-Solver++ 2M, the multistep solver of second order in the log of the noise level.

With :math:`h = \log(a/b)`, the previous step's :math:`h_{-}` and denoised state :math:`D_{-}`, and
:math:`r = h_{-}/h`, the denoised state is extrapolated to the middle of the step,

.. math:: D' = D + \frac{1}{2 r}(D - D_{-}),

and the two variants are

.. math::
    \text{ODE:}\quad & u_b = \frac{b}{a} u_a + \Big(1 - \frac{b}{a}\Big) D' \\
    \text{SDE:}\quad & u_b = \frac{b^2}{a^2} u_a + \Big(1 - \frac{b^2}{a^2}\Big) D'
        + b\sqrt{1 - \frac{b^2}{a^2}}\,z, \qquad z \sim N(0, I).

The first step and the last one (to level zero, :math:`h = \infty`) take :math:`D' = D`. Where the state is
corrected between steps (`PredictorCorrector`), the difference :math:`D - D_{-}` takes :math:`D` before the correction,
whose noise must not be extrapolated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from scidiff.protocols import Callback, Denoiser
from scidiff.rng import Streams
from scidiff.samplers.base import Correction, Sampler, level
from scidiff.schedules import Schedule, log_linear

__all__ = ["DPMSolver"]


@dataclass(frozen=True, repr=False)
class DPMSolver(Sampler):
    """DPM-Solver++ 2M; one denoiser call per step.

    Arguments:
        steps: Number of steps, equal to the number of denoiser calls.
        schedule: Noise levels; evenly spaced in their log by default, as the paper does. On Gaussians with 64 steps
            this leaves the variance 0.3 % (ODE) and 0.9 % (SDE) too wide, `karras` 0.5 to 1.2 % and 1.4 to 3.8 %.
        stochastic: False integrates the ODE (order 2), True the SDE.

    References:
        DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models (Lu et al., 2022),
        arXiv:2211.01095, algorithm 2 and appendix B (SDE).
    """

    schedule: Schedule = log_linear
    stochastic: bool = False

    def integrate(
        self,
        denoise: Denoiser,
        u: Tensor,
        streams: Streams,
        callback: Callback | None = None,
        correct: Correction | None = None,
    ) -> Tensor:
        path = self.path(callback, correct)
        D_last, h_last = None, math.inf
        for a, b in path:
            D = denoise(u, level(u, a))
            h = math.log(a / b) if b > 0 else math.inf
            before = D if path.before is None else path.before
            middle = D if D_last is None or b == 0 else D + h / (2 * h_last) * (before - D_last)
            keep = (b / a) ** 2 if self.stochastic else b / a
            u = keep * u + (1 - keep) * middle
            if self.stochastic and b > 0:
                u = u + b * math.sqrt(1 - keep) * streams.randn_like(u)
            u = path.report(u)
            D_last, h_last = D, h
        return u
