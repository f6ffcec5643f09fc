r"""Pairs of a two-valued permeability and the pressure of Darcy's flow, :math:`-\nabla \cdot (a \nabla u) = 1`.

In the unit box, :math:`u = 0` on the walls, and

.. math:: a = 12 \text{ where } g \ge 0, \quad 3 \text{ elsewhere}, \qquad
          g \sim N\big(0, (-\Delta + \tau^2)^{-\alpha}\big),

where ``g`` has zero slope at the walls and the mean zero over the box.

Finite volumes in flux form on cells of width :math:`h`: the flux through a face between cells i and j is
:math:`-t_{ij} (u_j - u_i) / h` with the harmonic mean :math:`t_{ij} = 2 a_i a_j / (a_i + a_j)`, that through a wall is
:math:`2 a_i u_i / h`, and the fluxes out of a cell add up to the source. Mass is conserved cell by cell, and the
solution is accurate to second order where ``a`` is smooth.

The equations are solved by conjugate gradients, preconditioned by the Laplacian (`scidiff.datasets.laplace`). The two
operators differ by factors between min a and max a, so the condition number is at most their ratio, 4, on every grid,
so each step makes the error three times smaller, up to a constant.

References:
    Fourier neural operator for parametric partial differential equations, Li et al., 2021, arXiv:2010.08895 (the
    problem and its numbers). DiffusionPDE, Huang et al., 2024, arXiv:2406.17763 (the joint prior of the pair).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from scidiff.datasets.laplace import BoxLaplacian
from scidiff.datasets.simulator import Simulator
from scidiff.errors import NumericalError
from scidiff.linalg.cosine import Cosine

__all__ = ["DarcyPairs", "divergence", "solve"]


def _conductances(a: Tensor, dims: int) -> list[Tensor]:
    """For each axis, of its n + 1 faces: the harmonic means and, at the walls, twice the value; times n^2."""
    found = []
    for dim in range(-dims, 0):
        n = a.shape[dim]
        inside = 2 / (1 / a.narrow(dim, 1, n - 1) + 1 / a.narrow(dim, 0, n - 1))
        found.append(n**2 * torch.cat([2 * a.narrow(dim, 0, 1), inside, 2 * a.narrow(dim, n - 1, 1)], dim))
    return found


def _divergence(conductances: list[Tensor], u: Tensor) -> Tensor:
    total = torch.zeros_like(u)
    for dim, t in enumerate(conductances, start=-len(conductances)):
        wall = torch.zeros_like(u.narrow(dim, 0, 1))
        total -= (t * torch.cat([wall, u, wall], dim).diff(dim=dim)).diff(dim=dim)
    return total


def divergence(a: Tensor, u: Tensor, dims: int = 2) -> Tensor:
    r""":math:`-\nabla \cdot (a \nabla u)` by finite volumes; both (..., \*grid) with ``dims`` sides of a unit box."""
    return _divergence(_conductances(a, dims), u)


def solve(a: Tensor, source: Tensor, laplacian: BoxLaplacian | None = None, rtol: float = 1e-8) -> Tensor:
    r"""The pressure ``u`` (B, \*grid) of a permeability ``a`` (B, \*grid) and a source of the same shape.

    Every row stops at its own accuracy: the result does not depend on the other rows.

    Arguments:
        a: Permeability, positive.
        source: Right-hand side.
        laplacian: Of the grid, if it is at hand.
        rtol: Norm of the residual over that of the source, at most.

    Raises:
        NumericalError: The accuracy is not reached in 200 steps.
    """
    if not bool((a > 0).all()):
        raise ValueError(f"the permeability must be positive, its least value is {float(a.min()):g}.")
    if not bool(torch.isfinite(source).all()):
        raise ValueError("the source holds NaN or infinite values.")
    dims = a.ndim - 1
    laplacian = BoxLaplacian(a.shape[1:]) if laplacian is None else laplacian

    def dot(x: Tensor, y: Tensor) -> Tensor:
        return (x * y).flatten(1).sum(1).reshape(-1, *(1,) * dims)

    conductances = _conductances(a, dims)
    u, r = torch.zeros_like(source), source
    z = -laplacian.solve(r)
    p, rz, limit = z, dot(r, z), rtol**2 * dot(source, source)
    for _ in range(200):
        left = dot(r, r) > limit
        if not bool(left.any()):
            return u
        q = _divergence(conductances, p)
        step = torch.where(left, rz / dot(p, q), 0)
        u, r = u + step * p, r - step * q
        z = -laplacian.solve(r)
        before, rz = rz, dot(r, z)
        p = torch.where(left, z + rz / before * p, p)
        rz = torch.where(left, rz, before)
    raise NumericalError(
        f"Darcy's equation is not solved to {rtol:g} in 200 steps; the permeability ranges from {float(a.min()):g} to "
        f"{float(a.max()):g}."
    )


class DarcyPairs(Simulator):
    r"""Draws (2, \*grid), permeability ``a`` and pressure ``u``, standardised.

    Arguments:
        low, high: The two values of the permeability.
        alpha: Smoothness of the field whose sign chooses between them.
        tau: Its inverse correlation length, in units of the box.
        shape: Grid on which mean and standard deviation of the pressure are measured, over 256 draws.
    """

    channels = 2

    def __init__(
        self,
        low: float = 3.0,
        high: float = 12.0,
        alpha: float = 2.0,
        tau: float = 3.0,
        shape: Sequence[int] = (64, 64),
    ) -> None:
        if not (0 < low < high and alpha > 0 and tau > 0):
            raise ValueError(
                f"expected 0 < low < high and positive alpha and tau, got {low}, {high}, {alpha} and {tau}."
            )
        self.low, self.high, self.alpha, self.tau = low, high, alpha, tau
        self._known: dict[tuple[int, ...], tuple[Cosine, BoxLaplacian]] = {}
        u = self.pairs(Generator().manual_seed(0), tuple(shape), 256)[:, 1]
        # Both values are equally probable, as the Gaussian field and its negative are.
        self.loc, self.scale = [(low + high) / 2, float(u.mean())], [(high - low) / 2, float(u.std())]
        self._loc, self._scale = (torch.tensor(v).reshape(2, 1, 1) for v in (self.loc, self.scale))

    def pairs(self, generator: Generator, grid: tuple[int, ...], n: int) -> Tensor:
        r"""Permeability and pressure (n, 2, \*grid), float32; the pressure is accurate to about 1e-5."""
        if grid not in self._known:
            self._known[grid] = Cosine.matern(grid, self.alpha, self.tau, constant=False), BoxLaplacian(grid)
        covariance, laplacian = self._known[grid]
        g = covariance.sample(generator, n, torch.float32)
        a = torch.where(g >= 0, self.high, self.low).float()
        return torch.stack([a, solve(a, torch.ones_like(a), laplacian, 1e-5)], 1)

    def __call__(self, generator: Generator, crop: tuple[int, ...]) -> Tensor:
        r"""One pair (2, \*crop) in units of ``u``."""
        return (self.pairs(generator, crop, 1)[0] - self._loc) / self._scale

    @property
    def card(self) -> dict[str, Any]:
        return {
            "variables": ["a", "u"],
            "law": f"a = {self.high:g} where a Gaussian field is not negative, else {self.low:g}; its covariance is "
            f"(-Laplacian + {self.tau:g}^2)^-{self.alpha:g} with zero slope at the walls and mean zero; "
            "-div(a grad u) = 1, u = 0 on the walls of the unit box",
        }
