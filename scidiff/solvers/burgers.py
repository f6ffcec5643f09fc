r"""Burgers' equation in one, two or three dimensions, and its exact solution.

.. math:: \partial_t u + (u \cdot \nabla) u = \nu \Delta u

on a periodic box; in one dimension :math:`\partial_t u + \partial_x u^2 / 2 = \nu \partial_x^2 u`. Where u is a
gradient the substitution of Cole and Hopf, :math:`u = -2 \nu \nabla \log \varphi`, makes it the heat equation
:math:`\partial_t \varphi = \nu \Delta \varphi`, which Fourier series solve exactly.

References:
    Hopf, The partial differential equation u_t + u u_x = mu u_xx, Communications on Pure and Applied Mathematics 3,
    1950. Cole, On a quasi-linear parabolic equation occurring in aerodynamics, Quarterly of Applied Mathematics 9,
    1951.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scidiff.solvers.periodic import Periodic

__all__ = ["Burgers", "cole_hopf"]


class Burgers(Periodic):
    r"""The equation for truncated Fourier series ``w`` of the velocity.

    In one dimension the state is (..., N/2+1). In d dimensions it is (..., d, \*series) with the component along the
    last axis (x) first: (u, v) on a grid of rows y and columns x.

    Arguments:
        grid: Points along each axis.
        viscosity: :math:`\nu`, not negative.
        lengths: Sides of the box; by default :math:`2 \pi`.
        dtype: Real type.
        device: Where constants are kept.
    """

    def __init__(
        self,
        grid: Sequence[int],
        viscosity: float,
        lengths: Sequence[float] | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        if not 1 <= len(grid) <= 3 or min(grid) < 8:
            raise ValueError(f"grid must have one to three axes of at least 8 points, got {tuple(grid)}.")
        if not viscosity >= 0:
            raise ValueError(f"viscosity must not be negative, got {viscosity}.")
        super().__init__(grid, lengths, dtype, device)
        self.viscosity = float(viscosity)
        self.linear = -viscosity * self.square
        self._flux = -0.5j * self.k[0] * self.kept

    def change(self, w: Tensor) -> Tensor:
        r""":math:`-(u \cdot \nabla) u`, truncated."""
        d = len(self.grid)
        if d == 1:
            return self._flux * torch.fft.rfftn(self.field(w).square(), dim=self.dims)
        total = self.field(w[..., :1, *(slice(None),) * d]) * self.field(1j * self.k[-1] * w)
        for i in range(1, d):
            total = total + self.field(w.narrow(-d - 1, i, 1)) * self.field(1j * self.k[-1 - i] * w)
        return -self.transform(total)

    def courant(self, w: Tensor, dt: float) -> Tensor:
        """Largest number of grid spacings that the flow crosses in a step, one per state; see `FlowMap.limit`."""
        u, d = self.field(w).abs(), len(self.grid)
        density = [n / L for n, L in zip(self.grid, self.lengths, strict=True)]
        if d == 1:
            return u.amax(-1) * (density[0] * dt)
        total = sum(u.select(-d - 1, i) * density[-1 - i] for i in range(d))
        return total.amax(self.dims) * dt  # type: ignore[union-attr]


def cole_hopf(u: Tensor, viscosity: float, time: float, length: float = 2 * math.pi) -> Tensor:
    r"""The exact solution of Burgers' equation at one time, for fields (..., N) on a periodic line.

    The mean m of the field carries it along: :math:`u(x, t) = m + \tilde u(x - m t, t)`, where
    :math:`\tilde u(x, 0) = u - m` is a gradient. Exact for fields whose :math:`\varphi` the grid resolves, which for
    strong fields or small viscosity needs many points: :math:`\varphi` varies by the factor
    :math:`\exp(\mathrm{range}(\int u) / 2 \nu)`.

    Arguments:
        u: Field at time 0, real, without what the grid cannot hold.
        viscosity: Positive.
        time: Not negative.
        length: Of the line.

    Raises:
        ValueError: if the factor above is too large for the type of ``u``.
    """
    if not (viscosity > 0 and time >= 0):
        raise ValueError(f"expected a positive viscosity and time >= 0, got {viscosity} and {time}.")
    line = Periodic((u.shape[-1],), (length,), u.dtype, u.device)
    (k,) = line.k
    mean = u.mean(-1, keepdim=True)
    integral = torch.fft.rfft(u - mean) * torch.where(k > 0, -1j / k.clamp_min(k[1] / 2), 0)
    exponent = torch.fft.irfft(integral, n=u.shape[-1]) / (-2 * viscosity)
    spread = float((exponent.amax(-1) - exponent.amin(-1)).max())
    if spread > -0.9 * math.log(torch.finfo(u.dtype).eps):
        raise ValueError(
            f"the integral of the field spans {spread:.3g} times twice the viscosity, too much for {u.dtype}; "
            "use float64, a larger viscosity or a weaker field."
        )
    phi = torch.fft.rfft(torch.exp(exponent - exponent.amax(-1, keepdim=True)))
    phi = phi * torch.exp(-viscosity * k.square() * time)
    later = torch.fft.irfft(1j * k * phi, n=u.shape[-1]) / torch.fft.irfft(phi, n=u.shape[-1])
    moved = torch.fft.rfft(-2 * viscosity * later) * torch.exp(-1j * k * mean * time)
    return mean + torch.fft.irfft(moved, n=u.shape[-1])
