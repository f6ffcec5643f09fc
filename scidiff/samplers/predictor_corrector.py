r"""Langevin corrections after each step of any integrator.

A predictor carries the state from level a to level b; then each correction is one Langevin step towards the law at b,

.. math:: u \leftarrow u + \epsilon\,s + \sqrt{2\epsilon}\,z, \qquad s = \frac{D(u, b) - u}{b^2}, \qquad
          \epsilon = \min\Big(2\,\mathrm{snr}^2 \frac{d}{\|s\|^2},\; b^2\Big), \quad z \sim N(0, I),

one step size per row of d numbers. The paper takes :math:`\|z\|^2` averaged over the batch where d stands. The bound is
ours: the law at level b has no direction narrower than b, and longer steps are unstable where it is that narrow (few
precise data make such directions, which the average over d numbers in :math:`\|s\|^2/d` hides).

Corrections take away what coarse steps and approximate guidance did wrong at larger levels, at one denoiser call each.
A Langevin step itself makes the variance of a direction of width w too large by the fraction
:math:`\epsilon / (2 w^2)`, 2.6 % where :math:`w = b`; that its size depends on the state multiplies the variance by
:math:`1 + 2/d`, which matters for problems of few numbers. Multistep predictors extrapolate along
their own trajectory, without the noise of corrections, and keep their order.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from scidiff.inference import Cost
from scidiff.protocols import Callback, Denoiser, Prior
from scidiff.rng import Streams
from scidiff.samplers.base import Correction, Path, Sampler, level
from scidiff.samplers.dpm_solver import DPMSolver
from scidiff.schedules import Schedule

__all__ = ["PredictorCorrector"]


@dataclass(frozen=True, repr=False)
class PredictorCorrector(Sampler):
    """An integrator with Langevin corrections after each step but the last.

    Arguments:
        predictor: Any integrator; ``steps`` and ``schedule`` are its own.
        corrections: Number of Langevin steps after each of its steps, one denoiser call each.
        snr: Signal-to-noise ratio that sets their size; 0.16 is the paper's for CIFAR-10.

    References:
        Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021),
        arXiv:2011.13456, algorithms 2 and 4.
    """

    steps: int = field(init=False, repr=False, compare=False)
    schedule: Schedule = field(init=False, repr=False, compare=False)
    predictor: Sampler = field(default_factory=DPMSolver)
    corrections: int = 1
    snr: float = 0.16

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", self.predictor.steps)
        object.__setattr__(self, "schedule", self.predictor.schedule)
        super().__post_init__()
        if self.corrections < 1:
            raise ValueError(f"corrections must be at least 1, got {self.corrections}.")
        if not 0 < self.snr < 1:
            raise ValueError(f"snr must lie between 0 and 1, got {self.snr}.")

    @property
    def intervals(self) -> int:
        return self.predictor.intervals

    @property
    def calls(self) -> int:
        return self.predictor.calls + self.corrections * (self.intervals - 1)

    def levels(self) -> list[float]:
        return self.predictor.levels()

    def denoiser(self, prior: Prior, cost: Cost) -> Denoiser:
        return self.predictor.denoiser(prior, cost)

    def path(self, callback: Callback | None = None, correct: Correction | None = None) -> Path:
        return self.predictor.path(callback, correct)

    def integrate(
        self,
        denoise: Denoiser,
        u: Tensor,
        streams: Streams,
        callback: Callback | None = None,
        correct: Correction | None = None,
    ) -> Tensor:
        def langevin(u: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
            before = D = denoise(u, level(u, sigma))
            for done in range(1, self.corrections + 1):
                s = (D - u) / sigma**2
                size = 2 * self.snr**2 / s.flatten(1).square().mean(1)
                epsilon = size.clamp(max=sigma**2).reshape(-1, *[1] * (u.ndim - 1))
                u = u + epsilon * s + torch.sqrt(2 * epsilon) * streams.randn_like(u)
                if done < self.corrections:
                    D = denoise(u, level(u, sigma))
            return (u, before) if correct is None else (correct(u, sigma)[0], before)

        return self.predictor.integrate(denoise, u, streams, callback, langevin)
