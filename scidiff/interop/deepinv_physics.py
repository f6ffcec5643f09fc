r"""deepinv's physics as operators and likelihoods.

A physics of deepinv measures :math:`y = \mathrm{noise}(A(x))`. Here :math:`A` becomes an operator without noise or
state and the noise a law with a density. An adjoint is believed only after it has passed
:math:`\mathrm{Re}\langle Ax, y\rangle = \mathrm{Re}\langle x, A^\ast y\rangle`; where it fails, the gradient of
:math:`A` takes its place, which for a linear map is the adjoint.

The way back is `scidiff.interop.deepinv_export.to_deepinv`.

References:
    DeepInverse: a Python package for solving imaging inverse problems with deep learning (Tachella et al., 2025),
    arXiv:2505.20160.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from scidiff.inference import Likelihood
from scidiff.interop.deepinv_export import to_deepinv
from scidiff.interop.deepinv_frozen import Frozen
from scidiff.interop.deepinv_layout import Layout
from scidiff.interop.deepinv_noise import of_physics
from scidiff.interop.deepinv_probe import (
    check_forward,
    check_rows,
    find_precisions,
    first_call,
    precise,
    random_fields,
    settle_adjoint,
    settle_gradient,
    with_svd,
)
from scidiff.linalg.svd import SVD, Frame
from scidiff.operators.algebra import Algebra
from scidiff.optional import optional
from scidiff.protocols import Noise

deepinv = optional("deepinv")

__all__ = ["DeepinvOperator", "LinearDeepinvOperator", "from_deepinv", "likelihood_from_deepinv", "to_deepinv"]


class DeepinvOperator(Algebra):
    r"""A physics of deepinv as an operator, :math:`z = A(x)`; see `from_deepinv`.

    Fields are (B, \*shape), measurements (B, \*measurement_shape). Types and devices are those of the field. No call
    changes anything, and no noise is added.
    """

    def __init__(
        self, frozen: Frozen, name: str, field: Layout, data: Layout, complex_fields: bool, *,
        observed: Tensor | None = None, field_units: str = "", data_units: str = "",
    ) -> None:  # fmt: skip
        self._frozen, self._name, self._field, self._data = frozen, name, field, data
        self._complex = complex_fields
        self._answers: set[torch.dtype] = {torch.float32, torch.float64}
        self._index = None if observed is None else observed.flatten().nonzero()[:, 0]
        self.observed = observed
        """Entries of deepinv's measurement that are kept, flattened, or None for all of it."""
        self.field_units, self.data_units = field_units, data_units
        self.differentiable = True
        self.row_by_row = False
        """Whether fields are measured one at a time, because the physics fails on batches or couples their rows."""
        self._complex_data = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name}, {self.shape} -> {self.measurement_shape})"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one field."""
        return self._field.shape

    @property
    def measurement_shape(self) -> tuple[int, ...]:
        """Shape of one measurement."""
        return self._data.shape if self._index is None else (len(self._index),)

    @property
    def physics(self) -> Any:
        """The physics that answers: a copy, without noise. Changing it changes the operator."""
        return self._frozen.at(self._frozen.precision, self._frozen.device)

    def pack(self, y: Any) -> Tensor:
        r"""A measurement as deepinv has it (B, ...) to one of this operator.

        Raises:
            ValueError: if its shape is not that of the physics' measurements.
        """
        if not self._data.matches(y):
            shape = tuple(y.shape) if isinstance(y, Tensor) else [tuple(part.shape) for part in y]
            raise ValueError(
                f"y has shape {shape}, but {self._name} measures (B, ...) with "
                f"{self._data.shapes if self._data.several else self._data.shapes[0]} after the batch."
            )
        return self._kept(self._data.pack(y))

    def pack_field(self, x: Any) -> Tensor:
        """A field as deepinv has it to one of this operator."""
        return self._field.pack(x)

    def unpack_field(self, x: Tensor) -> Any:
        """A field of this operator to one as deepinv has it."""
        return self._field.unpack(x)

    def __call__(self, x: Tensor) -> Tensor:
        self._check(x, self.shape, "a field")
        return self._kept(self._run(x))

    def _kept(self, z: Tensor) -> Tensor:
        return z if self._index is None else z.flatten(1)[:, self._index.to(z.device)]

    def _run(self, x: Tensor) -> Tensor:
        """All of the measurement."""
        if self.row_by_row and len(x) > 1:
            return torch.cat([self._run(row) for row in x.split(1)])
        real, worked = self._precision(x)
        z = self._frozen.call("A", self._field.unpack(worked), real, x.device)
        return precise(self._data.pack(z), x.dtype.to_real())

    def _precision(self, x: Tensor) -> tuple[torch.dtype, Tensor]:
        """The precision in which the physics works, and the field in it."""
        real = x.dtype.to_real()
        if real not in self._answers:
            real = next(iter(self._answers))
        return real, precise(x, real)

    def _check(self, x: Tensor, shape: tuple[int, ...], what: str) -> None:
        if tuple(x.shape[1:]) != shape:
            raise ValueError(f"expected {what} (B, {str(shape)[1:-1]}), got {tuple(x.shape)}; see {self._name}.shape.")
        if what == "a field" and x.is_complex() != self._complex:
            kind, found = ("complex", "real") if self._complex else ("real", "complex")
            raise TypeError(f"{self._name} was wrapped for {kind} fields, got {found} ones; see complex_fields.")


class LinearDeepinvOperator(DeepinvOperator):
    """A linear physics of deepinv as an operator with an exact adjoint; see `from_deepinv`."""

    _paired = False
    """Whether the adjoint stands in for the gradient, because none flows through A."""
    adjoint_error = 0.0
    """Relative error of the adjoint of deepinv, measured when the operator was made."""
    adjoint_from = "deepinv"
    """Who gives the adjoint: "deepinv", or "gradient" where deepinv's failed."""

    def __call__(self, x: Tensor) -> Tensor:
        self._check(x, self.shape, "a field")
        if not self._paired:
            return self._kept(self._run(x))
        return _Paired.apply(x, self._apply, self._adjoint)  # type: ignore[no-any-return]

    def _apply(self, x: Tensor) -> Tensor:
        return self._kept(self._run(x))

    def adjoint(self, y: Tensor) -> Tensor:
        r"""Maps measurements (B, \*Y) to fields (B, \*X)."""
        self._check(y, self.measurement_shape, "a measurement")
        return self._adjoint(y)

    def _adjoint(self, y: Tensor) -> Tensor:
        if self._index is not None:
            full = y.new_zeros(len(y), self._data_size).index_copy(1, self._index.to(y.device), y)
            y = full.unflatten(1, self._data.shape)
        return self._declared(y) if self.adjoint_from == "deepinv" else self._gradient(y)

    @property
    def _data_size(self) -> int:
        return int(torch.Size(self._data.shape).numel())

    def _declared(self, y: Tensor) -> Tensor:
        """Adjoint as deepinv has it."""
        if self.row_by_row and len(y) > 1:
            return torch.cat([self._declared(row) for row in y.split(1)])
        real, worked = self._precision(y)
        x = self._field.pack(self._frozen.call("A_adjoint", self._data.unpack(worked), real, y.device))
        if x.is_complex() and not self._complex:
            x = x.real
        return precise(x.reshape(len(y), *self.shape), y.dtype.to_real())

    def _gradient(self, y: Tensor) -> Tensor:
        """Gradient of ``Re<y, A(x)>``."""
        real = y.dtype.to_real()
        dtype = real.to_complex() if self._complex else real
        with torch.enable_grad():
            x = torch.zeros(len(y), *self.shape, dtype=dtype, device=y.device, requires_grad=True)
            return torch.autograd.grad(self._run(x), x, y, create_graph=y.requires_grad)[0]


class _Decomposed(LinearDeepinvOperator):
    """A linear physics with a singular value decomposition in real numbers."""

    _svd: tuple[tuple[int, ...], Tensor, Tensor]
    """Shape of deepinv's coefficients; entries with a positive singular value; those values."""

    def svd(self) -> SVD:
        r"""The decomposition of deepinv without its zeros: coefficients (B, k) and k positive singular values."""
        shape, index, s = self._svd

        def spread(c: Tensor) -> Tensor:
            full = c.new_zeros(len(c), int(torch.Size(shape).numel()))
            return full.index_copy(1, index.to(c.device), c).unflatten(1, shape)

        def gather(c: Tensor) -> Tensor:
            return c.expand(len(c), *shape).reshape(len(c), -1)[:, index.to(c.device)]

        def run(method: str, v: Tensor) -> Tensor:
            real, worked = self._precision(v)
            return precise(self._frozen.call(method, worked, real, v.device), v.dtype)

        def whole(y: Tensor) -> Tensor:
            if self._index is None:
                return y
            full = y.new_zeros(len(y), self._data_size).index_copy(1, self._index.to(y.device), y)
            return full.unflatten(1, self._data.shape)

        U = Frame(lambda c: self._kept(run("U", spread(c))), lambda y: gather(run("U_adjoint", whole(y))))
        V = Frame(lambda c: run("V", spread(c)), lambda x: gather(run("V_adjoint", x)))
        return SVD(U, s, V)


class _Paired(torch.autograd.Function):
    """A linear map whose gradient is its adjoint, and the other way round."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, A: Callable[[Tensor], Tensor], adjoint: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.pair = A, adjoint
        return A(x.detach())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        A, adjoint = ctx.pair
        return _Paired.apply(gradients[0], adjoint, A), None, None


def from_deepinv(
    physics: Any,
    shape: Sequence[Any],
    *,
    complex_fields: bool = False,
    complex_channels: bool = False,
    linear: bool | None = None,
    observed: Tensor | None = None,
    field_units: Any = "",
    data_units: Any = "",
) -> DeepinvOperator:
    r"""The operator :math:`A` of a physics of deepinv, as it is now: a copy is made.

    A few calls on random fields find out what the physics does: the shape of its measurements, in which precisions it
    works, whether rows are independent, whether its adjoint is one, whether gradients flow. A linear physics whose
    adjoint fails is given the gradient of ``A`` instead, and one that cannot take a batch is called for each row, both
    with a warning. `DecomposablePhysics` keep an ``svd()`` where
    theirs is one in real numbers.

    Arguments:
        physics: A `deepinv.physics.Physics`.
        shape: Shape (\*X) of one field, without the batch; for a field of several parts their shapes, and fields are
            then flat, see `DeepinvOperator.pack_field`.
        complex_fields: Whether fields are complex tensors, as in phase retrieval.
        complex_channels: Whether deepinv keeps real and imaginary parts as the two channels of dimension 1, as its MRI
            does. Fields are then complex, ``shape`` is (1, ...), and measurements with two channels complex too.
        linear: Whether the physics is linear; default: whether it is a `LinearPhysics`.
        observed: Boolean tensor of the measurement's shape (\*Y); False entries are left out, measurements are (B, m).
        field_units: Units of the field, kept as text; default those of the physics, if it has any.
        data_units: Units of the measurement.

    Raises:
        TypeError: if it is no physics of deepinv.
        ValueError: if the physics does not accept such fields, draws random numbers in A, or has no usable adjoint.
    """
    if not isinstance(physics, deepinv.physics.Physics):
        raise TypeError(
            f"expected a deepinv.physics.Physics, got {type(physics).__name__}; for denoisers use "
            "scidiff.interop.deepinv.from_deepinv."
        )
    field = Layout.of_field(shape, complex_channels)
    complex_fields = complex_fields or complex_channels
    frozen, name = Frozen(physics), type(physics).__name__
    answer = first_call(frozen, name, field, complex_fields)
    data = Layout.of_answer(answer, complex_channels)
    if observed is not None and (observed.dtype != torch.bool or tuple(observed.shape) != data.shape):
        raise ValueError(
            f"observed must be boolean of shape {data.shape}, got {observed.dtype} {tuple(observed.shape)}."
        )
    linear = isinstance(physics, deepinv.physics.LinearPhysics) if linear is None else linear
    units: dict[str, Any] = {
        "field_units": str(field_units) or getattr(physics, "field_units", ""),
        "data_units": str(data_units) or getattr(physics, "data_units", ""),
    }
    kind = LinearDeepinvOperator if linear else DeepinvOperator
    operator = kind(frozen, name, field, data, complex_fields, **units)
    operator._complex_data = answer.is_complex() if isinstance(answer, Tensor) else any(map(torch.is_complex, answer))
    find_precisions(operator)
    check_rows(operator)
    if isinstance(operator, LinearDeepinvOperator):
        settle_adjoint(operator)
        if isinstance(physics, deepinv.physics.DecomposablePhysics) and not complex_fields and not data.several:
            operator = with_svd(operator, _Decomposed)
    else:
        settle_gradient(operator)
    if observed is not None:
        operator.observed, operator._index = observed, observed.flatten().nonzero()[:, 0]
    return operator


def likelihood_from_deepinv(
    physics: Any, y: Any, shape: Sequence[Any], noise: Noise | None = None, **options: Any
) -> Likelihood:
    r"""``y ~ noise(A(x))`` of a physics of deepinv.

    Entries of a linear physics' measurement that see no field (the zeros that deepinv's inpainting and MRI keep in
    ``y``) are left out, so that chi2 counts measurements only; the posterior does not depend on them.

    Arguments:
        physics: A `deepinv.physics.Physics` with its noise model.
        y: A measurement as deepinv has it, (B, ...).
        shape: Shape (\*X) of one field.
        noise: Law of the noise; default that of the physics, see `noise_from_deepinv`.
        options: Further arguments of `from_deepinv`.

    Raises:
        TypeError, ValueError: also if the physics has no noise, or ``physics(x)`` is not its noise on ``A(x)``.
    """
    operator = from_deepinv(physics, shape, **options)
    y = operator.pack(y)
    if operator.observed is None and isinstance(operator, LinearDeepinvOperator):
        seen = (operator(random_fields(operator, 3)) != 0).any(0)
        if not bool(seen.all()):
            operator.observed, operator._index = seen, seen.flatten().nonzero()[:, 0]
            y = operator._kept(y)
    if noise is None:
        check_forward(operator, physics)
        sizes = [int(torch.Size(part).numel()) for part in operator._data.shapes]
        noise, factor = of_physics(physics, operator._complex_data, sizes, operator.observed)
        y = y if factor == 1 else y * factor
    return Likelihood(operator, noise, y)
