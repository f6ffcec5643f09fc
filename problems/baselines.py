r"""Classical reconstructions that a posterior must beat: zero-filled, regularised least squares, total variation.

All of them see ``y = A x + n`` through a linear operator ``A`` with ``adjoint`` (and ``normal``, ``A'A``, where it has
one) on fields ``x`` (B, C, H, W), real or complex, and noise that is white.

Total variation solves

.. math:: \min_x \tfrac12 \|A x - y\|^2 + \lambda \sum_r \sqrt{|D_y x(r)|^2 + |D_x x(r)|^2}

with forward differences :math:`D = (D_y, D_x)`, zero across the last row and column. For complex fields the modulus
ties real and imaginary part together. The alternating direction method of multipliers (split Bregman) repeats

.. math:: x \leftarrow (A'A + \rho D'D)^{-1} (A'y + \rho D'(z - u)), \quad
          z \leftarrow \text{shrink}_{\lambda / \rho}(D x + u), \quad u \leftarrow u + D x - z

with :math:`\text{shrink}_t(v) = v \max(0, 1 - t / |v|)` and a few conjugate-gradient steps, started from the last
``x``, for the first. It converges for every :math:`\rho > 0`, fastest where :math:`\lambda / \rho` is the height of an
edge. (The primal-dual iteration of Condat needs five times the operator calls at small weights.)

References:
    The Split Bregman Method for L1-Regularized Problems (Goldstein and Osher, 2009).
    Nonlinear total variation based noise removal algorithms (Rudin, Osher and Fatemi, 1992).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from scidiff.linalg import cg

__all__ = ["differences", "differences_adjoint", "least_squares", "total_variation", "zero_filled"]


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
    own: Any = getattr(operator, "normal", None)
    return (lambda x: operator.adjoint(operator(x))) if own is None else own


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Real inner product of every row, shaped to multiply fields."""
    product = (a.conj() * b).real if a.is_complex() else a * b
    return product.flatten(1).sum(1).reshape(-1, *(1,) * (a.ndim - 1))


def zero_filled(operator: Any, y: Tensor) -> Tensor:
    """The adjoint ``A'y``: for MRI, the inverse FFT with zeros for what is missing, combined over coils."""
    return operator.adjoint(y)


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
    solution, _ = cg(lambda x: normal(x) + ridge * x, operator.adjoint(y), iterations=iterations, tolerance=tol)
    return solution


def total_variation(
    operator: Any,
    y: Tensor,
    weight: float,
    iterations: int = 40,
    inner: int = 5,
    edge: float = 0.1,
    tol: float = 1e-4,
) -> Tensor:
    r"""Total variation reconstruction, (B, C, H, W); see the module for the problem and the iteration.

    Arguments:
        operator: Linear operator with ``adjoint``.
        y: Measurement (B, \*Y).
        weight: :math:`\lambda`, in units of ``y`` times those of ``A``. For white noise of standard deviation s per
            real component, a few tenths of s to a few s.
        iterations: Most iterations.
        inner: Conjugate-gradient steps in each.
        edge: :math:`\lambda / \rho` in units of the 99th percentile of the first guess; changes the speed only.
        tol: A row stops when an iteration changes it by less than this fraction of its norm.

    Raises:
        ValueError: if the weight is negative or the adjoint of the operator sees nothing in ``y``.
    """
    if not weight >= 0:
        raise ValueError(f"the weight of total variation must not be negative, got {weight}.")
    normal, right = _normal(operator), operator.adjoint(y)
    if not bool((right != 0).flatten(1).any(1).all()):
        raise ValueError("the adjoint of the operator sees nothing in y: there is nothing to reconstruct.")
    x = least_squares(operator, y, iterations=10)
    if weight == 0:
        return least_squares(operator, y, iterations=iterations * inner)
    tiny = torch.finfo(right.real.dtype).tiny
    threshold = edge * torch.quantile(x.abs().flatten(1).double(), 0.99, dim=1).to(right.real.dtype)
    threshold = torch.maximum(threshold, 1e-6 * x.abs().flatten(1).amax(1)).reshape(-1, *(1,) * (x.ndim - 1))
    rho = weight / threshold
    u = x.new_zeros(2, *x.shape)
    z = u
    going = torch.ones_like(rho, dtype=torch.bool)

    def left(v: Tensor) -> Tensor:
        return normal(v) + rho * differences_adjoint(differences(v))

    for _ in range(iterations):
        last = x
        solved, _ = cg(left, right + rho * differences_adjoint(z - u), x, iterations=inner)
        x = torch.where(going, solved, x)
        v = differences(x) + u
        z = v * (1 - threshold / v.abs().square().sum(0).sqrt().clamp(min=tiny)).clamp(min=0)
        u = v - z
        change, size = (_dot(d, d).sqrt() for d in (x - last, x))
        going = going & ~((change <= tol * size) & (change > 0))
        if not bool(going.any()):
            break
    return x
