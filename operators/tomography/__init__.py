"""Tomography: line integrals of a field along rays, their adjoint, filtered backprojection, transmission of photons."""

from scidiff.operators.tomography.astra import AstraProjector
from scidiff.operators.tomography.ellipses import Ellipse, ellipse_field, ellipse_sinogram
from scidiff.operators.tomography.fan import FanBeam
from scidiff.operators.tomography.parallel import ParallelBeam
from scidiff.operators.tomography.projector import Projector
from scidiff.operators.tomography.transmission import LogData, Transmission, log_transform

__all__ = [
    "AstraProjector",
    "Ellipse",
    "FanBeam",
    "LogData",
    "ParallelBeam",
    "Projector",
    "Transmission",
    "ellipse_field",
    "ellipse_sinogram",
    "log_transform",
]
