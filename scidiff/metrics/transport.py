r"""The sliced Wasserstein distance between two clouds of samples.

For a direction :math:`\theta` the samples :math:`\theta^\top x` are numbers, whose transport is sorting:

.. math:: SW_p^p = E_\theta \int_0^1 |F_\theta^{-1}(q) - G_\theta^{-1}(q)|^p\,dq, \qquad \theta \text{ uniform, }
          \|\theta\| = 1 .

References:
    Sliced and Radon Wasserstein Barycenters of Measures (Bonneel et al., 2015).
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from scidiff.metrics._shared import real_view

__all__ = ["sliced_wasserstein"]


def sliced_wasserstein(
    a: Tensor, b: Tensor, projections: int = 1000, p: float = 1.0, generator: Generator | None = None
) -> float:
    r"""Sliced Wasserstein distance of order p between the samples ``a`` (M, \*X) and ``b`` (N, \*X).

    Arguments:
        a: Samples; complex entries count as two real ones.
        b: Samples of the same shape; their number may differ.
        projections: Number of random directions.
        p: Order, at least 1.
        generator: Source of the directions; a fixed one by default.
    """
    if a.shape[1:] != b.shape[1:] or a.is_complex() != b.is_complex():
        raise ValueError(f"samples of the same field are needed, got {tuple(a.shape[1:])} and {tuple(b.shape[1:])}.")
    if p < 1 or projections < 1:
        raise ValueError(f"p and projections must be at least 1, got {p} and {projections}.")
    generator = generator if generator is not None else Generator().manual_seed(0)
    a, b = (real_view(x).flatten(1).to(torch.float64) for x in (a, b))
    theta = torch.randn(a.shape[1], projections, generator=generator, dtype=torch.float64, device=generator.device)
    theta = (theta / torch.linalg.vector_norm(theta, dim=0)).to(a.device)
    x, y = ((z @ theta).sort(0).values for z in (a, b))
    edges = [torch.arange(1, len(z) + 1, device=a.device) * (len(w)) for z, w in ((x, y), (y, x))]
    cuts = torch.cat(edges).unique()  # quantile levels q, in units of 1 / (M N)
    width = torch.diff(cuts, prepend=cuts.new_zeros(1)).to(torch.float64) / (len(x) * len(y))
    i, j = (torch.searchsorted(edge, cuts) for edge in edges)
    return float((width[:, None] * (x[i] - y[j]).abs() ** p).sum(0).mean() ** (1 / p))
