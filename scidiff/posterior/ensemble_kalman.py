r"""The ensemble Kalman update, in the space of the particles, for any operator and any noise.

K particles with anomalies :math:`e_j` of the state and :math:`z_j` of the whitened measurement (both centred) stand for
the covariances :math:`C_{uz} = \frac{1}{K-1}\sum_j e_j z_j^\top` and :math:`C_{zz}`, and a particle with the innovation
:math:`r` (whitened residual, plus a draw of the noise) moves by

.. math:: \Delta u = C_{uz} (C_{zz} + T I)^{-1} r ,

with the temperature T of the likelihood :math:`p(y | u)^{1/T}`. No matrix is larger than K x K, K x n or K x d.

**Noise.** Gaussian noise: whitened residuals, exact. Noise that states its variance (`PoissonNoise`): weighed with the
variance at the data, see `scidiff.posterior.measurement.weigh`. Any other noise is linearised over the particles: with
the slope of its log density :math:`s = \partial \log p(y | z) / \partial z` (of the noise, not of the operator),

.. math:: h = -\frac{\mathrm{Cov}(z, s)}{\mathrm{Var}(z)}, \qquad z \to \sqrt h\, z, \qquad r = s / \sqrt h,

number by number: for independent Gaussian noise :math:`h = 1/\mathrm{std}^2` again. Where ``p`` is not log-concave
over the particles, h is held above a ten-thousandth of :math:`E[s^2]`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scidiff.posterior.base import Run, offers
from scidiff.posterior.population import piecewise

__all__ = ["centred", "increment", "innovations", "perturbations", "populations", "rows"]


def populations(run: Run, u: Tensor) -> Tensor:
    r"""Rows (K * B, \*S), particle slowest, as (B, K, d)."""
    return u.flatten(1).unflatten(0, (-1, run.streams.batch)).transpose(0, 1)


def rows(u: Tensor, like: Tensor) -> Tensor:
    """Inverse of `populations`."""
    return u.transpose(0, 1).reshape(like.shape)


def centred(e: Tensor, weights: Tensor | None = None) -> Tensor:
    """Deviations (B, K, d) from the mean of each population; with the weights of `survivors` of the living ones."""
    if weights is None:
        return e - e.mean(1, keepdim=True)
    alive = (weights > 0).to(e)
    return (e - (e * alive).sum(1, keepdim=True) / alive.sum(1, keepdim=True)) * weights.to(e)


def perturbations(run: Run, r: Tensor) -> Tensor:
    """Standard normal numbers (B, K, n) whose mean over each population is zero and whose variance is one."""
    K = r.shape[1]
    e = run.streams.randn(r.shape[2:], r.device, r.dtype).unflatten(0, (K, -1)).transpose(0, 1)
    return centred(e) * (K / (K - 1)) ** 0.5


def innovations(run: Run, *states: Tensor) -> tuple[Tensor, ...]:
    r"""Whitened residuals (B, K, n) of the states (K * B, \*S), each one operator call; differences of them are
    :math:`-z`. Noise that does not whiten is linearised over the particles of the last state.
    """
    if "variance" in offers(run.posterior):
        residuals = (piecewise(run, lambda part, u: part.measurement.residual(u), u) for u in states)
        return tuple(populations(run, r) for r in residuals)
    z = [populations(run, piecewise(run, _noiseless, u)) for u in states]
    s = populations(run, _slope(run, rows(z[-1], z[-1].transpose(0, 1).flatten(0, 1))))
    dz, ds = centred(z[-1]), centred(s)
    tiny = torch.finfo(s.dtype).tiny
    slope = -(dz * ds).sum(1, keepdim=True) / dz.square().sum(1, keepdim=True).clamp(min=tiny)
    root = torch.maximum(slope, 1e-4 * s.square().mean(1, keepdim=True)).clamp(min=tiny).sqrt()
    return tuple(s / root - root * (other - z[-1]) for other in z)


def _noiseless(run: Run, u: Tensor) -> Tensor:
    """Noiseless measurements of all instruments side by side as real numbers, (rows, n)."""
    run.cost.operator += 1
    x = run.posterior.prior.decode(u)
    parts = [p.matching(run.measurement._apply(p, x)) for p in run.posterior.likelihoods]
    return torch.cat([(torch.view_as_real(z) if z.is_complex() else z).flatten(1) for z in parts], 1)


def _slope(run: Run, z: Tensor) -> Tensor:
    """Slope of the log density of the noise at ``z`` (rows, n)."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        total, first = z.new_zeros(()), 0
        for p in run.posterior.likelihoods:
            shape = (*p.y.shape[1:], 2) if p.y.is_complex() else tuple(p.y.shape[1:])
            part = z[:, first : first + math.prod(shape)].unflatten(1, shape)
            first += math.prod(shape)
            total = total + p.noise.log_prob(p.y, torch.view_as_complex(part) if p.y.is_complex() else part).sum()
    return torch.autograd.grad(total, z)[0]


def increment(e: Tensor, z: Tensor, r: Tensor, temperature: float = 1.0, localisation: float = 0.0) -> Tensor:
    r"""The moves :math:`\Delta u` (B, K, d) of the particles.

    Arguments:
        e: Anomalies of the state, (B, K, d).
        z: Anomalies of the whitened measurement, (B, K, n).
        r: Innovation of each particle, (B, K, n).
        temperature: T.
        localisation: Sampling errors below which a correlation counts as noise; see `taper`. 0 keeps all.
    """
    K, n = z.shape[1:]
    S, innovation = z.double() / (K - 1) ** 0.5, r.double()
    if n <= K:
        M = S.mT @ S + temperature * torch.eye(n, dtype=S.dtype, device=S.device)
        W = torch.cholesky_solve(S.mT, torch.linalg.cholesky_ex(M).L).mT  # (B, K, n), S (S'S + T)^-1
    else:
        M = S @ S.mT + temperature * torch.eye(K, dtype=S.dtype, device=S.device)
        W = torch.cholesky_solve(S, torch.linalg.cholesky_ex(M).L)
    if not localisation:
        return (innovation @ W.mT / (K - 1) ** 0.5).to(e) @ e
    out, zs = torch.zeros_like(e), z / z.norm(dim=1, keepdim=True).clamp(min=torch.finfo(z.dtype).tiny)
    es = e / e.norm(dim=1, keepdim=True).clamp(min=torch.finfo(e.dtype).tiny)
    for part in torch.arange(n, device=z.device).split(K):  # a part of the gain is at most (K, d)
        gain = (W[..., part] / (K - 1) ** 0.5).to(e).mT @ e
        out += r[..., part] @ (taper(zs[..., part].mT @ es, K, localisation) * gain)
    return out


def taper(correlation: Tensor, particles: int, localisation: float) -> Tensor:
    r"""Weights :math:`\rho^2 / (\rho^2 + \ell^2 (1 - \rho^2)^2 / (K - 1))` of sample correlations :math:`\rho`.

    The sampling error of a correlation has the variance :math:`(1 - \rho^2)^2 / (K - 1)`; what is below
    :math:`\ell` errors is damped. It needs no positions, so it works for black boxes.
    """
    square = correlation.square()
    return square / (square + localisation**2 * (1 - square).square() / (particles - 1)).clamp(min=1e-30)
