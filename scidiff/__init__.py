"""Diffusion models for scientific inverse problems, with answers that can be checked.

Every name is imported when first used: ``import scidiff`` alone loads neither torch nor xarray.
"""

from typing import TYPE_CHECKING

from scidiff.lazy import as_package, lazy_exports

if TYPE_CHECKING:  # packages that are called
    from scidiff.benchmark.grid import benchmark as _benchmark
    from scidiff.forecast.rollout import forecast as _forecast

    benchmark = as_package(_benchmark)
    forecast = as_package(_forecast)

__version__ = "0.1.0"

_EXPORTS = {
    "Cost": "scidiff.inference",
    "Ensemble": "scidiff.inference",
    "Likelihood": "scidiff.inference",
    "Posterior": "scidiff.inference",
    "benchmark": "scidiff.benchmark",
    "datasets": "scidiff.datasets",
    "errors": "scidiff.errors",
    "fields": "scidiff.fields",
    "forecast": "scidiff.forecast",
    "inference": "scidiff.inference",
    "linalg": "scidiff.linalg",
    "metrics": "scidiff.metrics",
    "nn": "scidiff.nn",
    "noise": "scidiff.noise",
    "operators": "scidiff.operators",
    "optional": "scidiff.optional",
    "plots": "scidiff.plots",
    "posterior": "scidiff.posterior",
    "priors": "scidiff.priors",
    "problems": "scidiff.problems",
    "protocols": "scidiff.protocols",
    "reconstruct": "scidiff.reconstruction",
    "rng": "scidiff.rng",
    "samplers": "scidiff.samplers",
    "schedules": "scidiff.schedules",
    "store": "scidiff.store",
    "testing": "scidiff.testing",
    "training": "scidiff.training",
}
__all__ = ["__version__", *_EXPORTS]
__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
