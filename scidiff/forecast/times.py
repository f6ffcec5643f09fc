"""Times of states: equal steps in seconds, in calendar months or in plain numbers.

A step is a `numpy.timedelta64`; of unit month (``timedelta64(1, "M")``) for monthly data, whose months differ in
length; or a float where time is a number, as in simulations. Leads are counted in steps; as coordinates they are
timedeltas, or numbers of months, or numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from scidiff.errors import InputError

__all__ = ["Step", "advance", "lead_count", "lead_values", "monthly", "same_time", "step_of", "step_text", "text_step"]

Step = np.timedelta64 | float


def monthly(step: Step) -> bool:
    """Whether the step is counted in calendar months."""
    return isinstance(step, np.timedelta64) and np.datetime_data(step.dtype)[0] in ("M", "Y")


def step_of(times: np.ndarray, name: str = "time", step: Step | None = None) -> Step:
    """The step of equally spaced times.

    Arguments:
        times: datetime64, timedelta64 or numbers, at least two.
        name: How an error calls them.
        step: What the step must be; None accepts any.

    Raises:
        InputError: the times do not ascend by equal steps, or by another step than the one expected.
    """
    times = np.asarray(times)
    if times.dtype.kind not in "mMfiu":
        raise InputError(f"{name} must hold datetime64, timedelta64 or numbers, got {times.dtype}; decode the times.")
    if step is None and len(times) < 2:
        raise InputError(f"{name} holds {len(times)} times; at least two are needed to know the step.")
    if times.dtype.kind == "M" and (step is None or monthly(step)):
        months = np.diff(times.astype("datetime64[M]"))
        short = len(months) and np.diff(times).min() >= np.timedelta64(27, "D")
        if step is not None or (short and len(set(np.diff(times).tolist())) > 1):
            expected = months[0] if step is None else step
            if (months == expected).all() and expected > np.timedelta64(0, "M"):
                return expected
            at = int(np.argmax(months != expected))
            raise InputError(
                f"{name} is not spaced by {step_text(expected)}: {times[at]} is followed by {times[at + 1]}."
            )
    steps = np.diff(times)
    found: Any = steps[0] if step is None else step
    if times.dtype.kind in "mM":
        if step is not None and not isinstance(step, np.timedelta64):
            raise InputError(f"{name} holds {times.dtype}, but the model steps by the number {step}.")
        wrong = steps != found
    else:
        if isinstance(found, np.timedelta64):
            raise InputError(f"{name} holds numbers, but the model steps by {step_text(found)}; decode the times.")
        found = float(found)
        wrong = np.abs(steps - found) > 1e-6 * abs(found) + 4 * np.spacing(np.abs(times).max())
    if wrong.any() or not found > (np.timedelta64(0, "s") if times.dtype.kind in "mM" else 0):
        at = int(np.argmax(wrong)) if wrong.any() else 0
        raise InputError(
            f"{name} is not equally spaced by {step_text(found)}: {times[at]} is followed by {times[at + 1]}. "
            "Fill or cut the gap first."
        )
    return found


def advance(time: Any, steps: int | np.ndarray, step: Step) -> Any:
    """Time plus a number of steps; a calendar month keeps the day and hour within the month."""
    if not monthly(step):
        return time + steps * step
    time = np.asarray(time)
    month = time.astype("datetime64[M]")
    return ((month + steps * step).astype(time.dtype) + (time - month.astype(time.dtype)))[()]


def lead_values(steps: np.ndarray, step: Step) -> tuple[np.ndarray, dict[str, str]]:
    """Values and attributes of the coordinate ``lead_time``."""
    attrs = {"long_name": "time since the initial state", "standard_name": "forecast_period"}
    if monthly(step):
        months = np.asarray(steps) * int(np.asarray(step).astype("timedelta64[M]").astype(int))
        return months, {**attrs, "units": "months", "calendar_step": "month"}
    if isinstance(step, np.timedelta64):
        return (np.asarray(steps) * step).astype("timedelta64[ns]"), attrs
    return np.asarray(steps) * step, attrs


def lead_count(leads: Any, step: Step) -> np.ndarray:
    """Leads as whole numbers of steps: an int n means 1 ... n, a sequence of ints or timedeltas means those.

    Raises:
        ValueError: leads that are no multiples of the step, not positive or not ascending.
    """
    if isinstance(leads, (int, np.integer)) and not isinstance(leads, bool):
        if leads < 1:
            raise ValueError(f"lead_times must be at least 1 step, got {leads}.")
        return np.arange(1, int(leads) + 1)
    values = np.atleast_1d(np.asarray(leads))
    if values.dtype.kind == "m":
        if not isinstance(step, np.timedelta64):
            raise ValueError(
                f"lead_times are timedeltas, but the model steps by the number {step}; give numbers of steps."
            )
        if monthly(step) != monthly(values[:1][0]):
            raise ValueError(f"lead_times must be whole numbers of steps of {step_text(step)}, got {values[0]}.")
        counts, rest = np.divmod(values, step)
        if (rest != np.timedelta64(0)).any():
            raise ValueError(f"lead_times must be multiples of the step {step_text(step)}, got {values[rest != 0][0]}.")
        values = counts
    if values.dtype.kind not in "iu" or values.ndim != 1 or not len(values):
        raise ValueError("lead_times must be a number of steps, or a sequence of such numbers or of timedeltas.")
    if values[0] < 1 or (np.diff(values) <= 0).any():
        raise ValueError(f"lead_times must be positive and ascend, got {values.tolist()}.")
    return values.astype(int)


def same_time(wanted: np.ndarray, found: np.ndarray, step: Step | None = None) -> np.ndarray:
    """Position of every wanted time among those found, -1 where it is absent. Months are compared as months."""
    wanted, found = np.asarray(wanted), np.asarray(found)
    if step is not None and monthly(step):
        wanted, found = wanted.astype("datetime64[M]"), found.astype("datetime64[M]")
    if wanted.dtype.kind != found.dtype.kind and {wanted.dtype.kind, found.dtype.kind} - set("iuf"):
        raise InputError(f"times are {found.dtype} where {wanted.dtype} is expected; decode the times.")
    order = np.argsort(found, kind="stable")
    if wanted.dtype.kind in "iuf":
        tolerance = 1e-6 * float(step) if isinstance(step, (int, float)) else 1e-9  # type: ignore[arg-type]
        place = np.searchsorted(found[order], wanted - tolerance).clip(max=len(found) - 1)
        equal = np.abs(found[order][place] - wanted) <= tolerance
    else:
        place = np.searchsorted(found[order], wanted).clip(max=len(found) - 1)
        equal = found[order][place] == wanted
    return np.where(equal, order[place], -1)


def step_text(step: Step) -> str:
    """The step in words, as ``6 h``, ``1 month`` or ``0.05``; `text_step` reads it."""
    if not isinstance(step, np.timedelta64):
        return repr(float(step))
    if monthly(step):
        count = int(np.asarray(step).astype("timedelta64[M]").astype(int))
        return f"{count} month"
    for unit in ("D", "h", "m", "s", "ms", "us"):
        one = np.timedelta64(1, unit)
        if step >= one and step % one == np.timedelta64(0, unit):
            return f"{int(step / one)} {'min' if unit == 'm' else unit}"
    return f"{int(step / np.timedelta64(1, 'ns'))} ns"


def text_step(text: str) -> Step:
    """Undoes `step_text`."""
    count, _, unit = text.partition(" ")
    if not unit:
        return float(count)
    return np.timedelta64(int(count), {"min": "m", "month": "M"}.get(unit, unit))
