r"""Samplers as tables of numbers and names, for configurations and cards.

.. code-block:: toml

    sampler = { kind = "Heun", steps = 39, schedule = { kind = "karras", sigma_max = 20.0 } }
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from scidiff import samplers, schedules
from scidiff.samplers import Sampler

__all__ = ["describe_sampler", "make_sampler"]

SCHEDULES = ("cosine", "karras", "log_linear", "uniform", "vp_linear")


def make_sampler(table: Sampler | Mapping[str, Any]) -> Sampler:
    """The sampler of a table; a sampler is returned as it is.

    Raises:
        ValueError: A kind or an argument that does not exist.
    """
    if isinstance(table, Sampler):
        return table
    options = dict(table)
    kind, schedule = options.pop("kind", "Heun"), options.pop("schedule", None)
    known = sorted(set(samplers.__all__) - {"Sampler"})
    if kind not in known:
        raise ValueError(f"sampler.kind is {kind!r}; expected one of {', '.join(known)}.")
    if schedule is not None:
        arguments = {"kind": schedule} if isinstance(schedule, str) else dict(schedule)
        name = arguments.pop("kind", "karras")
        if name not in SCHEDULES:
            raise ValueError(f"sampler.schedule is {name!r}; expected one of {', '.join(SCHEDULES)}.")
        function = getattr(schedules, name)
        options["schedule"] = functools.partial(function, **arguments) if arguments else function
    try:
        return getattr(samplers, kind)(**options)
    except TypeError as error:
        raise ValueError(f"sampler: {error}.") from error


def describe_sampler(sampler: Sampler) -> dict[str, Any]:
    """The table of a sampler; `make_sampler` is the way back.

    Raises:
        TypeError: An argument is neither number, name nor a schedule of `scidiff.schedules`.
    """
    table: dict[str, Any] = {"kind": type(sampler).__name__}
    for f in dataclasses.fields(sampler):
        value = getattr(sampler, f.name)
        default = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
        if value == default and f.name not in ("steps", "schedule"):
            continue
        if f.name == "schedule":
            function, arguments = (value.func, value.keywords) if isinstance(value, functools.partial) else (value, {})
            name = getattr(function, "__name__", "")
            if name not in SCHEDULES or getattr(value, "args", ()):
                raise TypeError(f"a sampler with the schedule {value!r} cannot be kept in a file.")
            value = {"kind": name, **arguments}
        elif not isinstance(value, (bool, int, float, str)):
            raise TypeError(f"a sampler with {f.name}={value!r} cannot be kept in a file.")
        table[f.name] = value
    return table
