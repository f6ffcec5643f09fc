r"""Ensemble Kalman guidance (EnKG): K particles share what an operator without derivatives tells each of them.

Both forms walk down the noise levels :math:`a \to b` with K particles :math:`u^i` and never differentiate the operator.

**Default form** (``form="kalman"``, ours). From the denoised state :math:`D^i = E[u_0 | u^i]` and a draw
:math:`x^i \sim p(u_0 | u^i)` of the prior (a few steps of its SDE), the deviations

.. math:: e^i = x^i - D^i, \qquad z^i = W (A(x^i) - A(D^i))

have the covariance of :math:`u_0` *given* the noised state, averaged over the particles, and that of its measurement.
The draw is updated with it as a draw of :math:`p(u_0 | u^i, y)` and noised to the next level,

.. math:: x_y^i = x^i + C_{ez}(C_{zz} + I)^{-1}\big(W(y - A(x^i)) + n^i\big), \qquad
    u^i \leftarrow x_y^i + b\,\epsilon^i, \qquad n^i, \epsilon^i \sim N(0, I).

For a Gaussian prior and a linear operator that covariance is the same for all particles, and the ensemble follows the
exact posterior at every level, up to the sampling error of K particles and the error of the inner draws. Late levels
have a small covariance, so they repair the sampling errors of early ones. For other priors the average covariance is an
approximation; several modes are not separated.

**Published form** (``form="published"``). With :math:`x^i` the end of Euler's ODE from :math:`u^i`,

.. math:: u^i \leftarrow u^i - \frac{\gamma}{\|c\|_F} \sum_j c_{ij} (u^j - \bar u), \qquad
    c_{ij} = \tfrac1K \big\langle W(A(x^i) - y), W(A(x^j) - \overline{A(x)}) \big\rangle,

then an Euler step of the ODE. The normalised step does not know how much the data say: the ensemble gathers near one
point whatever the noise. Take ``steps=80`` and ``schedule=karras`` with it, as the paper does.

Noise that is not Gaussian: see `scidiff.posterior.ensemble_kalman`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor

from scidiff.posterior.base import Run
from scidiff.posterior.ensemble_kalman import centred, increment, innovations, perturbations, populations, rows
from scidiff.posterior.population import PopulationSampler, piecewise
from scidiff.posterior.survival import replaced, survivors
from scidiff.protocols import Denoiser
from scidiff.samplers import DPMSolver, Euler
from scidiff.samplers.base import Path, level
from scidiff.schedules import Schedule, describe, karras, log_linear

__all__ = ["EnKG"]


@dataclass(frozen=True, repr=False)
class EnKG(PopulationSampler):
    r"""Ensemble Kalman guidance: particles share covariances instead of gradients; for black boxes.

    Diagnostics, one number per step: ``spread``, the standard deviation of the particles' estimates of :math:`u_0`
    (root mean square over the state), and ``chi2``, the mean squared whitened residual of the draws before the update.

    Arguments:
        particles: K. Errors of sampling fall as :math:`1/\sqrt K`; at the same K they are about half of those of `EKI`.
        steps: Number of noise levels.
        inner: Denoiser calls per step, all of them for the draw :math:`x^i`; the first also gives :math:`D^i`. Fewer
            than 5 are too few.
        schedule: Noise levels. The last draw is exact at any level, so the smallest one need not be tiny.
        inflation: Multiplies the deviations of the updated draws from their mean at every step; 1 leaves them.
        localisation: Correlations below about this many sampling errors are damped (see
            `scidiff.posterior.ensemble_kalman.taper`); 0 keeps all. 1 helps below about a hundred particles.
        form: "kalman" or "published".
        strength: :math:`\gamma` of the published form; authors' value.
        updates: Updates per step of the published form, made from 5 % to 95 % of the steps; authors' value.

    References:
        Ensemble Kalman Diffusion Guidance: A Derivative-free Method for Inverse Problems (Zheng et al., 2024),
        arXiv:2409.20175, algorithm 1. The draw, update, noise again scheme is that of Improving Diffusion Inverse
        Problem Solving with Decoupled Noise Annealing (Zhang et al., 2024), arXiv:2407.01521.
    """

    requires: ClassVar[frozenset[str]] = frozenset()

    particles: int = 512
    steps: int = 20
    inner: int = 8
    schedule: Schedule = partial(karras, sigma_min=0.05)
    inflation: float = 1.0
    localisation: float = 0.0
    form: Literal["kalman", "published"] = "kalman"
    strength: float = 2.0
    updates: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        Euler(self.steps, self.schedule)  # validates both
        if self.inner < 2:
            raise ValueError(f"inner must be at least 2, got {self.inner}.")
        if self.inflation < 1 or self.localisation < 0:
            raise ValueError(
                "inflation must be at least 1 and localisation not negative, "
                f"got {self.inflation} and {self.localisation}."
            )
        if self.form not in ("kalman", "published"):
            raise ValueError(f"form must be 'kalman' or 'published', got {self.form!r}.")
        if self.strength <= 0 or self.updates < 1:
            raise ValueError(
                f"strength must be positive and updates at least 1, got {self.strength} and {self.updates}."
            )

    def __repr__(self) -> str:
        return describe(self)

    def draw(self, run: Run) -> Tensor:
        p, path = run.posterior, Path("EnKG", self.schedule(self.steps).tolist(), run.callback)
        u = path.levels[0] * run.streams.randn(p.shape or (), p.device, p.dtype)
        with torch.no_grad():
            for step, (a, b) in enumerate(path):
                if self.form == "published":
                    u = self.published(run, u, a, b, step)
                else:
                    u = self.kalman(run, u, a, min(path.levels[-2], a / 4))
                    u = u + b * run.streams.randn_like(u) if b > 0 else u
                path.report(u)
        return u

    def kalman(self, run: Run, u: Tensor, a: float, last: float) -> Tensor:
        r"""Draws :math:`x_y` of :math:`p(u_0 | u, y)` at level a, through inner levels from a to ``last`` and 0."""
        D = denoise(run)(u, level(u, a))
        inner = DPMSolver(self.inner, partial(log_linear, sigma_min=last, sigma_max=a), stochastic=True)
        x = inner.integrate(denoise(run, D), u, run.streams)
        r_D, r = innovations(run, D, x)
        w = survivors(run)
        observe(run, x, r)
        e, z = centred(populations(run, x - D), w), centred(r_D - r, w)
        x = populations(run, x) + increment(e, z, r + perturbations(run, r), 1.0, self.localisation)
        x = replaced(run, x, w)
        return rows(x if self.inflation == 1 else x.mean(1, keepdim=True) + self.inflation * centred(x), u)

    def published(self, run: Run, u: Tensor, a: float, b: float, step: int) -> Tensor:
        """The published updates at level a, then an Euler step to level b."""
        if 0.05 * self.steps < step < 0.95 * self.steps:
            count = min(1 + (self.steps - step) // 4, 20)
            inner = Euler(count, partial(karras, sigma_max=max(a, 0.003)))
            for _ in range(self.updates):
                x = inner.integrate(denoise(run), u, run.streams) if count > 1 else denoise(run)(u, level(u, a))
                (r,) = innovations(run, x)
                alive = survivors(run)
                observe(run, x, r)
                c = r @ centred(r, alive).mT / self.particles  # r = W (y - A x): the two signs cancel
                w = self.strength / torch.linalg.matrix_norm(c).clamp(min=torch.finfo(c.dtype).tiny)
                move = w.reshape(-1, 1, 1) * c @ centred(populations(run, u))
                u = rows(replaced(run, populations(run, u) - move, alive), u)
        D = denoise(run)(u, level(u, a))
        return D + (b / a) * (u - D)


def denoise(run: Run, first: Tensor | None = None) -> Denoiser:
    """The prior's denoiser for the whole population, ``run.batch_size`` particles at a time; ``first`` is its first
    value where that is known already.
    """
    known = [] if first is None else [first]

    def call(u: Tensor, sigma: Tensor) -> Tensor:
        return known.pop() if known else piecewise(run, lambda part, v: part.denoise(v, sigma), u)

    return call


def observe(run: Run, x: Tensor, r: Tensor) -> None:
    """Notes spread and misfit of the estimates ``x`` with the residuals ``r``."""
    run.trace("spread", populations(run, x).var(1).mean().sqrt())
    run.trace("chi2", r.square().mean())
