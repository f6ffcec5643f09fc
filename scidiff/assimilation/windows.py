r"""A mixture of Gaussians as the law of short windows: locally linear dynamics, with an exact and fast denoiser.

With :math:`C_k = Q_k \Lambda_k Q_k^\top` in units of ``u``, coefficients :math:`c_k = Q_k^\top (u - \mu_k)` and
responsibilities :math:`r_k \propto w_k N(u; \mu_k, C_k + \sigma^2 I)`,

.. math:: D(u, \sigma) = \sum_k r_k \Big(\mu_k + Q_k \frac{\Lambda_k}{\Lambda_k + \sigma^2} c_k\Big).

It is the denoiser of `scidiff.priors.GaussianMixturePrior` with all components in one product, for windows of some tens
of numbers; fitted to windows of simulated chains it needs seconds where a network needs minutes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scidiff.priors.mixture import GaussianMixturePrior

__all__ = ["WindowMixture"]


class WindowMixture:
    r"""The law of windows (C, T, \*grid) of a fitted mixture, with one mean and scale per channel and place.

    Arguments:
        mixture: Of standardised windows.
        loc, scale: Physical units, ``x = loc + scale * (standardised)``, of one state (C, \*grid).
    """

    affine = True

    def __init__(self, mixture: GaussianMixturePrior, loc: Tensor, scale: Tensor) -> None:
        self.shape, self.channels = mixture.shape, mixture.shape[0]
        if tuple(loc.shape) != (self.shape[0], *self.shape[2:]) or loc.shape != scale.shape:
            raise ValueError(f"loc and scale must have the shape of a state, got {tuple(loc.shape)}.")
        means = mixture.means.to(torch.float64).flatten(1)
        covs = torch.stack([cov.dense() for cov in mixture.covs]).to(torch.float64)
        values, self.vectors = torch.linalg.eigh(covs)
        self.values, self.means, self.log_weights = values.clamp_min(0), means, mixture.weights.log()
        self.centres = torch.einsum("kd,kdi->ki", means, self.vectors)
        self.loc, self.scale = loc[:, None].double(), scale[:, None].double()

    def __repr__(self) -> str:
        return f"WindowMixture(components={len(self.means)}, shape={self.shape})"

    def denoise(self, u: Tensor, sigma: Tensor) -> Tensor:
        r"""The denoiser of the module's formula; ``u`` (B, C, T, \*grid), ``sigma`` () or (B,)."""
        v, Q, lam = u.flatten(1), self.vectors.to(u), self.values.to(u)
        count, d = lam.shape
        variance = torch.as_tensor(sigma, dtype=u.dtype, device=u.device).square().reshape(-1, 1, 1) + 0 * lam[:1, :1]
        wide = lam + variance  # (1 or B, K, d)
        c = (v @ Q.movedim(0, 1).reshape(d, count * d)).unflatten(1, (count, d)) - self.centres.to(u)
        logs = self.log_weights.to(u) - (c.square() / wide + wide.log()).sum(-1) / 2
        r = torch.softmax(logs, -1)
        inside = (r[..., None] * (self.centres.to(u) + c * lam / wide)).flatten(1)
        return (inside @ Q.mT.reshape(count * d, d)).reshape(u.shape)

    def decode(self, u: Tensor) -> Tensor:
        r"""Windows in physical units."""
        return self.loc.to(u) + self.scale.to(u) * u

    def encode(self, x: Tensor) -> Tensor:
        """Inverse of `decode`."""
        return (x - self.loc.to(x)) / self.scale.to(x)
