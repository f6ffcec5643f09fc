r"""Tweedie moment projected diffusions (TMPD).

.. math:: D_y = D + \sigma^2 J^T \tilde A^T v, \qquad (I + \tilde A \hat C \tilde A^T) v = r(D).

The covariance of :math:`u_0` given :math:`u_\sigma` is :math:`C = \sigma^2 J`, :math:`J = \partial D/\partial u`.

- ``covariance="rows"``: :math:`\hat C` is the diagonal of the row sums :math:`C\mathbf 1`, one vector-Jacobian product
  more. Where :math:`C` has no negative entries, :math:`\mathrm{diag}(C\mathbf 1) - C` is positive, so the data are
  trusted too little and never too much; row sums below zero are taken as zero. Units that flip the sign of some entries
  change it. The system is solved by conjugate gradients without the network.
- ``covariance="full"``: :math:`\hat C = C`, one product per number of data, for small problems. Exact for Gaussian
  priors, up to the integrator; what `MMPS` solves with few products.

Nonlinear measurements are linearised at :math:`D`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from scidiff.posterior.base import GuidedSampler, Run, differentiate
from scidiff.posterior.guidance import gain, pull
from scidiff.protocols import Denoiser
from scidiff.samplers import DPMSolver, Sampler

__all__ = ["TMPD"]

MOST = 1024
"""Most data for which the full covariance is built."""


@dataclass(frozen=True)
class TMPD(GuidedSampler):
    """Tweedie moment projected diffusions: the denoiser's covariance by its row sums, or in full for small problems.

    Diagnostics of ``"rows"``: ``iterations`` and ``residual`` of the solver relative to the misfit.

    Arguments:
        sampler: Integrator.
        covariance: "rows" (fast, 2 products per call) or "full" (n products per call for n data).
        iterations: Largest number of solver iterations per call; they do not pass through the network.
        tolerance: A row's solver stops at this residual relative to the misfit.

    References:
        Tweedie Moment Projected Diffusions for Inverse Problems (Boys et al., 2024), arXiv:2310.06721, section 3.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"gradient", "variance"})

    sampler: Sampler = field(default_factory=lambda: DPMSolver(64, stochastic=True))
    covariance: Literal["rows", "full"] = "rows"
    iterations: int = 32
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        if self.covariance not in ("rows", "full"):
            raise ValueError(f"covariance must be 'rows' or 'full', got {self.covariance!r}.")
        if self.iterations < 1 or not 0 <= self.tolerance < 1:
            raise ValueError(f"need iterations >= 1 and tolerance in [0, 1), got {self.iterations}, {self.tolerance}.")

    def condition(self, run: Run) -> Denoiser:
        return (self.full if self.covariance == "full" else self.rows)(run)

    def rows(self, run: Run) -> Denoiser:
        """With the diagonal of row sums."""

        def denoise(u: Tensor, sigma: Tensor) -> Tensor:
            u, D = differentiate(run, u, sigma)
            near = run.measurement.linearise(D.detach())
            diagonal = (sigma**2 * pull(run, u, D, torch.ones_like(u))).clamp(min=0)
            g = gain(run, near, lambda w: diagonal * w, self.iterations, self.tolerance)
            return D.detach() + sigma**2 * pull(run, u, D, g)

        return denoise

    def full(self, run: Run) -> Denoiser:
        r"""With the matrix :math:`I + \tilde A C \tilde A^T`, column by column."""

        def denoise(u: Tensor, sigma: Tensor) -> Tensor:
            u, D = differentiate(run, u, sigma)
            near = run.measurement.linearise(D.detach())
            r = near.residual
            n = r.shape[1]
            if n > MOST:
                raise ValueError(f"the full covariance of {n} data is too large (at most {MOST}); take MMPS.")
            images = []
            for e in torch.eye(n, dtype=r.dtype, device=r.device):
                images.append(sigma**2 * pull(run, u, D, near.adjoint(e.expand_as(r))))  # C A' e
            columns = [near.forward(image) for image in images]
            M = torch.eye(n, dtype=r.dtype, device=r.device) + torch.stack(columns, 2)
            v = torch.linalg.solve(M, r)
            return D.detach() + torch.einsum("rn,nr...->r...", v, torch.stack(images))

        return denoise
