r"""Forecasters by the names of a configuration: what is trained, with which loss, and what comes out.

==================  ================================================================================================
kind
==================  ================================================================================================
``deterministic``    one network, told the lead; squared error
``dropout``          the same with dropout, kept on in forecasts
``perturbed``        the deterministic network from perturbed initial states
``interpolator``     stage 1 of DYffusion
``dyffusion``        stage 2; ``interpolator`` is the path of stage 1
``noise``            all leads in one call of a network driven by noise; CRPS
``edm``              conditional diffusion of blocks, see `scidiff.forecast.diffusion_kinds`
``ddpm``             the same with the levels and the sampler of DDPM
``mcvd``             the same with past and future withheld in training
==================  ================================================================================================

A kind is a function (factory of networks, `Setting`) -> `Stage`. Others extend the table `KINDS` with theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from scidiff.errors import InputError
from scidiff.forecast.direct import Deterministic, DropoutEnsemble, NoiseEnsemble, PerturbedEnsemble
from scidiff.forecast.dyffusion import DYffusion
from scidiff.forecast.files import load_model
from scidiff.forecast.interpolator import Interpolator, Predictor
from scidiff.forecast.losses import BlockLoss, DYffusionLoss, InterpolationLoss, LeadLoss
from scidiff.forecast.scores import make_score
from scidiff.forecast.windows import WindowSource

__all__ = ["KINDS", "MakeNetwork", "Setting", "Stage", "make_stage"]

MakeNetwork = Callable[[int, int], nn.Module]
"""(inputs, outputs) -> a network of the configuration."""


@dataclass
class Setting:
    """What a kind is told.

    Arguments:
        channels: Prognostic channels C.
        forcings: Channels K of forcings and static fields.
        horizon, window: Steps predicted, past states.
        options: The rest of the table ``[forecaster]``; a kind takes out what it understands.
        score: The table ``[loss]``.
        folder: That paths are relative to.
        source: The training windows, for kinds that normalise by statistics of their own.
    """

    channels: int
    forcings: int
    horizon: int
    window: int = 1
    options: dict[str, Any] = field(default_factory=dict)
    score: Mapping[str, Any] = field(default_factory=dict)
    folder: Path = Path()
    source: WindowSource | None = None


@dataclass
class Stage:
    """A training problem.

    Arguments:
        network: What the loop trains.
        loss: What it minimises, on rows that are windows.
        finish: The trained network -> what is saved.
    """

    network: nn.Module
    loss: Any
    finish: Callable[[nn.Module], nn.Module]


def _lead(kind: type[Deterministic]) -> Callable[[MakeNetwork, Setting], Stage]:
    def make(network: MakeNetwork, s: Setting) -> Stage:
        residual = s.options.pop("residual", True)
        more = {"scale": s.options.pop("scale", 0.1)} if kind is PerturbedEnsemble else {}
        predictor = Predictor(network(s.window * s.channels + s.forcings, s.channels), residual)
        loss = LeadLoss(s.channels, s.horizon, s.window, make_score(**{"kind": "squared", **s.score}))
        return Stage(predictor, loss, lambda f: kind(f, s.horizon, s.window, **more))  # type: ignore[arg-type]

    return make


def _noise(network: MakeNetwork, s: Setting) -> Stage:
    residual, blocks = s.options.pop("residual", True), int(s.options.pop("blocks", 1))
    inputs = s.window * s.channels + (s.window + s.horizon) * s.forcings
    predictor = Predictor(network(inputs, s.horizon * s.channels), residual)
    if (path := s.options.pop("start", None)) is not None:
        _take_over(predictor, s.folder / path)
    loss = BlockLoss(s.channels, s.horizon, s.window, make_score(**{"kind": "crps", **s.score}), blocks)
    return Stage(predictor, loss, lambda f: NoiseEnsemble(f, s.horizon, s.window))  # type: ignore[arg-type]


def _take_over(predictor: Predictor, path: Path) -> None:
    """The weights of a trained forecaster with the same network.

    Raises:
        InputError: No such file, or another network.
    """
    try:
        predictor.load_state_dict(load_model(path).forecaster.state_dict())
    except (AttributeError, RuntimeError) as error:
        raise InputError(f"{path}: forecaster.start must be a run with the same network ({error}).") from error


def _interpolator(network: MakeNetwork, s: Setting) -> Stage:
    residual, at = s.options.pop("residual", True), s.options.pop("forcing_at", "target")
    inputs = (s.window + 1) * s.channels + s.forcings
    module = Interpolator(network(inputs, s.channels), s.horizon, s.window, residual)
    score = make_score(**{"kind": "squared", **s.score})
    return Stage(module, InterpolationLoss(s.channels, s.horizon, s.window, score, at), lambda i: i)


def _dyffusion(network: MakeNetwork, s: Setting) -> Stage:
    path = s.options.pop("interpolator", None)
    if path is None:
        raise ValueError('[forecaster] needs interpolator = the path of stage 1 (kind = "interpolator").')
    interpolator = load_model(s.folder / path)
    if not isinstance(interpolator, Interpolator):
        raise InputError(f"{path}: expected an interpolator (stage 1), found a {type(interpolator).__name__}.")
    if (interpolator.horizon, interpolator.window) != (s.horizon, s.window):
        raise InputError(
            f"{path}: the interpolator has horizon {interpolator.horizon} and window {interpolator.window}; "
            f"the forecaster asks for {s.horizon} and {s.window}."
        )
    residual = s.options.pop("residual", True)
    weights = {k: s.options.pop(k) for k in ("reconstruction", "lookahead") if k in s.options}
    conditions = 0 if s.options.get("conditioning", "none") == "none" else s.window * s.channels
    predictor = Predictor(network(s.channels + conditions + s.forcings, s.channels), residual)
    options, s.options = dict(s.options), {}
    score = make_score(**{"kind": "squared", **s.score})
    model = DYffusion(predictor, interpolator, **options)
    loss = DYffusionLoss(model, s.channels, score, **weights)
    return Stage(predictor, loss, lambda f: DYffusion(f, interpolator, **options))  # type: ignore[arg-type]


KINDS: dict[str, Callable[[MakeNetwork, Setting], Stage] | str] = {
    "deterministic": _lead(Deterministic),
    "dropout": _lead(DropoutEnsemble),
    "perturbed": _lead(PerturbedEnsemble),
    "interpolator": _interpolator,
    "dyffusion": _dyffusion,
    "noise": _noise,
    "edm": "scidiff.forecast.diffusion_kinds:edm_stage",
    "ddpm": "scidiff.forecast.diffusion_kinds:ddpm_stage",
    "mcvd": "scidiff.forecast.diffusion_kinds:mcvd_stage",
}
"""Name -> function, or ``module:function`` to be imported when it is asked for."""


def make_stage(kind: str, network: MakeNetwork, setting: Setting) -> Stage:
    """The training problem of a kind.

    Raises:
        ValueError: A kind or an option that does not exist.
        InputError: A stage 1 that does not fit.
    """
    if kind not in KINDS:
        raise ValueError(f"forecaster.kind is '{kind}'; expected one of {', '.join(KINDS)}.")
    make = KINDS[kind]
    if isinstance(make, str):
        module, name = make.split(":")
        make = getattr(import_module(module), name)
    try:
        stage = make(network, setting)  # type: ignore[operator]
    except TypeError as error:
        raise ValueError(f"[forecaster] of kind '{kind}': {error}.") from error
    if setting.options:
        raise ValueError(f"[forecaster] of kind '{kind}' has no '{sorted(setting.options)[0]}'.")
    return stage
