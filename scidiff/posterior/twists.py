r"""Twists of `TDS`: approximations :math:`\psi_a(u_a) \approx p(y | u_a)` and the proposals that follow from them.

A twist turns states into one row of numbers each (`evaluate`), which resampling copies, and computes from them the
log of the twist (`log`) and a proposal with its log ratio :math:`\log p(u_b|u_a) - \log q(u_b|u_a)` (`propose`).
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from scidiff.inference import Cost
from scidiff.linalg.svd import dense_svd
from scidiff.posterior.base import Run, differentiate
from scidiff.posterior.measurement import Measurement
from scidiff.posterior.smc import likelihood_constant
from scidiff.samplers.base import level

__all__ = ["LikelihoodTwist", "MomentTwist", "Twist"]

F64 = torch.float64


class Twist(Protocol):
    """What `TDS` needs of a twist; the first d numbers of a packed row are the denoised state D."""

    @property
    def constant(self) -> Tensor | float:
        """What the twists leave out of the log evidence, () or (B,)."""
        ...

    def evaluate(self, run: Run, u: Tensor, sigma: float) -> Tensor:
        """All that is known at the states, packed into (rows, numbers); treats rows independently."""
        ...

    def log(self, packed: Tensor, sigma: float) -> Tensor:
        """Log of the twist, (rows,) in float64."""
        ...

    def final(self, run: Run, u: Tensor) -> Tensor:
        """Log likelihood of states at level zero, (rows,); treats rows independently."""
        ...

    def propose(self, run: Run, packed: Tensor, u: Tensor, center: Tensor, a: float, b: float) -> tuple[Tensor, Tensor]:
        """A state at level b per row, and log p - log q, (rows,); u and center (rows, d)."""
        ...


def cholesky(M: Tensor) -> Tensor:
    """Factor of symmetric matrices without a check on the host; NaN stays NaN, and the core reports the level."""
    return torch.linalg.cholesky_ex(M).L


def log_density(r: Tensor, L: Tensor) -> Tensor:
    """Log of N(r; 0, L L') without the factors of 2 pi: (rows,)."""
    w = torch.linalg.solve_triangular(L, r[:, :, None], upper=False)[:, :, 0]
    return -0.5 * w.square().sum(1) - L.diagonal(dim1=1, dim2=2).log().sum(1)


class MomentTwist:
    r"""The evidence of the data under the first two moments of :math:`u_0` given :math:`u_a` (linear, Gaussian noise).

    With the whitened operator :math:`\tilde A = U\,\mathrm{diag}(s)\,E` (rows of E orthonormal, k of them), data
    :math:`\bar y`, and :math:`\hat J = E J E^T` from k vector-Jacobian products :math:`F = E J`,

    .. math:: \psi_a = N(r; 0, M), \qquad r = \bar y - s\,E D, \qquad M = I + a^2\, s\hat J s .

    The proposal is the posterior of the prior transition :math:`N(m, vI)` given the twist *at level b*, linearised:
    :math:`r_b \approx \tilde r - G(u_b - m)` with covariance :math:`M_b`. As Gaussians tell,
    :math:`J_b = T J`, :math:`T = a^2 (b^2 + (a^2 - b^2) J)^{-1}`; with :math:`\hat J` in T,

    .. math:: G = s T F, \quad M_b = I + b^2\, s T\hat J s, \quad \tilde M = M_b + v G G^T, \quad
              \log\frac pq = \log N(\tilde r; 0, \tilde M) - \log N(\tilde r - G(u_b - m); 0, M_b) .

    :math:`\hat J` is symmetrised and its negative eigenvalues, which only learned denoisers have, set to zero. With
    J of level a in place of T J the weights are less even.
    """

    def __init__(self, run: Run) -> None:
        shape = tuple(run.posterior.shape or ())
        one = Measurement(run.posterior.rows(1), Cost())
        zero = torch.zeros(len(run.streams), *shape, dtype=run.posterior.dtype, device=run.posterior.device)
        r = run.measurement.residual(zero)
        matrix = torch.cat([one.adjoint(e[None]) for e in torch.eye(r.shape[1]).to(r)]).flatten(1)
        run.cost.operator_vjp += math.ceil(r.shape[1] / len(run.streams))
        svd = dense_svd(matrix, shape)
        self.s, self.y = svd.s, svd.U.adjoint(r.to(F64))
        self.E = svd.V.forward(torch.eye(len(svd.s)).to(svd.s)).flatten(1)
        self.constant = likelihood_constant(run, self.y)

    def evaluate(self, run: Run, u: Tensor, sigma: float) -> Tensor:
        u, D = differentiate(run, u, level(u, sigma))
        rows = []
        for e in self.E.to(D):
            run.cost.denoiser_vjp += 1
            v = e.reshape(1, *D.shape[1:]).expand_as(D)
            rows.append(torch.autograd.grad(D, u, v, retain_graph=True)[0].flatten(1))
        F = torch.stack(rows, 1).to(F64)
        J = F @ self.E.mT
        finite = torch.isfinite(J).all(2).all(1)[:, None]  # eigh refuses NaN without naming the level
        values, V = torch.linalg.eigh(torch.where(finite[:, :, None], (J + J.mT) / 2, 0))
        values = torch.where(finite, values.clamp(min=0), torch.nan)
        return torch.cat([D.detach().flatten(1).to(F64), values, V.flatten(1), F.flatten(1)], 1)

    def unpack(self, packed: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Residual r, eigenvalues and eigenvectors of the projected Jacobian, products F."""
        k, d = self.E.shape
        D, values, V, F = packed.split([d, k, k * k, k * d], 1)
        return self.y - self.s * (D @ self.E.mT), values, V.unflatten(1, (k, k)), F.unflatten(1, (k, d))

    def covariance(self, values: Tensor, V: Tensor) -> Tensor:
        """I + s V diag(values) V' s."""
        W = self.s[:, None] * V
        return torch.eye(len(self.s)).to(W) + (W * values[:, None]) @ W.mT

    def log(self, packed: Tensor, sigma: float) -> Tensor:
        r, values, V, _ = self.unpack(packed)
        return log_density(r, cholesky(self.covariance(sigma**2 * values, V)))

    def final(self, run: Run, u: Tensor) -> Tensor:
        r = self.y[: len(u)] - self.s * (u.flatten(1).to(F64) @ self.E.mT)
        return -0.5 * r.square().sum(1)

    def propose(self, run: Run, packed: Tensor, u: Tensor, center: Tensor, a: float, b: float) -> tuple[Tensor, Tensor]:
        t = 1 - b**2 / a**2
        v = b**2 * t
        r, values, V, F = self.unpack(packed)
        T = a**2 / (b**2 + (a**2 - b**2) * values)
        G = self.s[:, None] * ((V * T[:, None]) @ (V.mT @ F))
        r = r - self.apply(G, t * (center - packed[:, : center.shape[1]]))
        M_b = self.covariance(b**2 * T * values, V)
        M = M_b + v * G @ G.mT
        L_b, L = cholesky(M_b), cholesky(M)
        w = v**0.5 * run.streams.randn(u.shape[1:], u.device, u.dtype).to(F64)
        e = run.streams.randn((len(self.s),), u.device, u.dtype).to(F64)
        gain = torch.cholesky_solve((r - self.apply(G, w) - self.apply(L_b, e))[:, :, None], L)[:, :, 0]
        step = w + v * self.apply(G.mT, gain)
        ratio = log_density(r, L) - log_density(r - self.apply(G, step), L_b)
        return u + (t * (center - u) + step).to(u), ratio

    @staticmethod
    def apply(matrix: Tensor, vector: Tensor) -> Tensor:
        """Matrix times vector, row by row."""
        return (matrix @ vector.to(matrix)[:, :, None])[:, :, 0]


class LikelihoodTwist:
    r"""The tempered likelihood of the denoised state, for any differentiable operator and noise.

    .. math:: \psi_a = p(y | D)^\beta, \qquad \beta = \frac{1}{1 + \kappa a^2 / (1 + a^2)}, \qquad
              \kappa = \max\big(0, \tfrac1n \|r(0)\|^2 - 1\big)

    The paper has :math:`\beta = 1`. But at large a the data say much more than D knows, as :math:`u_0` given
    :math:`u_a` has the variance :math:`a^2 / (1 + a^2)` of a unit Gaussian; :math:`\kappa` is the variance of the
    noiseless data in units of the noise, from the whitened residual of the prior mean. Noise without a scale takes
    :math:`\kappa = 1`. The proposal moves the transition by :math:`\delta = t\,a^2\,\nabla_u \log\psi_a`, at most
    :math:`\sqrt{v d}` (beyond that the gradient is far from linear).
    """

    constant: Tensor | float = 0.0

    def __init__(self, run: Run, temper: bool = True) -> None:
        p = run.posterior
        self.kappa = torch.zeros(len(run.streams), dtype=F64, device=p.device)
        if temper:
            zero = torch.zeros(len(run.streams), *(p.shape or ()), dtype=p.dtype, device=p.device)
            with torch.no_grad():
                if all(part.whitens or callable(getattr(part.noise, "variance", None)) for part in p.likelihoods):
                    r = run.measurement.residual(zero)
                    self.kappa = (r.to(F64).square().mean(1) - 1).clamp(min=0)
                else:
                    self.kappa = torch.ones_like(self.kappa)

    def evaluate(self, run: Run, u: Tensor, sigma: float) -> Tensor:
        u, D = differentiate(run, u, level(u, sigma))
        value, gradient = run.measurement.gradient(D)
        run.cost.denoiser_vjp += 1
        (gradient,) = torch.autograd.grad(D, u, gradient)
        return torch.cat([D.detach().flatten(1), gradient.flatten(1), value[:, None]], 1).to(F64)

    def beta(self, sigma: float) -> Tensor:
        """Power of the likelihood at a level, (rows,)."""
        return 1 / (1 + self.kappa * sigma**2 / (1 + sigma**2))

    def log(self, packed: Tensor, sigma: float) -> Tensor:
        return self.beta(sigma) * packed[:, -1]

    def final(self, run: Run, u: Tensor) -> Tensor:
        with torch.no_grad():
            return run.measurement.log_prob(u).to(F64)

    def propose(self, run: Run, packed: Tensor, u: Tensor, center: Tensor, a: float, b: float) -> tuple[Tensor, Tensor]:
        t, d = 1 - b**2 / a**2, u.shape[1]
        v = b**2 * t
        shift = t * a**2 * self.beta(a)[:, None] * packed[:, d : 2 * d]
        size = torch.linalg.vector_norm(shift, dim=1, keepdim=True)
        shift = shift * ((v * d) ** 0.5 / size.clamp(min=torch.finfo(F64).tiny)).clamp(max=1)
        w = v**0.5 * run.streams.randn(u.shape[1:], u.device, u.dtype).to(F64)
        ratio = -(w * shift).sum(1) / v - shift.square().sum(1) / (2 * v)
        return u + (t * (center - u) + w + shift).to(u), ratio
