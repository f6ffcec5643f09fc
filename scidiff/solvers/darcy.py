r"""Darcy's equation :math:`-\nabla \cdot (a \nabla u) = f` in a box, :math:`u = 0` on the walls, by finite volumes.

Unknowns live at the centres of cells of width h. The flux through the face between cells i and j is
:math:`-t_{ij} (u_j - u_i) / h` with the harmonic mean :math:`t_{ij} = 2 a_i a_j / (a_i + a_j)`, that through a wall
:math:`2 a_i u_i / h`, and the fluxes out of a cell add up to its source:

.. math:: (A(a)\,u)_i = \sum_{\text{axes}} \frac1{h^2} \Big(\sum_j t_{ij} (u_i - u_j) + \sum_{\text{walls}} 2 a_i
          u_i\Big) = f_i .

Mass is conserved cell by cell, layers in one dimension are exact, and the solution is accurate to second order where
``a`` is smooth (also across jumps that lie on faces).

A is symmetric and positive. The equations are solved by conjugate gradients, preconditioned by the Laplacian
(`scidiff.solvers.laplace`): the two differ by factors between min a and max a, so the condition number is at most
their ratio c on every grid, and the error falls by :math:`(\sqrt c - 1)/(\sqrt c + 1)` a step: a third for c = 4.

**Gradient.** With :math:`\lambda = A^{-1} g` for an incoming gradient g, the gradient with respect to f is
:math:`\lambda`, and

.. math:: \frac{\partial}{\partial a_i} = -\frac1{h^2} \Big(\sum_j \frac{t_{ij}^2}{2 a_i^2} (u_i - u_j)
          (\lambda_i - \lambda_j) + \sum_{\text{walls}} 2 u_i \lambda_i\Big),

one more solve with the same matrix and no stored iterations. It can be differentiated again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from scidiff.errors import NumericalError
from scidiff.solvers.laplace import BoxLaplacian

__all__ = ["conductances", "divergence", "pressure", "solve"]

STEPS = 1000
"""Steps of conjugate gradients at most; a contrast of 4 takes 30 to rounding, one of 1000 about 500."""


def _ends(x: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """First and last cells, and the cells before and after each inner face."""
    n = x.shape[dim]
    return x.narrow(dim, 0, 1), x.narrow(dim, n - 1, 1), x.narrow(dim, 0, n - 1), x.narrow(dim, 1, n - 1)


def conductances(a: Tensor, lengths: Sequence[float]) -> list[Tensor]:
    r"""For each axis, of its n + 1 faces: the harmonic means and, at the walls, twice the value; over :math:`h^2`."""
    found = []
    for dim, length in zip(range(-len(lengths), 0), lengths, strict=True):
        first, last, before, after = _ends(a, dim)
        inside = 2 / (1 / after + 1 / before)
        found.append((a.shape[dim] / length) ** 2 * torch.cat([2 * first, inside, 2 * last], dim))
    return found


def _divergence(faces: list[Tensor], u: Tensor) -> Tensor:
    total = torch.zeros_like(u)
    for dim, t in enumerate(faces, start=-len(faces)):
        wall = torch.zeros_like(u.narrow(dim, 0, 1))
        total = total - (t * torch.cat([wall, u, wall], dim).diff(dim=dim)).diff(dim=dim)
    return total


def divergence(a: Tensor, u: Tensor, lengths: Sequence[float] = (1.0, 1.0)) -> Tensor:
    r""":math:`-\nabla \cdot (a \nabla u)`; ``a`` and ``u`` (..., \*grid) on a box with these sides."""
    return _divergence(conductances(a, lengths), u)


def solve(a: Tensor, source: Tensor, laplacian: BoxLaplacian | None = None, rtol: float = 1e-8) -> Tensor:
    r"""The pressure ``u`` (B, \*grid) of a permeability ``a`` (B, \*grid) and a source of the same shape.

    Every row stops at its own accuracy: the result does not depend on the other rows. No gradient: see `pressure`.

    Arguments:
        a: Permeability, positive.
        source: Right-hand side.
        laplacian: Of the box, if it is not the unit box or at hand.
        rtol: Norm of the residual over that of the source, at most.

    Raises:
        ValueError: A permeability that is not positive and finite, a source that is not finite.
        NumericalError: The accuracy is not reached in 1000 steps.
    """
    if not bool(((a > 0) & torch.isfinite(a)).all()):
        worst = float(a.min()) if bool((a <= 0).any()) else float("nan")
        raise ValueError(
            f"the permeability must be positive and finite, its least value is {worst:g}; take a prior of positive "
            "fields (a transform such as log or logit), or clamp the field before it gets here."
        )
    if not bool(torch.isfinite(source).all()):
        raise ValueError("the source holds NaN or infinite values.")
    dims = a.ndim - 1
    laplacian = BoxLaplacian(a.shape[1:]) if laplacian is None else laplacian

    def dot(x: Tensor, y: Tensor) -> Tensor:
        return (x * y).flatten(1).sum(1).reshape(-1, *(1,) * dims)

    faces = conductances(a, laplacian.lengths)
    u, r = torch.zeros_like(source), source
    z = -laplacian.solve(r)
    p, rz, limit = z, dot(r, z), rtol**2 * dot(source, source)
    for _ in range(STEPS):
        left = dot(r, r) > limit
        if not bool(left.any()):
            return u
        q = _divergence(faces, p)
        step = torch.where(left, rz / dot(p, q), 0)
        u, r = u + step * p, r - step * q
        z = -laplacian.solve(r)
        before, rz = rz, dot(r, z)
        p = torch.where(left, z + rz / before * p, p)
        rz = torch.where(left, rz, before)
    raise NumericalError(
        f"Darcy's equation is not solved to {rtol:g} in {STEPS} steps; the permeability ranges from "
        f"{float(a.min()):g} to {float(a.max()):g}. Take float64, or a smaller contrast."
    )


def sensitivity(a: Tensor, u: Tensor, adjoint: Tensor, lengths: Sequence[float]) -> Tensor:
    r"""The gradient with respect to ``a`` of the module's formula, all (B, \*grid); ``adjoint`` is :math:`\lambda`."""
    total = torch.zeros_like(a)
    for dim, length in zip(range(-len(lengths), 0), lengths, strict=True):
        _, _, before, after = _ends(a, dim)
        t = 2 / (1 / after + 1 / before)
        product = u.diff(dim=dim) * adjoint.diff(dim=dim) * t.square() / 2
        first, last, *_ = _ends(2 * u * adjoint, dim)
        above = torch.cat([product / before.square(), last], dim)  # face after each cell, the wall last
        below = torch.cat([first, product / after.square()], dim)
        total = total - (a.shape[dim] / length) ** 2 * (above + below)
    return total


class _Pressure(torch.autograd.Function):
    """`solve` with the adjoint method as its gradient."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, source: Tensor, laplacian: BoxLaplacian, rtol: float) -> Tensor:  # type: ignore[override]
        u = solve(a, source, laplacian, rtol)
        ctx.save_for_backward(a, u)
        ctx.laplacian, ctx.rtol = laplacian, rtol
        return u

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor, None, None]:  # type: ignore[override]
        a, u = ctx.saved_tensors
        adjoint: Tensor = _Pressure.apply(a, g, ctx.laplacian, ctx.rtol)  # type: ignore[assignment]
        change = sensitivity(a, u, adjoint, ctx.laplacian.lengths) if ctx.needs_input_grad[0] else None
        return change, adjoint, None, None


def pressure(a: Tensor, source: Tensor, laplacian: BoxLaplacian, rtol: float = 1e-8) -> Tensor:
    r"""`solve` with gradients in the permeability and the source, by the adjoint method: one more solve each time."""
    found: Tensor = _Pressure.apply(a, source, laplacian, rtol)  # type: ignore[assignment]
    return found
