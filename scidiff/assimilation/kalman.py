r"""The Kalman filter and the Rauch-Tung-Striebel smoother: the exact posterior of a linear Gaussian chain.

.. math:: x_0 \sim N(m_0, P_0), \qquad x_{t+1} = F x_t + b + N(0, Q), \qquad y_t = H x_t + N(0, R)

Forecast :math:`m^-_{t+1} = F m_t + b`, :math:`P^-_{t+1} = F P_t F^\top + Q`. Analysis with the innovation
:math:`v = y - H m^-` of covariance :math:`S = H P^- H^\top + R` and the gain :math:`K = P^- H^\top S^{-1}`:

.. math:: m = m^- + K v, \qquad P = (I - K H) P^- (I - K H)^\top + K R K^\top, \qquad
          \log p(y) = \sum_t \log N(v_t; 0, S_t).

Backwards with :math:`G_t = P_t F^\top (P^-_{t+1})^{-1}`:
:math:`\hat m_t = m_t + G_t (\hat m_{t+1} - m^-_{t+1})`,
:math:`\hat P_t = P_t + G_t (\hat P_{t+1} - P^-_{t+1}) G_t^\top`, :math:`\mathrm{Cov}(x_t, x_{t+1}) = G_t \hat P_{t+1}`.

A number of ``y`` that is NaN was not observed. All of it in float64.

References:
    A new approach to linear filtering and prediction problems, Kalman, 1960. Maximum likelihood estimates of linear
    dynamic systems, Rauch, Tung and Striebel, 1965.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from scidiff.errors import NumericalError
from scidiff.rng import explicit

if TYPE_CHECKING:
    from scidiff.assimilation.chain import LinearGaussianChain

__all__ = ["KalmanAnswer", "kalman_smoother"]


@dataclass(frozen=True)
class KalmanAnswer:
    r"""The posterior of the states of B trajectories.

    Arguments:
        filter_mean, filter_cov: Given the observations up to each state, (B, L, d) and (B, L, d, d).
        mean, cov: Given all observations.
        cross: Covariance of each state with the next one given all, (B, L - 1, d, d).
        log_evidence: :math:`\log p(y)`, (B,).
        gains: :math:`G_t`, (B, L - 1, d, d).
        offsets: Mean forecasts :math:`m^-_{t+1}`, (B, L - 1, d).
        roots: Square roots of the covariance of each state given the next one and the data, last state included.
    """

    filter_mean: Tensor
    filter_cov: Tensor
    mean: Tensor
    cov: Tensor
    cross: Tensor
    log_evidence: Tensor
    gains: Tensor
    offsets: Tensor
    roots: Tensor

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        """Trajectories drawn from the posterior, (n, B, L, d): exact joint draws, from the last state backwards."""
        generator = explicit(generator)
        batch, length, d = self.filter_mean.shape
        e = torch.randn(n, batch, length, d, generator=generator, dtype=self.mean.dtype)
        noise = torch.einsum("btij,nbtj->nbti", self.roots, e)
        x = [self.filter_mean[:, -1] + noise[:, :, -1]]
        for t in range(length - 2, -1, -1):
            after = torch.einsum("bij,nbj->nbi", self.gains[:, t], x[-1] - self.offsets[:, t])
            x.append(self.filter_mean[:, t] + after + noise[:, :, t])
        return torch.stack(x[::-1], 2)


def _symmetric(P: Tensor) -> Tensor:
    return (P + P.mT) / 2


def _root(P: Tensor, what: str, step: int) -> Tensor:
    lower, failed = torch.linalg.cholesky_ex(P)
    if bool((failed != 0).any()):
        raise NumericalError(
            f"Kalman: the covariance of the {what} at step {step} is singular; "
            "give transition and observation noise a positive variance in every direction."
        )
    return lower


def kalman_smoother(chain: LinearGaussianChain, H: Tensor, R: Tensor, y: Tensor) -> KalmanAnswer:
    r"""The exact posterior of the chain.

    Arguments:
        chain: Law of the states.
        H: Observation matrix (m, d).
        R: Covariance of its noise (m, m), positive definite.
        y: Observations (B, L, m); NaN where there are none.

    Raises:
        ValueError: sizes that do not fit, infinite observations, R not symmetric.
        NumericalError: a covariance is singular.
    """
    d, (H, R, y) = chain.dim, (v.to(torch.float64) for v in (H, R, y))
    m = len(R)
    if tuple(H.shape) != (m, d) or tuple(R.shape) != (m, m) or y.ndim != 3 or y.shape[2] != m:
        raise ValueError(
            f"expected H (m, {d}), R (m, m) and y (B, L, m), got {tuple(H.shape)}, {tuple(R.shape)}, {tuple(y.shape)}."
        )
    if not torch.allclose(R, R.mT) or bool(y.isinf().any()):
        raise ValueError("R must be symmetric and y finite, or NaN where nothing was observed.")
    _root(R, "observation noise", 0)
    F, Q, batch = chain.F, chain.Q, len(y)
    eye = torch.eye(d, dtype=torch.float64)
    mean, cov = chain.mean0.expand(batch, d), chain.cov0.expand(batch, d, d)
    means, covs, offsets, forecasts = [], [], [], []
    evidence = y.new_zeros(batch)
    for t in range(y.shape[1]):
        if t:
            mean, cov = mean @ F.mT + chain.offset, _symmetric(F @ cov @ F.mT + Q)
            offsets.append(mean)
            forecasts.append(cov)
        seen = y[:, t].isfinite()
        if bool(seen.any()):
            # A number that was not observed becomes one without signal, of variance 1 and value 0.
            h = H * seen[:, :, None]
            r = R * (seen[:, :, None] & seen[:, None, :]) + torch.diag_embed((~seen).double())
            v = torch.where(seen, y[:, t], 0.0) - (h @ mean[..., None])[..., 0]
            lower = _root(_symmetric(h @ cov @ h.mT + r), "innovation", t)
            white = torch.linalg.solve_triangular(lower, v[..., None], upper=False)[..., 0]
            evidence = evidence - white.square().sum(-1) / 2 - lower.diagonal(dim1=-2, dim2=-1).log().sum(-1)
            evidence = evidence - seen.double().sum(-1) * math.log(2 * math.pi) / 2
            K = torch.cholesky_solve(h @ cov, lower).mT
            mean = mean + (K @ v[..., None])[..., 0]
            left = eye - K @ h
            cov = _symmetric(left @ cov @ left.mT + K @ r @ K.mT)
        means.append(mean)
        covs.append(cov)
    smooth_mean, smooth_cov, cross, gains = [means[-1]], [covs[-1]], [], []
    roots = [_root(covs[-1], "last state", len(covs) - 1)]
    for t in range(y.shape[1] - 2, -1, -1):
        G = torch.cholesky_solve(F @ covs[t], _root(forecasts[t], "forecast", t + 1)).mT
        cross.append(G @ smooth_cov[-1])
        smooth_mean.append(means[t] + (G @ (smooth_mean[-1] - offsets[t])[..., None])[..., 0])
        smooth_cov.append(_symmetric(covs[t] + G @ (smooth_cov[-1] - forecasts[t]) @ G.mT))
        left = eye - G @ F  # the covariance given the next state, in a form that stays positive
        roots.append(_root(_symmetric(left @ covs[t] @ left.mT + G @ Q @ G.mT), "state given the next", t))
        gains.append(G)

    def stacked(parts: list[Tensor], like: tuple[int, ...]) -> Tensor:
        return torch.stack(parts, 1) if parts else y.new_zeros(batch, 0, *like)

    return KalmanAnswer(
        stacked(means, (d,)),
        stacked(covs, (d, d)),
        stacked(smooth_mean[::-1], (d,)),
        stacked(smooth_cov[::-1], (d, d)),
        stacked(cross[::-1], (d, d)),
        evidence,
        stacked(gains[::-1], (d, d)),
        stacked(offsets, (d,)),
        stacked(roots[::-1], (d, d)),
    )
