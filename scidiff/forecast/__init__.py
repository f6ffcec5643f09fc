"""Ensembles of the futures of a state: forecasters, their training, and forecasts as files.

Names are imported when first used. The package itself is the function: ``scidiff.forecast(model, initial, ...)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scidiff.lazy import callable_package, lazy_exports

if TYPE_CHECKING:
    from scidiff.forecast.analogues import Analogues
    from scidiff.forecast.autoregression import LinearInverseModel
    from scidiff.forecast.base import Forecaster
    from scidiff.forecast.climatology import Climatology
    from scidiff.forecast.conditional import ConditionalDenoiser, ConditionalDiffusion
    from scidiff.forecast.corrections import Conserve, Positive, Prescribe, StepContext
    from scidiff.forecast.direct import Deterministic, DropoutEnsemble, NoiseEnsemble, PerturbedEnsemble
    from scidiff.forecast.dyffusion import DYffusion
    from scidiff.forecast.exact import ExactForecaster
    from scidiff.forecast.files import load_forecaster, save_forecaster
    from scidiff.forecast.grid import Grid
    from scidiff.forecast.interpolator import Interpolator, Predictor
    from scidiff.forecast.optical_flow import OpticalFlow
    from scidiff.forecast.persistence import DampedPersistence, Persistence
    from scidiff.forecast.posterior import PosteriorForecaster
    from scidiff.forecast.rollout import forecast
    from scidiff.forecast.state import StateSpec
    from scidiff.forecast.verification import verify

__all__ = [
    "Analogues",
    "Climatology",
    "ConditionalDenoiser",
    "ConditionalDiffusion",
    "Conserve",
    "DYffusion",
    "DampedPersistence",
    "Deterministic",
    "DropoutEnsemble",
    "ExactForecaster",
    "Forecaster",
    "Grid",
    "Interpolator",
    "LinearInverseModel",
    "NoiseEnsemble",
    "OpticalFlow",
    "Persistence",
    "PerturbedEnsemble",
    "Positive",
    "PosteriorForecaster",
    "Predictor",
    "Prescribe",
    "StateSpec",
    "StepContext",
    "forecast",
    "load_forecaster",
    "save_forecaster",
    "verify",
]

_EXPORTS = {
    "Analogues": "scidiff.forecast.analogues",
    "Climatology": "scidiff.forecast.climatology",
    "ConditionalDenoiser": "scidiff.forecast.conditional",
    "ConditionalDiffusion": "scidiff.forecast.conditional",
    "Conserve": "scidiff.forecast.corrections",
    "DYffusion": "scidiff.forecast.dyffusion",
    "DampedPersistence": "scidiff.forecast.persistence",
    "Deterministic": "scidiff.forecast.direct",
    "DropoutEnsemble": "scidiff.forecast.direct",
    "ExactForecaster": "scidiff.forecast.exact",
    "Forecaster": "scidiff.forecast.base",
    "Grid": "scidiff.forecast.grid",
    "Interpolator": "scidiff.forecast.interpolator",
    "LinearInverseModel": "scidiff.forecast.autoregression",
    "NoiseEnsemble": "scidiff.forecast.direct",
    "OpticalFlow": "scidiff.forecast.optical_flow",
    "Persistence": "scidiff.forecast.persistence",
    "PerturbedEnsemble": "scidiff.forecast.direct",
    "Positive": "scidiff.forecast.corrections",
    "PosteriorForecaster": "scidiff.forecast.posterior",
    "Predictor": "scidiff.forecast.interpolator",
    "Prescribe": "scidiff.forecast.corrections",
    "StateSpec": "scidiff.forecast.state",
    "StepContext": "scidiff.forecast.corrections",
    "forecast": "scidiff.forecast.rollout",
    "load_forecaster": "scidiff.forecast.files",
    "save_forecaster": "scidiff.forecast.files",
    "verify": "scidiff.forecast.verification",
}
__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
callable_package(__name__, "scidiff.forecast.rollout:forecast")
