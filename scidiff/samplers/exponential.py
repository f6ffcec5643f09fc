r"""Integrals of exponentials times polynomials, which multistep solvers in the log of the noise level need.

Along a step from level a to level b, with :math:`h = \log(a/b)` and :math:`\sigma = a e^{-hs}`, :math:`s = 0 \dots 1`,
the probability-flow ODE has two exact forms,

.. math::
    \text{data:}\quad & u_b = \frac{b}{a} u_a + h \int_0^1 e^{-h(1-s)} D\,ds, \\
    \text{noise:}\quad & u_b = u_a - b h \int_0^1 e^{h(1-s)} \epsilon\,ds, \qquad \epsilon = \frac{u - D}{\sigma} .

A polynomial through known values of D or :math:`\epsilon` at the nodes :math:`s_j` turns them into sums
:math:`\sum_j w_j D_j` and :math:`\sum_j w_j \epsilon_j`. The weights are exact for powers of s, whose integrals are

.. math:: \int_0^1 e^{z(1-s)} s^k\,ds = k!\,\varphi_{k+1}(z), \qquad
          \varphi_k(z) = \sum_{n \ge 0} \frac{z^n}{(n + k)!}, \quad z = \mp h .

References:
    Exponential integrators (Hochbruck and Ostermann, 2010), doi:10.1017/S0962492910000048, sections 2.1 and 2.5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Past", "combine", "data_weights", "noise_weights", "phi"]


def phi(k: int, z: float) -> float:
    r""":math:`\varphi_k(z)`, k at least 0, without the cancellation that the recursion has near zero."""
    if abs(z) < k + 1:
        term, total, n = 1 / math.factorial(k), 0.0, k
        while abs(term) > 1e-18 * abs(total):
            total, n = total + term, n + 1
            term *= z / n
        return total
    return math.exp(z) if k == 0 else (phi(k - 1, z) - 1 / math.factorial(k - 1)) / z


def _weights(nodes: Sequence[float], z: float) -> list[float]:
    """Weights exact for the powers of s below the number of nodes."""
    s = torch.tensor(nodes, dtype=torch.float64)
    powers = torch.stack([s**k for k in range(len(nodes))])
    moments = [math.factorial(k) * phi(k + 1, z) for k in range(len(nodes))]
    return torch.linalg.solve(powers, torch.tensor(moments, dtype=torch.float64)).tolist()


def data_weights(a: float, b: float, levels: Sequence[float]) -> list[float]:
    """Weights of the denoised states known at ``levels`` in the step from a to b."""
    h = math.log(a / b)
    return [h * w for w in _weights([math.log(a / c) / h for c in levels], -h)]


def noise_weights(a: float, b: float, levels: Sequence[float]) -> list[float]:
    """Weights of the noises known at ``levels`` in the step from a to b."""
    h = math.log(a / b)
    return [-b * h * w for w in _weights([math.log(a / c) / h for c in levels], h)]


def combine(weights: Sequence[float], values: Sequence[Tensor]) -> Tensor:
    """The sum of weights times values."""
    total = weights[0] * values[0]
    for w, value in zip(weights[1:], values[1:], strict=True):
        total = total + w * value
    return total


class Past:
    """The last ``size`` values along a trajectory and their levels, newest first.

    Where a state is corrected between steps (`PredictorCorrector`), the values before are moved by what the correction
    did to the newest one: only differences along the trajectory are extrapolated, not the noise of corrections.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.levels: list[float] = []
        self.values: list[Tensor] = []

    def add(self, level: float, value: Tensor, before: Tensor | None = None) -> None:
        """Notes the value at a level; ``before`` is the value before the correction, None where there was none."""
        if before is not None:
            self.values = [old + (value - before) for old in self.values]
        self.levels = [level, *self.levels][: self.size]
        self.values = [value, *self.values][: self.size]
