"""Covariances and iterative solvers for batches of fields."""

from scidiff.linalg.blocks import BlockDiagonal
from scidiff.linalg.cosine import Cosine
from scidiff.linalg.covariance import Covariance, Dense, Diagonal, Isotropic, Spectral, as_covariance
from scidiff.linalg.low_rank import LowRank
from scidiff.linalg.random_fields import laplacian_power, matern
from scidiff.linalg.sine import Sine, sine_basis
from scidiff.linalg.solvers import SolveInfo, cg, gmres, lsqr
from scidiff.linalg.stationary import Stationary
from scidiff.linalg.svd import SVD, Frame, dense_svd

__all__ = [
    "SVD",
    "BlockDiagonal",
    "Cosine",
    "Covariance",
    "Dense",
    "Diagonal",
    "Frame",
    "Isotropic",
    "LowRank",
    "Sine",
    "SolveInfo",
    "Spectral",
    "Stationary",
    "as_covariance",
    "cg",
    "dense_svd",
    "gmres",
    "laplacian_power",
    "lsqr",
    "matern",
    "sine_basis",
]
