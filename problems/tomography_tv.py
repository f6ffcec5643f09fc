"""Total variation for line integrals whose noise is known and unequal: every reading counts by its own precision."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from scidiff.problems.baselines import total_variation

__all__ = ["Whitened", "weighted_tv"]


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
