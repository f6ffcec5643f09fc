"""Checks of forward models: adjoint, gradients, independence of the rows of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from scidiff.protocols import LinearOperator, Operator
from scidiff.testing.numbers import inner, norm, precision, randn, require

__all__ = ["check_adjoint", "check_batch_independence", "check_vjp"]


def check_adjoint(
    operator: LinearOperator,
    x_shape: Sequence[int],
    *,
    batch: int = 2,
    dtype: torch.dtype = torch.float64,
    tolerance: float | None = None,
    generator: Generator | None = None,
) -> float:
    r"""Checks that ``operator.adjoint`` is the adjoint, and that the operator is linear and repeatable.

    Arguments:
        operator: The operator.
        x_shape: Shape of one field (\*X).
        batch: Number of random fields.
        dtype: Type of the fields, complex for complex fields.
        tolerance: Largest accepted error relative to :math:`\|Ax\|\|y\|`; default a few roundings of ``dtype``.
        generator: Source of the random fields; a fixed one by default.

    Returns:
        The largest relative error of the inner products.

    Raises:
        AssertionError: if the adjoint is wrong, answers in another shape, or the operator is not linear.
    """
    name = type(operator).__name__
    generator = generator if generator is not None else Generator().manual_seed(0)
    tolerance = precision(dtype, 1e3) if tolerance is None else tolerance
    x = randn((batch, *x_shape), dtype, generator)
    other = randn((batch, *x_shape), dtype, generator)
    z = operator(x)
    require(torch.equal(z, operator(x)), f"{name} gives two answers for the same field: the call changes its state.")
    combined = operator(other - 0.7 * x)
    parts = operator(other), 0.7 * z
    error = norm(combined - (parts[0] - parts[1])) / (norm(parts[0]) + norm(parts[1])).clamp_min(1e-300)
    require(float(error.max()) <= tolerance, f"{name} is not linear: relative error {float(error.max()):.3g}.")

    y = randn(z.shape, z.dtype, generator)
    back = operator.adjoint(y)
    require(back.shape == x.shape, f"{name}.adjoint gives shape {tuple(back.shape)}, fields are {tuple(x.shape)}.")
    require(
        back.is_complex() == x.is_complex(),
        f"{name}.adjoint gives {back.dtype} for fields of {x.dtype}; the adjoint on real fields is the real part.",
    )
    scale = norm(z) * norm(y)
    require(bool((scale > 0).all()), f"{name} maps random fields to zero.")
    relative = float(((inner(z, y) - inner(x, back)).abs() / scale).max())
    require(
        relative <= tolerance,
        f"{name}.adjoint is not the adjoint: Re<Ax, y> = {inner(z, y).tolist()}, "
        f"Re<x, A'y> = {inner(x, back).tolist()}, relative error {relative:.3g} > {tolerance:.3g}.",
    )
    return relative


def check_vjp(
    operator: Operator,
    x: Tensor,
    *,
    probes: int = 3,
    tolerance: float = 1e-6,
    generator: Generator | None = None,
) -> float:
    r"""Checks gradients of an operator at ``x`` against central differences of fourth order, in double precision.

    Both autograd's vector-Jacobian product and, if present, ``operator.vjp(x, v)`` must satisfy
    :math:`\mathrm{Re}\langle v, J d\rangle = \mathrm{Re}\langle J^\ast v, d\rangle` for random ``v`` and ``d``.

    Arguments:
        operator: A differentiable operator.
        x: Fields (B, \*X) at which to check; made float64 or complex128.
        probes: Number of random pairs.
        tolerance: Largest accepted error relative to :math:`\|v\|\|J d\|`.
        generator: Source of the random pairs; a fixed one by default.

    Returns:
        The largest relative error.

    Raises:
        TypeError: if the operator declares ``differentiable = False``.
        AssertionError: if no gradient arrives (a forward model under ``no_grad``), or a wrong one.
    """
    name = getattr(operator, "__name__", type(operator).__name__)
    if not getattr(operator, "differentiable", True):
        raise TypeError(f"{name} declares differentiable = False, so it has no gradient to check.")
    generator = generator if generator is not None else Generator().manual_seed(0)
    x = x.detach().to(torch.complex128 if x.is_complex() else torch.float64)
    size = float((torch.view_as_real(x) if x.is_complex() else x).square().mean().sqrt()) or 1.0
    h = size * torch.finfo(torch.float64).eps ** 0.2
    worst = 0.0
    for _ in range(probes):
        d = randn(x.shape, x.dtype, generator)
        with torch.no_grad():
            near = operator(x + h * d) - operator(x - h * d)
            far = operator(x + 2 * h * d) - operator(x - 2 * h * d)
        jd = (8 * near - far) / (12 * h)
        v = randn(jd.shape, jd.dtype, generator)
        with torch.enable_grad():
            leaf = x.clone().requires_grad_()
            z = operator(leaf)
            require(
                z.requires_grad,
                f"no gradient flows through {name}: its output does not depend on its input for autograd. "
                "It runs under no_grad, or detaches; remove that, or declare `differentiable = False`.",
            )
            found = {"autograd": torch.autograd.grad(z, leaf, v)[0]}
        if callable(getattr(operator, "vjp", None)):
            found["vjp"] = operator.vjp(x, v)  # type: ignore[attr-defined]
        scale = (norm(v) * norm(jd)).clamp_min(1e-300)
        for source, gradient in found.items():
            require(gradient.shape == x.shape, f"{source} of {name} has shape {tuple(gradient.shape)}.")
            expected, got = inner(v, jd), inner(gradient, d)
            relative = float(((expected - got).abs() / scale).max())
            require(
                relative <= tolerance,
                f"{source} of {name} is wrong: finite differences {expected.tolist()}, gradient {got.tolist()}, "
                f"relative error {relative:.3g} > {tolerance:.3g}.",
            )
            worst = max(worst, relative)
    return worst


def check_batch_independence(
    f: Callable[..., Tensor], *inputs: Tensor, tolerance: float | None = None, contrast: float = 30.0
) -> float:
    r"""Checks that each row of ``f(*inputs)`` is the same alone, in the batch, and beside much larger rows.

    Arguments:
        f: Function of tensors whose first dimension is the batch: an operator, a denoiser, one step of a sampler.
        inputs: Tensors (B, ...) with B >= 2, rows different from each other.
        tolerance: Largest accepted difference relative to the row's norm; default a few roundings of the type.
        contrast: Factor by which the other rows are multiplied in the last comparison; 1 leaves it out, for functions
            that do not accept such values.

    Returns:
        The largest relative difference.

    Raises:
        AssertionError: if rows influence each other.
    """
    batches = {len(x) for x in inputs}
    if len(batches) != 1 or max(batches) < 2:
        raise ValueError(f"all inputs need the same batch of at least 2 rows, got {sorted(batches)}.")
    batch, together = batches.pop(), f(*inputs)
    require(len(together) == batch, f"f maps {batch} rows to {len(together)}.")
    tolerance = precision(together.dtype, 1e3) if tolerance is None else tolerance
    worst = 0.0
    for row in range(batch):
        alone = f(*[x[row : row + 1] for x in inputs])
        others = torch.arange(batch) != row
        beside = []
        for x in inputs:
            scaled = x.clone()
            scaled[others.to(x.device)] *= contrast
            beside.append(scaled)
        for what, got in (("alone", alone), ("beside larger rows", f(*beside)[row : row + 1])):
            reference = together[row : row + 1]
            difference = float((norm(got - reference) / norm(reference).clamp_min(1e-300)).max())
            require(
                difference <= tolerance,
                f"row {row} changes by {difference:.3g} of its norm when computed {what}: rows are coupled. "
                "Reduce over all but the first dimension: `e.flatten(1).square().sum(-1)`.",
            )
            worst = max(worst, difference)
    return worst
