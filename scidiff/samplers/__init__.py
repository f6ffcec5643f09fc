"""Integrators: from large noise to none, given a denoiser."""

from scidiff.samplers.base import Sampler
from scidiff.samplers.ddim import DDIM
from scidiff.samplers.ddpm import DDPM
from scidiff.samplers.deis import DEIS
from scidiff.samplers.dpm_solver import DPMSolver
from scidiff.samplers.dpm_solver_2s import DPMSolver2S
from scidiff.samplers.dpm_solver_3m import DPMSolver3M
from scidiff.samplers.dpm_solver_single import DPMSolverSingle
from scidiff.samplers.euler import Euler
from scidiff.samplers.heun import Heun
from scidiff.samplers.predictor_corrector import PredictorCorrector
from scidiff.samplers.unipc import UniPC

__all__ = [
    "DDIM", "DDPM", "DEIS", "DPMSolver", "DPMSolver2S", "DPMSolver3M", "DPMSolverSingle", "Euler", "Heun",
    "PredictorCorrector", "Sampler", "UniPC",
]  # fmt: skip
