r"""Plug-and-play diffusion models (PnP-DM): split Gibbs sampling.

Field and data are coupled through a copy :math:`z` of the field, :math:`\pi(x, z) \propto p(x)\, p(y|z)\,
N(z; x, \rho^2 I)`, and drawn in turn:

.. math:: z \sim p(y | z)\, N(z; x, \rho^2 I), \qquad x \sim p(x)\, N(x; z, \rho^2 I).

The second is what a diffusion model does: :math:`z` is a noised state at level :math:`\rho`, and a stochastic
integrator of `scidiff.samplers` carries it from there to zero. The first has a closed form for linear operators and
Gaussian noise (`perturb_and_solve` by conjugate gradients); for other likelihoods `langevin` moves the z of the
iteration before.

:math:`\rho` falls by a factor ``decay`` each iteration from ``rho_max`` to ``rho_min``, in units of u. The chain aims
at a posterior whose noise is larger by :math:`\rho^2` (seen by x), exact as :math:`\rho \to 0`; but it moves by about
:math:`\rho` an iteration and forgets its past ever more slowly. **It mixes badly between modes**: what mode a member is
in is settled while :math:`\rho` is large, when the data are hardly seen.

Members are independent chains and their last states. The paper averages the last 20 states of one chain, which
estimates the mean but is no draw; it is not offered.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from scidiff.posterior.base import MemberSampler, Run
from scidiff.posterior.local import closed_form, langevin, perturb_and_solve
from scidiff.samplers import DPMSolver, Sampler
from scidiff.samplers.base import Path
from scidiff.schedules import log_linear

__all__ = ["PnPDM", "starting_at"]

SCHEDULE = functools.partial(log_linear, sigma_min=0.01)


def starting_at(sampler: Sampler, rho: float) -> Sampler:
    """The integrator with all its steps between ``rho`` and the smallest level of its schedule."""
    schedule: Callable[..., Tensor] = sampler.schedule
    return dataclasses.replace(sampler, schedule=functools.partial(schedule, sigma_max=rho))


@dataclass(frozen=True)
class PnPDM(MemberSampler):
    """Split Gibbs: draws from prior and likelihood in turn, coupled ever more tightly; nearly exact for one mode.

    Diagnostics, means over iterations and members: ``iterations`` and relative ``residual`` of the solver, or
    ``acceptance`` of Langevin moves.

    Arguments:
        sampler: Integrator of the prior; its steps are made in every iteration, from rho down. Its schedule must take
            ``sigma_max`` and end below rho_min. It must be stochastic: an ODE does not draw from p(x | z). With
            a coarse grid variance piles up over the iterations.
        iterations: Number of Gibbs iterations. The paper makes 100, whose lag behind rho is seen in the mean.
        rho_max: First coupling width, in units of u (the paper's).
        rho_min: Smallest coupling width. The paper's 0.3 is wide beside the noise of good data: the ensemble comes out
            too wide. Below the default the lag of the chain grows faster than that error falls.
        decay: Ratio of one width to the one before, 0.9 in the paper; smaller where ``iterations`` are too few to
            arrive.
        solver_iterations: Largest number of conjugate gradient iterations in the likelihood step; one operator
            call and one adjoint each, no network.
        tolerance: Their relative tolerance.
        moves: Langevin moves in the likelihood step where it has no closed form.

    References:
        Principled Probabilistic Imaging using Diffusion Models as Plug-and-Play Priors (Wu et al., 2024),
        arXiv:2405.18782, algorithm 1.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"gradient"})

    sampler: Sampler = field(default_factory=lambda: DPMSolver(16, SCHEDULE, stochastic=True))
    iterations: int = 150
    rho_max: float = 10.0
    rho_min: float = 0.1
    decay: float = 0.95
    solver_iterations: int = 50
    tolerance: float = 1e-3
    moves: int = 20

    def __post_init__(self) -> None:
        for name in ("iterations", "solver_iterations", "moves"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if not 0 < self.rho_min <= self.rho_max:
            raise ValueError(f"rho must satisfy 0 < rho_min <= rho_max, got {self.rho_min} and {self.rho_max}.")
        if not 0 < self.decay < 1:
            raise ValueError(f"decay must lie between 0 and 1, got {self.decay}.")
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance must lie in [0, 1), got {self.tolerance}.")
        try:
            starting_at(self.sampler, self.rho_min)
        except TypeError:
            raise TypeError(
                "the sampler's schedule must start at any level: give it one with `sigma_max`, such as log_linear."
            ) from None

    def widths(self) -> list[float]:
        """The coupling width of each iteration."""
        decay = min(self.decay, (self.rho_min / self.rho_max) ** (1 / max(1, self.iterations - 1)))
        return [max(self.rho_min, self.rho_max * decay**k) for k in range(self.iterations)]

    def draw(self, run: Run) -> Tensor:
        p, path = run.posterior, Path("PnPDM", [*self.widths(), 0.0], run.callback)
        exact = closed_form(run)
        with torch.no_grad():
            x = torch.zeros(len(run.streams), *(p.shape or ()), device=p.device, dtype=p.dtype)
            z, delta = x, x.new_ones(len(x))
            for rho, _ in path:
                z, delta = self.likelihood_step(run, x, z, rho, delta, exact)
                x = starting_at(self.sampler, rho).integrate(run.denoise, z, run.streams)
                path.report(x)
        return x

    def likelihood_step(
        self, run: Run, x: Tensor, z: Tensor, rho: float, delta: Tensor, exact: bool
    ) -> tuple[Tensor, Tensor]:
        r"""Draws z given x, and the next Langevin step size; ``z`` is the one before."""

        def C(g: Tensor) -> Tensor:
            return rho**2 * g

        def noise() -> Tensor:
            return rho * run.streams.randn_like(x)

        if exact:
            z = perturb_and_solve(run, x + noise(), C, self.solver_iterations, self.tolerance, symmetric=True)
            return z, delta
        return langevin(run, x, C, noise, z, delta, self.moves)
