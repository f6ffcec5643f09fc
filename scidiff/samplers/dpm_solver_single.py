r"""DPM-Solver of orders 1 to 3, the single step solvers that extrapolate the noise.

With :math:`\epsilon(u, \sigma) = (u - D)/\sigma`, :math:`h = \log(a/b)` and :math:`s_r = a^{1-r} b^r`,

.. math::
    \text{1:}\quad & u_b = u_a + (b - a)\,\epsilon(u_a, a) \\
    \text{2:}\quad & u_s = u_a + (s_{1/2} - a)\,\epsilon_a, \qquad u_b = u_a + (b - a)\,\epsilon(u_s, s_{1/2}) \\
    \text{3:}\quad & u_1 = u_a + (s_{1/3} - a)\,\epsilon_a, \qquad \delta_1 = \epsilon(u_1, s_{1/3}) - \epsilon_a, \\
    & u_2 = u_a + (s_{2/3} - a)\,\epsilon_a - 2 s_{2/3} \Big(\frac{e^{2h/3} - 1}{2h/3} - 1\Big)\,\delta_1, \qquad
      \delta_2 = \epsilon(u_2, s_{2/3}) - \epsilon_a, \\
    & u_b = u_a + (b - a)\,\epsilon_a - \frac{3b}{2} \Big(\frac{e^h - 1}{h} - 1\Big)\,\delta_2 .

Order 1 is DDIM. The last step, to level zero, is :math:`u_0 = D`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from scidiff.protocols import Callback, Denoiser
from scidiff.rng import Streams
from scidiff.samplers.base import Correction, Sampler, level
from scidiff.schedules import Schedule, log_linear

__all__ = ["DPMSolverSingle"]


@dataclass(frozen=True, repr=False)
class DPMSolverSingle(Sampler):
    """DPM-Solver-1, -2 or -3; as many denoiser calls per step as its order.

    Arguments:
        steps: Budget of denoiser calls, which is used up: ``order`` per step, the remainder in one step of lower order
            (as in the paper's DPM-Solver-fast), and one for the last.
        schedule: Noise levels; evenly spaced in their log by default, as the paper does.
        order: 1, 2 or 3.

    References:
        DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling in Around 10 Steps (Lu et al., 2022),
        arXiv:2206.00927, algorithms 1 and 2 and section 3.4.
    """

    schedule: Schedule = log_linear
    order: int = 3

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3):
            raise ValueError(f"order must be 1, 2 or 3, got {self.order}.")
        super().__post_init__()

    @property
    def orders(self) -> list[int]:
        """Order of each step, equal to its number of calls; the last step is the one to level zero."""
        whole, rest = divmod(self.steps - 1, self.order)
        return [self.order] * whole + [rest] * (rest > 0) + [1]

    @property
    def intervals(self) -> int:
        return len(self.orders)

    def integrate(
        self,
        denoise: Denoiser,
        u: Tensor,
        streams: Streams,
        callback: Callback | None = None,
        correct: Correction | None = None,
    ) -> Tensor:
        def noise(u: Tensor, sigma: float) -> Tensor:
            return (u - denoise(u, level(u, sigma))) / sigma

        def slope(z: float) -> float:
            return math.expm1(z) / z - 1

        path = self.path(callback, correct)
        for order, (a, b) in zip(self.orders, path, strict=True):
            if b == 0:
                return path.report(denoise(u, level(u, a)))
            eps, h = noise(u, a), math.log(a / b)
            if order == 1:
                u_b = u + (b - a) * eps
            elif order == 2:
                s = math.sqrt(a * b)
                u_b = u + (b - a) * noise(u + (s - a) * eps, s)
            else:
                s1, s2 = a * math.exp(-h / 3), a * math.exp(-2 * h / 3)
                delta = noise(u + (s1 - a) * eps, s1) - eps
                delta = noise(u + (s2 - a) * eps - 2 * s2 * slope(2 * h / 3) * delta, s2) - eps
                u_b = u + (b - a) * eps - 1.5 * b * slope(h) * delta
            u = path.report(u_b)
        return u
