r"""Ensemble Kalman inversion (EKI): draws of the prior are moved to the data, without a diffusion in between.

K draws :math:`u^i` of the prior are updated T times with the likelihood :math:`p(y | u)^{1/T}`,

.. math:: u^i \leftarrow u^i + C_{uz}(C_{zz} + T I)^{-1}\big(W(y - A(u^i)) + \sqrt{T}\,n^i\big),
    \qquad n^i \sim N(0, I),

with the covariances of the particles. For a Gaussian prior and a linear operator the ensemble is one of the exact
posterior up to the sampling error of K particles. **For any other prior it is a baseline**: particles stay in the span
of the prior draws and leave the prior's law as they move along it, and fine detail is that of mixed fields.

Noise that is not Gaussian: see `scidiff.posterior.ensemble_kalman`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from scidiff.errors import NumericalError
from scidiff.posterior.base import Run
from scidiff.posterior.enkg import denoise, observe
from scidiff.posterior.ensemble_kalman import centred, increment, innovations, perturbations, populations, rows
from scidiff.posterior.population import PopulationSampler
from scidiff.posterior.survival import replaced, survivors
from scidiff.samplers import DPMSolver, Sampler

__all__ = ["EKI"]


@dataclass(frozen=True)
class EKI(PopulationSampler):
    r"""Ensemble Kalman inversion of prior draws: a cheap baseline for black boxes, exact on Gaussians.

    Diagnostics, one number per iteration: ``spread`` and ``chi2`` before the update, as for `EnKG`.

    Arguments:
        particles: K. The sampling error of the mean is about :math:`\sqrt{d_y / K}` posterior standard deviations.
        sampler: Integrator that makes the prior draws.
        iterations: T; more than one only matters for operators that are not linear.
        localisation: Correlations below about this many sampling errors are damped; 0 keeps all.

    References:
        Ensemble Kalman methods for inverse problems (Iglesias, Law and Stuart, 2013), arXiv:1209.2736; tempering as in
        Adaptive regularisation for ensemble Kalman inversion (Iglesias and Yang, 2021), arXiv:2006.14980.
    """

    requires: ClassVar[frozenset[str]] = frozenset()

    particles: int = 512
    sampler: Sampler = field(default_factory=lambda: DPMSolver(32, stochastic=True))
    iterations: int = 4
    localisation: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {self.iterations}.")
        if self.localisation < 0:
            raise ValueError(f"localisation must not be negative, got {self.localisation}.")

    def draw(self, run: Run) -> Tensor:
        p, T = run.posterior, float(self.iterations)
        with torch.no_grad():
            u = self.sampler.start(run.streams, p.shape or (), p.device, p.dtype)
            u = self.sampler.integrate(denoise(run), u, run.streams, run.callback)
            for iteration in range(self.iterations):
                (r,) = innovations(run, u)
                w = survivors(run)
                observe(run, u, r)
                noisy = r + T**0.5 * perturbations(run, r)
                move = increment(centred(populations(run, u), w), centred(-r, w), noisy, T, self.localisation)
                u = rows(replaced(run, populations(run, u) + move, w), u)
                if not bool(torch.isfinite(u).all()):
                    raise NumericalError(
                        f"the particles are not finite after update {iteration + 1} (noise level 0); "
                        "check the forward model, or take more iterations."
                    )
        return u
