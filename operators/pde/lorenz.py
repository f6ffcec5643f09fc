r"""Flow maps of Lorenz' chaotic systems: the state at time 0 to states at later times, by fourth-order steps.

The right-hand sides are those of `scidiff.solvers.lorenz`. On the attractors steps of the default length are accurate
to 4e-7 of the state for Lorenz-63, 1e-5 for Lorenz-96, after one unit of time; errors then grow as the chaos makes
them grow. Steps up to 0.1 keep states on the attractor finite; beyond, more and more of them blow up.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from scidiff.errors import NumericalError
from scidiff.operators.algebra import Algebra
from scidiff.operators.pde.flow_map import observation_times
from scidiff.solvers.lorenz import lorenz63, lorenz96
from scidiff.solvers.stepping import advance, rk4

__all__ = ["Lorenz63", "Lorenz96"]


class _Lorenz(Algebra):
    """States (B, d) at time 0 to (B, T, d)."""

    size: int
    limit: float
    """Longest step that is accepted; beyond it states on the attractor blow up."""

    def __init__(self, times: Any, dt: float, segments: int | None) -> None:
        self.times = observation_times(times)
        if not 0 < dt <= self.limit:
            raise ValueError(f"dt must lie in (0, {self.limit:g}], got {dt}; longer steps blow up.")
        self.dt, self.segments = float(dt), segments

    @abstractmethod
    def rate(self, x: Tensor) -> Tensor:
        """The rate of change of states (..., d)."""

    def __call__(self, x: Tensor) -> Tensor:
        """States at the times, (B, T, d)."""
        if x.is_complex() or x.ndim != 2 or x.shape[1] != self.size:
            raise ValueError(f"expected real states (B, {self.size}), got {tuple(x.shape)} of {x.dtype}.")
        finite, found, last = torch.isfinite(x.detach()).all(1), [], 0.0
        for time in self.times:
            count = max(1, math.ceil((time - last) / self.dt - 1e-9))
            x = advance(rk4(self.rate, (time - last) / count), x, count, self.segments)
            found.append(x)
            last = time
        if not bool((torch.isfinite(x.detach()).all(1) | ~finite).all()):
            raise NumericalError(f"a state far from the attractor blows up with steps of {self.dt:g}; shorten dt.")
        return torch.stack(found, 1)

    def residual(self, x: Tensor, dt: float) -> Tensor:
        r"""How far states (B, N, d), ``dt`` apart, are from solving the equations, half way between each two:
        :math:`(x_{n+1} - x_n) / \Delta t` minus the mean of the two rates of change; it falls as :math:`\Delta t^2`.
        """
        rate = self.rate(x)
        return x.diff(dim=1) / dt - (rate[:, 1:] + rate[:, :-1]) / 2


class Lorenz63(_Lorenz):
    """Maps states (B, 3) at time 0 to (B, T, 3) at T later times.

    Arguments:
        times: Observation times, increasing, positive; a number stands for one time.
        dt: Longest step, at most 0.1.
        s, r, b: Parameters, see `scidiff.solvers.lorenz63`.
        segments: Of gradient checkpointing, see `scidiff.solvers.advance`.

    Raises:
        ValueError: times that do not increase, a step that is too long.
        NumericalError: in a call, if a state blows up.
    """

    size, limit = 3, 0.1

    def __init__(
        self,
        times: Any = 0.025,
        dt: float = 0.005,
        s: float = 10.0,
        r: float = 28.0,
        b: float = 8 / 3,
        segments: int | None = None,
    ) -> None:
        self.s, self.r, self.b = float(s), float(r), float(b)
        super().__init__(times, dt, segments)

    def rate(self, x: Tensor) -> Tensor:
        return lorenz63(x, self.s, self.r, self.b)


class Lorenz96(_Lorenz):
    """Maps states (B, N) on a ring at time 0 to (B, T, N) at T later times.

    Arguments:
        size: Places N on the ring, at least 4.
        times: Observation times, increasing, positive; a number stands for one time.
        dt: Longest step, at most 0.1.
        forcing: F.
        segments: Of gradient checkpointing, see `scidiff.solvers.advance`.

    Raises:
        ValueError: times that do not increase, a step that is too long, a ring that is too short.
        NumericalError: in a call, if a state blows up.
    """

    limit = 0.1

    def __init__(
        self,
        size: int = 40,
        times: Any = 0.05,
        dt: float = 0.0125,
        forcing: float = 8.0,
        segments: int | None = None,
    ) -> None:
        if size < 4:
            raise ValueError(f"the ring of Lorenz-96 needs at least 4 places, got {size}.")
        self.size, self.forcing = int(size), float(forcing)
        super().__init__(times, dt, segments)

    def rate(self, x: Tensor) -> Tensor:
        return lorenz96(x, self.forcing)
