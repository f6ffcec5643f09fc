r"""Regularisation by denoising diffusion (RED-diff), a variational point estimate.

One field :math:`\mu` is improved by stochastic gradients while the noise level :math:`s` falls: with fresh
:math:`\epsilon`, :math:`u = \mu + s\epsilon` and :math:`\hat\epsilon = (u - D(u, s)) / s`,

.. math:: g = \lambda\, s\,(\hat\epsilon - \epsilon) - \frac{d}{n\, c^2}\nabla_\mu \log p(y|\mu)
            = \lambda\,(\mu - D(\mu + s\epsilon, s)) - \frac{d}{n\, c^2}\nabla_\mu \log p(y|\mu),

and an optimiser takes a step along g. The factor s is the paper's weight :math:`1/\mathrm{SNR}`. The network is called
forward only. d and n are the numbers of unknowns and data: the paper takes the mean of each term, which Adam sees as
the same up to its tiny constant.

**Units.** The paper's data term is :math:`\|y - A\mu\|^2 / (2n)` for images and measurements of about unit size. Here
:math:`-\log p(y|\mu)` is divided by :math:`c^2 = \max(1, \|r(0)\|^2/n)`, the mean square of the whitened residual of
the prior mean: for white Gaussian noise that is the paper's term in units of the variability of the data. Any
likelihood with a gradient and a variance works (nonlinear operators, Poisson counts).

**A point estimate, not a draw.** Members differ by the noise of the optimiser and, from the start on, by nothing else:
their spread says how reproducible the estimate is and is far below the uncertainty of the field. Nor is the estimate
the posterior's mean or mode: where the step has settled at level s, it balances
:math:`\lambda (\mu - E_\epsilon D(\mu + s\epsilon, s))` against the scaled data term, and the first vanishes as
:math:`s \to 0`. ``diagnostics["point_estimate"]`` is True.

Members are independent runs. The paper's objective couples no particles, and neither does this class: K members are K
runs from the same start; for a spread that means something take a sampler.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from scidiff.posterior.base import MemberSampler, Run
from scidiff.posterior.local import closed_form, ridge
from scidiff.samplers.base import Path, level
from scidiff.samplers.euler import Euler
from scidiff.schedules import Schedule, describe, vp_linear

__all__ = ["REDDiff"]


def require_rows(make: Callable[[list[Tensor]], Optimizer]) -> None:
    """Raises if two steps of the optimiser depend on how many rows it sees: members would influence each other."""
    gradient = torch.tensor([[1.0, -2.0, 0.5], [-30.0, 7.0, 100.0]])
    ends = []
    for rows in (gradient, gradient[:1]):
        u = torch.zeros_like(rows)
        optimizer = make([u])
        for scale in (1.0, -0.3):
            u.grad = scale * rows
            try:
                optimizer.step()
            except TypeError:
                name = type(optimizer).__name__
                raise TypeError(
                    f"{name} wants a closure; take one that steps on gradients alone (Adam, SGD)."
                ) from None
        ends.append(u[:1])
    if not torch.allclose(*ends, rtol=1e-5, atol=0):
        raise TypeError(f"{type(optimizer).__name__} couples rows; take an elementwise optimiser (Adam, SGD, RMSprop).")


@dataclass(frozen=True, repr=False)
class REDDiff(MemberSampler):
    r"""Regularisation by denoising diffusion: optimises one field; a point estimate, its spread is no uncertainty.

    Arguments:
        steps: Number of optimiser steps; each is one denoiser call, one operator call and its gradient. Authors' code:
            1000; 100 serve.
        schedule: Noise levels, descending; the default takes ``steps`` of the 1000 levels of DDPM.
        lam: Weight of the prior (authors' code).
        lr: Learning rate of Adam (authors' code); ``optimizer`` brings its own.
        optimizer: Makes an optimiser of a list of tensors, ``lambda params: torch.optim.SGD(params, lr=1.0)``; None
            takes Adam with the authors' (0.9, 0.99). It must treat numbers independently of each other.
        init: "ridge" starts at :math:`\tilde A^T(\tilde A\tilde A^T + I)^{-1} r(0)`, the pseudo-inverse of the paper
            damped by the noise, for linear operators with Gaussian noise (elsewhere at zero); "zeros" always at zero.

    References:
        A Variational Perspective on Solving Inverse Problems with Diffusion Models (Mardani et al., 2024),
        arXiv:2305.04391, algorithm 1.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"gradient", "variance"})
    point_estimate: ClassVar[bool] = True

    steps: int = 1000
    schedule: Schedule = vp_linear
    lam: float = 0.25
    lr: float = 0.1
    optimizer: Callable[[list[Tensor]], Optimizer] | None = None
    init: Literal["ridge", "zeros"] = "ridge"

    def __post_init__(self) -> None:
        Euler(self.steps, self.schedule)  # validates both
        if self.lam < 0 or self.lr <= 0:
            raise ValueError(f"lam must not be negative and lr must be positive, got {self.lam} and {self.lr}.")
        if self.init not in ("ridge", "zeros"):
            raise ValueError(f"init must be 'ridge' or 'zeros', got {self.init!r}.")
        if self.optimizer is not None:
            require_rows(self.optimizer)

    def __repr__(self) -> str:
        return describe(self)

    def draw(self, run: Run) -> Tensor:
        p, path = run.posterior, Path("REDDiff", self.schedule(self.steps).tolist(), run.callback)
        with torch.no_grad():
            mu = torch.zeros(len(run.streams), *(p.shape or ()), device=p.device, dtype=p.dtype)
            r = run.measurement.residual(mu)
            c2 = r.square().mean(1).clamp(min=1)
            weight = (mu[0].numel() / (r.shape[1] * c2)).reshape(-1, *[1] * (mu.ndim - 1))
            if self.init == "ridge" and closed_form(run):
                mu = ridge(run, r)
            optimizer = self.optimizer([mu]) if self.optimizer else Adam([mu], lr=self.lr, betas=(0.9, 0.99))
            for s, _ in path:
                D = run.denoise(mu + s * run.streams.randn_like(mu), level(mu, s))
                mu.grad = self.lam * (mu - D) - weight * run.measurement.gradient(mu)[1]
                optimizer.step()
                path.report(mu)
        return mu
