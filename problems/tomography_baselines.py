r"""Classical reconstructions for tomography that a posterior must beat: SIRT and total variation with known noise.

SIRT (simultaneous iterative reconstruction technique) repeats, from zero,

.. math:: x \leftarrow \max\big(0,\; x + C A^\top R\, (y - A x)\big)

with :math:`R` and :math:`C` the inverse sums of rows and columns of :math:`A`; stopping early regularises.

References:
    Iterative methods for the three-dimensional reconstruction of an object from projections. Gilbert, 1972.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from scidiff.problems.baselines import total_variation

__all__ = ["Whitened", "sirt", "weighted_tv"]


def sirt(operator: Any, y: Tensor, iterations: int = 100) -> Tensor:
    """Non-negative reconstruction (B, 1, H, W) of line integrals (B, 1, views, bins)."""
    start = torch.zeros_like(operator.adjoint(y))
    columns, rows = operator.adjoint(torch.ones_like(y)), operator(torch.ones_like(start))
    c, r = (torch.where(v > 1e-3 * v.max(), 1 / v.clamp_min(1e-12), 0.0) for v in (columns, rows))
    x = start
    for _ in range(iterations):
        x = (x + c * operator.adjoint(r * (y - operator(x)))).clamp_min(0)
    return x


class Whitened:
    """``x -> A(x) / std``: line integrals in units of their own noise."""

    def __init__(self, operator: Any, std: Tensor) -> None:
        self.operator, self.std = operator, std

    def __call__(self, x: Tensor) -> Tensor:
        return self.operator(x) / self.std.to(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """Transpose of the call."""
        return self.operator.adjoint(y / self.std.to(y))


def weighted_tv(operator: Any, y: Tensor, std: Tensor, weight: float, iterations: int = 60) -> Tensor:
    r"""Minimises :math:`\tfrac12 \|(A x - y) / s\|^2 + \lambda \mathrm{TV}(x)`.

    Arguments:
        operator: Projector.
        y: Line integrals (1, 1, views, bins).
        std: Their standard deviation s, (views, bins).
        weight: :math:`\lambda`, in units of one over those of the field.
        iterations: Most iterations.
    """
    return total_variation(Whitened(operator, std), y / std, weight, iterations=iterations, inner=8)
