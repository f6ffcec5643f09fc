r"""Shallow water on a periodic plane that turns: a layer of depth :math:`h = H + \eta` with velocity (u, v).

.. math:: \partial_t \eta = -\nabla \cdot F, \qquad F = h\,(u, v), \qquad q = (\zeta + f) / h

.. math:: \partial_t u = q F_y - \partial_x B + \nu \Delta u, \qquad
          \partial_t v = -q F_x - \partial_y B + \nu \Delta v, \qquad B = g \eta + (u^2 + v^2) / 2

with the relative vorticity :math:`\zeta = \partial_x v - \partial_y u`. All of :math:`F`, :math:`B` and the turning
term are truncated (2/3 rule), and the turning term uses the truncated :math:`F`. Truncation is an orthogonal projection
that commutes with derivatives, and derivatives are antisymmetric, so without viscosity the energy
:math:`\langle h (u^2 + v^2) + g \eta^2 \rangle / 2` on the grid changes only by the error of the time step, and mass
not at all.

Small waves about rest: :math:`\omega^2 = f^2 + g H |k|^2`. At rest in the turning frame: any jet u(y) whose height has
the slope :math:`g\, \partial_y \eta = -f u`.

References:
    Sadourny, The dynamics of finite-difference models of the shallow-water equations, Journal of the Atmospheric
    Sciences 32, 1975 (the form of the equations that conserves energy).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scidiff.solvers.periodic import Periodic

__all__ = ["ShallowWater"]


class ShallowWater(Periodic):
    r"""The equations for truncated Fourier series ``w`` (..., 3, H, W/2+1) of :math:`\eta`, u along x and v along y.

    Arguments:
        grid: Points (rows y, columns x), at least 8 each.
        depth: :math:`H`, positive.
        gravity: :math:`g`, positive.
        coriolis: :math:`f`.
        viscosity: :math:`\nu` of the velocity, not negative.
        lengths: Sides (L_y, L_x) of the box; by default :math:`2 \pi`.
        dtype: Real type.
        device: Where constants are kept.
    """

    def __init__(
        self,
        grid: Sequence[int],
        depth: float,
        gravity: float = 9.81,
        coriolis: float = 0.0,
        viscosity: float = 0.0,
        lengths: Sequence[float] | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        if len(grid) != 2 or min(grid) < 8:
            raise ValueError(f"grid must be (height, width), at least 8 points each, got {tuple(grid)}.")
        if not (depth > 0 and gravity > 0 and viscosity >= 0):
            raise ValueError(
                f"expected depth > 0, gravity > 0 and viscosity >= 0, got {depth}, {gravity} and {viscosity}."
            )
        super().__init__(grid, lengths, dtype, device)
        self.depth, self.gravity, self.coriolis = float(depth), float(gravity), float(coriolis)
        self.viscosity = float(viscosity)
        damped = torch.tensor([0.0, 1.0, 1.0], dtype=dtype, device=device).reshape(3, 1, 1)
        self.linear = -viscosity * damped * self.square

    def change(self, w: Tensor) -> Tensor:
        """Everything but viscosity, truncated."""
        ky, kx = 1j * self.k[0], 1j * self.k[1]
        vorticity = kx * w[..., 2, :, :] - ky * w[..., 1, :, :]
        eta, u, v, zeta = self.field(torch.cat([w, vorticity[..., None, :, :]], -3)).unbind(-3)
        h = self.depth + eta
        series = self.transform(torch.stack([h * u, h * v, self.gravity * eta + (u.square() + v.square()) / 2], -3))
        Fx, Fy, B = series.unbind(-3)
        fx, fy = self.field(series[..., :2, :, :]).unbind(-3)
        q = (zeta + self.coriolis) / h
        turn = self.transform(torch.stack([q * fy, -q * fx], -3))
        return torch.stack([-(kx * Fx + ky * Fy), turn[..., 0, :, :] - kx * B, turn[..., 1, :, :] - ky * B], -3)

    def energy(self, w: Tensor) -> Tensor:
        """Mean energy over the box."""
        eta, u, v = self.field(w).unbind(-3)
        h = self.depth + eta
        return (h * (u.square() + v.square()) + self.gravity * eta.square()).mean((-2, -1)) / 2

    def courant(self, w: Tensor, dt: float) -> Tensor:
        """Largest number of grid spacings that flow and waves cross in a step, one per state; NaN for a dry place."""
        eta, u, v = self.field(w).unbind(-3)
        nx, ny = self.grid[1] / self.lengths[1], self.grid[0] / self.lengths[0]
        waves = (self.gravity * (self.depth + eta)).sqrt() * (nx**2 + ny**2) ** 0.5
        return ((u.abs() * nx + v.abs() * ny + waves).amax((-2, -1)) + abs(self.coriolis)) * dt
