r"""DPM-Solver++ 3M, the multistep solver of third order in the log of the noise level.

With :math:`h = \log(a/b)` the step is exact for a denoised state that is a polynomial of degree two in
:math:`\log\sigma`, taken through the last three,

.. math:: u_b = \frac{b}{a} u_a + \sum_{j=0}^{2} w_j D_j, \qquad
          \sum_j w_j s_j^k = h\,k!\,\varphi_{k+1}(-h), \quad k = 0, 1, 2,

with :math:`s_j = \log(a/\sigma_j) / h` and :math:`\varphi` of `scidiff.samplers.exponential`. The first two steps use
the one and two values there are; the last one, to level zero, is :math:`u_0 = D`.

In the notation of widely used code the sum is :math:`(1 - e^{-h}) D + \phi_2 D_1 - 2 \phi_3 D_2` with
:math:`\phi_2 = 1 - (1 - e^{-h})/h`, :math:`\phi_3 = \phi_2/h - 1/2`. That code has :math:`\phi_3 D_2` without the 2,
half the quadratic term, and with it the order is two; here it is whole.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from scidiff.protocols import Callback, Denoiser
from scidiff.rng import Streams
from scidiff.samplers.base import Correction, Sampler, level
from scidiff.samplers.exponential import Past, combine, data_weights
from scidiff.schedules import Schedule, log_linear

__all__ = ["DPMSolver3M"]


@dataclass(frozen=True, repr=False)
class DPMSolver3M(Sampler):
    """DPM-Solver++ 3M; one denoiser call per step, order 3.

    Arguments:
        steps: Number of steps, equal to the number of denoiser calls.
        schedule: Noise levels; evenly spaced in their log by default, as the paper does.

    References:
        DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models (Lu et al., 2022),
        arXiv:2211.01095, section 4.2 and appendix B.
    """

    schedule: Schedule = log_linear

    def integrate(
        self,
        denoise: Denoiser,
        u: Tensor,
        streams: Streams,
        callback: Callback | None = None,
        correct: Correction | None = None,
    ) -> Tensor:
        path, past = self.path(callback, correct), Past(3)
        for a, b in path:
            D = denoise(u, level(u, a))
            past.add(a, D, path.before)
            if b > 0:
                D = combine(data_weights(a, b, past.levels), past.values)
            u = path.report((b / a) * u + D)
        return u
