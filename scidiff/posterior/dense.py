r"""Few numbers measured: systems in measurement space, as matrices.

With n numbers and :math:`\tilde A^T e_i` as rows of a matrix :math:`G`, (n, d), made once per run,

.. math:: \tilde A C \tilde A^T = \sigma^2\, G J G^T .

`Factorised` serves priors whose denoiser is linear, :math:`D(u) = J u`, as that of a Gaussian prior: J is the same for
all members, so one factorisation per noise level solves the systems of all of them, exactly.

`Scaled` serves all others as a preconditioner. If every number of the state has about unit variance and little to do
with the others, :math:`J \approx I / (1 + \sigma^2)`, and the matrix is about

.. math:: P = I + \frac{\sigma^2}{1 + \sigma^2}\, G G^T, \qquad G G^T = V \Lambda V^T,

inverted at every level by one decomposition. It is close where the prior's state is near white
(`scidiff.linalg.modes`), whatever the field's own spectrum and the noise, and wrong by the spread of the state's
spectrum elsewhere; then iterations repair it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scidiff.linalg.cosine import Separable
from scidiff.posterior.base import Run

__all__ = ["MOST", "Factorised", "Scaled", "factorised", "measured_rows", "scaled"]

MOST = 2048
"""Numbers up to which matrices of this size squared are made."""
NEGLECTED = 1e-4


def _numbers(run: Run) -> int:
    return sum(part.y[0].numel() * (2 if part.y.is_complex() else 1) for part in run.posterior.likelihoods)


def measured_rows(run: Run) -> Tensor:
    r""":math:`\tilde A^T e_i`, (n, \*S), float64; a product with :math:`\tilde A^T` for each batch of rows."""
    n, rows, like = _numbers(run), run.posterior.batch, run.posterior
    found = []
    for first in range(0, n, rows):
        v = torch.zeros(rows, n, dtype=like.dtype, device=like.device)
        count = min(rows, n - first)
        v[torch.arange(count), first + torch.arange(count)] = 1
        found.append(run.measurement.adjoint(v)[:count].double())
    return torch.cat(found)


def _suits(run: Run) -> bool:
    """One observation, an affine measurement, and not too many numbers."""
    return run.measurement.affine and run.streams.batch == 1 and _numbers(run) <= MOST


class Factorised:
    r"""The exact matrix of every noise level, for a linear denoiser.

    Of covariances that are diagonal in sines or cosines, G is turned into that basis once, where J is a number for
    each wave: :math:`\sigma^2 J = \sigma^2\lambda/(\lambda + \sigma^2) \le \lambda`. Waves that all together can add
    no more than `NEGLECTED` to the trace of a matrix that is nowhere below 1 are left out of it.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.G = run, measured_rows(run)
        cov = getattr(run.posterior.prior, "state_covariance", None)
        self.cov = cov if isinstance(cov, Separable) else None
        if self.cov is not None:
            self.G = self.cov.coefficients(self.G)
            self.values = self.cov.eigenvalues.to(self.G).expand(self.G.shape[1:]).flatten()
            most, order = (self.values * self.G.flatten(1).square().sum(0)).sort()
            self.used = order[most.cumsum(0) > NEGLECTED].sort().values
            self.strong = self.G.flatten(1)[:, self.used]

    def __call__(self, r: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        r"""V and :math:`C \tilde A^T v` of residuals r (rows, n), in their type."""
        G, variance = self.G, float(sigma) ** 2
        self.run.cost.denoiser += math.ceil(len(G) / len(r))
        if self.cov is None:
            B = variance * self.run.posterior.prior.denoise(G, sigma.double())  # C A'
            v = self._solved(G.flatten(1) @ B.flatten(1).mT, r)
            return v.to(r), (v @ B.flatten(1)).reshape(len(r), *G.shape[1:]).to(r)
        C = variance * self.values / (self.values + variance)
        half = self.strong * C[self.used].sqrt()
        v = self._solved(half @ half.mT, r)
        return v.to(r), self.cov.field(((v @ G.flatten(1)) * C).reshape(len(r), *G.shape[1:])).to(r)

    @staticmethod
    def _solved(ACA: Tensor, r: Tensor) -> Tensor:
        M = (ACA + ACA.mT) / 2 + torch.eye(len(ACA), dtype=ACA.dtype, device=ACA.device)
        return torch.cholesky_solve(r.double().mT, torch.linalg.cholesky(M)).mT


class Scaled:
    """The preconditioner P of the module."""

    def __init__(self, run: Run) -> None:
        G = measured_rows(run).flatten(1)
        values, vectors = torch.linalg.eigh(G @ G.mT)
        self.values, self.vectors = values.clamp(min=0).to(run.posterior.dtype), vectors.to(run.posterior.dtype)

    def apply(self, v: Tensor, sigma: Tensor, power: int) -> Tensor:
        """P to the power 1 or -1 times rows v (rows, n)."""
        variance = sigma.to(v).square()
        weights = (1 + variance / (1 + variance) * self.values) ** power
        return (v @ self.vectors * weights) @ self.vectors.mT


def factorised(run: Run) -> Factorised | None:
    """The exact solver, or None where it does not apply."""
    linear = getattr(run.posterior.prior, "linear_denoiser", False)
    return Factorised(run) if linear and _suits(run) else None


def scaled(run: Run) -> Scaled | None:
    """The preconditioner, or None where it does not apply."""
    return Scaled(run) if _suits(run) else None
