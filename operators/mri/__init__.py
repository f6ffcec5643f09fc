"""Magnetic resonance imaging: encoding operator, sampling masks, coil maps, noise, check of the forward model."""

from scidiff.operators.mri import masks
from scidiff.operators.mri.consistency import ForwardCheck, cg_sense, held_back_chi2, power_spectrum
from scidiff.operators.mri.encoding import CartesianMRI, fft2c, ifft2c
from scidiff.operators.mri.espirit import CoilMaps, calibration_block, espirit
from scidiff.operators.mri.noise import NoiseEstimate, calibration_noise, estimate_noise, prewhiten

__all__ = [
    "CartesianMRI",
    "CoilMaps",
    "ForwardCheck",
    "NoiseEstimate",
    "calibration_block",
    "calibration_noise",
    "cg_sense",
    "espirit",
    "estimate_noise",
    "fft2c",
    "held_back_chi2",
    "ifft2c",
    "masks",
    "power_spectrum",
    "prewhiten",
]
