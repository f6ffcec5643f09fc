r"""Operators made of operators: composition, sum, multiple, adjoint, normal operator.

They hold their parts and nothing else, and a call passes tensors on without copies. ``adjoint``, ``svd`` and ``vjp``
are there (``hasattr``) when the parts allow them.

With :math:`A = U s V^\ast` the decomposition of a part costs nothing more for: :math:`cA` (sign of c into U),
:math:`A^\ast` (U and V exchanged), :math:`A^\ast A = V s^2 V^\ast`, :math:`QA` with orthonormal columns of Q
(:math:`QU`) and :math:`AQ` with orthonormal rows of Q (:math:`Q^\ast V`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor

from scidiff.linalg.svd import SVD, Frame
from scidiff.operators.algebra import Algebra, is_linear
from scidiff.operators.identity import Identity
from scidiff.operators.recorded import known_as

__all__ = ["Adjoint", "Composition", "Normal", "Scaled", "Sum", "add", "compose", "scale", "vjp"]


def vjp(operator: Any, x: Tensor, v: Tensor) -> Tensor:
    r"""Vector-Jacobian product :math:`J(x)^\ast v` of any operator: its own, its adjoint, or autograd's."""
    if callable(getattr(operator, "vjp", None)):
        return operator.vjp(x, v)
    if is_linear(operator):
        return operator.adjoint(v)
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        return torch.autograd.grad(operator(leaf), leaf, v)[0]


def _has_vjp(operator: Any) -> bool:
    return callable(getattr(operator, "vjp", None)) or is_linear(operator) or getattr(operator, "differentiable", True)


def _has_svd(operator: Any) -> bool:
    return callable(getattr(operator, "svd", None))


class Combined(Algebra):
    """What operators made of parts share: they offer what their parts do."""

    operators: tuple[Any, ...]

    def _join(self, operators: tuple[Any, ...]) -> None:
        self.operators = operators
        self.differentiable = all(getattr(part, "differentiable", True) for part in operators)
        self._linear = all(map(is_linear, operators))

    @property
    def adjoint(self) -> Callable[[Tensor], Tensor]:
        r"""Maps measurements (B, \*Y) to fields (B, \*X); there if all parts are linear."""
        if not self._linear:
            self._missing("adjoint", [part for part in self.operators if not is_linear(part)], "is not linear")
        return self._adjoint

    @property
    def svd(self) -> Callable[[], SVD]:
        """The decomposition; there if it costs no more than that of a part."""
        if not (self._linear and self._decomposes()):
            self._missing("svd", [], "LinearMap.dense(operator, shape) has one, at the price of a matrix")
        return self._svd

    @property
    def vjp(self) -> Callable[[Tensor, Tensor], Tensor]:
        r"""The vector-Jacobian product (x, v); there if every part has a derivative."""
        blind = [part for part in self.operators if not _has_vjp(part)]
        if blind:
            self._missing("vjp", blind, "has no derivative")
        return self._vjp

    def _missing(self, what: str, parts: list[Any], why: str) -> NoReturn:
        names = ", ".join(map(known_as, parts))
        raise AttributeError(f"{self!r} has no {what}: {names}{' ' if names else ''}{why}.")

    def _adjoint(self, y: Tensor) -> Tensor:
        raise NotImplementedError

    def _decomposes(self) -> bool:
        return False

    def _svd(self) -> SVD:
        raise NotImplementedError

    def _vjp(self, x: Tensor, v: Tensor) -> Tensor:
        return self._adjoint(v)


class Composition(Combined):
    r"""One operator after the other, :math:`(A_1 A_2 \dots A_n)(x) = A_1(A_2(\dots A_n(x)))`.

    Arguments:
        operators: :math:`A_1, \dots, A_n`; the last sees the field.
    """

    def __init__(self, *operators: Any) -> None:
        if not operators:
            raise ValueError("a composition needs at least one operator.")
        self._join(operators)
        self._first_last = operators[::-1]
        self.rows_orthonormal = all(getattr(part, "rows_orthonormal", False) for part in operators)
        self.columns_orthonormal = all(getattr(part, "columns_orthonormal", False) for part in operators)
        self.field_shape = getattr(operators[-1], "field_shape", None)

    def __repr__(self) -> str:
        return " @ ".join(_in_brackets(part, (Sum,)) for part in self.operators)

    def __call__(self, x: Tensor) -> Tensor:
        z, done = x, 0
        try:
            for operator in self._first_last:
                z = operator(z)
                done += 1
        except (RuntimeError, TypeError, ValueError) as error:
            self._explain(error, self._first_last, done, z, "")
        return z

    def _adjoint(self, y: Tensor) -> Tensor:
        x, done = y, 0
        try:
            for operator in self.operators:
                x = operator.adjoint(x)
                done += 1
        except (RuntimeError, TypeError, ValueError) as error:
            self._explain(error, self.operators, done, x, ".adjoint")
        return x

    @staticmethod
    def _explain(error: Exception, order: tuple[Any, ...], i: int, z: Tensor, suffix: str) -> NoReturn:
        """Says between which parts a shape went wrong; errors of other kinds (memory, numbers) pass as they are."""
        if i == 0 or type(error) not in (RuntimeError, TypeError, ValueError):
            raise error
        before, after = known_as(order[i - 1]) + suffix, known_as(order[i]) + suffix
        raise type(error)(f"{after} does not take the shape {tuple(z.shape)} that {before} gives: {error}") from error

    def _normal(self, x: Tensor) -> Tensor:
        """The outermost part's own way to its normal operator, which may be cheaper, between the others."""
        outer, inner = self.operators[0], self._first_last[:-1]
        z = x
        for operator in inner:
            z = operator(z)
        z = outer.normal(z) if isinstance(outer, Algebra) else outer.adjoint(outer(z))
        for operator in reversed(inner):
            z = operator.adjoint(z)
        return z

    def _vjp(self, x: Tensor, v: Tensor) -> Tensor:
        seen = [x]
        with torch.no_grad():
            for operator in self._first_last[:-1]:
                seen.append(operator(seen[-1]))
        for operator, z in zip(self.operators, reversed(seen), strict=True):
            v = vjp(operator, z, v)
        return v

    def _core(self) -> int | None:
        """The part whose decomposition the others only rotate."""
        for i, part in enumerate(self.operators):
            left, right = self.operators[:i], self.operators[i + 1 :]
            if (
                _has_svd(part)
                and all(getattr(q, "columns_orthonormal", False) for q in left)
                and all(getattr(q, "rows_orthonormal", False) for q in right)
            ):
                return i
        return None

    def _decomposes(self) -> bool:
        return self._core() is not None

    def _svd(self) -> SVD:
        i = self._core()
        assert i is not None
        U, s, V = self.operators[i].svd()
        if left := self.operators[:i]:
            Q = Composition(*left)
            U = Frame(lambda c, U=U: Q(U(c)), lambda y, U=U: U.adjoint(Q.adjoint(y)))
        if right := self.operators[i + 1 :]:
            R = Composition(*right)
            V = Frame(lambda c, V=V: R.adjoint(V(c)), lambda x, V=V: V.adjoint(R(x)))
        return SVD(U, s, V)


class Sum(Combined):
    r""":math:`(A_1 + \dots + A_n)(x)`; all parts give measurements of one shape.

    Arguments:
        operators: :math:`A_1, \dots, A_n`.
    """

    def __init__(self, *operators: Any) -> None:
        if not operators:
            raise ValueError("a sum needs at least one operator.")
        self._join(operators)
        shapes = (getattr(part, "field_shape", None) for part in operators)
        self.field_shape = next((shape for shape in shapes if shape is not None), None)

    def __repr__(self) -> str:
        return " + ".join(repr(part) for part in self.operators)

    def _total(self, parts: list[Tensor], suffix: str = "") -> Tensor:
        total = parts[0]
        for operator, z in zip(self.operators[1:], parts[1:], strict=True):
            if z.shape != total.shape:  # would broadcast silently
                raise ValueError(
                    f"{known_as(self.operators[0])}{suffix} gives the shape {tuple(total.shape)}, "
                    f"{known_as(operator)}{suffix} {tuple(z.shape)}; only equal shapes can be added. `stack` puts "
                    "measurements of different shapes side by side."
                )
            total = total + z
        return total

    def __call__(self, x: Tensor) -> Tensor:
        return self._total([operator(x) for operator in self.operators])

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._total([operator.adjoint(y) for operator in self.operators], ".adjoint")

    def _vjp(self, x: Tensor, v: Tensor) -> Tensor:
        return self._total([vjp(operator, x, v) for operator in self.operators], ".vjp")


class Scaled(Combined):
    r""":math:`(cA)(x) = c\,A(x)`.

    A complex factor makes an operator on complex fields; wrap it in `RealField` for real ones.

    Arguments:
        factor: c, real or complex.
        operator: A.
    """

    def __init__(self, factor: float | complex, operator: Any) -> None:
        self._join((operator,))
        self.factor, self.operator = factor, operator
        unit = abs(factor) == 1
        self.rows_orthonormal = unit and getattr(operator, "rows_orthonormal", False)
        self.columns_orthonormal = unit and getattr(operator, "columns_orthonormal", False)
        self.field_shape = getattr(operator, "field_shape", None)

    def __repr__(self) -> str:
        inner = _in_brackets(self.operator, (Sum, Composition))
        return f"-{inner}" if self.factor == -1 else f"{self.factor:g} * {inner}"

    def __call__(self, x: Tensor) -> Tensor:
        return self.factor * self.operator(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.factor.conjugate() * self.operator.adjoint(y)

    def _normal(self, x: Tensor) -> Tensor:
        own = self.operator
        return abs(self.factor) ** 2 * (own.normal(x) if isinstance(own, Algebra) else own.adjoint(own(x)))

    def _vjp(self, x: Tensor, v: Tensor) -> Tensor:
        return self.factor.conjugate() * vjp(self.operator, x, v)

    def _decomposes(self) -> bool:
        return _has_svd(self.operator) and not isinstance(self.factor, complex)

    def _svd(self) -> SVD:
        U, s, V = self.operator.svd()
        if self.factor.real < 0:
            U = Frame(lambda c, U=U: -U(c), lambda y, U=U: -U.adjoint(y))
        return SVD(U, abs(self.factor) * s, V)


class Adjoint(Combined):
    r""":math:`A^\ast` as an operator.

    Arguments:
        operator: A, linear.
    """

    def __init__(self, operator: Any) -> None:
        if not is_linear(operator):
            raise TypeError(f"{known_as(operator)} has no `adjoint`, so it is not linear and has none as an operator.")
        self._join((operator,))
        self.operator = operator
        self.rows_orthonormal = getattr(operator, "columns_orthonormal", False)
        self.columns_orthonormal = getattr(operator, "rows_orthonormal", False)

    def __repr__(self) -> str:
        return f"{_in_brackets(self.operator, (Sum, Composition, Scaled))}.H"

    @property
    def H(self) -> Any:  # noqa: N802
        """The operator itself."""
        return self.operator

    def __call__(self, x: Tensor) -> Tensor:
        return self.operator.adjoint(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator(y)

    def _decomposes(self) -> bool:
        return _has_svd(self.operator)

    def _svd(self) -> SVD:
        U, s, V = self.operator.svd()
        return SVD(V, s, U)


class Normal(Combined):
    r""":math:`A^\ast A`, its own adjoint.

    Arguments:
        operator: A, linear.
    """

    def __init__(self, operator: Any) -> None:
        if not is_linear(operator):
            raise TypeError(f"{known_as(operator)} has no `adjoint`, so it is not linear and has no normal operator.")
        self._join((operator,))
        self.operator = operator
        self.rows_orthonormal = self.columns_orthonormal = getattr(operator, "columns_orthonormal", False)
        self.field_shape = getattr(operator, "field_shape", None)

    def __repr__(self) -> str:
        return f"{_in_brackets(self.operator, (Sum, Composition, Scaled))}.normal()"

    @property
    def H(self) -> Any:  # noqa: N802
        """The operator itself, which is Hermitian."""
        return self

    def __call__(self, x: Tensor) -> Tensor:
        own = self.operator
        return own.normal(x) if isinstance(own, Algebra) else own.adjoint(own(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self(y)

    def _decomposes(self) -> bool:
        return _has_svd(self.operator)

    def _svd(self) -> SVD:
        _, s, V = self.operator.svd()
        return SVD(V, s.square(), V)


def _in_brackets(operator: Any, kinds: tuple[type, ...]) -> str:
    if not isinstance(operator, Algebra):
        return known_as(operator)
    return f"({operator!r})" if isinstance(operator, kinds) else repr(operator)


def compose(outer: Any, inner: Any) -> Any:
    """``outer @ inner``: chains are flattened, identities left out, factors drawn to the front."""
    if isinstance(outer, Scaled):
        return scale(outer.factor, compose(outer.operator, inner))
    if isinstance(inner, Scaled) and is_linear(outer):
        return scale(inner.factor, compose(outer, inner.operator))
    chain = [part for one in (outer, inner) for part in (one.operators if isinstance(one, Composition) else (one,))]
    kept = [part for part in chain if not isinstance(part, Identity)]
    if len(kept) == 1 and isinstance(kept[0], Algebra):
        return kept[0]
    return Composition(*kept) if kept else Identity()


def add(first: Any, second: Any) -> Sum:
    """``first + second``: sums of sums are flattened."""
    return Sum(*(part for one in (first, second) for part in (one.operators if isinstance(one, Sum) else (one,))))


def scale(factor: float | complex, operator: Any) -> Any:
    """``factor * operator``: factors of factors are multiplied."""
    if isinstance(operator, Scaled):
        factor, operator = factor * operator.factor, operator.operator
    return operator if factor == 1 and isinstance(operator, Algebra) else Scaled(factor, operator)
