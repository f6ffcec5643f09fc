r"""DEIS: exponential Adams-Bashforth steps in the log of the noise level.

The noise :math:`\epsilon = (u - D)/\sigma` is extrapolated as a polynomial in :math:`\log\sigma` through its last p
values and integrated exactly over the step,

.. math:: u_b = u_a + \sum_{j=0}^{p-1} w_j\,\epsilon_j, \qquad w_j = \int_a^b \ell_j(\log\sigma)\,d\sigma,

with the polynomials :math:`\ell_j` of Lagrange. One value gives DDIM. The first p - 1 steps use the values there are;
the last one, to level zero, is :math:`u_0 = D`.

The paper lets the polynomials run in the time t of a given process (tAB), in :math:`\rho = \sigma` or in its log; the
log belongs to no process, and on its even grid the extrapolation is the best conditioned.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from scidiff.protocols import Callback, Denoiser
from scidiff.rng import Streams
from scidiff.samplers.base import Correction, Sampler, level
from scidiff.samplers.exponential import Past, combine, noise_weights
from scidiff.schedules import Schedule, log_linear

__all__ = ["DEIS"]


@dataclass(frozen=True, repr=False)
class DEIS(Sampler):
    """Diffusion exponential integrator sampler (log-rho AB); one denoiser call per step, any order.

    Arguments:
        steps: Number of steps, equal to the number of denoiser calls.
        schedule: Noise levels; evenly spaced in their log by default.
        order: Number p of values that are extrapolated, the order of convergence; the paper goes to 4.

    References:
        Fast Sampling of Diffusion Models with Exponential Integrator (Zhang and Chen, 2022), arXiv:2204.13902,
        equations (14) and (15).
    """

    schedule: Schedule = log_linear
    order: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order < 1:
            raise ValueError(f"order must be at least 1, got {self.order}.")

    def integrate(
        self,
        denoise: Denoiser,
        u: Tensor,
        streams: Streams,
        callback: Callback | None = None,
        correct: Correction | None = None,
    ) -> Tensor:
        path, past, end = self.path(callback, correct), Past(self.order), u
        for a, b in path:
            D = denoise(u, level(u, a))
            before = None if path.before is None else (end - path.before) / a  # the noise where the step ended
            past.add(a, (u - D) / a, before)
            end = u + combine(noise_weights(a, b, past.levels), past.values) if b > 0 else D
            u = path.report(end)
        return u
