"""Tomography: line integrals of a field along rays, their adjoint, filtered backprojection, transmission of photons."""

from scidiff.operators.tomography.fan import FanBeam
from scidiff.operators.tomography.parallel import ParallelBeam

__all__ = ["FanBeam", "ParallelBeam"]
