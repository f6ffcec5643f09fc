"""Radio interferometry: visibilities, closure quantities, gains, arrays of stations, dirty images."""

from scidiff.operators.interferometry.arrays import EHT_2017, UVTracks, greenwich_hour_angle, thermal_noise, uv_tracks
from scidiff.operators.interferometry.closure_sets import ClosureSet, quadrangles, triangles
from scidiff.operators.interferometry.closures import (
    ClosurePhases,
    LogClosureAmplitudes,
    TotalFlux,
    VisibilityAmplitudes,
    debiased,
    wrap,
)
from scidiff.operators.interferometry.gains import StationGains, draw_gains
from scidiff.operators.interferometry.images import Beam, dirty_beam, dirty_image, fit_beam
from scidiff.operators.interferometry.likelihoods import (
    VisibilityData,
    chi2,
    closure_likelihoods,
    of_amplitudes,
    of_closure_amplitudes,
    of_closure_phases,
    of_flux,
    of_visibilities,
)
from scidiff.operators.interferometry.nufft import NUFFTVisibilities
from scidiff.operators.interferometry.units import wavelengths
from scidiff.operators.interferometry.visibilities import Visibilities, angles

__all__ = [
    "EHT_2017",
    "Beam",
    "ClosurePhases",
    "ClosureSet",
    "LogClosureAmplitudes",
    "NUFFTVisibilities",
    "StationGains",
    "TotalFlux",
    "UVTracks",
    "Visibilities",
    "VisibilityAmplitudes",
    "VisibilityData",
    "angles",
    "chi2",
    "closure_likelihoods",
    "debiased",
    "dirty_beam",
    "dirty_image",
    "draw_gains",
    "fit_beam",
    "greenwich_hour_angle",
    "of_amplitudes",
    "of_closure_amplitudes",
    "of_closure_phases",
    "of_flux",
    "of_visibilities",
    "quadrangles",
    "thermal_noise",
    "triangles",
    "uv_tracks",
    "wavelengths",
    "wrap",
]
