"""Ensembles of the futures of a state: forecasters, their training, and forecasts as files.

Names are imported when first used. The package itself is the function: ``scidiff.forecast(model, initial, ...)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scidiff.lazy import lazy_exports

if TYPE_CHECKING:
    from scidiff.forecast.base import Forecaster
    from scidiff.forecast.grid import Grid
    from scidiff.forecast.state import StateSpec

__all__ = ["Forecaster", "Grid", "StateSpec"]

_EXPORTS = {
    "Forecaster": "scidiff.forecast.base",
    "Grid": "scidiff.forecast.grid",
    "StateSpec": "scidiff.forecast.state",
}
__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
