"""Ensembles of the futures of a state: forecasters, their training, and forecasts as files.

Names are imported when first used. The package itself is the function: ``scidiff.forecast(model, initial, ...)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scidiff.lazy import lazy_exports

if TYPE_CHECKING:
    from scidiff.forecast.base import Forecaster
    from scidiff.forecast.exact import ExactForecaster

__all__ = ["ExactForecaster", "Forecaster"]

_EXPORTS = {
    "ExactForecaster": "scidiff.forecast.exact",
    "Forecaster": "scidiff.forecast.base",
}
__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
