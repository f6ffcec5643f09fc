r"""Several operators on one field, their measurements side by side.

.. math:: \mathrm{stack}(A_1, \dots, A_n)(x) = \big(\mathrm{vec}\,A_1(x), \dots, \mathrm{vec}\,A_n(x)\big)

with the adjoint :math:`y \mapsto \sum_i A_i^\ast y_i`. For instruments with noise of their own give `Posterior` several
likelihoods instead.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from scidiff.operators.algebra import Algebra
from scidiff.operators.combined import Combined, vjp
from scidiff.operators.recorded import known_as

__all__ = ["Stack", "stack"]


class Stack(Combined):
    r"""Measurements of several operators, each flattened, along the last axis: (B, \*X) to (B, m), see `stack`.

    Arguments:
        operators: :math:`A_1, \dots, A_n`; those without an adjoint make a stack without one.
        shape: Shape (\*X) of a field. `split` and `adjoint` need it, to know how many numbers belong to whom; not
            needed where one of the operators accepts only one shape.
        complex_fields: Whether fields are complex. On real fields a part that measures real numbers gets the real part
            of a complex y.
    """

    def __init__(
        self, operators: Sequence[Any], shape: Sequence[int] | None = None, complex_fields: bool = False
    ) -> None:
        if callable(operators) or not operators or not all(callable(part) for part in operators):
            raise TypeError(f"stack needs a list of operators, stack([A, B]); got {operators!r}.")
        self._join(tuple(operators))
        if shape is None:
            known = (getattr(part, "field_shape", None) for part in operators)
            shape = next((one for one in known if one is not None), None)
        self.field_shape = None if shape is None else tuple(shape)
        self.complex_fields = complex_fields

    def __repr__(self) -> str:
        return f"stack([{', '.join(repr(p) if isinstance(p, Algebra) else known_as(p) for p in self.operators)}])"

    def __call__(self, x: Tensor) -> Tensor:
        return torch.cat([operator(x).flatten(1) for operator in self.operators], -1)

    def split(self, y: Tensor) -> list[Tensor]:
        r"""The measurements (B, \*Y_i) of the parts, views of ``y`` (B, m).

        Raises:
            ValueError: if ``y`` has another length, or the shape of a field is not known.
        """
        layout = self._layout(y)
        sizes = [math.prod(shape) for shape, _ in layout]
        if y.ndim != 2 or y.shape[1] != sum(sizes):
            names = " + ".join(f"{size} of {known_as(part)}" for size, part in zip(sizes, self.operators, strict=True))
            raise ValueError(f"y has shape {tuple(y.shape)}, expected (B, {sum(sizes)}): {names}.")
        parts = [one.unflatten(1, shape) for one, (shape, _) in zip(y.split(sizes, 1), layout, strict=True)]
        real = [not is_complex and y.is_complex() for _, is_complex in layout]
        return [part.real if drop else part for part, drop in zip(parts, real, strict=True)]

    def _layout(self, like: Tensor) -> list[tuple[tuple[int, ...], bool]]:
        """Shape of each part's measurement and whether it is complex; asked of the parts once, with a field of 0."""
        found = vars(self).get("_measured")
        if found is None:
            if self.field_shape is None:
                raise ValueError("the stack does not know the shape of a field; write stack([...], shape=(1, H, W)).")
            dtype = like.dtype.to_real()
            zero = torch.zeros(
                1, *self.field_shape, dtype=dtype.to_complex() if self.complex_fields else dtype, device=like.device
            )
            with torch.no_grad():
                measured = [operator(zero) for operator in self.operators]
            found = self._measured = [(tuple(z.shape[1:]), z.is_complex()) for z in measured]
        return found

    def _adjoint(self, y: Tensor) -> Tensor:
        parts = [operator.adjoint(one) for operator, one in zip(self.operators, self.split(y), strict=True)]
        return functools.reduce(torch.add, parts)

    def _normal(self, x: Tensor) -> Tensor:
        """Without putting the measurements together."""
        parts = [p.normal(x) if isinstance(p, Algebra) else p.adjoint(p(x)) for p in self.operators]
        return functools.reduce(torch.add, parts)

    def _vjp(self, x: Tensor, v: Tensor) -> Tensor:
        parts = [vjp(operator, x, one) for operator, one in zip(self.operators, self.split(v), strict=True)]
        return functools.reduce(torch.add, parts)


def stack(operators: Sequence[Any], shape: Sequence[int] | None = None, complex_fields: bool = False) -> Stack:
    r"""Several operators on one field: measurements are flattened and lie along the last axis, (B, m).

    ``stack([A, B]).split(y)`` gives them back in their own shapes. Real measurements beside complex ones become
    complex. The arguments are those of `Stack`.
    """
    return Stack(operators, shape, complex_fields)
