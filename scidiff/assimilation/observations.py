r"""Observations of some states of a trajectory: :math:`y_k = A(x_{t_k}) + n_k`.

One operator maps a state (B, C, \*grid) to what is measured of it, (B, \*Y); `AtTimes` applies it to the K observed
states of a trajectory (B, C, L, \*grid), which gives (B, K, \*Y). Times are counted in steps of the trajectory;
`on_grid` turns times in physical units into steps and refuses those between two states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from scidiff.errors import InputError
from scidiff.inference import Likelihood
from scidiff.operators.algebra import Algebra, is_linear
from scidiff.protocols import Noise, Operator

__all__ = ["AtTimes", "Observations", "on_grid"]


def on_grid(times: Sequence[float] | Tensor, dt: float, length: int, start: float = 0.0) -> tuple[int, ...]:
    """The steps of observation times: ``time = start + step * dt``.

    Arguments:
        times: Increasing times, in the unit of ``dt``.
        dt: Time between two states, positive.
        length: Number of states of the trajectory.
        start: Time of the first state.

    Raises:
        InputError: a time that is no multiple of the step (to a thousandth of it), lies outside, or does not increase.
    """
    if not dt > 0:
        raise InputError(f"the time step must be positive, got {dt}.")
    found: list[int] = []
    for time in [float(t) for t in times]:
        step = (time - start) / dt
        if not abs(step - round(step)) <= 1e-3:
            raise InputError(
                f"observation time {time:g} is off the grid of states {start:g} + n * {dt:g}; the nearest are "
                f"{start + (step // 1) * dt:g} and {start + (step // 1 + 1) * dt:g}. Interpolate, or take a finer dt."
            )
        found.append(round(step))
    return _steps(found, length)


def _steps(steps: Sequence[int], length: int) -> tuple[int, ...]:
    found = tuple(int(n) for n in steps)
    if not found:
        raise InputError("no observation time was given.")
    if any(b <= a for a, b in zip(found, found[1:], strict=False)):
        raise InputError(f"observation times must increase, got steps {found[:8]}...")
    if found[0] < 0 or found[-1] >= length:
        raise InputError(f"observed steps lie in [{found[0]}, {found[-1]}], a record has steps 0 to {length - 1}.")
    return found


class AtTimes(Algebra):
    r"""Applies one operator to some states of a trajectory, (B, C, L, \*grid) -> (B, K, \*Y).

    Linear, with an adjoint, if the operator is.

    Arguments:
        operator: Of one state, (B, C, \*grid) -> (B, \*Y).
        steps: The K observed states, increasing, from 0.
        length: Number L of states.

    Raises:
        InputError: steps outside the trajectory or not increasing.
    """

    def __init__(self, operator: Operator, steps: Sequence[int], length: int) -> None:
        self.operator, self.length = operator, int(length)
        self.steps = _steps(steps, self.length)
        self.differentiable = bool(getattr(operator, "differentiable", True))
        if is_linear(operator):
            self.adjoint: Any = self._adjoint

    def __repr__(self) -> str:
        return f"AtTimes({self.operator!r}, {len(self.steps)} of {self.length} states)"

    def __call__(self, x: Tensor) -> Tensor:
        if x.ndim < 3 or x.shape[2] != self.length:
            raise ValueError(f"expected trajectories (B, C, {self.length}, *grid), got {tuple(x.shape)}.")
        some = x[:, :, list(self.steps)].movedim(2, 1)
        return self.operator(some.flatten(0, 1)).unflatten(0, some.shape[:2])

    def _adjoint(self, y: Tensor) -> Tensor:
        states = self.operator.adjoint(y.flatten(0, 1)).unflatten(0, y.shape[:2])  # type: ignore[attr-defined]
        x = states.new_zeros(len(states), states.shape[2], self.length, *states.shape[3:])
        x[:, :, list(self.steps)] = states.movedim(1, 2)
        return x


@dataclass(frozen=True)
class Observations:
    r"""What was measured of a trajectory.

    Arguments:
        steps: Observed states, increasing, from 0.
        operator: Of one state, (B, C, \*grid) -> (B, \*Y).
        noise: Of one observed state, given its noiseless measurement.
        y: (B, K, \*Y), one measurement per observed state.
    """

    steps: tuple[int, ...]
    operator: Operator
    noise: Noise
    y: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", _steps(self.steps, max(self.steps, default=0) + 1))
        if self.y.ndim < 2 or self.y.shape[1] != len(self.steps):
            raise InputError(
                f"y must be (B, {len(self.steps)}, *Y), one per observed state, got {tuple(self.y.shape)}."
            )

    def likelihood(self, length: int) -> Likelihood:
        """That of a trajectory of ``length`` states."""
        return Likelihood(AtTimes(self.operator, self.steps, length), self.noise, self.y)

    def between(self, first: int, last: int) -> Observations | None:
        """Those of the states ``first`` to ``last - 1``, counted from ``first``; None where there are none."""
        rows = [row for row, step in enumerate(self.steps) if first <= step < last]
        if not rows:
            return None
        steps = tuple(self.steps[row] - first for row in rows)
        return Observations(steps, self.operator, self.noise, self.y[:, rows])

    def of(self, step: int) -> Tensor | None:
        r"""The measurement (B, \*Y) of a state, or None."""
        return self.y[:, self.steps.index(step)] if step in self.steps else None

    def row(self, b: int) -> Observations:
        """Those of one trajectory, B = 1."""
        return Observations(self.steps, self.operator, self.noise, self.y[b : b + 1])
