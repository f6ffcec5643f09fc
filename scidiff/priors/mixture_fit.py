r"""Expectation maximisation for mixtures of low-rank Gaussians.

With responsibilities :math:`r_{nk}`, the M step has :math:`N_k = \sum_n r_{nk}`, :math:`w_k = N_k / N`,
:math:`m_k = \sum_n r_{nk} x_n / N_k` and the weighted covariance :math:`S_k = V \Lambda V^\top`, of which the best
:math:`U U^\top + v I` of rank r keeps the r largest directions:
:math:`v = (\mathrm{tr}\,S_k - \sum_{i \le r}\lambda_i)/(d - r)`, :math:`U = V_r (\Lambda_r - v I)^{1/2}`.
Each step is exact, so the likelihood never falls.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from scidiff.linalg import Covariance, LowRank
from scidiff.rng import explicit

__all__ = ["fit_mixture", "weighted_ppca"]


def centres(x: Tensor, count: int, generator: Generator) -> Tensor:
    """k-means++ centres of rows (N, d), followed by Lloyd's steps: labels (N,)."""
    first = int(torch.randint(len(x), (), generator=explicit(generator)))
    chosen = x[first : first + 1]
    for _ in range(count - 1):
        distance = torch.cdist(x, chosen).min(-1).values.square()
        edges = distance.cumsum(0)
        if float(edges[-1]) == 0:
            raise ValueError(f"the data hold fewer than {count} different fields; ask for fewer components.")
        place = torch.rand((), generator=explicit(generator), dtype=x.dtype) * edges[-1]
        index = int(torch.searchsorted(edges, place, right=True).clamp_max(len(x) - 1))
        chosen = torch.cat([chosen, x[index : index + 1]])
    labels = torch.cdist(x, chosen).argmin(-1)
    for _ in range(20):
        chosen = torch.stack([x[labels == k].mean(0) if bool((labels == k).any()) else chosen[k] for k in range(count)])
        new = torch.cdist(x, chosen).argmin(-1)
        if torch.equal(new, labels):
            break
        labels = new
    return labels


def weighted_ppca(x: Tensor, weight: Tensor, rank: int, floor: float) -> tuple[Tensor, Tensor, float]:
    """Mean (d,), factor (r, d) and isotropic variance of the best Gaussian of one rank for weighted rows (N, d)."""
    total = weight.sum()
    mean = (weight[:, None] * x).sum(0) / total
    rows = (x - mean) * (weight / total).sqrt()[:, None]
    d = x.shape[1]
    if len(rows) < d:  # fewer rows than entries: the small Gram matrix has the same eigenvalues
        lam, q = torch.linalg.eigh(rows @ rows.mT)
        lam, q = lam[-rank:].clamp_min(0) if rank else lam[:0], q[:, len(q) - rank :]
        vectors = q.mT @ rows
        norms = vectors.norm(dim=1, keepdim=True)
        vectors = torch.where(norms > 0, vectors / torch.where(norms > 0, norms, 1), 0)
    else:
        lam, q = torch.linalg.eigh(rows.mT @ rows)
        lam, vectors = lam[d - rank :].clamp_min(0), q[:, d - rank :].mT
    rest = float(rows.square().sum() - lam.sum()) / (d - rank)
    v = max(rest, floor)
    return mean, vectors * (lam - v).clamp_min(0).sqrt()[:, None], v


def fit_mixture(
    data: Tensor,
    components: int,
    rank: int | None,
    iterations: int,
    tolerance: float,
    floor: float,
    generator: Generator | None,
    history: list[float] | None,
) -> tuple[Tensor, Tensor, list[Covariance]]:
    """Weights (K,), means (K, ``*X``) and covariances of real fields (N, ``*X``); see `GaussianMixturePrior.fit`."""
    if data.ndim < 2 or components < 1 or len(data) < 2 * components:
        raise ValueError(
            f"{components} components need at least {2 * max(components, 1)} fields stacked along the first axis, "
            f"got data of shape {tuple(data.shape)}."
        )
    shape, x = tuple(data.shape[1:]), data.flatten(1).to(torch.float64)
    if not bool(torch.isfinite(x).all()):
        raise ValueError("the data hold NaN or infinite values.")
    n, d = x.shape
    rank = min(d - 1, n - 1) if rank is None else rank
    if not 0 <= rank < d or rank > n - 1:
        raise ValueError(f"rank must be at least 0 and below both {d} entries and {n} fields, got {rank}.")
    generator = generator if generator is not None else Generator().manual_seed(0)
    shift = x.mean(0)
    scale = float((x - shift).square().mean().sqrt())
    if scale == 0:
        raise ValueError("all fields are equal, so there is nothing to fit.")
    x = (x - shift) / scale  # no dependence on units
    labels = centres(x, components, generator)
    r = torch.nn.functional.one_hot(labels, components).to(x)
    # a component needs weight everywhere at first, or one with few fields cannot give up its label
    r = 0.95 * r + 0.05 / components
    weights, means, factors, variances = _maximise(x, r, rank, floor)
    previous = -math.inf
    for _ in range(iterations):
        logs = torch.stack(
            [
                w.log() + _log_density(x - m, LowRank(u, v) if len(u) else LowRank(u.new_zeros(1, d), v))
                for w, m, u, v in zip(weights, means, factors, variances, strict=True)
            ],
            -1,
        )
        likelihood = torch.logsumexp(logs, -1)
        mean = float(likelihood.mean()) - d * math.log(scale)
        if history is not None:
            history.append(mean)
        if mean - previous < tolerance * d:
            break
        previous = mean
        weights, means, factors, variances = _maximise(x, torch.exp(logs - likelihood[:, None]), rank, floor)
    covs: list[Covariance] = []
    for u, v in zip(factors, variances, strict=True):
        columns = (u if len(u) else u.new_zeros(1, d)) * scale
        cov = LowRank(columns.reshape(-1, *shape), v * scale**2)
        cov.dtype = data.dtype
        covs.append(cov)
    return weights, (shift + scale * means).reshape(-1, *shape), covs


def _maximise(x: Tensor, r: Tensor, rank: int, floor: float) -> tuple[Tensor, Tensor, list[Tensor], list[float]]:
    """M step; a component that lost all its fields keeps a vanishing weight and the shape of the whole."""
    counts = r.sum(0)
    means, factors, variances = [], [], []
    for k in range(r.shape[1]):
        weight = r[:, k] if float(counts[k]) > 1e-8 else torch.ones_like(r[:, k])
        m, u, v = weighted_ppca(x, weight, rank, floor)
        means.append(m)
        factors.append(u)
        variances.append(v)
    weights = counts.clamp_min(1e-12)
    return weights / weights.sum(), torch.stack(means), factors, variances


def _log_density(r: Tensor, cov: LowRank) -> Tensor:
    """Log density of centred rows (N, d): (N,); Woodbury needs only the coefficients on the basis."""
    inside = (r @ cov.basis.mT).square() @ (cov.theta / (1 + cov.theta))
    quadratic = (r.square().sum(-1) - inside) / cov.variance
    return -0.5 * (quadratic + cov.logdet() + r.shape[1] * math.log(2 * math.pi))
