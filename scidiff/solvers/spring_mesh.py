r"""A sheet of masses and springs in the plane, pinned along one side, with friction.

Masses sit on a grid (H, W) with unit spacing at rest and are tied to their eight neighbours by springs with the rest
lengths of that grid, 1 or :math:`\sqrt 2`. With positions :math:`q`, momenta :math:`p`, unit masses and stiffness
:math:`\kappa`,

.. math:: \dot q = p, \qquad \dot p_a = -\kappa \sum_{b \sim a} (|d| - l_{ab}) \frac{d}{|d|} - \gamma p_a,
          \quad d = q_a - q_b.

A step is Stoermer-Verlet (kick, drift, kick: symplectic, second order) between two half steps of friction, which is
integrated exactly. Without friction the energy errs by :math:`O(\Delta t^2)` and does not drift.

References:
    Otness et al., An extensible benchmark suite for learning to simulate physical systems, 2021, arXiv:2108.07799 (the
    system: springs, fixed row, disturbances, friction of a factor 0.1 per unit of time; their integrator is symplectic
    Euler with 128 substeps). Hairer, Lubich and Wanner, Geometric numerical integration, 2006 (the step).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["SpringMesh"]

NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))


class SpringMesh:
    r"""The equations of the module for states q, p (..., 2, H, W); component 0 is x (columns), 1 is y (rows).

    Arguments:
        grid: Masses (H, W).
        decay: Factor by which friction alone shrinks momenta in a unit of time, :math:`e^{-\gamma}`, in (0, 1].
        stiffness: :math:`\kappa`.
        fixed: ``"top"``, the last row; ``"corners"``; or a boolean tensor (H, W).
    """

    def __init__(
        self,
        grid: Sequence[int] = (10, 10),
        decay: float = 0.1,
        stiffness: float = 1.0,
        fixed: str | Tensor = "top",
    ) -> None:
        height, width = grid = (int(grid[0]), int(grid[1]))
        if min(grid) < 2 or not 0 < decay <= 1 or not stiffness > 0:
            raise ValueError(
                "expected at least 2 masses along each side, decay in (0, 1] and stiffness > 0, got "
                f"{grid}, {decay} and {stiffness}."
            )
        self.grid, self.friction, self.stiffness = grid, -math.log(decay), float(stiffness)
        if isinstance(fixed, str):
            if fixed not in ("top", "corners"):
                raise ValueError(f"fixed is 'top', 'corners' or a boolean grid, got '{fixed}'.")
            mask = torch.zeros(grid, dtype=torch.bool)
            if fixed == "top":
                mask[-1] = True
            else:
                mask[:: height - 1, :: width - 1] = True
            fixed = mask
        if fixed.shape != grid or fixed.dtype != torch.bool:
            raise ValueError(f"fixed must be a boolean grid {grid}, got {fixed.dtype} {tuple(fixed.shape)}.")
        self.fixed = fixed
        """The masses that do not move, (H, W)."""
        y, x = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
        self.rest = torch.stack([x, y])
        """Positions without forces, (2, H, W)."""

    def _pairs(self, down: int, right: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        height, width = self.grid
        first = slice(0, width - right) if right >= 0 else slice(-right, width)
        second = slice(right, width) if right >= 0 else slice(0, width + right)
        return (slice(0, height - down), first), (slice(down, height), second)

    def force(self, q: Tensor) -> Tensor:
        """Of the springs on every mass, zero on fixed ones."""
        force = torch.zeros_like(q)
        for down, right in NEIGHBOURS:
            a, b = self._pairs(down, right)
            d = q[..., *a] - q[..., *b]
            pull = self.stiffness * (1 - math.hypot(down, right) / d.norm(dim=-3, keepdim=True)) * d
            force[..., *a] -= pull
            force[..., *b] += pull
        return force.masked_fill(self.fixed.to(q.device), 0)

    def energy(self, q: Tensor, p: Tensor) -> Tensor:
        """Kinetic and elastic energy, (...)."""
        energy = p.square().sum((-3, -2, -1)) / 2
        for down, right in NEIGHBOURS:
            a, b = self._pairs(down, right)
            stretch = (q[..., *a] - q[..., *b]).norm(dim=-3) - math.hypot(down, right)
            energy = energy + self.stiffness / 2 * stretch.square().sum((-2, -1))
        return energy

    def advance(self, q: Tensor, p: Tensor, dt: float, steps: int = 1) -> tuple[Tensor, Tensor]:
        """The state after ``steps`` steps of ``dt``."""
        calm = math.exp(-self.friction * dt / 2)
        force = self.force(q)
        for _ in range(steps):
            p = calm * p + dt / 2 * force
            q = q + dt * p
            force = self.force(q)
            p = calm * (p + dt / 2 * force)
        return q, p
