"""Scores of estimates and of ensembles, on torch tensors: members first, then the batch, then the field.

Every function reduces over the field only (`crps` not even over that), never over the batch. ``where`` restricts the
mean to a part of the field. A complex field counts as two real ones: its standard deviations are per real component.

Scores of many cases, as those of a forecast, are averaged before ratios and roots are taken: `Accumulator`.
"""

from scidiff.metrics.accumulator import Accumulator
from scidiff.metrics.bands import band_errors
from scidiff.metrics.bootstrap import block_bootstrap, resampled_means
from scidiff.metrics.calibration import coverage, inside_interval, rank_histogram, spread_skill
from scidiff.metrics.scores import brier_score, crps, energy_score, gaussian_crps, nrmse, psnr, rmse, ssim
from scidiff.metrics.spectra import power_spectrum
from scidiff.metrics.transport import sliced_wasserstein
from scidiff.metrics.verification import (
    ACC,
    CRPS,
    RMSE,
    Bias,
    Brier,
    Energy,
    Metric,
    Ranks,
    Reliability,
    Spectrum,
    Spread,
    SpreadSkill,
)

__all__ = [
    "ACC",
    "Accumulator",
    "Bias",
    "Brier",
    "CRPS",
    "Energy",
    "Metric",
    "RMSE",
    "Ranks",
    "Reliability",
    "Spectrum",
    "Spread",
    "SpreadSkill",
    "band_errors",
    "block_bootstrap",
    "brier_score",
    "coverage",
    "crps",
    "energy_score",
    "gaussian_crps",
    "inside_interval",
    "nrmse",
    "power_spectrum",
    "psnr",
    "rank_histogram",
    "resampled_means",
    "rmse",
    "sliced_wasserstein",
    "spread_skill",
    "ssim",
]
