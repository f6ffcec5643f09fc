"""Ensembles of the futures of a state: forecasters, their training, and forecasts as files.

Names are imported when first used. The package itself is the function: ``scidiff.forecast(model, initial, ...)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scidiff.lazy import callable_package, lazy_exports

if TYPE_CHECKING:
    from scidiff.forecast.base import Forecaster
    from scidiff.forecast.corrections import Conserve, Positive, Prescribe, StepContext
    from scidiff.forecast.grid import Grid
    from scidiff.forecast.rollout import forecast
    from scidiff.forecast.state import StateSpec
    from scidiff.forecast.verification import verify

__all__ = ["Conserve", "Forecaster", "Grid", "Positive", "Prescribe", "StateSpec", "StepContext", "forecast", "verify"]

_EXPORTS = {
    "Conserve": "scidiff.forecast.corrections",
    "Forecaster": "scidiff.forecast.base",
    "Grid": "scidiff.forecast.grid",
    "Positive": "scidiff.forecast.corrections",
    "Prescribe": "scidiff.forecast.corrections",
    "StateSpec": "scidiff.forecast.state",
    "StepContext": "scidiff.forecast.corrections",
    "forecast": "scidiff.forecast.rollout",
    "verify": "scidiff.forecast.verification",
}
__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
callable_package(__name__, "scidiff.forecast.rollout:forecast")
