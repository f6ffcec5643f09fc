"""Ensembles of the futures of a state: forecasters, their training, and forecasts as files.

Names are imported when first used. The package itself is the function: ``scidiff.forecast(model, initial, ...)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scidiff.lazy import lazy_exports

if TYPE_CHECKING:
    from scidiff.forecast.base import Forecaster
    from scidiff.forecast.direct import Deterministic, DropoutEnsemble, NoiseEnsemble, PerturbedEnsemble
    from scidiff.forecast.dyffusion import DYffusion
    from scidiff.forecast.exact import ExactForecaster
    from scidiff.forecast.files import load_forecaster, save_forecaster
    from scidiff.forecast.interpolator import Interpolator, Predictor
    from scidiff.forecast.scores import CRPS
    from scidiff.forecast.state import StateSpec

__all__ = [
    "CRPS",
    "DYffusion",
    "Deterministic",
    "DropoutEnsemble",
    "ExactForecaster",
    "Forecaster",
    "Interpolator",
    "NoiseEnsemble",
    "PerturbedEnsemble",
    "Predictor",
    "StateSpec",
    "load_forecaster",
    "save_forecaster",
]

_EXPORTS = {
    "CRPS": "scidiff.forecast.scores",
    "DYffusion": "scidiff.forecast.dyffusion",
    "Deterministic": "scidiff.forecast.direct",
    "DropoutEnsemble": "scidiff.forecast.direct",
    "ExactForecaster": "scidiff.forecast.exact",
    "Forecaster": "scidiff.forecast.base",
    "Interpolator": "scidiff.forecast.interpolator",
    "NoiseEnsemble": "scidiff.forecast.direct",
    "PerturbedEnsemble": "scidiff.forecast.direct",
    "Predictor": "scidiff.forecast.interpolator",
    "StateSpec": "scidiff.forecast.state",
    "load_forecaster": "scidiff.forecast.files",
    "save_forecaster": "scidiff.forecast.files",
}
__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
