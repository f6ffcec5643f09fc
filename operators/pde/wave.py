r"""Waves in a periodic box: displacement and its rate at time 0 to both at later times. Linear.

.. math:: \partial_t u = v, \qquad \partial_t v = \nabla \cdot (c^2 \nabla u)

``Wave``, uniform speed: exact, for every wave k with :math:`\omega = c |k|`

.. math:: \begin{pmatrix} \hat u \\ \hat v \end{pmatrix}(t) =
          \begin{pmatrix} \cos \omega t & \sin(\omega t) / \omega \\ -\omega \sin \omega t & \cos \omega t \end{pmatrix}
          \begin{pmatrix} \hat u \\ \hat v \end{pmatrix}(0).

The matrix is real and the same for k and -k, so the Hartley transform H takes it out: the singular value decomposition
is that of a small matrix for each k between two H.

``VariableWave``, speed from point to point: second differences in flux form with :math:`c^2` at a face the mean of its
two cells, and the leapfrog step (half a kick of v, a drift of u, half a kick), both of second order. It keeps the
symplectic form, so energy does not drift. It is stable for :math:`\Delta t \le 2 / \sqrt{\lambda_{\max}}` with
:math:`\lambda_{\max} \le 4 \max c^2 \sum_i h_i^{-2}`: the Courant number
:math:`\Delta t \max c\, (\sum_i h_i^{-2})^{1/2}` must not exceed 1.

References:
    Geometric numerical integration, Hairer, Lubich and Wanner, 2006 (the leapfrog step).
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

__all__ = ["VariableWave", "Wave"]


class _Waves(Algebra):
    r"""States (B, 2, \*grid) of displacement and rate, measured at T times (B, T, 2, \*grid)."""

    grid: tuple[int, ...]
    lengths: tuple[float, ...]
    times: tuple[float, ...]

    def _read(self, grid: Sequence[int], times: Any, lengths: Sequence[Any] | None) -> None:
        self.grid = tuple(int(n) for n in grid)
        d = len(self.grid)
        self.times = observation_times(times)
        self.lengths = tuple(float(magnitude(v, "m", "lengths")) for v in ([1.0] * d if lengths is None else lengths))
        if not self.grid or min(self.grid) < 3:
            raise ValueError(f"grid must have at least 3 points along every axis, got {self.grid}.")
        if len(self.lengths) != d or not min(self.lengths) > 0:
            raise ValueError(f"lengths must be {d} positive numbers, got {lengths}.")
        self._dims = tuple(range(-d, 0))

    def _check(self, x: Tensor, *first: int) -> None:
        expected = (*first, *self.grid)
        if x.is_complex() or tuple(x.shape[1:]) != expected or x.ndim != len(expected) + 1:
            raise ValueError(f"expected real fields (B, {str(expected)[1:-1]}), got {tuple(x.shape)} of {x.dtype}.")

    def acceleration(self, u: Tensor) -> Tensor:
        r""":math:`\nabla \cdot (c^2 \nabla u)` of displacements (..., \*grid)."""
        raise NotImplementedError

    def residual(self, x: Tensor, dt: float) -> Tensor:
        r"""How far snapshots (B, N, 2, \*grid), ``dt`` apart, are from solving the equations half way between each two.

        Differences over ``dt`` minus the mean of the two rates of change, (B, N-1, 2, \*grid); it falls as
        :math:`\Delta t^2`.
        """
        self._check(x, x.shape[1], 2)
        rate = torch.stack([x[:, :, 1], self.acceleration(x[:, :, 0])], 2)
        return x.diff(dim=1) / dt - (rate[:, 1:] + rate[:, :-1]) / 2

    def energy(self, x: Tensor) -> Tensor:
        r"""Mean of :math:`(v^2 + c^2 |\nabla u|^2) / 2` over the box of states (..., 2, \*grid)."""
        u, v = x.unbind(-len(self.grid) - 1)
        return (v.square() - u * self.acceleration(u)).mean(self._dims) / 2


class Wave(_Waves):
    r"""Maps displacement and rate (B, 2, \*grid) at time 0 to (B, T, 2, \*grid), for a uniform speed; exact.

    Arguments:
        grid: Points along each axis of the periodic box.
        speed: :math:`c` in m/s, or pint; positive. Plain numbers may be in any consistent units.
        times: Times in s, increasing, positive; a number stands for one time.
        lengths: Sides of the box in m; 1 by default.
    """

    def __init__(
        self, grid: Sequence[int], speed: Any = 1.0, times: Any = 1.0, lengths: Sequence[Any] | None = None
    ) -> None:
        self._read(grid, times, lengths)
        self.speed = float(magnitude(speed, "m/s", "speed"))
        if not self.speed > 0:
            raise ValueError(f"speed must be positive, got {speed}.")
        d, square = len(self.grid), torch.zeros(self.grid, dtype=torch.float64)
        for axis, (n, L) in enumerate(zip(self.grid, self.lengths, strict=True)):
            k = 2 * math.pi * torch.fft.fftfreq(n, L / n, dtype=torch.float64)
            square = square + k.square().reshape(*(-1 if i == axis else 1 for i in range(d)))
        self.omega = self.speed * square.sqrt()
        time = torch.tensor(self.times, dtype=torch.float64).reshape(-1, *(1,) * d)
        cosine, sine = torch.cos(self.omega * time), torch.sin(self.omega * time)
        ratio = torch.where(self.omega > 0, sine / torch.where(self.omega > 0, self.omega, 1), time)
        self.matrices = torch.stack([torch.stack([cosine, ratio], 1), torch.stack([-self.omega * sine, cosine], 1)], 1)
        """Of every time and wave, (T, 2, 2, ``*grid``)."""

    def acceleration(self, u: Tensor) -> Tensor:
        half = self._half(self.omega.square(), u)
        return -torch.fft.irfftn(half * torch.fft.rfftn(u, dim=self._dims), s=self.grid, dim=self._dims)

    def _half(self, h: Tensor, x: Tensor) -> Tensor:
        return h[..., : self.grid[-1] // 2 + 1].to(x.device, x.dtype)

    def __call__(self, x: Tensor) -> Tensor:
        self._check(x, 2)
        series = torch.fft.rfftn(x, dim=self._dims)[:, None, None]
        product = (self._half(self.matrices, x) * series).sum(3)
        return torch.fft.irfftn(product, s=self.grid, dim=self._dims)

    def adjoint(self, y: Tensor) -> Tensor:
        r"""States (B, 2, \*grid)."""
        self._check(y, len(self.times), 2)
        series = torch.fft.rfftn(y, dim=self._dims)[:, :, :, None]
        product = (self._half(self.matrices, y) * series).sum((1, 2))
        return torch.fft.irfftn(product, s=self.grid, dim=self._dims)

    def _hartley(self, x: Tensor) -> Tensor:
        c = torch.fft.fftn(x, dim=self._dims, norm="ortho")
        return c.real - c.imag

    def svd(self) -> SVD:
        """One of a matrix (2 T, 2) for each wave, in the Hartley basis; coefficients (B, 2, ``*grid``)."""
        matrix = self.matrices.flatten(0, 1).movedim((0, 1), (-2, -1))
        U, s, Vh = torch.linalg.svd(matrix, full_matrices=False)

        def apply(columns: Tensor, c: Tensor) -> Tensor:
            product = columns.to(c.device, c.dtype) @ self._hartley(c).movedim(1, -1)[..., None]
            return product[..., 0].movedim(-1, 1)

        def forward(c: Tensor) -> Tensor:
            product = U.to(c.device, c.dtype) @ c.movedim(1, -1)[..., None]
            return self._hartley(product[..., 0].movedim(-1, 1)).unflatten(1, (len(self.times), 2))

        def state(c: Tensor) -> Tensor:
            product = Vh.mT.to(c.device, c.dtype) @ c.movedim(1, -1)[..., None]
            return self._hartley(product[..., 0].movedim(-1, 1))

        left = Frame(forward, lambda y: apply(U.mT, y.flatten(1, 2)))
        return SVD(left, s.movedim(-1, 0), Frame(state, lambda x: apply(Vh, x)))


class VariableWave(_Waves):
    r"""Maps displacement and rate (B, 2, \*grid) at time 0 to (B, T, 2, \*grid), for a speed that varies in space.

    Arguments:
        speed: :math:`c` at the points, (\*grid), in m/s; not negative.
        times: Times in s, increasing, positive; a number stands for one time.
        lengths: Sides of the periodic box in m; 1 by default.
        steps: Leapfrog steps up to the last time, divided among the intervals; by default as many as give the Courant
            number 0.5.

    Raises:
        ValueError: a negative speed, or steps too few for stability (Courant number above 1).
    """

    def __init__(
        self, speed: Tensor, times: Any = 1.0, lengths: Sequence[Any] | None = None, steps: int | None = None
    ) -> None:
        speed = magnitude(speed, "m/s", "speed")
        speed = torch.as_tensor(speed, dtype=torch.float64)
        self._read(tuple(speed.shape), times, lengths)
        if not bool((speed >= 0).all()) or not bool(torch.isfinite(speed).all()):
            raise ValueError(f"speed must be finite and not negative, its least value is {float(speed.min()):g}.")
        self.spacings = tuple(L / n for n, L in zip(self.grid, self.lengths, strict=True))
        square = speed.square()
        self._faces = [
            (square + square.roll(-1, dim)) / (2 * h**2) for dim, h in zip(self._dims, self.spacings, strict=True)
        ]
        rate = math.sqrt(max(float(square.max()), 0.0) * sum(h**-2 for h in self.spacings))
        last, spans = 0.0, []
        for time in self.times:
            share = None if steps is None else math.ceil(steps * (time - last) / self.times[-1] - 1e-9)
            count = max(1, math.ceil((time - last) * rate / 0.5)) if share is None else max(1, share)
            spans.append((count, (time - last) / count))
            last = time
        self._spans = spans
        self.courant = rate * max(dt for _, dt in spans)
        """Courant number of the longest step."""
        if self.courant > 1:
            enough = math.ceil(sum(count for count, _ in spans) * self.courant)
            raise ValueError(
                f"{steps} steps give the Courant number {self.courant:.3g}, the leapfrog is stable up to 1; "
                f"take {enough} steps or leave steps out."
            )

    def acceleration(self, u: Tensor) -> Tensor:
        total = torch.zeros_like(u)
        for dim, face in zip(self._dims, self._faces, strict=True):
            flux = face.to(u.device, u.dtype) * (u.roll(-1, dim) - u)
            total = total + flux - flux.roll(1, dim)
        return total

    def __call__(self, x: Tensor) -> Tensor:
        self._check(x, 2)
        u, v = x.unbind(1)
        found = []
        for count, dt in self._spans:
            v = v + dt / 2 * self.acceleration(u)
            for step in range(count):
                u = u + dt * v
                v = v + (dt if step < count - 1 else dt / 2) * self.acceleration(u)
            found.append(torch.stack([u, v], 1))
        return torch.stack(found, 1)

    def adjoint(self, y: Tensor) -> Tensor:
        r"""States (B, 2, \*grid): the transposed steps, last one first."""
        self._check(y, len(self.times), 2)
        u = v = torch.zeros_like(y[:, 0, 0])
        for (count, dt), now in zip(reversed(self._spans), reversed(y.unbind(1)), strict=True):
            u, v = u + now[:, 0], v + now[:, 1]
            for step in reversed(range(count)):
                u = u + (dt if step < count - 1 else dt / 2) * self.acceleration(v)
                v = v + dt * u
            u = u + dt / 2 * self.acceleration(v)
        return torch.stack([u, v], 1)
