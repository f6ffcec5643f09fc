r"""Potentials of `MCGDiff`: guesses of :math:`p(\tau | u_a)` for the components matched below a level.

See `mcgdiff` for :math:`\tau`, :math:`t` and c. Both classes offer ``log(c, s)``, the log potential (rows,) of
coefficients at level s, and ``guide(m, v, s, z, e)``: a draw from :math:`N(m, v)` times that potential with the log of
the integral. ``v`` are k variances, zero for coefficients that are known.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scidiff.posterior.smc import log_normal

__all__ = ["IndependentPotential", "JointPotential"]


class IndependentPotential:
    r""":math:`\prod_i N(\tau_i; \rho_i c_i, w_i)`, component by component.

    ``published``: :math:`\rho = 1`, :math:`w = s^2 - t^2`, the forward transition. Otherwise the backward transition of
    a field with independent components of unit variance, :math:`\rho = (1 + t^2)/(1 + s^2)`,
    :math:`w = \rho (s^2 - t^2)`: it does not count the prior twice, so weights stay even at levels where data and
    particles say nothing of each other.
    """

    def __init__(self, tau: Tensor, t: Tensor, published: bool) -> None:
        self.tau, self.t, self.published = tau, t, published

    def at(self, s: float) -> tuple[Tensor, Tensor, Tensor]:
        """Components matched below the level, slope and variance."""
        on = self.t < s
        t2 = torch.where(on, self.t, 0).square()
        rho = torch.ones_like(t2) if self.published else (1 + t2) / (1 + s**2)
        return on, rho, torch.where(on, rho * (s**2 - t2), 1)

    def log(self, c: Tensor, s: float) -> Tensor:
        on, rho, w = self.at(s)
        return torch.where(on, log_normal(self.tau - rho * c, w), 0).sum(1)

    def guide(self, m: Tensor, v: Tensor, s: float, z: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        on, rho, w = self.at(s)
        total = w + rho**2 * v
        c = m + torch.where(on, rho * v / total, 0) * (self.tau - rho * m)
        c = c + (v * torch.where(on, w / total, 1)).sqrt() * z
        return c, torch.where(on, log_normal(self.tau - rho * m, total), 0).sum(1)


class JointPotential:
    r""":math:`N(\tau; R c, W)`, all components together, for a field whose coefficients have the covariance C.

    :math:`\tau = c_0 + t n` and :math:`c = c_0 + s\epsilon` share the noise up to level t, so with :math:`S` the
    components matched below s, :math:`\mathrm{Cov}[\tau, c] = C_S + \mathrm{diag}(t^2)_S` and

    .. math:: R = (C_S + \mathrm{diag}(t^2)_S)(C + s^2 I)^{-1}, \qquad
              W = C_{SS} + \mathrm{diag}(t^2) - R\,(C_S + \mathrm{diag}(t^2)_S)^\top .

    The matrices are the same for all particles: k^3 operations per step.
    """

    def __init__(self, tau: Tensor, t: Tensor, C: Tensor) -> None:
        values, V = torch.linalg.eigh((C.double() + C.double().mT) / 2)
        self.C = (V * values.clamp(min=0)) @ V.mT
        self.tau, self.t = tau.double(), t

    def at(self, s: float) -> tuple[Tensor, Tensor, Tensor]:
        """Indices of S, R and W."""
        on = (self.t < s).nonzero()[:, 0]
        t2 = self.t.double()[on].square()
        eye = torch.eye(len(self.C)).to(self.C)
        cross = self.C[on] + t2[:, None] * eye[on]
        R = torch.linalg.solve(self.C + s**2 * eye, cross.mT).mT
        W = self.C[on][:, on] + torch.diag(t2) - R @ cross.mT
        return on, R, W + 1e-12 * torch.diag(W.diagonal())

    def density(self, r: Tensor, L: Tensor) -> Tensor:
        """Log of N(r; 0, L L'), (rows,)."""
        white = torch.linalg.solve_triangular(L, r.mT, upper=False)
        constant = L.diagonal().log().sum() + 0.5 * len(L) * math.log(2 * math.pi)
        return -0.5 * white.square().sum(0) - constant

    def log(self, c: Tensor, s: float) -> Tensor:
        on, R, W = self.at(s)
        return self.density(self.tau[:, on] - c.double() @ R.mT, torch.linalg.cholesky_ex(W).L)

    def guide(self, m: Tensor, v: Tensor, s: float, z: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        on, R, W = self.at(s)
        L, v = torch.linalg.cholesky_ex(W).L, v.double()
        total = torch.linalg.cholesky_ex(W + (R * v) @ R.mT).L
        r, w = self.tau[:, on] - m.double() @ R.mT, v.sqrt() * z.double()
        gain = torch.cholesky_solve((r - w @ R.mT - e.double()[:, on] @ L.mT).mT, total).mT
        return (m + w + v * (gain @ R)).to(m), self.density(r, total)
