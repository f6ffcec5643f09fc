r"""The twisted diffusion sampler (TDS).

Sequential Monte Carlo (see `smc` for chain and weights) with twists :math:`\psi_a(u_a) \approx p(y|u_a)` that look
ahead through the denoiser, and proposals q that move along them:

.. math:: \log w_b = \log w_a + \log\frac{p(u_b|u_a)}{q(u_b|u_a)} + \log\psi_b(u_b) - \log\psi_a(u_a), \qquad
          \psi_0 = p(y|u_0) .

With :math:`\psi_a = p(y|u_a)` and the proposal that belongs to it the weights stay constant. `MomentTwist` comes close:
on Gaussian fields no resampling is needed. It takes one vector-Jacobian product of the network per measured number and
step, hence is for small data. `LikelihoodTwist` takes one, for any data, and needs many more particles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from scidiff.posterior.base import Run, offers
from scidiff.posterior.population import piecewise
from scidiff.posterior.smc import Center, Particles, SMCSampler
from scidiff.posterior.twists import LikelihoodTwist, MomentTwist, Twist

__all__ = ["TDS"]


@dataclass(frozen=True, repr=False)
class TDS(SMCSampler):
    """Twisted diffusion sampler: particles follow a look-ahead twist and are reweighted; exact for many particles.

    Diagnostics: ``ess`` per step (mean over observations), ``resamplings`` per population, ``log_evidence`` per
    observation (mean over populations; exp of each population's is unbiased for p(y) of the chain).

    Arguments:
        particles: Number K of particles per population.
        steps: Number of levels, one network call each.
        schedule: Noise levels. Data much less noisy than the last level before zero need a smaller one.
        threshold: Fraction of K below which the effective sample size makes particles be resampled.
        twist: "moments" (linear operators, Gaussian noise), "likelihood" (any differentiable likelihood), or "auto":
            moments where the problem allows it with at most ``largest`` measured numbers.
        largest: Most measured numbers for which "auto" takes moments.
        temper: Whether the likelihood twist is tempered; the paper does not.

    References:
        Practical and Asymptotically Exact Conditional Sampling in Diffusion Models (Wu et al., 2023),
        arXiv:2306.17775, algorithm 1.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"gradient"})

    twist: Literal["auto", "moments", "likelihood"] = "auto"
    largest: int = 64
    temper: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.twist not in ("auto", "moments", "likelihood"):
            raise ValueError(f"twist must be 'auto', 'moments' or 'likelihood', got {self.twist!r}.")

    def build(self, run: Run) -> Twist:
        """The twist for the problem at hand."""
        able = {"linear", "gaussian"} <= offers(run.posterior)
        if self.twist == "moments" and not able:
            raise TypeError("the twist of moments needs a linear operator and Gaussian noise; take twist='likelihood'.")
        sizes = [part.y[0].numel() * (2 if part.y.is_complex() else 1) for part in run.posterior.likelihoods]
        if self.twist == "moments" or (self.twist == "auto" and able and sum(sizes) <= self.largest):
            return MomentTwist(run)
        return LikelihoodTwist(run, self.temper)

    def draw(self, run: Run) -> Tensor:
        path, center, particles, twist = self.path(run), Center(), Particles(run, self.threshold), self.build(run)
        shape, a = tuple(run.posterior.shape or ()), path.levels[0]
        u = a * run.streams.randn(shape, run.posterior.device, run.posterior.dtype).flatten(1)
        d = u.shape[1]

        def evaluate(u: Tensor, sigma: float) -> Tensor:
            return piecewise(run, lambda part, v: twist.evaluate(part, v, sigma), u.unflatten(1, shape))

        packed = evaluate(u, a)
        log = twist.log(packed, a)
        particles.weigh(log, a)
        last = packed[:, :d]
        for a, b in path:
            u, last, packed, log = particles.resample(u, last, packed, log)
            middle = center(packed[:, :d], last, a, b)
            last = packed[:, :d]
            if b > 0:
                u, ratio = twist.propose(run, packed, u, middle, a, b)
                packed = evaluate(u, b)
                new = twist.log(packed, b)
            else:
                u, ratio = middle.to(u), 0.0
                new = piecewise(run, twist.final, u.unflatten(1, shape))
            increment = torch.where(log == -torch.inf, -torch.inf, ratio + new - log)
            log = new
            particles.weigh(increment, a)
            path.report(u.unflatten(1, shape))
        return particles.finish(u, twist.constant).unflatten(1, shape)
