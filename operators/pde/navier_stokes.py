r"""The flow map of two-dimensional turbulence: vorticity at time 0 to vorticity at later times.

The equation and its Fourier series are those of `scidiff.solvers.navier_stokes`; time steps are of fourth order with
the viscous term integrated exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scidiff.errors import NumericalError
from scidiff.operators.algebra import Algebra
from scidiff.solvers.navier_stokes import NavierStokes as Equation
from scidiff.solvers.stepping import advance, etdrk4, ifrk4

__all__ = ["NavierStokes"]

SCHEMES = {"ifrk4": ifrk4, "etdrk4": etdrk4}
MARGIN, LEAST, LADDER, MOST, WATCH = 1.25, 8, 1.25, 10**5, 16
LIMIT = 1.8
"""Largest Courant number that is let through: beyond 2 the step is unstable on the imaginary axis."""


class NavierStokes(Algebra):
    r"""Maps vorticity (B, 1, H, W) at time 0 to vorticity (B, T, H, W) at T later times.

    .. math:: \partial_t \omega + v \cdot \nabla \omega = \nu \Delta \omega - \mu\,\omega + f

    Periodic square; rows are y, columns x. Differentiable; also usable as a black box (`scidiff.operators.BlackBox`).

    Arguments:
        grid: Points (H, W), at least 8 each.
        reynolds: :math:`1/\nu` in units of the box and of time.
        times: Observation times, increasing, positive; a number stands for one time.
        steps: Time steps up to the last observation, divided among the intervals by their lengths. By default each
            field gets as many as its flow needs for the Courant number ``courant`` at time 0 (rounded up on a ladder
            of factors 1.25), and more where the flow accelerates.
        drag: :math:`\mu`.
        forcing: :math:`f`, a field (H, W) or a whole number m for :math:`-m \cos(m y)`; 0 for none.
        side: Length of the square, by default :math:`2 \pi`.
        courant: Grid spacings that the flow crosses in a step, at most 1.2; the error falls with its fourth power.
        scheme: ``"ifrk4"`` or ``"etdrk4"``.
        segments: Of gradient checkpointing, see `scidiff.solvers.advance`.

    Raises:
        ValueError: times that do not increase, steps too few for the intervals, an unknown scheme.
        NumericalError: in a call, if the fixed time step is too long for the flow (Courant number above 1.8).
    """

    def __init__(
        self,
        grid: Sequence[int],
        reynolds: float = 200.0,
        times: float | Sequence[float] = 1.0,
        steps: int | None = None,
        drag: float = 0.0,
        forcing: int | Tensor = 4,
        side: float = 2 * math.pi,
        courant: float = 0.8,
        scheme: str = "ifrk4",
        segments: int | None = None,
    ) -> None:
        self.times = (float(times),) if isinstance(times, (int, float)) else tuple(float(t) for t in times)
        if (
            not self.times
            or self.times[0] <= 0
            or any(b <= a for a, b in zip(self.times, self.times[1:], strict=False))
        ):
            raise ValueError(f"times must be positive and increase, got {self.times}.")
        if not reynolds > 0:
            raise ValueError(f"reynolds must be positive, got {reynolds}.")
        if steps is not None and steps < len(self.times):
            raise ValueError(f"steps must be at least one an observation time ({len(self.times)}), got {steps}.")
        if not 0 < courant <= 1.2:
            raise ValueError(f"courant must lie in (0, 1.2], got {courant}.")
        if scheme not in SCHEMES:
            raise ValueError(f"scheme must be one of {', '.join(SCHEMES)}, got {scheme!r}.")
        self.grid = (int(grid[0]), int(grid[1]))
        self.reynolds, self.drag, self.forcing, self.side = float(reynolds), float(drag), forcing, float(side)
        self.steps, self.courant, self.scheme, self.segments = steps, float(courant), scheme, segments
        self._equations: dict[tuple[torch.dtype, torch.device], Equation] = {}
        self.equation(torch.float64)

    def __repr__(self) -> str:
        return f"NavierStokes({self.grid}, reynolds={self.reynolds:g}, times={self.times})"

    def equation(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Equation:
        """The equation with constants of a type on a device, made once."""
        key = (dtype, torch.device(device))
        if key not in self._equations:
            lengths = (self.side, self.side * self.grid[1] / self.grid[0])
            self._equations[key] = Equation(
                self.grid, 1 / self.reynolds, self.drag, self.forcing, lengths, dtype, device
            )
        return self._equations[key]

    def __call__(self, x: Tensor) -> Tensor:
        """Vorticity at the observation times, (B, T, H, W)."""
        if x.ndim != 4 or x.shape[1] != 1 or tuple(x.shape[2:]) != self.grid or x.is_complex():
            raise ValueError(
                f"expected real vorticity (B, 1, {self.grid[0]}, {self.grid[1]}), got {tuple(x.shape)} of {x.dtype}."
            )
        equation = self.equation(x.dtype, x.device)
        w = equation.transform(x[:, 0])
        if self.steps is not None:
            found, crossed = self._run(equation, w, self.steps)
            largest = max((c for c in crossed.tolist() if math.isfinite(c)), default=0.0)
            if largest > LIMIT:
                enough = math.ceil(self.steps * largest / self.courant)
                raise NumericalError(
                    f"the flow crosses {largest:.3g} grid spacings in a step of {self.times[-1] / self.steps:.3g}; "
                    f"steps beyond {LIMIT} blow up. Take {enough} steps or leave steps out."
                )
            return found
        with torch.no_grad():
            speed = equation.courant(w.detach(), self.times[-1]).tolist()
        rows = dict(enumerate(self._rung(c / self.courant) for c in speed))
        parts: dict[int, Tensor] = {}
        while rows:
            again = {}
            for count in sorted(set(rows.values())):
                group = [row for row, n in rows.items() if n == count]
                found, crossed = self._run(equation, w[group], count)
                for row, states, c in zip(group, found, crossed.tolist(), strict=True):
                    if c > self.courant * MARGIN and count < MOST:
                        again[row] = self._rung(count * min(max(c / self.courant, LADDER), 4))
                    else:
                        parts[row] = states
            rows = again
        return torch.stack([parts[row] for row in range(len(x))])

    def _rung(self, steps: float) -> int:
        """The first rung of the ladder that is not below; non-finite flows go to the first, and stay not finite."""
        if not math.isfinite(steps):
            return LEAST
        height = math.ceil(math.log(max(steps, LEAST) / LEAST) / math.log(LADDER) - 1e-9)
        return min(MOST, max(len(self.times), math.ceil(LEAST * LADDER**height)))

    def _run(self, equation: Equation, w: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Fields at the observation times, and the largest Courant number met, one per row."""
        found, crossed, last, dt = [], [], 0.0, 0.0
        for time in self.times:
            count = max(1, math.ceil(steps * (time - last) / self.times[-1] - 1e-9))
            dt, last = (time - last) / count, time
            step = SCHEMES[self.scheme](equation, dt)
            for first in range(0, count, WATCH):
                crossed.append(equation.courant(w.detach(), dt))
                w = advance(step, w, min(WATCH, count - first), self.segments)
            found.append(equation.field(w))
        crossed.append(equation.courant(w.detach(), dt))
        speeds = torch.stack(crossed)
        blown_up = ~speeds[-1].isfinite() & speeds[0].isfinite()
        largest = torch.where(speeds.isfinite(), speeds, 0).amax(0)
        return torch.stack(found, 1), torch.where(blown_up, largest.clamp_min(2 * self.courant), largest)

    def residual(self, w: Tensor, dt: float) -> Tensor:
        r"""How far snapshots are from solving the equation, half way between each two of them.

        .. math:: R_{n+1/2} = \frac{\omega_{n+1} - \omega_n}{\Delta t} - \frac{F(\omega_n) + F(\omega_{n+1})}{2}, \qquad
                  F(\omega) = \nu \Delta \omega - \mu \omega + f - v \cdot \nabla \omega

        It falls as :math:`\Delta t^2` for a solution. Arguments: ``w`` (B, N, H, W), the snapshots; ``dt`` between
        them. Returns (B, N-1, H, W) in units of vorticity per time.
        """
        equation = self.equation(w.dtype, w.device)
        series = equation.transform(w)
        rate = equation.field(equation.linear * series + equation.change(series))
        return equation.field(series).diff(dim=1) / dt - (rate[:, 1:] + rate[:, :-1]) / 2
