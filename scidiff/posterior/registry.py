"""The posterior samplers by name, for the command line and `scidiff.reconstruct`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from scidiff.arguments import near, require_kinds
from scidiff.posterior.base import GuidedSampler, MemberSampler
from scidiff.posterior.dps import DPS
from scidiff.posterior.fps import FPS
from scidiff.posterior.mcgdiff import MCGDiff
from scidiff.posterior.mmps import MMPS
from scidiff.posterior.tds import TDS

__all__ = ["get", "names", "suitable", "table"]

SAMPLERS: dict[str, type[MemberSampler]] = {"mmps": MMPS, "dps": DPS, "tds": TDS, "mcgdiff": MCGDiff, "fps": FPS}


def names() -> list[str]:
    """Names that `get` takes, recommended first."""
    return list(SAMPLERS)


def suitable(given: Iterable[str]) -> list[str]:
    """Names of the samplers that work with what a posterior offers, see `scidiff.posterior.base.offers`."""
    return [name for name, kind in SAMPLERS.items() if kind.requires <= frozenset(given)]


def table() -> list[dict[str, str]]:
    """One row per sampler: name, what it requires, first line of its documentation."""
    return [
        {"name": name, "requires": ", ".join(sorted(kind.requires)), "summary": (kind.__doc__ or "").split("\n")[0]}
        for name, kind in SAMPLERS.items()
    ]


def get(name: str, **parameters: Any) -> MemberSampler:
    """A sampler by name, with parameters of the method or of its integrator.

    Arguments:
        name: One of `names`.
        parameters: Fields of the class, ``get("mmps", iterations=10)``; for guided samplers also fields of the
            integrator, ``get("mmps", steps=32)``.

    Raises:
        ValueError: Unknown name.
        TypeError: Unknown parameter, or text where a number belongs; the message says what is expected.
    """
    if name not in SAMPLERS:
        raise ValueError(f"unknown sampler {name!r};{near(name, names())} samplers are {', '.join(names())}.")
    kind = SAMPLERS[name]
    own = {f.name: f.type for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    require_kinds(name, parameters, own)
    method = kind(**{key: value for key, value in parameters.items() if key in own})
    rest = {key: value for key, value in parameters.items() if key not in own}
    inner = {f.name: f.type for f in dataclasses.fields(method.sampler)} if isinstance(method, GuidedSampler) else {}
    if unknown := sorted(set(rest) - set(inner)):
        known = sorted({*own, *inner})
        hint = near(unknown[0], known)
        raise TypeError(f"{name} has no parameter {', '.join(unknown)};{hint} it has {', '.join(known)}.")
    require_kinds(name, rest, inner)
    if rest and isinstance(method, GuidedSampler):
        method = dataclasses.replace(method, sampler=dataclasses.replace(method.sampler, **rest))
    return method
