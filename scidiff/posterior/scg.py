r"""Stochastic control guidance (SCG): of several random steps, keep the one whose denoised state fits the data best.

From level a to level b, with n draws of the DDPM step,

.. math:: u_b^j \sim p(u_b | u_a, D), \qquad u_b = u_b^{j^*}, \qquad j^* = \arg\max_j \log p(y | D(u_b^j, b)).

The first ``start`` of the steps take one draw, the last returns D. The operator is only compared with the data, so any
noise with a density will do.

**SCG is a search, not a sampler.** What n draws can gain is bounded by the noise of a step: with few draws the data are
hardly followed, with many the spread shrinks, and no number of draws gives the posterior.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scidiff.posterior.base import MemberSampler, Run
from scidiff.posterior.queries import candidates, mark
from scidiff.samplers.base import level
from scidiff.samplers.ddpm import DDPM, ancestral
from scidiff.schedules import Schedule, describe, vp_linear

__all__ = ["SCG"]


@dataclass(frozen=True, repr=False)
class SCG(MemberSampler):
    """Stochastic control guidance: of several random steps, keep the one that fits best; a search, for black boxes.

    Arguments:
        steps: Number of steps. Authors: 1000, at five times the cost and farther from exact posteriors.
        draws: Candidates n per guided step; each is one denoiser call and one operator call. Authors' value for music;
            256 to 512 were used for partial differential equations.
        start: Fraction of the steps before the search; authors' value.
        at_once: Candidates in one call of the network; more is faster for few members and takes more memory.
        schedule: Noise levels.

    References:
        Symbolic Music Generation with Non-Differentiable Rule Guided Diffusion (Huang et al., 2024), arXiv:2402.14285,
        algorithm 1.
    """

    requires: ClassVar[frozenset[str]] = frozenset()

    steps: int = 200
    draws: int = 16
    start: float = 0.25
    at_once: int = 1
    schedule: Schedule = vp_linear

    def __post_init__(self) -> None:
        DDPM(self.steps, self.schedule)  # validates both
        if self.draws < 1 or self.at_once < 1:
            raise ValueError(f"draws and at_once must be at least 1, got {self.draws} and {self.at_once}.")
        if not 0 <= self.start <= 1:
            raise ValueError(f"start must lie in [0, 1], got {self.start}.")

    def __repr__(self) -> str:
        return describe(self)

    def draw(self, run: Run) -> Tensor:
        base, p = DDPM(self.steps, self.schedule), run.posterior
        u = base.start(run.streams, p.shape or (), p.device, p.dtype)
        with torch.no_grad():
            path = base.path(run.callback)
            D = run.denoise(u, level(u, path.levels[0]))
            for step, (a, b) in enumerate(path):
                if b == 0:
                    u = D
                elif step < int(self.start * self.steps):
                    u = ancestral(u, D, a, b, run.streams)
                    D = run.denoise(u, level(u, b))
                else:
                    u, D = self.search(run, u, D, a, b)
                path.report(u)
        return u

    def search(self, run: Run, u: Tensor, D: Tensor, a: float, b: float) -> tuple[Tensor, Tensor]:
        """The best of ``draws`` steps, row by row, and its denoised state."""
        denoise, rows = run.posterior.prior.denoise, torch.arange(len(u), device=u.device)
        fit, states, denoised = u.new_empty(0, len(u)), u[None][:0], u[None][:0]
        for first in range(0, self.draws, self.at_once):
            k = min(self.at_once, self.draws - first)
            u_b = torch.stack([ancestral(u, D, a, b, run.streams) for _ in range(k)])
            D_b = denoise(u_b.flatten(0, 1), level(u, b)).unflatten(0, (k, -1))
            run.cost.denoiser += k
            found = candidates(run, D_b, deviance=False)
            if run.lost:  # a candidate that failed is not chosen; rows without any other are marked
                found = found.masked_fill(found.isnan(), -torch.inf)
            fit, j = torch.cat([fit, found]).max(0, keepdim=True)  # other NaN are found by the watch on the operator
            states, denoised = torch.cat([states, u_b])[j, rows], torch.cat([denoised, D_b])[j, rows]
        if run.lost:
            mark(run, fit[0] == -torch.inf)
        return states[0], denoised[0]
