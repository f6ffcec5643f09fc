r"""Heat, and heat that a uniform wind carries along: exact flow maps of linear equations in a periodic box.

.. math:: \partial_t x + c \cdot \nabla x = \kappa \Delta x - r x \quad\Rightarrow\quad
          \hat x_k(t) = g_k(t)\, \hat x_k(0), \qquad g_k(t) = e^{-(\kappa |k|^2 + i c \cdot k + r) t}

Every wave is multiplied by a number, so there is no time step, no stability limit and no error but rounding for fields
that the grid resolves. Where the number of points along an axis is even, its last wave is a cosine only: the wind along
this axis does not carry it.

With the Hartley transform H (`scidiff.operators.Convolution`) and T times the singular value decomposition is

.. math:: V = H, \qquad s_k = \Big(\sum_t |g_k(t)|^2\Big)^{1/2}, \qquad U_t = F^\ast \mathrm{diag}(g(t) / s)\, F\, H.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from scidiff.linalg.svd import SVD, Frame
from scidiff.operators.algebra import Algebra
from scidiff.operators.pde.flow_map import observation_times
from scidiff.operators.units import magnitude

__all__ = ["AdvectionDiffusion", "Heat"]


class AdvectionDiffusion(Algebra):
    r"""Maps fields (B, 1, \*grid) at time 0 to (B, T, \*grid) at T later times. Linear.

    Arguments:
        grid: Points along each axis of the periodic box.
        diffusivity: :math:`\kappa` in m2/s, or pint; not negative. Plain numbers may be in any consistent units.
        velocity: :math:`c` in m/s, one number for each axis of the grid, in the order of the axes (y, x).
        times: Times in s, increasing, positive; a number stands for one time.
        decay: :math:`r` in 1/s, not negative.
        lengths: Sides of the box in m; 1 by default.

    Raises:
        ValueError: a negative diffusivity or decay, times that do not increase, numbers that do not fit the grid.
    """

    def __init__(
        self,
        grid: Sequence[int],
        diffusivity: Any = 0.01,
        velocity: Sequence[Any] | None = None,
        times: Any = 1.0,
        decay: Any = 0.0,
        lengths: Sequence[Any] | None = None,
    ) -> None:
        self.grid = tuple(int(n) for n in grid)
        d = len(self.grid)
        self.times = observation_times(times)
        self.diffusivity = float(magnitude(diffusivity, "m**2/s", "diffusivity"))
        self.decay = float(magnitude(decay, "1/s", "decay"))
        velocity, lengths = [0.0] * d if velocity is None else velocity, [1.0] * d if lengths is None else lengths
        self.velocity = tuple(float(magnitude(c, "m/s", "velocity")) for c in velocity)
        self.lengths = tuple(float(magnitude(v, "m", "lengths")) for v in lengths)
        if not self.grid or min(self.grid) < 2:
            raise ValueError(f"grid must have at least 2 points along every axis, got {self.grid}.")
        if not (self.diffusivity >= 0 and self.decay >= 0):
            raise ValueError(f"diffusivity and decay must not be negative, got {diffusivity} and {decay}.")
        if len(self.velocity) != d or len(self.lengths) != d or not min(self.lengths) > 0:
            raise ValueError(f"a grid of {d} axes needs {d} velocities and {d} positive lengths.")
        self._dims = tuple(range(-d, 0))
        square, carried = torch.zeros(self.grid, dtype=torch.float64), torch.zeros(self.grid, dtype=torch.float64)
        for axis, (n, L, c) in enumerate(zip(self.grid, self.lengths, self.velocity, strict=True)):
            k = 2 * math.pi * torch.fft.fftfreq(n, L / n, dtype=torch.float64)
            k = k.reshape(*(-1 if i == axis else 1 for i in range(d)))
            square, carried = square + k.square(), carried + c * k
        self.symbol = self._even(-torch.complex(self.diffusivity * square + self.decay, carried))
        r"""The rate of change of every wave, (``*grid``), complex128 in the order of `torch.fft.fftn`."""
        time = torch.tensor(self.times, dtype=torch.float64).reshape(-1, *(1,) * d)
        self.spectrum = self._even(torch.exp(self.symbol * time))
        r""":math:`g_k(t)`, (T, ``*grid``)."""

    def _even(self, h: Tensor) -> Tensor:
        """With the symmetry that keeps real fields real."""
        mirrored = h.conj().resolve_conj()
        for dim in self._dims:
            mirrored = mirrored.roll(-1, dim).flip(dim)
        return (h + mirrored) / 2

    def _check(self, x: Tensor, first: int) -> None:
        expected = (first, *self.grid)
        if x.is_complex() or x.ndim != len(expected) + 1 or tuple(x.shape[1:]) != expected:
            raise ValueError(f"expected real fields (B, {str(expected)[1:-1]}), got {tuple(x.shape)} of {x.dtype}.")

    def _half(self, h: Tensor, x: Tensor) -> Tensor:
        return h[..., : self.grid[-1] // 2 + 1].to(x.device, x.dtype.to_complex())

    def _filter(self, x: Tensor, h: Tensor) -> Tensor:
        """Every channel of ``x`` by each of (T, ``*grid``)."""
        return torch.fft.irfftn(torch.fft.rfftn(x, dim=self._dims) * self._half(h, x), s=self.grid, dim=self._dims)

    def _filter_adjoint(self, y: Tensor, h: Tensor) -> Tensor:
        series = (torch.fft.rfftn(y, dim=self._dims) * self._half(h, y).conj()).sum(1, keepdim=True)
        return torch.fft.irfftn(series, s=self.grid, dim=self._dims)

    def __call__(self, x: Tensor) -> Tensor:
        r"""Fields at the times, (B, T, \*grid)."""
        self._check(x, 1)
        return self._filter(x, self.spectrum)

    def adjoint(self, y: Tensor) -> Tensor:
        r"""Fields (B, 1, \*grid)."""
        self._check(y, len(self.times))
        return self._filter_adjoint(y, self.spectrum)

    def _normal(self, x: Tensor) -> Tensor:
        self._check(x, 1)
        return self._filter(x, self.spectrum.abs().square().sum(0, keepdim=True).to(torch.complex128))

    def _hartley(self, x: Tensor) -> Tensor:
        c = torch.fft.fftn(x, dim=self._dims, norm="ortho")
        return c.real - c.imag

    def svd(self) -> SVD:
        """In the Hartley basis, coefficients (B, 1, ``*grid``); values below 1e-14 of the largest are set to zero."""
        s = self.spectrum.abs().square().sum(0, keepdim=True).sqrt()
        seen = s > 1e-150
        first = torch.zeros(len(self.times), *(1,) * len(self.grid), dtype=torch.complex128)
        first[0] = 1
        phase = torch.where(seen, self.spectrum / torch.where(seen, s, 1), first)
        U = Frame(
            lambda c: self._filter(self._hartley(c), phase),
            lambda y: self._hartley(self._filter_adjoint(y, phase)),
        )
        return SVD(U, torch.where(s > 1e-14 * s.max(), s, 0), Frame(self._hartley, self._hartley))

    def residual(self, x: Tensor, dt: float) -> Tensor:
        r"""How far snapshots (B, N, \*grid), ``dt`` apart, are from solving the equation, half way between each two:
        :math:`(x_{n+1} - x_n) / \Delta t` minus the mean of the two rates of change; it falls as :math:`\Delta t^2`.
        """
        self._check(x, x.shape[1])
        rate = self._filter(x, self.symbol[None])
        return x.diff(dim=1) / dt - (rate[:, 1:] + rate[:, :-1]) / 2


class Heat(AdvectionDiffusion):
    r"""Maps temperatures (B, 1, \*grid) at time 0 to (B, T, \*grid): :math:`\partial_t x = \kappa \Delta x`. Linear.

    Arguments:
        grid: Points along each axis of the periodic box.
        diffusivity: :math:`\kappa` in m2/s, or pint; not negative.
        times: Times in s, increasing, positive; a number stands for one time.
        lengths: Sides of the box in m; 1 by default.
    """

    def __init__(
        self, grid: Sequence[int], diffusivity: Any = 0.01, times: Any = 1.0, lengths: Sequence[Any] | None = None
    ) -> None:
        super().__init__(grid, diffusivity, None, times, 0.0, lengths)
