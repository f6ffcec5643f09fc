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
    """Improves ``x`` for any M by minimising the residual over the Krylov space, without restart; see above."""
    r, tiny = x.r, torch.finfo(x.r.dtype).tiny
    beta = dot(r, r).sqrt()
    active = beta > stop
    basis, steps = [r / beta.clamp(min=tiny)], []
    H = r.new_zeros(len(r), iterations + 1, iterations)
    y = r.new_zeros(len(r), iterations, 1)
    for j in range(iterations):
        if not bool(active.any()):
            break
        q, image = product(basis[j])
        steps.append((q, image))
        x.used = x.used + active
        w = q
        for i, e in enumerate(basis):  # modified Gram-Schmidt
            H[:, i, j, None] = dot(e, w)
            w = w - H[:, i, j, None] * e
        H[:, j + 1, j] = torch.linalg.vector_norm(w, dim=1)
        basis.append(w / H[:, j + 1, j, None].clamp(min=tiny))
        h = H[:, : j + 2, : j + 1]
        right = beta[:, :, None] * torch.eye(j + 2, 1, dtype=r.dtype, device=r.device)
        best = torch.linalg.pinv(h) @ right
        y[:, : j + 1] = torch.where(active[:, :, None], best, y[:, : j + 1])
        active = active & (torch.linalg.vector_norm(right - h @ best, dim=1) > stop)
    for j, (q, image) in enumerate(steps):
        x.step(y[:, j], basis[j], q, image)
