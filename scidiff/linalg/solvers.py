r"""Iterative solvers for batches of independent systems, one step size per row.

The vectors are fields (B, \*X), real or complex; inner products run over all but the first dimension, so a row is
solved as if it were alone. Rows that have converged or broken down are frozen. Nothing is read back from the device
unless a ``tolerance`` is given, and then only every ``check_every`` iterations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["SolveInfo", "cg", "gmres", "lsqr"]

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class SolveInfo:
    r"""What a solver reports, one number per row.

    Arguments:
        residual: Norm :math:`\|b - A x\|` as the recurrence of the method knows it, (B,).
        relative: ``residual`` over :math:`\|b\|`, 0 where ``b = 0``, (B,).
        iterations: Iterations that changed the row, (B,).
        breakdown: Rows that stopped because no further progress was possible, such as a direction of zero or negative
            curvature in `cg`, (B,).
        calls: Applications of the operator; one number, all rows together.
    """

    residual: Tensor
    relative: Tensor
    iterations: Tensor
    breakdown: Tensor
    calls: int


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Real part of the inner product of every row, (B,)."""
    product = a.conj() * b
    return (product.real if product.is_complex() else product).flatten(1).sum(-1)


def _norm(a: Tensor) -> Tensor:
    """Norm of every row, (B,), without overflow of the squares."""
    return torch.linalg.vector_norm(a.flatten(1), dim=-1)


def _row(scalar: Tensor, like: Tensor) -> Tensor:
    """One number per row, shaped to multiply fields."""
    return scalar.reshape(-1, *[1] * (like.ndim - 1))


def _ratio(a: Tensor, b: Tensor, where: Tensor) -> Tensor:
    """``a / b`` where allowed, else 0."""
    return torch.where(where, a / torch.where(where, b, 1), 0)


def _info(residual: Tensor, size: Tensor, iterations: Tensor, breakdown: Tensor, calls: int) -> SolveInfo:
    return SolveInfo(residual, _ratio(residual, size, size > 0), iterations, breakdown, calls)


def cg(
    operator: Map,
    b: Tensor,
    x0: Tensor | None = None,
    *,
    iterations: int = 10,
    tolerance: float = 0.0,
    preconditioner: Map | None = None,
    check_every: int = 5,
) -> tuple[Tensor, SolveInfo]:
    r"""Conjugate gradients for :math:`A x = b` with :math:`A` Hermitian and positive semi-definite.

    Arguments:
        operator: :math:`A` on fields (B, \*X); each row is mapped alone.
        b: Right-hand sides (B, \*X).
        x0: First guess; default zero, which saves one application.
        iterations: Largest number of iterations, each one application of the operator.
        tolerance: A row is frozen when :math:`\|b - A x\|` is at most this times :math:`\|b\|`.
        preconditioner: An approximation of :math:`A^{-1}`, Hermitian and positive.
        check_every: How often, with a tolerance, to look whether all rows have converged.

    Returns:
        The solution and a `SolveInfo`.

    References:
        Methods of conjugate gradients for solving linear systems, Hestenes and Stiefel, 1952.
    """
    _check(iterations, tolerance)
    x = torch.zeros_like(b) if x0 is None else x0.clone()
    r = b.clone() if x0 is None else b - operator(x)
    calls = 0 if x0 is None else 1
    size = _norm(b)
    z = r if preconditioner is None else preconditioner(r)
    p, rho = z, _dot(r, z)
    residual = _norm(r)
    steps = torch.zeros(len(b), dtype=torch.long, device=b.device)
    breakdown = torch.zeros(len(b), dtype=torch.bool, device=b.device)
    active = residual > tolerance * size
    for step in range(iterations):
        if tolerance > 0 and step % check_every == 0 and not bool(active.any()):
            break
        q = operator(p)
        calls += 1
        curvature = _dot(p, q)
        good = active & (curvature > 0) & (rho > 0) & torch.isfinite(curvature)
        breakdown = breakdown | (active & ~good)
        alpha = _ratio(rho, curvature, good)
        moved = _row(good, b)
        x = torch.where(moved, x + _row(alpha, b) * p, x)
        r = torch.where(moved, r - _row(alpha, b) * q, r)
        z = r if preconditioner is None else preconditioner(r)
        new = _dot(r, z)
        p = torch.where(moved, z + _row(_ratio(new, rho, good), b) * p, p)
        rho = torch.where(good, new, rho)
        residual = torch.where(good, _norm(r), residual)
        steps = steps + good
        active = good & (residual > tolerance * size)
    return x, _info(residual, size, steps, breakdown, calls)


def gmres(
    operator: Map,
    b: Tensor,
    x0: Tensor | None = None,
    *,
    iterations: int = 10,
    restart: int | None = None,
    tolerance: float = 0.0,
) -> tuple[Tensor, SolveInfo]:
    r"""Generalised minimal residuals for :math:`A x = b` with any square :math:`A`.

    Arnoldi's basis is orthogonalised twice. A row whose Krylov space is exhausted gets no further vectors and keeps
    its exact solution ("happy breakdown"), or its least-squares one if :math:`A` is singular.

    Arguments:
        operator: :math:`A` on fields (B, \*X); each row is mapped alone.
        b: Right-hand sides (B, \*X).
        x0: First guess; default zero, which saves one application.
        iterations: Largest number of iterations, each one application of the operator.
        restart: Iterations before the basis is thrown away, which bounds the memory; default never.
        tolerance: A row is frozen when, at a restart, :math:`\|b - A x\|` is at most this times :math:`\|b\|`.

    Returns:
        The solution and a `SolveInfo`.

    References:
        GMRES: a generalized minimal residual algorithm for solving nonsymmetric linear systems, Saad and Schultz, 1986.
    """
    _check(iterations, tolerance)
    restart = iterations if restart is None else min(restart, iterations)
    x = torch.zeros_like(b) if x0 is None else x0.clone()
    r = b.clone() if x0 is None else b - operator(x)
    calls = 0 if x0 is None else 1
    size, residual = _norm(b), _norm(r)
    eps = torch.finfo(b.dtype).eps
    steps = torch.zeros(len(b), dtype=torch.long, device=b.device)
    breakdown = torch.zeros(len(b), dtype=torch.bool, device=b.device)
    active = residual > tolerance * size
    done = 0
    while done < iterations:
        if done > 0:
            if tolerance > 0 and not bool(active.any()):
                break
            r = b - operator(x)
            calls += 1
            residual = torch.where(active, _norm(r), residual)
            active = active & (residual > tolerance * size)
        length = min(restart, iterations - done)
        beta = _norm(r)
        alive = active & (beta > 0)
        basis = [r.flatten(1) * _ratio(torch.ones_like(beta), beta, alive)[:, None]]
        h = b.new_zeros(len(b), length + 1, length)
        for j in range(length):
            w = operator(basis[j].reshape(b.shape)).flatten(1)
            calls += 1
            before = _norm(w)
            v = torch.stack(basis, 1)  # (B, j + 1, d)
            for _ in range(2):
                c = (v.conj() @ w[..., None])[..., 0]
                h[:, : j + 1, j] += c
                w = w - (c[:, None] @ v)[:, 0]
            after = _norm(w)
            steps = steps + alive
            alive = alive & (after > 10 * eps * before)
            h[:, j + 1, j] = torch.where(alive, after, 0).to(h.dtype)
            basis.append(w * _ratio(torch.ones_like(after), after, alive)[:, None])
        breakdown = breakdown | (active & ~alive)
        rhs = h.new_zeros(len(b), length + 1, 1)
        rhs[:, 0, 0] = torch.where(active, beta, 0).to(h.dtype)
        c = torch.linalg.pinv(h) @ rhs
        update = (c.mT @ torch.stack(basis[:-1], 1))[:, 0]
        x = torch.where(_row(active, b), x + update.reshape(b.shape), x)
        residual = torch.where(active, _norm(rhs - h @ c), residual)
        active = active & (residual > tolerance * size) & alive
        done += length
    return x, _info(residual, size, steps, breakdown, calls)


def lsqr(
    operator: Map,
    adjoint: Map,
    b: Tensor,
    *,
    damp: float = 0.0,
    iterations: int = 20,
    tolerance: float = 0.0,
    check_every: int = 5,
) -> tuple[Tensor, SolveInfo]:
    r"""Minimises :math:`\|A x - b\|^2 + \mathrm{damp}^2 \|x\|^2` by Golub-Kahan bidiagonalisation.

    Arguments:
        operator: :math:`A`, fields (B, \*X) to measurements (B, \*Y).
        adjoint: :math:`A^\ast`, measurements to fields.
        b: Measurements (B, \*Y).
        damp: Weight of the norm of the solution.
        iterations: Largest number of iterations, each one application of ``operator`` and one of ``adjoint``.
        tolerance: A row is frozen when the normal residual :math:`\|A^\ast r - \mathrm{damp}^2 x\|` is at most this
            times :math:`\|A^\ast b\|`.
        check_every: How often, with a tolerance, to look whether all rows have converged.

    Returns:
        The solution of smallest norm (from zero) and a `SolveInfo`, whose ``residual`` includes the damping term:
        :math:`\sqrt{\|b - A x\|^2 + \mathrm{damp}^2 \|x\|^2}`.

    References:
        LSQR: an algorithm for sparse linear equations and sparse least squares, Paige and Saunders, 1982.
    """
    _check(iterations, tolerance)
    eps = torch.finfo(b.dtype).eps
    size = _norm(b)
    beta = size
    u = b * _row(_ratio(torch.ones_like(beta), beta, beta > 0), b)
    v = adjoint(u)
    calls = 1
    alpha = _norm(v)
    v = v * _row(_ratio(torch.ones_like(alpha), alpha, alpha > 0), v)
    x, w = torch.zeros_like(v), v
    phibar, rhobar = beta, alpha
    first = alpha * beta
    scale = alpha
    lost = torch.zeros_like(beta)  # squared residual that damping makes unreachable
    steps = torch.zeros(len(b), dtype=torch.long, device=b.device)
    breakdown = torch.zeros(len(b), dtype=torch.bool, device=b.device)
    active = first > 0
    for step in range(iterations):
        if tolerance > 0 and step % check_every == 0 and not bool(active.any()):
            break
        u = operator(v) - _row(alpha, b) * u
        beta = _norm(u)
        beta = torch.where(beta > 10 * eps * scale, beta, 0)
        u = u * _row(_ratio(torch.ones_like(beta), beta, beta > 0), b)
        v_next = adjoint(u) - _row(beta, v) * v
        calls += 2
        alpha = _norm(v_next)
        scale = torch.maximum(scale, torch.hypot(alpha, beta))
        alpha = torch.where(alpha > 10 * eps * scale, alpha, 0)
        v = v_next * _row(_ratio(torch.ones_like(alpha), alpha, alpha > 0), v)

        damped = torch.hypot(rhobar, torch.full_like(rhobar, damp))
        good = active & (torch.hypot(damped, beta) > 0)
        sine, cosine = _ratio(torch.full_like(damped, damp), damped, good), _ratio(rhobar, damped, good)
        lost = lost + torch.where(good, (sine * phibar).square(), 0)
        phi_d = cosine * phibar
        rho = torch.hypot(damped, beta)
        c, s = _ratio(damped, rho, good), _ratio(beta, rho, good)
        theta, rhobar_next = s * alpha, -c * alpha
        phi, phi_next = c * phi_d, s * phi_d
        moved = _row(good, v)
        x = torch.where(moved, x + _row(_ratio(phi, rho, good), v) * w, x)
        w = torch.where(moved, v - _row(_ratio(theta, rho, good), v) * w, w)
        phibar = torch.where(good, phi_next, phibar)
        rhobar = torch.where(good, rhobar_next, rhobar)
        steps = steps + good
        normal = phibar.abs() * alpha * c.abs()
        breakdown = breakdown | (active & ~good)
        active = good & (normal > tolerance * first) & (alpha > 0)
    return x, _info((phibar.square() + lost).sqrt(), size, steps, breakdown, calls)


def _check(iterations: int, tolerance: float) -> None:
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}.")
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance must be in [0, 1), got {tolerance}.")
