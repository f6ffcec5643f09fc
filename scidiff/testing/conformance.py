"""Everything an operator of scidiff must keep, in one call."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from scidiff.protocols import Operator
from scidiff.testing.numbers import norm, randn, require
from scidiff.testing.operators import check_adjoint, check_batch_independence, check_vjp

__all__ = ["OperatorReport", "check_operator"]

_FACTORS = (1e-9, 1e9)


@dataclass(frozen=True)
class OperatorReport:
    """The largest relative errors that `check_operator` found; None for what an operator does not have.

    Arguments:
        adjoint32: Of inner products with the adjoint, float32 (complex64) fields.
        adjoint64: The same with float64 (complex128) fields.
        normal: Of ``normal(x)`` beside ``adjoint(operator(x))``.
        svd: Of ``U(s * V.adjoint(x))`` beside the operator, and of the orthonormality of U and V.
        pinv: Of ``operator(pinv(operator(x)))`` beside ``operator(x)``.
        vjp: Of gradients beside finite differences.
        batch: Of a row alone, or beside others, and in the batch.
        units: Of ``operator(c * x)`` beside ``c * operator(x)`` for very small and very large c (linear operators), and
            of the same instrument described in other units.
    """

    adjoint32: float | None
    adjoint64: float | None
    normal: float | None
    svd: float | None
    pinv: float | None
    vjp: float | None
    batch: float
    units: float | None

    def as_dict(self) -> dict[str, float | None]:
        """The numbers by name."""
        return asdict(self)


def check_operator(
    operator: Operator,
    x_shape: Sequence[int],
    *,
    complex_fields: bool = False,
    at: Tensor | None = None,
    same: Sequence[Operator] = (),
    storable: bool = True,
    devices: Sequence[str] = ("cpu",),
    float32: float = 1e-6,
    float64: float = 1e-12,
    gradient: float = 1e-6,
    contrast: float = 30.0,
    generator: Generator | None = None,
) -> OperatorReport:
    r"""Checks an operator for all that samplers rely on; see `OperatorReport` for what is measured.

    Beyond that: types, precision and device are those of the field; a call changes neither the field nor the operator;
    an operator read from a file gives the same bits as the one that was saved.

    Arguments:
        operator: The operator.
        x_shape: Shape (\*X) of one field; take sides of different length, symmetry hides mistakes.
        complex_fields: Whether fields are complex.
        at: Fields (B, \*X), B at least 2, to measure; standard normal ones by default. For operators that are not
            defined, or not smooth, everywhere.
        same: The same instrument described in other units.
        storable: Whether it can be saved; if not, saving must be refused with a TypeError. Asked only of operators with
            a method ``save``.
        devices: Where to try it.
        float32: Largest accepted error of the adjoint in single precision.
        float64: The same in double precision, also for ``normal``.
        gradient: Largest accepted error of gradients.
        contrast: See `check_batch_independence`.
        generator: Source of the random fields; a fixed one by default.

    Raises:
        AssertionError: at the first thing that is wrong, with the numbers.
    """
    name = type(operator).__name__
    own: Any = operator
    generator = generator if generator is not None else Generator().manual_seed(0)
    double = torch.complex128 if complex_fields else torch.float64
    single = torch.complex64 if complex_fields else torch.float32
    x = randn((3, *x_shape), double, generator) if at is None else at.to(double)
    require(tuple(x.shape[1:]) == tuple(x_shape), f"`at` has shape {tuple(x.shape)}, expected (B, *{tuple(x_shape)}).")
    linear = callable(getattr(operator, "adjoint", None))

    for device in devices:
        _kinds(own, name, x.to(device), (double, single), linear)
    _state(own, name, x, linear)
    report: dict[str, Any] = dict.fromkeys(OperatorReport.__dataclass_fields__)
    if linear:
        report["adjoint32"] = check_adjoint(own, x_shape, dtype=single, tolerance=float32, generator=generator)
        report["adjoint64"] = check_adjoint(own, x_shape, dtype=double, tolerance=float64, generator=generator)
        if callable(getattr(operator, "normal", None)):
            report["normal"] = _close(own.normal(x), own.adjoint(own(x)), float64, f"{name}.normal(x) is not A'A x")
    if callable(getattr(operator, "svd", None)):
        report["svd"] = _svd(own, name, x)
    if callable(getattr(operator, "pinv", None)):
        report["pinv"] = _close(own(own.pinv(own(x))), own(x), 1e-9, f"{name}: A(pinv(A(x))) is not A(x)")
    if getattr(operator, "differentiable", True):
        report["vjp"] = check_vjp(operator, x[:2], tolerance=gradient, generator=generator)
    report["batch"] = check_batch_independence(operator, x, contrast=contrast)
    if linear or same:
        report["units"] = _units(own, name, x, linear, same)
    if callable(getattr(operator, "save", None)):
        _file(own, name, x, storable, linear)
    return OperatorReport(**report)


def _close(got: Tensor, expected: Tensor, tolerance: float, what: str) -> float:
    require(got.shape == expected.shape, f"{what}: shape {tuple(got.shape)}, expected {tuple(expected.shape)}.")
    error = float((norm(got - expected) / norm(expected).clamp_min(1e-300)).max())
    require(error <= tolerance, f"{what}: relative error {error:.3g} > {tolerance:.3g}.")
    return error


def _kinds(operator: Any, name: str, x: Tensor, dtypes: Sequence[torch.dtype], linear: bool) -> None:
    """Precision and device of the answers are those of the question."""
    for dtype in dtypes:
        field = x.to(dtype)
        z = operator(field)
        kept = (z.dtype.to_real(), z.device) == (dtype.to_real(), field.device)
        require(kept, f"{name} maps {dtype} on {field.device} to {z.dtype} on {z.device}; keep precision and device.")
        if linear:
            back = operator.adjoint(z)
            kept = (back.dtype, back.device) == (dtype, field.device)
            require(kept, f"{name}.adjoint gives {back.dtype} on {back.device} for fields {dtype} on {field.device}.")


def _state(operator: Any, name: str, x: Tensor, linear: bool) -> None:
    """Calls change neither their argument nor later answers."""
    given = x.clone()
    first = operator(x)
    require(torch.equal(x, given), f"{name} writes into the field it is given.")
    y = first.clone()
    if linear:
        back = operator.adjoint(y)
        require(torch.equal(y, first), f"{name}.adjoint writes into the measurement it is given.")
    operator(2 * x[:1])
    operator(x.to(torch.complex64 if x.is_complex() else torch.float32))
    require(torch.equal(operator(x), first), f"{name} answers differently after other calls: a call changes its state.")
    if linear:
        again = operator.adjoint(y)
        require(
            torch.equal(again, back), f"{name}.adjoint answers differently after other calls: it changes its state."
        )


def _svd(operator: Any, name: str, x: Tensor) -> float:
    U, s, V = operator.svd()
    require(bool((s >= 0).all()), f"{name}.svd() has negative singular values.")
    c = V.adjoint(x)
    errors = [
        _close(U(s.to(c.dtype.to_real()) * c), operator(x), 1e-10, f"{name}.svd() is not the operator"),
        _close(V.adjoint(V(c)), c, 1e-10, f"the columns of V of {name}.svd() are not orthonormal"),
        _close(U.adjoint(U(c)), c, 1e-10, f"the columns of U of {name}.svd() are not orthonormal"),
    ]
    return max(errors)


def _units(operator: Any, name: str, x: Tensor, linear: bool, same: Sequence[Any]) -> float:
    z, worst = operator(x), 0.0
    for factor in _FACTORS if linear else ():
        what = f"{name}: numbers {factor:g} times as large are not measured alike; a constant depends on the units"
        worst = max(worst, _close(operator(factor * x) / factor, z, 1e-12, what))
    for other in same:
        what = f"{name}: the same instrument in other units, {other!r}, measures something else than {operator!r}"
        worst = max(worst, _close(other(x), z, 1e-12, what))
    return worst


def _file(operator: Any, name: str, x: Tensor, storable: bool, linear: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="scidiff-") as folder:
        path = Path(folder) / "operator.safetensors"
        if not storable:
            try:
                operator.save(path)
            except TypeError:
                return
            raise AssertionError(f"{name} was saved although it is said not to be storable.")
        operator.save(path)
        again = operator.load(path)
    require(type(again) is type(operator), f"{name} comes back from a file as {type(again).__name__}.")
    z = operator(x)
    require(torch.equal(again(x), z), f"{name} read from a file measures something else than the one saved.")
    if linear:
        equal = torch.equal(again.adjoint(z), operator.adjoint(z))
        require(equal, f"{name} read from a file has another adjoint than the one saved.")
