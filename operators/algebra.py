r"""What every operator inherits: arithmetic of forward models.

========================  =====================================================================
``A @ B``                 first B, then A; B may be any function of a batch of fields
``A + B, A - B``          measurements of the same shape, added
``c * A, -A, A / c``      measurements times a number
``stack([A, B])``         measurements of both, flattened, side by side
``A.H``                   the adjoint as an operator; ``A.H.H`` is A
``A.normal()``            :math:`A^\ast A` as an operator; ``A.normal(x)`` applies it
``A.norm(generator)``     largest singular value
``A.dense(shape)``        the matrix, for tests and small grids
``A.save(path)``          a file that `scidiff.operators.load` reads
========================  =====================================================================

Combinations offer what their parts allow: an ``adjoint`` if all are linear, an ``svd`` where it costs nothing beyond
that of a part, a ``vjp`` if every part has a derivative; one part with ``differentiable = False`` makes the whole so.
"""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Generator, Tensor

from scidiff.errors import NumericalError
from scidiff.operators.recorded import Recorded, known_as

if TYPE_CHECKING:
    from scidiff.operators.combined import Combined, Normal
    from scidiff.operators.linear_map import LinearMap

__all__ = ["Algebra", "is_linear"]


def is_linear(operator: Any) -> bool:
    """Whether an operator has an adjoint, which only linear ones have."""
    return callable(getattr(operator, "adjoint", None))


class Algebra(Recorded):
    r"""Base class of operators; a subclass writes ``__call__`` and, if it is linear, ``adjoint``.

    An operator that knows a cheaper way to :math:`A^\ast A x` than both in turn overrides ``_normal(x)``.
    """

    differentiable: bool = True
    """Whether torch can differentiate a call; False for black boxes."""
    rows_orthonormal: bool = False
    r"""Whether :math:`A A^\ast = 1`, as for a mask."""
    columns_orthonormal: bool = False
    r"""Whether :math:`A^\ast A = 1`."""
    field_shape: tuple[int, ...] | None = None
    r"""Shape (\*X) of the only kind of field that is accepted; None where there are several."""
    __array_ufunc__ = None  # numpy numbers leave multiplication to us

    def __call__(self, x: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} does not say what it measures; write `__call__(self, x)`.")

    def __matmul__(self, other: Any) -> Combined:
        from scidiff.operators.combined import compose

        return compose(self, _operand("@", self, other))

    def __rmatmul__(self, other: Any) -> Combined:
        from scidiff.operators.combined import compose

        return compose(_operand("@", self, other), self)

    def __add__(self, other: Any) -> Combined:
        from scidiff.operators.combined import add

        return add(self, _operand("+", self, other))

    def __radd__(self, other: Any) -> Combined:
        from scidiff.operators.combined import add

        if isinstance(other, int) and other == 0:  # where `sum` begins
            return self  # type: ignore[return-value]
        return add(_operand("+", self, other), self)

    def __sub__(self, other: Any) -> Combined:
        from scidiff.operators.combined import add, scale

        return add(self, scale(-1.0, _operand("-", self, other)))

    def __rsub__(self, other: Any) -> Combined:
        from scidiff.operators.combined import add, scale

        return add(_operand("-", self, other), scale(-1.0, self))

    def __mul__(self, factor: Any) -> Combined:
        from scidiff.operators.combined import scale

        return scale(_number(self, factor), self)

    __rmul__ = __mul__

    def __truediv__(self, factor: Any) -> Combined:
        from scidiff.operators.combined import scale

        return scale(1 / _number(self, factor), self)

    def __neg__(self) -> Combined:
        from scidiff.operators.combined import scale

        return scale(-1.0, self)

    @property
    def H(self) -> Combined:  # noqa: N802 - the letter of the formula
        """The adjoint as an operator.

        Raises:
            AttributeError: if the operator is not linear.
        """
        from scidiff.operators.combined import Adjoint

        if not is_linear(self):
            raise AttributeError(_not_linear(self))
        return Adjoint(self)

    @overload
    def normal(self, x: None = None) -> Normal: ...

    @overload
    def normal(self, x: Tensor) -> Tensor: ...

    def normal(self, x: Tensor | None = None) -> Tensor | Normal:
        r""":math:`A^\ast A`: applied to fields (B, \*X), or without them the operator.

        Raises:
            TypeError: if the operator is not linear.
        """
        from scidiff.operators.combined import Normal

        if not is_linear(self):
            raise TypeError(_not_linear(self))
        return Normal(self) if x is None else self._normal(x)

    def _normal(self, x: Tensor) -> Tensor:
        adjoint: Callable[[Tensor], Tensor] = self.adjoint  # type: ignore[attr-defined]
        return adjoint(self(x))

    def norm(
        self,
        generator: Generator,
        iterations: int = 200,
        tolerance: float = 1e-4,
        *,
        shape: Sequence[int] | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> float:
        r"""The largest singular value, by power iteration on :math:`A^\ast A` from a random field.

        With unit fields :math:`v_k` and :math:`w = A^\ast A v_k` the estimate :math:`\sqrt{\|w\|}` never exceeds the
        norm and grows from step to step. It stops when :math:`\|w - \rho v_k\| \le 2\,\mathrm{tolerance}\,\rho` with
        :math:`\rho = \langle v_k, w\rangle`: then a singular value lies within about ``tolerance`` of the estimate,
        relatively; or when the estimate has grown by less than tolerance / 100 in ten steps.

        Arguments:
            generator: Source of the first field, on the device to compute on.
            iterations: Largest number of calls of ``normal``.
            tolerance: Relative, see above.
            shape: Shape (\*X) of a field; not needed where the operator accepts only one (``field_shape``).
            dtype: Type of the fields, complex for complex ones.

        Raises:
            TypeError: if the operator is not linear.
            ValueError: if the shape of a field is neither given nor known.
            NumericalError: if the operator gives NaN or infinite values.

        References:
            Matrix Computations, Golub and Van Loan, 2013, section 8.2.
        """
        shape = self.field_shape if shape is None else tuple(shape)
        if shape is None:
            raise ValueError(
                f"{known_as(self)} accepts fields of several shapes; say which: norm(..., shape=(1, H, W))."
            )
        v = torch.randn((1, *shape), generator=generator, dtype=dtype, device=generator.device)
        v, estimates = v / torch.linalg.vector_norm(v), [0.0]
        with torch.no_grad():
            for _ in range(iterations):
                w = self.normal(v)
                size = torch.linalg.vector_norm(w)
                rho = (v.conj() * w).sum().real
                residual = float(torch.linalg.vector_norm(w - rho * v))
                estimates.append(math.sqrt(float(size)))
                if not math.isfinite(estimates[-1]):
                    raise NumericalError(f"{known_as(self)} gives NaN or infinite values for a random field of norm 1")
                slow = len(estimates) > 10 and estimates[-1] - estimates[-11] <= tolerance / 100 * estimates[-1]
                if residual <= 2 * tolerance * float(rho) or slow:
                    break
                v = w / size
        return estimates[-1]

    def dense(self, shape: Sequence[int] | None = None) -> LinearMap:
        r"""The matrix on real fields of ``shape`` (\*X), see `LinearMap.dense`; for tests and small grids."""
        from scidiff.operators.linear_map import LinearMap

        shape = self.field_shape if shape is None else shape
        if shape is None:
            raise ValueError(f"{known_as(self)} accepts fields of several shapes; say which: dense((1, H, W)).")
        return LinearMap.dense(self, shape)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the operator to a file, see `scidiff.operators.save`."""
        from scidiff.operators.files import save

        save(self, path)  # type: ignore[arg-type]

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Algebra:
        """Reads any operator from a file, see `scidiff.operators.load`."""
        from scidiff.operators.files import load

        return load(path)  # type: ignore[return-value]


def _not_linear(operator: Any) -> str:
    return (
        f"{known_as(operator)} is not linear: it has no `adjoint`. A linear function without one becomes an operator "
        "with `Linear(function, shape)`."
    )


def _operand(sign: str, own: Any, other: Any) -> Any:
    """The other side of an operation, which must be an operator."""
    if isinstance(other, Tensor) or hasattr(other, "__array__"):
        hint = f"write {known_as(own)}(x) to measure a field" if sign == "@" else "add tensors to what it returns"
        raise TypeError(f"{known_as(own)} {sign} needs an operator on both sides, got an array; {hint}.")
    if not callable(other):
        kind = f"{type(other).__name__} {other!r}" if isinstance(other, numbers.Number) else type(other).__name__
        hint = f"; write `c * Identity()` for {other!r} times the field" if isinstance(other, numbers.Number) else ""
        raise TypeError(f"{known_as(own)} {sign} needs an operator or a function on both sides, got {kind}{hint}.")
    return other


def _number(own: Any, factor: Any) -> float | complex:
    """A factor as a Python number; tensors and arrays of one number count."""
    if isinstance(factor, Tensor) or hasattr(factor, "__array__"):
        if math.prod(factor.shape) != 1:
            raise TypeError(
                f"{known_as(own)} can be multiplied by one number, got an array of shape {tuple(factor.shape)}; "
                f"write A @ B to apply one operator after the other, A(x) to measure a field."
            )
        factor = factor.item()
    if isinstance(factor, bool) or not isinstance(factor, numbers.Number):
        raise TypeError(
            f"{known_as(own)} can be multiplied by a number, got {known_as(factor)}; write A @ B to compose."
        )
    number = complex(factor) if isinstance(factor, numbers.Complex) and not isinstance(factor, numbers.Real) else factor
    number = number if isinstance(number, complex) else float(number)  # type: ignore[arg-type]
    if not (math.isfinite(number.real) and math.isfinite(number.imag)):
        raise ValueError(f"the factor of {known_as(own)} must be finite, got {number}.")
    return number
