r"""Two-dimensional incompressible flow in a periodic box, in terms of the vorticity :math:`\omega`.

.. math:: \partial_t \omega + v \cdot \nabla \omega = \nu \Delta \omega - \mu\,\omega + f, \qquad
          v = (\partial_y \psi, -\partial_x \psi), \quad -\Delta \psi = \omega

Rows of the grid are y, columns x. The product is taken as
:math:`v \cdot \nabla \omega = \partial_x \partial_y (v_y^2 - v_x^2) + (\partial_x^2 - \partial_y^2)(v_x v_y)`, which
needs four Fourier transforms instead of five and is the same for series without aliasing (`Periodic`). Then the
inviscid equations conserve energy and enstrophy up to the error of the time step. Columns of the series that the 2/3
rule cuts off are not stored.

**Gradient.** Both products are quadratic in the velocity, so the gradient of N needs of the way forward the velocity
alone: with :math:`a, b` the fields that arrive at :math:`v_y^2 - v_x^2` and :math:`v_x v_y`, the velocity receives
:math:`(b v_y - 2 a v_x,\; 2 a v_y + b v_x)`. That is four transforms again, as many as forward.

References:
    Basdevant, Technical improvements for direct numerical simulation of homogeneous three-dimensional turbulence,
    Journal of Computational Physics 50, 1983 (fewer transforms). Kochkov et al., Machine learning-accelerated
    computational fluid dynamics, 2021, arXiv:2102.01010 (Kolmogorov forcing with m = 4, drag 0.1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scidiff.solvers.periodic import Periodic
from scidiff.solvers.stepping import Step

__all__ = ["NavierStokes", "kolmogorov"]


def kolmogorov(grid: Sequence[int], wavenumber: int, amplitude: float = 1.0, side: float = 2 * math.pi) -> Tensor:
    r"""Vorticity forcing of the body force :math:`A \sin(2 \pi m y / L)` along x:
    :math:`f = -A\, (2 \pi m / L) \cos(2 \pi m y / L)`, (H, W) in float64.
    """
    m = 2 * math.pi * wavenumber / side
    y = side * torch.arange(grid[0], dtype=torch.float64)[:, None] / grid[0]
    return (-amplitude * m * torch.cos(m * y)).expand(tuple(grid)).clone()


class NavierStokes(Periodic):
    r"""The equation for the truncated Fourier series ``w`` of the vorticity, (..., H, W/2+1).

    Arguments:
        grid: Points (H, W), at least 8 each.
        viscosity: :math:`\nu`.
        drag: Linear drag :math:`\mu`.
        forcing: :math:`f`: a field (H, W), or a whole number m for `kolmogorov` forcing :math:`-m \cos(m y)` in a box
            of side :math:`2 \pi`; 0 for none.
        lengths: Sides (L_y, L_x) of the box; by default :math:`2 \pi`.
        dtype: Real type.
        device: Where constants are kept.

    Raises:
        ValueError: negative viscosity or drag, a forcing that the truncated series does not hold.
    """

    def __init__(
        self,
        grid: Sequence[int],
        viscosity: float,
        drag: float = 0.0,
        forcing: int | Tensor = 4,
        lengths: Sequence[float] | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        if len(grid) != 2 or min(grid) < 8:
            raise ValueError(f"grid must be (height, width), at least 8 points each, got {tuple(grid)}.")
        if viscosity < 0 or drag < 0:
            raise ValueError(f"viscosity and drag must not be negative, got {viscosity} and {drag}.")
        super().__init__(grid, lengths, dtype, device)
        if isinstance(forcing, int):
            if not 0 <= forcing < min(self.grid) / 3:
                raise ValueError(f"the forcing's wavenumber must lie in [0, {min(self.grid) / 3:.3g}), got {forcing}.")
            forcing = kolmogorov(self.grid, forcing, side=self.lengths[0]) if forcing else torch.zeros(self.grid)
        if tuple(forcing.shape[-2:]) != self.grid:
            raise ValueError(f"the forcing has the grid {tuple(forcing.shape[-2:])}, the flow {self.grid}.")
        self.viscosity, self.drag = float(viscosity), float(drag)
        columns = int((3 * torch.arange(self.grid[1] // 2 + 1) < self.grid[1]).sum())
        self.k[1], self.kept, self.square = self.k[1][:, :columns], self.kept[:, :columns], self.square[:, :columns]
        self.inverse = torch.where(self.square > 0, 1 / self.square.clamp_min(torch.finfo(dtype).tiny), 0)
        r""":math:`1/|k|^2`, zero for the mean."""
        self.linear = -viscosity * self.square - drag
        ky, kx = self.k
        self._velocity = torch.stack([1j * ky * self.inverse, -1j * kx * self.inverse])
        products = torch.stack([kx * ky * self.kept, (kx.square() - ky.square()) * self.kept])
        self._products = torch.complex(products, torch.zeros_like(products))  # products of two types are slow
        # Half a series stands for the other half too: all columns but the first count twice.
        twice = torch.where(torch.arange(columns, device=device) > 0, 2.0, 1.0).to(dtype)
        self._products_adjoint, self._velocity_adjoint = self._products / twice, -twice * self._velocity
        self.force = self.transform(forcing.to(device, dtype))

    def transform(self, x: Tensor) -> Tensor:
        """The truncated series of a field, (..., H, K) with the K columns that are kept."""
        return torch.fft.rfft2(x)[..., : self.kept.shape[1]] * self.kept

    def field(self, w: Tensor) -> Tensor:
        """Values on the grid."""
        return torch.fft.irfft(torch.fft.ifft(w, dim=-2), n=self.grid[1])

    def velocity(self, w: Tensor) -> Tensor:
        """(..., 2, H, W), the components along x and y."""
        return self.field(self._velocity * w[..., None, :, :])

    def energy(self, w: Tensor) -> Tensor:
        """Mean kinetic energy over the box."""
        return self.velocity(w).square().sum(-3).mean((-2, -1)) / 2

    def enstrophy(self, w: Tensor) -> Tensor:
        """Half the mean squared vorticity."""
        return self.field(w).square().mean((-2, -1)) / 2

    def change(self, w: Tensor) -> Tensor:
        r""":math:`f - v \cdot \nabla \omega`, truncated."""
        return self.advected(self.velocity(w))

    def advected(self, velocity: Tensor) -> Tensor:
        r""":math:`f - v \cdot \nabla \omega` of the velocity (..., 2, H, W)."""
        u, v = velocity.unbind(-3)
        products = torch.fft.rfft2(torch.stack([(v - u) * (v + u), u * v], -3))[..., : self.kept.shape[1]]
        return self.force + (self._products * products).sum(-3)

    def recorded(self, w: Tensor) -> tuple[Tensor, Step]:
        """`change`, and the function that takes a gradient with respect to it to the gradient with respect to w."""
        velocity = self.velocity(w)
        u, v = velocity.unbind(-3)

        def pull(g: Tensor) -> Tensor:
            a, b = self.field(self._products_adjoint * g[..., None, :, :]).unbind(-3)
            pulled = torch.stack([(b * v).addcmul_(a, u, value=-2), (b * u).addcmul_(a, v, value=2)], -3)
            series = torch.fft.rfft2(pulled)[..., : self.kept.shape[1]]
            return (self._velocity_adjoint * series).sum(-3)

        return self.advected(velocity), pull

    def courant(self, w: Tensor, dt: float) -> Tensor:
        """Largest number of grid spacings that the flow crosses in a step, one per state; fourth-order steps are
        stable to about 1.3.
        """
        u, v = self.velocity(w).abs().unbind(-3)
        (height, width), (Ly, Lx) = self.grid, self.lengths
        return (u * (width / Lx) + v * (height / Ly)).amax((-2, -1)) * dt
