"""An operator on complex fields applied to fields that are known to be real."""

from __future__ import annotations

from torch import Tensor

from scidiff.operators.algebra import Algebra
from scidiff.protocols import LinearOperator

__all__ = ["RealField"]


class RealField(Algebra):
    r"""The same measurements of a real field: :math:`A(x)` with the adjoint :math:`\mathrm{Re}(A^H y)`.

    Arguments:
        operator: Linear operator on complex fields.
    """

    def __init__(self, operator: LinearOperator) -> None:
        if not callable(getattr(operator, "adjoint", None)):
            raise TypeError(f"{type(operator).__name__} has no adjoint; RealField is for linear operators.")
        self.operator = operator
        self.field_shape = getattr(operator, "field_shape", None)
        self.differentiable = getattr(operator, "differentiable", True)

    def __call__(self, x: Tensor) -> Tensor:
        if x.is_complex():
            raise TypeError("RealField sees real fields, got complex ones; use the operator itself.")
        return self.operator(x + 0j)

    def adjoint(self, y: Tensor) -> Tensor:
        x = self.operator.adjoint(y)
        return x.real if x.is_complex() else x
