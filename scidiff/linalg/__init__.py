"""Covariances and iterative solvers for batches of fields."""

from scidiff.linalg.covariance import Covariance, Dense, Diagonal, Isotropic, Spectral, as_covariance
from scidiff.linalg.low_rank import LowRank
from scidiff.linalg.solvers import SolveInfo, cg, gmres, lsqr
from scidiff.linalg.stationary import Stationary

__all__ = [
    "Covariance",
    "Dense",
    "Diagonal",
    "Isotropic",
    "LowRank",
    "SolveInfo",
    "Spectral",
    "Stationary",
    "as_covariance",
    "cg",
    "gmres",
    "lsqr",
]
