r"""Linear solvers for :math:`M v = r` that also return an image :math:`B v`, row by row.

``product(p)`` returns both :math:`M p` and :math:`B p`. As :math:`B` is linear and v a sum of directions p, its image
is the same sum of images and costs no further product. Rows do not mix: each has its own scalars and its own end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Product", "Solution", "conjugate_gradients", "gmres"]

Product = Callable[[Tensor], tuple[Tensor, Tensor]]
r"""Rows p (rows, n) to (M p, B p), shapes (rows, n) and (rows, \*S)."""


@dataclass
class Solution:
    r"""State of a solver.

    Arguments:
        v: Solution, (rows, n).
        image: :math:`B v`, (rows, \*S).
        r: Residual still to be explained, (rows, n).
        used: Products made until the row ended, (rows, 1).
        broken: Rows that met a direction in which M is not as positive as it must be, (rows, 1).
    """

    v: Tensor
    image: Tensor
    r: Tensor
    used: Tensor
    broken: Tensor

    @staticmethod
    def zero(r: Tensor, shape: tuple[int, ...]) -> Solution:
        """The start: nothing explained yet."""
        none = r.new_zeros(len(r), 1)
        return Solution(torch.zeros_like(r), r.new_zeros(len(r), *shape), r, none, none > 0)

    def step(self, alpha: Tensor, p: Tensor, q: Tensor, image: Tensor) -> None:
        """Adds ``alpha p`` to the solution, where ``q = M p``; alpha (rows, 1)."""
        self.v = self.v + alpha * p
        self.image = self.image + alpha.reshape(-1, *[1] * (image.ndim - 1)) * image
        self.r = self.r - alpha * q

    def along(self, p: Tensor, rho: Tensor, product: Product, active: Tensor) -> Tensor:
        """Goes along p by ``rho / p'Mp`` where the curvature ``p'Mp`` is at least ``p'p / 2``; returns where it was."""
        q, image = product(p)
        curvature, length = dot(p, q), dot(p, p)
        sound = curvature >= length / 2
        self.used = self.used + active
        self.broken = self.broken | (active & ~sound)
        active = active & sound & (length > 0)
        self.step(torch.where(active, rho / curvature, 0), p, q, image)
        return active


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of each row, (rows, 1)."""
    return (a * b).sum(1, keepdim=True)


def conjugate_gradients(x: Solution, product: Product, stop: Tensor, iterations: int) -> None:
    """Improves ``x`` for symmetric positive definite M until each row's residual norm is at most ``stop`` (rows, 1).

    M is taken to have no eigenvalue below 1. A direction with less than half of that curvature ends the row, which
    keeps what it has.
    """
    p, rho = x.r, dot(x.r, x.r)
    active = rho > stop**2
    for _ in range(iterations):
        if not bool(active.any()):
            break
        active = x.along(p, rho, product, active)
        new = dot(x.r, x.r)
        active = active & (new > stop**2)
        p = torch.where(active, x.r + new / rho * p, p)
        rho = new


def gmres(x: Solution, product: Product, stop: Tensor, iterations: int) -> None:
    r"""Improves ``x`` for any M by minimising the residual over the Krylov space, without restart; see above.

    Arnoldi's Hessenberg matrix is made triangular by one plane rotation per iteration (Saad and Schultz, 1986), whose
    right-hand side tells the norm of the residual before the solution is formed.
    """
    r, tiny = x.r, torch.finfo(x.r.dtype).tiny
    g = dot(r, r).sqrt()
    active = g > stop
    basis, steps, turns = [r / g.clamp(min=tiny)], [], []
    R = torch.eye(iterations, dtype=r.dtype, device=r.device).repeat(len(r), 1, 1)
    right = r.new_zeros(len(r), iterations, 1)
    for j in range(iterations):
        if not bool(active.any()):
            break
        q, image = product(basis[j])
        steps.append((q, image))
        x.used = x.used + active
        w, h = q, []
        for e in basis:  # modified Gram-Schmidt
            h.append(dot(e, w))
            w = w - h[-1] * e
        length = torch.linalg.vector_norm(w, dim=1, keepdim=True)
        basis.append(w / length.clamp(min=tiny))
        for i, (c, s) in enumerate(turns):
            h[i], h[i + 1] = c * h[i] + s * h[i + 1], c * h[i + 1] - s * h[i]
        size = torch.hypot(h[j], length).clamp(min=tiny)
        c, s = h[j] / size, length / size
        turns.append((c, s))
        h[j] = size
        R[:, : j + 1, j] = torch.where(active, torch.cat(h, 1), R[:, : j + 1, j])
        right[:, j] = torch.where(active, c * g, 0)  # rows that ended keep a one on the diagonal and a zero here
        g = -s * g
        active = active & (g.abs() > stop)
    if steps:
        k = len(steps)
        y = torch.linalg.solve_triangular(R[:, :k, :k], right[:, :k], upper=True)
        for j, (q, image) in enumerate(steps):
            x.step(y[:, j], basis[j], q, image)
