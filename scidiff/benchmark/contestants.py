r"""Who answers: samplers of scidiff, of deepinv, classical methods, and any function.

==========================  ===============================================================================
written as                  is
==========================  ===============================================================================
``mmps``                    a sampler of `scidiff.posterior` with its defaults
``mmps:iterations=4``       the same with other parameters
``deepinv-dps``             a sampler of deepinv on the same prior and data (`scidiff.interop.deepinv_samplers`)
``baseline-tv``             an answer of the problem's own `baselines`: one field, no spread
``baseline-best``           the nearest of them to the truth, case by case: a bar that knows the answer
``exact draws``             draws of the exact posterior, where it is known: what chance alone does
``("mine", function)``      any function of (posterior, members, generator) that returns (M, B, \*X) or an `Ensemble`
==========================  ===============================================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor

from scidiff.arguments import near
from scidiff.benchmark.certify import EXACT, parse
from scidiff.benchmark.questions import Question
from scidiff.inference import Ensemble
from scidiff.posterior import get, names

__all__ = ["BASELINE", "DEEPINV", "Contestant", "contestant"]

BASELINE = "baseline-"
BEST = "best"
DEEPINV = "deepinv-"

Draw = Callable[[Any, int, Generator], "Ensemble | Tensor"]


@dataclass(frozen=True)
class Contestant:
    """A method that takes part.

    Arguments:
        name: Name in tables.
        parameters: Parameters that are not the defaults.
        function: What draws, for methods that are not known by name.
    """

    name: str
    parameters: dict[str, Any] = field(default_factory=dict)
    function: Draw | None = None

    @property
    def label(self) -> str:
        """Name and parameters, ``mmps:iterations=4``."""
        listed = ",".join(f"{key}={value}" for key, value in self.parameters.items())
        return f"{self.name}:{listed}" if listed else self.name

    @property
    def tunable(self) -> bool:
        """Whether the method takes parameters by name."""
        return self.function is None and self.name in names()

    @property
    def foreign(self) -> bool:
        """Whether it is a function, which states no requirements."""
        return self.function is not None and not hasattr(self.function, "requires")

    @property
    def population(self) -> bool:
        """Whether members come from particles that are computed together: their cost is shared."""
        return self.tunable and hasattr(get(self.name, **self.parameters), "particles")

    def with_parameters(self, **parameters: Any) -> Contestant:
        """The same method with more parameters."""
        return Contestant(self.name, {**self.parameters, **parameters}, self.function)

    def describe(self) -> str:
        """Everything that decides what it does, for fingerprints."""
        if self.tunable:
            return re.sub(r" at 0x[0-9a-f]+", "", repr(get(self.name, **self.parameters)))
        own = self.function
        where = f"{getattr(own, '__module__', '')}.{getattr(own, '__qualname__', type(own).__name__)}" if own else ""
        return f"{self.label} {where}"

    def draw(self, asked: Question, members: int, generator: Generator) -> Ensemble:
        """Members of the posterior; a single one from methods that only estimate.

        Raises:
            TypeError: the method cannot answer this question.
        """
        if self.function is not None:
            drawn = self.function(asked.posterior, members, generator)
        elif self.name == EXACT:
            if asked.exact is None:
                raise TypeError("no exact posterior is known here.")
            drawn = asked.exact.sample(members, generator)[:, None]
        elif self.name.startswith(BASELINE):
            drawn = _classical(asked, self.name.removeprefix(BASELINE))[None]
        elif self.name.startswith(DEEPINV):
            from scidiff.interop.deepinv_samplers import draw

            drawn = draw(self.name.removeprefix(DEEPINV), asked.posterior, members, generator, **self.parameters)
        else:
            drawn = get(self.name, **self.parameters)(asked.posterior, members, generator)
        ensemble = drawn if isinstance(drawn, Ensemble) else Ensemble(drawn)
        if ensemble.samples.ndim < 3 or ensemble.samples.shape[1] != 1:
            raise ValueError(
                f"{self.name} returned shape {tuple(ensemble.samples.shape)}; expected (members, 1, *field)."
            )
        if not bool(torch.isfinite(torch.view_as_real(s) if (s := ensemble.samples).is_complex() else s).all()):
            raise ValueError("the ensemble holds NaN or infinite values.")
        return ensemble


def _classical(asked: Question, wanted: str) -> Tensor:
    """One of the problem's own answers, (1, *field)."""
    found = asked.estimates()
    if wanted == BEST and found and asked.truth is not None:
        truth = asked.truth
        return min(found.values(), key=lambda field: float((field - truth).abs().mean()))
    if wanted not in found:
        raise TypeError(f"{asked.name} has no baseline {wanted!r}; it has {', '.join(found) or 'none'}.")
    return found[wanted]


def contestant(given: Any) -> Contestant:
    """A contestant from what a person writes, see above.

    Raises:
        ValueError: unknown name or wrong parameter.
    """
    if isinstance(given, Contestant):
        return given
    if isinstance(given, tuple):
        name, function = given
        return Contestant(str(name), {}, function)
    if not isinstance(given, str):
        return Contestant(type(given).__name__, {}, given)
    name, parameters = parse(given)
    if name == EXACT or name.startswith((BASELINE, DEEPINV)):
        if name.startswith(DEEPINV):
            from scidiff.interop.deepinv_samplers import METHODS

            plain = name.removeprefix(DEEPINV)
            if plain not in METHODS:
                raise ValueError(
                    f"unknown sampler of deepinv {plain!r};{near(plain, METHODS)} there are {', '.join(METHODS)}."
                )
        return Contestant(name, parameters or {})
    if name not in names():
        raise ValueError(f"unknown sampler {name!r};{near(name, names())} samplers are {', '.join(names())}.")
    try:
        get(name, **(parameters or {}))
    except TypeError as error:
        raise ValueError(f"{given}: {error}") from error
    return Contestant(name, parameters or {})
