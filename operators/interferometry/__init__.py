"""Radio interferometry: visibilities, closure quantities, gains, arrays of stations, dirty images."""

from scidiff.operators.interferometry.closure_sets import ClosureSet, quadrangles, triangles
from scidiff.operators.interferometry.closures import (
    ClosurePhases,
    LogClosureAmplitudes,
    TotalFlux,
    VisibilityAmplitudes,
    debiased,
    wrap,
)
from scidiff.operators.interferometry.units import wavelengths
from scidiff.operators.interferometry.visibilities import Visibilities, angles

__all__ = [
    "ClosurePhases",
    "ClosureSet",
    "LogClosureAmplitudes",
    "TotalFlux",
    "Visibilities",
    "VisibilityAmplitudes",
    "angles",
    "debiased",
    "quadrangles",
    "triangles",
    "wavelengths",
    "wrap",
]
