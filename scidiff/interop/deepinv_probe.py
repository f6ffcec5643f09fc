"""What `from_deepinv` finds out about a physics by calling it on a few random fields."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from scidiff.interop.deepinv_frozen import Frozen
from scidiff.interop.deepinv_layout import Layout
from scidiff.interop.deepinv_noise import Shifted
from scidiff.optional import optional

deepinv = optional("deepinv")

__all__ = [
    "check_forward",
    "check_rows",
    "find_precisions",
    "first_call",
    "precise",
    "random_fields",
    "settle_adjoint",
    "settle_gradient",
    "with_svd",
]

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-7}
"""Largest accepted error of an adjoint, relative to the norms of both vectors; some classes hold constants in single
precision."""


def precise(x: Tensor, real: torch.dtype) -> Tensor:
    """The same numbers in another precision; complex numbers stay complex."""
    return x.to(real.to_complex() if x.is_complex() else real)


def random_fields(operator: Any, rows: int, real: torch.dtype | None = None) -> Tensor:
    """Positive random fields: laws of counts and phases of waves are made for such."""
    kind = operator._frozen.precision if real is None else real
    dtype = kind.to_complex() if operator._complex else kind
    draws = torch.randn(rows, *operator.shape, dtype=dtype, generator=Generator().manual_seed(1))
    draws = draws if operator._complex else draws.abs().clamp_min(0.05)
    return draws.to(operator._frozen.device)


def first_call(frozen: Frozen, name: str, field: Layout, complex_fields: bool) -> Any:
    """The answer to one field in the physics' own precision."""
    dtype = frozen.precision.to_complex() if complex_fields else frozen.precision
    x = torch.rand(1, *field.shape, dtype=dtype, generator=Generator().manual_seed(0)).to(frozen.device)
    try:
        with torch.no_grad():
            z = frozen.call("A", field.unpack(x), frozen.precision, x.device)
    except Exception as error:
        raise ValueError(
            f"{name} does not accept {'complex ' if complex_fields else ''}fields of shape (1, "
            f"{str(field.shape)[1:-1]}): {type(error).__name__}: {error}. Check shape=, complex_fields= and "
            "complex_channels=; parameters for a batch of several fields must be split into one physics each."
        ) from error
    for part in [z] if isinstance(z, Tensor) else z:
        if len(part) != 1:
            raise ValueError(
                f"{name} maps one field to {len(part)} measurements: its parameters hold a batch. Make one physics "
                "for each of its rows."
            )
    return z


def find_precisions(operator: Any) -> None:
    """Keeps the precisions in which the physics answers in kind; others are computed in these."""
    own = operator._frozen.precision
    reference = operator._run(random_fields(operator, 1, own))
    other = torch.float32 if own == torch.float64 else torch.float64
    try:
        x = random_fields(operator, 1, own)
        z = operator._data.pack(operator._frozen.call("A", operator._field.unpack(precise(x, other)), other, x.device))
        fine = z.dtype.to_real() == other and bool(torch.allclose(precise(z, own), reference, rtol=1e-3, atol=1e-4))
        if fine and hasattr(operator, "adjoint"):
            back = operator._frozen.call("A_adjoint", operator._data.unpack(z), other, x.device)
            fine = operator._field.pack(back).dtype.to_real() == other
    except Exception:  # numbers of the other precision inside, or a kernel that is missing
        fine = False
    if not fine:
        operator._answers = {own}
        operator._frozen._copies.pop((other, operator._frozen.device), None)


def check_rows(operator: Any) -> None:
    """One row alone and beside another; sets ``row_by_row`` where they differ.

    Raises:
        ValueError: if even one field alone has two answers.
    """
    x = random_fields(operator, 2)
    with torch.no_grad():
        alone, again = operator._run(x[1:]), operator._run(x[1:])
        if not torch.equal(alone, again):
            raise ValueError(
                f"{operator._name} gives two answers for one field: A draws random numbers or has a memory."
            )
        try:
            together = operator._run(x)
            fine = len(together) == 2 and float((together[1:] - alone).abs().max()) <= 1e-4 * float(alone.abs().max())
        except (RuntimeError, ValueError, TypeError, IndexError):
            fine = False
    if not fine:
        operator.row_by_row = True
        warnings.warn(
            f"{operator._name} fails on a batch of two fields or couples its rows; fields are measured one at a time.",
            stacklevel=3,
        )


def settle_adjoint(operator: Any) -> None:
    """Chooses deepinv's adjoint or the gradient, and how gradients flow."""
    real = max(operator._answers, key=lambda t: torch.finfo(t).bits)
    tolerance = TOLERANCE[min(real, operator._frozen.precision, key=lambda t: torch.finfo(t).bits)]
    generator = Generator().manual_seed(2)
    x = random_fields(operator, 2, real)
    x = x - x.flatten(1).mean(-1).reshape(-1, *[1] * (x.ndim - 1))
    with torch.no_grad():
        z, zero = operator._run(x), operator._run(0 * x)
    offset = float(zero.abs().max() / z.abs().max())
    if offset > 0:
        raise ValueError(
            f"{operator._name} maps the zero field to something else ({offset:.3g} of its size), so it is affine, not "
            "linear; subtract the offset from y, or give linear=False."
        )
    y = torch.randn(z.shape, dtype=z.dtype, generator=generator).to(z.device)

    def error(back: Callable[[Tensor], Tensor]) -> float:
        try:
            found = back(y)
        except (RuntimeError, ValueError, TypeError, NotImplementedError, AttributeError):
            return torch.inf
        left, right = _inner(z, y), _inner(x, found)
        scale = (_inner(z, z) * _inner(y, y)).sqrt()
        return float(((left - right).abs() / scale).max())

    operator.adjoint_error = error(operator._declared)
    gradient = error(operator._gradient)
    operator._paired = gradient > tolerance
    if operator.adjoint_error <= tolerance:
        return
    if operator._paired:
        raise ValueError(
            f"{operator._name}.A_adjoint is not the adjoint of A (relative error {operator.adjoint_error:.2g}), and "
            f"neither is the gradient ({gradient:.2g}). Give linear=False to use A alone, or mend the physics."
        )
    operator.adjoint_from = "gradient"
    warnings.warn(
        f"{operator._name}.A_adjoint is not the adjoint of A (relative error {operator.adjoint_error:.2g}); the "
        "gradient of A is used instead, which is.",
        stacklevel=3,
    )


def settle_gradient(operator: Any) -> None:
    """Whether gradients flow through a nonlinear physics; warns where they are not those of finite differences."""
    real = max(operator._answers, key=lambda t: torch.finfo(t).bits)
    x = random_fields(operator, 1, real).requires_grad_()
    with torch.enable_grad():
        z = operator._run(x)
        operator.differentiable = z.requires_grad
        if not z.requires_grad or real != torch.float64:
            return
        generator = Generator().manual_seed(4)
        v, d = (torch.randn(t.shape, dtype=t.dtype, generator=generator).to(t.device) for t in (z, x))
        gradient = torch.autograd.grad(z, x, v)[0]
    with torch.no_grad():
        h = 1e-5 * float(x.abs().max())
        along = (operator._run(x + h * d) - operator._run(x - h * d)) / (2 * h)
    scale = float((_inner(v, v) * _inner(along, along)).sqrt().clamp_min(1e-300))
    error = float((_inner(v, along) - _inner(gradient, d)).abs()) / scale
    if error > 1e-3:
        warnings.warn(
            f"the gradient that flows through {operator._name} differs from finite differences by {error:.2g} of its "
            "size; samplers that use it are misled.",
            stacklevel=3,
        )


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a.flatten(1).to(torch.complex128).conj() * b.flatten(1)).sum(-1).real


def with_svd(operator: Any, decomposed: Any) -> Any:
    """The same with ``svd()`` if deepinv's decomposition is one in real numbers, orthonormal on both sides."""
    frozen, real = operator._frozen, operator._frozen.precision
    x = random_fields(operator, 2, real)
    try:
        with torch.no_grad():
            c = frozen.call("V_adjoint", x, real, x.device)
            s = frozen.at(real, x.device).mask
            if c.is_complex() or s.is_complex() or bool((s < 0).any()):
                return operator
            values = s.to(real).expand(1, *c.shape[1:]).reshape(-1)
    except Exception:  # a decomposition with parts missing is none
        return operator
    index = (values > 1e-6 * values.max()).nonzero()[:, 0]
    made = decomposed.__new__(decomposed)
    vars(made).update(vars(operator))
    made._svd = tuple(c.shape[1:]), index, values[index]
    try:
        with torch.no_grad():
            U, s, V = made.svd()
            random = torch.randn(2, len(index), dtype=real, generator=Generator().manual_seed(3)).to(x.device)
            fine = all(
                float((a - b).norm()) <= 1e-4 * float(b.norm())
                for a, b in ((U(s * V.adjoint(x)), made._run(x)), (U.adjoint(U(random)), random),
                             (V.adjoint(V(random)), random))
            )  # fmt: skip
    except Exception:
        return operator
    return made if fine else operator


def check_forward(operator: Any, physics: Any) -> None:
    """Whether ``physics(x)`` is noise on ``A(x)``: no sensor, no background, no noise before or inside A.

    Raises:
        ValueError: if not.
    """
    x = random_fields(operator, 1)
    frozen = Frozen(physics, Shifted())
    inside = physics.B.noise_model if isinstance(physics, deepinv.physics.PhaseRetrieval) else None
    arguments = operator._field.unpack(x), frozen.precision, x.device
    with torch.no_grad():
        clean = operator._frozen.call("A", *arguments)
        shifted = [part + Shifted.OFFSET for part in clean] if operator._data.several else clean + Shifted.OFFSET
        found, expected = (
            operator._kept(operator._data.pack(z)) for z in (frozen.call("forward", *arguments), shifted)
        )
    fine = torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    if not fine or not (inside is None or isinstance(inside, deepinv.physics.ZeroNoise)):
        raise ValueError(
            f"{operator._name}(x) is not its noise on A(x): a sensor, a background, weights, or noise before A lie "
            "between. Describe the measurement yourself, likelihood_from_deepinv(..., noise=...)."
        )
