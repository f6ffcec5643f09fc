"""Magnetic resonance imaging: encoding operator, sampling masks, coil maps, noise, calibration checks."""

from scidiff.operators.mri import masks
from scidiff.operators.mri.encoding import CartesianMRI, fft2c, ifft2c

__all__ = ["CartesianMRI", "fft2c", "ifft2c", "masks"]
