"""Losses by the names of a configuration file: the table ``[loss]`` becomes an object."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from inspect import signature
from typing import Any

from scidiff.training.elbo import ELBOLoss, MonotoneSchedule
from scidiff.training.hybrid import HybridLoss, cosine_levels, linear_levels
from scidiff.training.levels import Cosine, Levels, LinearVP, LogNormal, LogUniform, Straight, logit_normal
from scidiff.training.losses import DenoisingLoss, Likelihood, Loss, MinSNR, edm, simple, velocity

__all__ = ["LEVELS", "make_loss"]

LEVELS: dict[str, Callable[..., Levels]] = {
    "log-normal": LogNormal,
    "logit-normal": logit_normal,
    "log-uniform": LogUniform,
    "cosine": Cosine,
    "linear": LinearVP,
    "straight": Straight,
}


def _hybrid(steps: int = 1000, schedule: str = "cosine", weight: float = 1e-3) -> Loss:
    return HybridLoss(_pick({"cosine": cosine_levels, "linear": linear_levels}, schedule, "schedule")(steps), weight)


def _elbo(low: float = 0.002, high: float = 80.0, features: int = 64) -> Loss:
    return ELBOLoss(MonotoneSchedule(low, high, features))


_WEIGHTS: dict[str, Callable[..., Any]] = {
    "edm": lambda levels: edm,
    "simple": lambda levels: simple,
    "velocity": lambda levels: velocity,
    "likelihood": lambda levels: Likelihood(levels),
    "min-snr": lambda levels, gamma=5.0: MinSNR(gamma),
}
_OTHERS: dict[str, Callable[..., Loss]] = {"hybrid": _hybrid, "elbo": _elbo}


def make_loss(kind: str = "edm", levels: dict[str, Any] | None = None, **options: Any) -> Loss:
    """A loss by name, for example ``make_loss("velocity", levels={"kind": "logit-normal", "mean": 0.0})``.

    Arguments:
        kind: edm, simple, velocity, likelihood, min-snr (weights of one squared error), hybrid or elbo.
        levels: Law of the noise levels for the weights: its ``kind`` and its arguments; log-normal by default.
        options: Arguments of the loss: ``gamma`` (min-snr); ``steps``, ``schedule``, ``weight`` (hybrid); ``low``,
            ``high``, ``features`` (elbo).

    Raises:
        ValueError: A name or an option that does not exist.
    """
    if kind in _OTHERS:
        if levels is not None:
            raise ValueError(f"the loss '{kind}' draws its own noise levels; remove loss.levels.")
        return _call(_OTHERS[kind], kind, options)
    weight = _pick({**_WEIGHTS, **_OTHERS}, kind, "kind")
    table = dict(levels or {})
    law = str(table.pop("kind", "log-normal"))
    drawn = _call(_pick(LEVELS, law, "levels.kind"), law, table)
    return DenoisingLoss(_call(weight, kind, {"levels": drawn, **options}), drawn)


def _pick(choices: dict[str, Any], name: str, key: str) -> Any:
    if name not in choices:
        near = get_close_matches(name, choices, 1)
        raise ValueError(
            f"{key} is '{name}'; " + (f"did you mean '{near[0]}'?" if near else f"it can be {[*choices]}.")
        )
    return choices[name]


def _call(make: Callable[..., Any], name: str, options: dict[str, Any]) -> Any:
    known = [*signature(make).parameters]
    wrong = [key for key in options if key not in known]
    if wrong:
        given = [key for key in known if key != "levels"]
        raise ValueError(f"'{name}' has no '{wrong[0]}'; it has {given}.")
    return make(**options)
