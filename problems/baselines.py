r"""Classical reconstructions that a posterior must beat: zero-filled, regularised least squares, total variation.

All of them see ``y = A x + n`` through a linear operator ``A`` with ``adjoint`` (and ``normal``, ``A'A``, where it has
one) on fields ``x`` (B, C, H, W), real or complex, and noise that is white.

Total variation solves

.. math:: \min_x \tfrac12 \|A x - y\|^2 + \lambda \sum_r \sqrt{|D_y x(r)|^2 + |D_x x(r)|^2}

with forward differences :math:`D = (D_y, D_x)`, zero across the last row and column. For complex fields the modulus
ties real and imaginary part together. The primal-dual iteration with step sizes :math:`\tau (L / 2 + 8 s) \le 1`,

.. math:: x^+ = x - \tau (A'(A x - y) + D' p), \qquad p^+ = \Pi_{|p| \le \lambda}(p + s D (2 x^+ - x)),

converges for every :math:`s > 0`; :math:`L = \|A\|^2` and :math:`\|D\|^2 \le 8`.

References:
    A primal-dual splitting method for convex optimization involving Lipschitzian, proximable and linear composite
    terms (Condat, 2013).
    Nonlinear total variation based noise removal algorithms (Rudin, Osher and Fatemi, 1992).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["differences", "differences_adjoint", "least_squares", "power_norm", "total_variation", "zero_filled"]


def differences(x: Tensor) -> Tensor:
    """Forward differences along the last two dimensions, (..., H, W) -> (2, ..., H, W), zero at the far edge."""
    d = x.new_zeros(2, *x.shape)
    d[0, ..., :-1, :] = x[..., 1:, :] - x[..., :-1, :]
    d[1, ..., :-1] = x[..., 1:] - x[..., :-1]
    return d


def differences_adjoint(p: Tensor) -> Tensor:
    """Adjoint of `differences`, minus the divergence: (2, ..., H, W) -> (..., H, W)."""
    down, right = p[0], p[1]
    x = torch.zeros_like(down)
    x[..., 1:, :] += down[..., :-1, :]
    x[..., :-1, :] -= down[..., :-1, :]
    x[..., 1:] += right[..., :-1]
    x[..., :-1] -= right[..., :-1]
    return x


def _normal(operator: Any) -> Callable[[Tensor], Tensor]:
    own = getattr(operator, "normal", None)
    return own if callable(own) else lambda x: operator.adjoint(operator(x))


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Real inner product of every row, shaped to multiply fields."""
    product = (a.conj() * b).real if a.is_complex() else a * b
    return product.flatten(1).sum(1).reshape(-1, *(1,) * (a.ndim - 1))


def zero_filled(operator: Any, y: Tensor) -> Tensor:
    """The adjoint ``A'y``: for MRI, the inverse FFT with zeros for what is missing, combined over coils."""
    return operator.adjoint(y)


def power_norm(operator: Any, x: Tensor, iterations: int = 12) -> float:
    r"""Largest eigenvalue of ``A'A``, :math:`\|A\|^2`, by the power method started at ``x`` (B, C, H, W).

    Approached from below; the caller adds a margin.
    """
    normal, value = _normal(operator), 0.0
    for _ in range(iterations):
        norm = x.norm()
        if not float(norm) > 0:
            return value
        x = x / norm
        x, last = normal(x), x
        value = float(_dot(last, x).sum())
    return value


def least_squares(operator: Any, y: Tensor, ridge: float = 0.0, iterations: int = 20, tol: float = 1e-6) -> Tensor:
    r"""Minimises :math:`\|A x - y\|^2 + \text{ridge} \|x\|^2` by conjugate gradients from zero; rows are independent.

    Arguments:
        operator: Linear operator with ``adjoint``.
        y: (B, \*Y).
        ridge: Weight of the squared norm, in units of :math:`\|A\|^2`.
        iterations: Most iterations; stopping early regularises too.
        tol: Relative residual of the normal equations at which a row stops.
    """
    normal = _normal(operator)
    r = operator.adjoint(y)
    x, p = torch.zeros_like(r), r
    rr = _dot(r, r)
    start = rr.clamp(min=torch.finfo(rr.dtype).tiny)
    for _ in range(iterations):
        going = rr > tol**2 * start
        if not bool(going.any()):
            break
        q = normal(p) + ridge * p
        alpha = torch.where(going, rr / _dot(p, q).clamp(min=torch.finfo(rr.dtype).tiny), 0.0)
        x, r = x + alpha * p, r - alpha * q
        new = torch.where(going, _dot(r, r), rr)
        p = torch.where(going, r + new / rr.clamp(min=torch.finfo(rr.dtype).tiny) * p, p)
        rr = new
    return x


def total_variation(
    operator: Any,
    y: Tensor,
    weight: float,
    iterations: int = 200,
    tol: float = 1e-4,
    start: Tensor | None = None,
    norm: float | None = None,
) -> Tensor:
    r"""Total variation reconstruction, (B, C, H, W); see the module for the problem and the iteration.

    Arguments:
        operator: Linear operator with ``adjoint``.
        y: Measurement (B, \*Y).
        weight: :math:`\lambda`, in units of ``y`` times those of ``A``. White noise of standard deviation s per real
            component suggests a few tenths of s to a few s.
        iterations: Most iterations.
        tol: Stops when an iteration changes ``x`` by less than this fraction of its norm (times the step).
        start: First guess; by default ten iterations of `least_squares`.
        norm: :math:`\|A\|^2`; by default from `power_norm`, with a margin of 5 %.

    Raises:
        ValueError: if the weight is negative or the operator is zero on the data.
    """
    if not weight >= 0:
        raise ValueError(f"the weight of total variation must not be negative, got {weight}.")
    backprojected = operator.adjoint(y)
    lipschitz = 1.05 * power_norm(operator, backprojected) if norm is None else norm
    if not lipschitz > 0:
        raise ValueError("the adjoint of the operator sees nothing in y: there is nothing to reconstruct.")
    normal = _normal(operator)
    x = least_squares(operator, y, iterations=10) if start is None else start
    # s balances primal and dual steps; 8 s = L / 2 makes both terms of the step bound equal.
    dual_step = lipschitz / 16
    primal_step = 1 / (lipschitz / 2 + 8 * dual_step)
    p = x.new_zeros(2, *x.shape)
    for _ in range(iterations):
        new = x - primal_step * (normal(x) - backprojected + differences_adjoint(p))
        p = p + dual_step * differences(2 * new - x)
        p = p / (p.abs().square().sum(0).sqrt() / max(weight, torch.finfo(torch.float32).tiny)).clamp(min=1)
        change, x = float((new - x).norm()), new
        if change <= tol * primal_step * lipschitz * float(x.norm()):
            break
    return x
