r"""Times at which DYffusion stops on its way from a state to the one h steps later.

A schedule is the list :math:`i_0 = 0 < i_1 < ... < i_{N-1} = h - 1` of lead times in steps. Whole ones are outputs,
fractions are *auxiliary*. With N training times a schedule is one of

====================  ===================================================  ===============================
``before_t1_only``    :math:`i_n = n/(k+1)` up to 1, then whole steps      N = h + k
``linear``            :math:`i_n = n/(k+1)` throughout                     N = h + k (h - 1)
====================  ===================================================  ===============================

The networks are told :math:`i_n` and not n, so that sampling may stop at fewer or other times (`sampling_times`).

References:
    Rühling Cachay et al., DYffusion: a dynamics-informed diffusion model for spatiotemporal forecasting, 2023,
    arXiv:2306.01984, section 3 and appendix.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

__all__ = ["position", "sampling_times", "training_times"]

SCHEDULES = ("before_t1_only", "linear")


def training_times(horizon: int, auxiliary: int = 0, schedule: str = "before_t1_only") -> list[float]:
    """The times :math:`i_0 ... i_{N-1}`.

    Arguments:
        horizon: Steps h.
        auxiliary: k: extra times before the first step (``before_t1_only``), or between any two (``linear``).
        schedule: One of the two names.

    Raises:
        ValueError: Numbers or a name that make no sense.
    """
    if horizon < 1 or auxiliary < 0:
        raise ValueError(f"expected horizon >= 1 and auxiliary_steps >= 0, got {horizon} and {auxiliary}.")
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}; got {schedule!r}.")
    if schedule == "linear":
        return [n / (auxiliary + 1) for n in range((horizon - 1) * (auxiliary + 1) + 1)]
    early = [n / (auxiliary + 1) for n in range(auxiliary + 1)] if horizon > 1 else [0.0]
    return early + [float(j) for j in range(1, horizon)]


def position(times: Sequence[float], time: float) -> float:
    """The n at which ``times`` reach ``time``; between two of them, a fraction."""
    for n, (a, b) in enumerate(zip(times, times[1:], strict=False)):
        if a <= time <= b:
            return n + (time - a) / (b - a)
    if time == times[0]:
        return 0.0
    raise ValueError(f"the time {time} lies outside {times[0]} ... {times[-1]}.")


def sampling_times(times: Sequence[float], select: str | Sequence[float] | None = None) -> list[float]:
    """The times at which sampling stops: always every whole step, and of the others those selected.

    ==============================  =======================================================================
    None                            all training times
    ``only_dynamics``               whole steps only
    ``only_dynamics_plusM``         and M times spaced equally in (0, 1), trained or not
    ``only_dynamics_plusM_discrete``  the same, each moved down to a training time
    ``everyM``                      and every M-th auxiliary time, the first included
    ``firstM``                      and the first M auxiliary times; M < 1 is a fraction of them
    a sequence                      those times; 0 and every whole step must be among them
    ==============================  =======================================================================

    Arguments:
        times: From `training_times`.
        select: A row of the table.

    Raises:
        ValueError: A name that is none of these, or a sequence that leaves out a step.
    """
    whole = [t for t in times if float(t).is_integer()]
    between = [t for t in times if not float(t).is_integer()]
    if select is None:
        return list(times)
    if not isinstance(select, str):
        chosen = sorted(float(t) for t in select)
        if not set(whole) <= set(chosen) or chosen[0] < 0 or chosen[-1] > whole[-1]:
            raise ValueError(f"sampling times must contain {whole} and lie between; got {list(select)}.")
        return chosen
    if select == "only_dynamics":
        extra: list[float] = []
    elif match := re.fullmatch(r"only_dynamics_plus(\d+)(_discrete)?", select):
        extra = [m / (int(match[1]) + 1) for m in range(int(match[1]) + 1)]
        if match[2]:
            extra = [max(t for t in times if t <= e + 1e-9) for e in extra]
        if len(whole) < 2:
            extra = []
    elif match := re.fullmatch(r"every(\d+)(?:th|nd|rd)?", select):
        if int(match[1]) < 1:
            raise ValueError(f"sampling={select!r}: every which? Write every2 for every second auxiliary time.")
        extra = between[:: int(match[1])]
    elif match := re.fullmatch(r"first(\d+(?:\.\d+)?)", select):
        amount = float(match[1])
        if amount <= 0 or (amount > 1 and not amount.is_integer()):
            raise ValueError(f"sampling={select!r}: expected a fraction below 1 or a whole number.")
        extra = between[: math.ceil(amount * len(between)) if amount < 1 else int(amount)]
    else:
        raise ValueError(
            f"sampling={select!r}; expected only_dynamics, only_dynamics_plusM, only_dynamics_plusM_discrete, everyM, "
            "firstM or a list of times."
        )
    return sorted({*whole, *extra})
