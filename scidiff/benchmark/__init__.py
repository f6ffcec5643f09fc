"""Samplers measured: against exact answers, against each other on problems, and by simulation.

Names are imported when first used. The package itself is the function: ``scidiff.benchmark(problems, samplers, ...)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scidiff.lazy import callable_package, lazy_exports

if TYPE_CHECKING:
    from scidiff.benchmark.budget import Budget
    from scidiff.benchmark.calibration import calibrate, exact_draws, from_name, from_prior
    from scidiff.benchmark.cluster import dask
    from scidiff.benchmark.engines import processes, serial
    from scidiff.benchmark.stein import posterior_score, stein_test
    from scidiff.benchmark.tuning import Tuning

__all__ = [
    "Budget",
    "Tuning",
    "calibrate",
    "dask",
    "exact_draws",
    "from_name",
    "from_prior",
    "posterior_score",
    "processes",
    "serial",
    "stein_test",
]

_EXPORTS = {
    "Budget": "scidiff.benchmark.budget",
    "Tuning": "scidiff.benchmark.tuning",
    "calibrate": "scidiff.benchmark.calibration",
    "dask": "scidiff.benchmark.cluster",
    "exact_draws": "scidiff.benchmark.calibration",
    "from_name": "scidiff.benchmark.calibration",
    "from_prior": "scidiff.benchmark.calibration",
    "posterior_score": "scidiff.benchmark.stein",
    "processes": "scidiff.benchmark.engines",
    "serial": "scidiff.benchmark.engines",
    "stein_test": "scidiff.benchmark.stein",
}
__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
callable_package(__name__, "scidiff.benchmark.grid:benchmark")
