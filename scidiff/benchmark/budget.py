r"""The same spending for everybody: how many steps a method can afford.

=============  ====================================================================================
kind           what is counted, per member
=============  ====================================================================================
``denoiser``   calls of the denoiser and vector-Jacobian products through it
``operator``   calls of the operator and vector-Jacobian products through it
``seconds``    wall time of all members together, on this machine
=============  ====================================================================================

Several may be set at once, ``denoiser=128,operator=2000``; then the one that is spent first decides. A method that asks
the operator a hundred times per network call is stopped by the second where the first would let it run for hours.

The cost of a method is close to affine in its number of steps, :math:`c_0 + c_1 n`. Two short runs give both numbers,
and the method gets the largest n that the budget pays for. Methods whose inner iterations differ from step to step end
a little off; tables show what was spent. Classical methods and functions without ``steps`` run as they are.

A split Gibbs sampler (PnP-DM) makes its steps anew in every iteration. Where the budget does not pay for four steps in
each of its iterations, it makes four, and fewer iterations: a coarser integrator draws too widely.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from torch import Generator

from scidiff.benchmark.contestants import DEEPINV, Contestant
from scidiff.benchmark.questions import Question
from scidiff.inference import Cost

__all__ = ["KINDS", "Budget", "affordable"]

KINDS = ("denoiser", "operator", "seconds")
PROBES = (3, 9)
FEWEST = PROBES[0]
NESTED = {"pnpdm": "iterations"}
"""Methods that make all their steps in every iteration, and the name of the parameter that counts these."""
PROPER = 4
"""Steps in each of them; fewer are not taken as long as there are iterations to save. Chosen at 100 calls on
cases 10000 to 10003 of the problems inpainting, blurred-sensors and modes-2."""


@dataclass(frozen=True)
class Budget:
    """What a method may spend.

    Arguments:
        kind: One of `KINDS`.
        amount: Calls per member, or seconds.
        more: Further limits; whichever is reached first decides.
    """

    kind: str
    amount: float
    more: tuple[Budget, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"a budget is in {', '.join(KINDS)}, got {self.kind!r}.")
        if not self.amount > 0:
            raise ValueError(f"a budget must be positive, got {self.amount}.")
        kinds = [limit.kind for limit in self.limits]
        if len(set(kinds)) < len(kinds):
            raise ValueError(f"{max(kinds, key=kinds.count)!r} is limited twice.")

    @property
    def limits(self) -> tuple[Budget, ...]:
        """All limits, each of one kind."""
        return (self, *self.more)

    @classmethod
    def parse(cls, text: str) -> Budget:
        """``"denoiser=256"``, ``"seconds=30"``, ``"denoiser=256,operator=2000"``."""
        try:
            parts = [part.partition("=") for part in text.split(",")]
            first, *more = [(kind.strip(), float(amount)) for kind, _, amount in parts]
            return cls(*first, tuple(cls(*each) for each in more))
        except ValueError as error:
            raise ValueError(f"budget {text!r}: {error} Write denoiser=256, operator=1000 or seconds=30.") from error

    def spent(self, cost: Cost, seconds: float) -> float:
        """How much of the first kind a run has cost."""
        if self.kind == "seconds":
            return seconds
        return float(getattr(cost, self.kind) + getattr(cost, f"{self.kind}_vjp"))

    def __str__(self) -> str:
        return ",".join(f"{limit.kind}={limit.amount:g}" for limit in self.limits)


def affordable(method: Contestant, asked: Question, members: int, budget: Budget) -> Contestant:
    """The method with as many steps as the budget pays for.

    Raises:
        TypeError: the budget does not pay for 3 steps.
    """
    name = "steps" if method.tunable else "calls" if method.name.startswith(DEEPINV) else ""
    if not name:
        return method
    outer = NESTED.get(method.name)
    try:
        found = _fitted(method, name, asked, members, budget)
    except TypeError:
        if outer is None or outer in method.parameters:
            raise
    else:
        if outer is None or outer in method.parameters or found.parameters.get(name, PROPER) >= PROPER:
            return found
    given = {name: PROPER} | {k: v for k, v in method.parameters.items() if k == name}
    return _fitted(method.with_parameters(**given), outer, asked, members, budget)


def _fitted(method: Contestant, name: str, asked: Question, members: int, budget: Budget) -> Contestant:
    """The method with the largest value of the parameter ``name`` that the budget pays for."""
    timed = any(limit.kind == "seconds" for limit in budget.limits)
    drawn = members if timed or method.population else 1
    runs = []
    for n in PROBES:
        begin = time.perf_counter()
        ensemble = method.with_parameters(**{name: n}).draw(asked, drawn, Generator().manual_seed(0))
        seconds = time.perf_counter() - begin
        runs.append([limit.spent(ensemble.cost, seconds) for limit in budget.limits])
        for limit, cost in zip(budget.limits, runs[0], strict=True):
            if cost > limit.amount:
                raise TypeError(f"{FEWEST} {name} of {method.label} cost {cost:g} of {limit.kind}, more than {budget}.")
    fits = []
    for limit, few, many in zip(budget.limits, *runs, strict=True):
        slope = (many - few) / (PROBES[1] - PROBES[0])
        if slope > 0:
            fits.append(int((limit.amount - few) / slope + PROBES[0]))
        elif many > limit.amount:
            raise TypeError(
                f"{method.label} costs {many:g} of {limit.kind} whatever its {name}; {budget} is too little."
            )
    if not fits:  # its steps cost nothing of these kinds
        return method
    return method.with_parameters(**{name: min(fits)})
