r"""What flow maps of semilinear equations share: the field at time 0 to the fields at later times.

An equation :math:`\dot w = L w + N(w)` of a truncated Fourier series is stepped with fourth-order methods. How long a
step may be depends on how fast :math:`N` moves the field, which an equation states as a number ``courant(w, dt)`` per
field, proportional to ``dt``. Each field gets the steps that bring this number to ``courant``, whatever its neighbours
in the batch; a field that becomes faster on its way is computed again with more. Steps that the caller fixes are
refused where they are too long.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from scidiff.errors import NumericalError
from scidiff.operators.algebra import Algebra
from scidiff.operators.units import magnitude
from scidiff.solvers.stepping import Semilinear, Step, advance, etdrk4, ifrk4, rk4

__all__ = ["Equation", "FlowMap", "observation_times"]

MARGIN, LEAST, LADDER, MOST, WATCH = 1.25, 8, 1.25, 10**5, 16


class Equation(Semilinear, Protocol):
    """A semilinear equation of Fourier series, with the number that limits its steps."""

    def transform(self, x: Tensor) -> Tensor:
        """The truncated series of a field."""
        ...

    def field(self, w: Tensor) -> Tensor:
        """Values on the grid."""
        ...

    def courant(self, w: Tensor, dt: float) -> Tensor:
        """How long a step of ``dt`` is for each state, (B,)."""
        ...


def _explicit(equation: Any, dt: float) -> Step:
    """Runge-Kutta for all terms alike."""
    return rk4(lambda w: equation.linear * w + equation.change(w), dt)


SCHEMES: dict[str, Callable[[Any, float], Step]] = {"ifrk4": ifrk4, "etdrk4": etdrk4, "rk4": _explicit}


def observation_times(times: Any) -> tuple[float, ...]:
    """Times as numbers of seconds, checked: positive and increasing; a single one counts as a tuple.

    Raises:
        ValueError: if they are not.
    """
    times = magnitude(times, "s", "times")
    found = tuple(float(magnitude(t, "s", "times")) for t in times) if hasattr(times, "__iter__") else (float(times),)
    rising = all(a < b for a, b in zip((0.0, *found), found, strict=False))
    if not found or not rising or not math.isfinite(found[-1]):
        raise ValueError(f"times must be positive and increase, got {found}.")
    return found


class FlowMap(Algebra):
    r"""Fields (B, C, \*grid) at time 0 to (B, T, \*grid) at T times, or (B, T, C, \*grid) where C is above 1.

    A subclass checks its parameters, makes the equation (`_equation`), and says in ``limit`` and ``crossed`` how long a
    step may be and what that number counts.

    Arguments:
        grid: Points along each axis.
        times: Observation times, increasing, positive; a number stands for one time.
        steps: Time steps up to the last observation, divided among the intervals by their lengths. By default each
            field gets as many as it needs at time 0 (rounded up on a ladder of factors 1.25), and more where the field
            becomes faster.
        courant: Length of the steps that are chosen; the error falls with its fourth power.
        scheme: ``"ifrk4"`` or ``"etdrk4"``.
        segments: Of gradient checkpointing, see `scidiff.solvers.advance`.
    """

    components: int = 1
    schemes: ClassVar[tuple[str, ...]] = ("ifrk4", "etdrk4")
    limit: ClassVar[float] = 1.35
    """Largest number that is let through: beyond it steps are unstable, or say nothing."""
    longest: ClassVar[float] = 1.2
    """Largest ``courant`` that may be asked for."""
    crossed: ClassVar[str] = "the flow crosses {:.3g} grid spacings"
    fields: ClassVar[str] = "fields"

    def __init__(
        self,
        grid: Sequence[int],
        times: Any,
        steps: int | None,
        courant: float,
        scheme: str,
        segments: int | None,
    ) -> None:
        self.times = observation_times(times)
        if steps is not None and steps < len(self.times):
            raise ValueError(f"steps must be at least one an observation time ({len(self.times)}), got {steps}.")
        if not 0 < courant <= self.longest:
            raise ValueError(f"courant must lie in (0, {self.longest:g}], got {courant}.")
        if scheme not in self.schemes:
            raise ValueError(f"scheme must be one of {', '.join(self.schemes)}, got {scheme!r}.")
        self.grid = tuple(int(n) for n in grid)
        self.steps, self.courant, self.scheme, self.segments = steps, float(courant), scheme, segments
        self._equations: dict[tuple[torch.dtype, torch.device], Any] = {}
        self.equation(torch.float64)

    @abstractmethod
    def _equation(self, dtype: torch.dtype, device: torch.device | str) -> Equation: ...

    def equation(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Any:
        """The equation with constants of a type on a device, made once."""
        key = (dtype, torch.device(device))
        if key not in self._equations:
            self._equations[key] = self._equation(dtype, device)
        return self._equations[key]

    def _start(self, x: Tensor) -> Tensor:
        """The state of fields (B, C, ``*grid``), checked."""
        expected = (self.components, *self.grid)
        if tuple(x.shape[1:]) != expected or x.ndim != len(expected) + 1 or x.is_complex():
            shape = ", ".join(map(str, expected))
            raise ValueError(f"expected real {self.fields} (B, {shape}), got {tuple(x.shape)} of {x.dtype}.")
        return self.equation(x.dtype, x.device).transform(x[:, 0] if self.components == 1 else x)

    def __call__(self, x: Tensor) -> Tensor:
        r"""Fields at the observation times, (B, T, \*grid), or (B, T, C, \*grid)."""
        w = self._start(x)
        equation = self.equation(x.dtype, x.device)
        if self.steps is not None:
            found, crossed = self._run(equation, w, self.steps)
            largest = max((c for c in crossed.tolist() if math.isfinite(c)), default=0.0)
            if largest > self.limit:
                enough = math.ceil(self.steps * largest / self.courant)
                raise NumericalError(
                    f"{self.crossed.format(largest)} in a step of {self.times[-1] / self.steps:.3g}; "
                    f"steps beyond {self.limit:g} blow up. Take {enough} steps or leave steps out."
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
        """The first rung of the ladder that is not below; non-finite fields go to the first, and stay not finite."""
        if not math.isfinite(steps):
            return LEAST
        height = math.ceil(math.log(max(steps, LEAST) / LEAST) / math.log(LADDER) - 1e-9)
        return min(MOST, max(len(self.times), math.ceil(LEAST * LADDER**height)))

    def _run(self, equation: Any, w: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Fields at the observation times, and the largest Courant number met, one per row."""
        found, crossed, last, dt = [], [], 0.0, 0.0
        made: tuple[float, Step] | None = None
        for time in self.times:
            count = max(1, math.ceil(steps * (time - last) / self.times[-1] - 1e-9))
            dt, last = (time - last) / count, time
            if made is None or not math.isclose(made[0], dt, rel_tol=1e-12):
                made = dt, SCHEMES[self.scheme](equation, dt)
            for first in range(0, count, WATCH):
                crossed.append(equation.courant(w.detach(), dt))
                w = advance(made[1], w, min(WATCH, count - first), self.segments)
            found.append(equation.field(w))
        crossed.append(equation.courant(w.detach(), dt))
        speeds = torch.stack(crossed)
        blown_up = ~speeds[-1].isfinite() & speeds[0].isfinite()
        largest = torch.where(speeds.isfinite(), speeds, 0).amax(0)
        return torch.stack(found, 1), torch.where(blown_up, largest.clamp_min(2 * self.limit), largest)

    def residual(self, x: Tensor, dt: float) -> Tensor:
        r"""How far snapshots are from solving the equation, half way between each two of them.

        .. math:: R_{n+1/2} = \frac{x_{n+1} - x_n}{\Delta t} - \frac{F(x_n) + F(x_{n+1})}{2}, \qquad F = L + N

        It falls as :math:`\Delta t^2` for a solution. Arguments: ``x`` (B, N, \*grid), or (B, N, C, \*grid), the
        snapshots; ``dt`` between them. Returns (B, N-1, ...) in units of the field per time.
        """
        equation = self.equation(x.dtype, x.device)
        series = equation.transform(x)
        rate = equation.field(equation.linear * series + equation.change(series))
        return equation.field(series).diff(dim=1) / dt - (rate[:, 1:] + rate[:, :-1]) / 2
