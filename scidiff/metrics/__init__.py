"""Scores of estimates and of ensembles, on torch tensors: members first, then the batch, then the field.

Every function reduces over the field only (`crps` not even over that), never over the batch. ``where`` restricts the
mean to a part of the field. A complex field counts as two real ones: its standard deviations are per real component.
"""

from scidiff.metrics.bands import band_errors
from scidiff.metrics.calibration import coverage, inside_interval, rank_histogram, spread_skill
from scidiff.metrics.scores import crps, energy_score, nrmse, psnr, rmse, ssim
from scidiff.metrics.spectra import power_spectrum
from scidiff.metrics.transport import sliced_wasserstein

__all__ = [
    "band_errors",
    "coverage",
    "crps",
    "energy_score",
    "inside_interval",
    "nrmse",
    "power_spectrum",
    "psnr",
    "rank_histogram",
    "rmse",
    "sliced_wasserstein",
    "spread_skill",
    "ssim",
]
