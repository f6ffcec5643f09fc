r"""Draws from :math:`N(0, C)` where :math:`C` is known through products with it alone.

With the Krylov basis :math:`V = (v_1 \dots v_m)`, :math:`v_1 = z / \|z\|`, of a white :math:`z` and
:math:`T = V^T C V`,

.. math:: w = C^{1/2} z \approx \|z\|\, V\, T^{1/2} e_1.

The error falls fast where the spectrum of C decays, and lies in the directions of small variance.

**Learned priors** give a :math:`C` that is neither quite symmetric nor positive. The basis is therefore orthogonalised
in full (Arnoldi), T is replaced by its symmetric part, and negative Ritz values are set to zero: such directions get no
noise. `sqrt_draw` returns the largest share of the spectrum that was cut, so that it can be reported.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["sqrt_draw"]


def sqrt_draw(
    product: Callable[[Tensor], Tensor], z: Tensor, iterations: int, tolerance: float
) -> tuple[Tensor, Tensor]:
    r"""Gives white rows z the covariance C, row by row: returns (w, cut).

    Arguments:
        product: Rows v to rows :math:`C v`, both (rows, \*S).
        z: White numbers (rows, \*S).
        iterations: Largest number of products.
        tolerance: A row ends when the last product changed w by at most this share of its norm.

    Returns:
        w (rows, \*S), and per row the most negative Ritz value over the largest, as a number not below zero, (rows,).
    """
    tiny = torch.finfo(z.dtype).tiny
    flat, m = z.flatten(1), min(iterations, z[0].numel())
    length = torch.linalg.vector_norm(flat, dim=1, keepdim=True)
    V = flat.new_zeros(len(flat), m + 1, flat.shape[1])
    H = flat.new_zeros(len(flat), m + 1, m)
    y, cut = flat.new_zeros(len(flat), m), flat.new_zeros(len(flat))
    V[:, 0] = flat / length.clamp(min=tiny)
    active = length[:, 0] > 0
    for j in range(m):
        if not bool(active.any()):
            break
        basis = V[:, : j + 1]
        q = product(V[:, j].reshape(z.shape)).flatten(1)
        size = torch.linalg.vector_norm(q, dim=1)
        for _ in range(2):  # Gram-Schmidt, twice is enough
            h = torch.einsum("rjd,rd->rj", basis, q)
            H[:, : j + 1, j] += h
            q = q - torch.einsum("rj,rjd->rd", h, basis)
        beta = torch.linalg.vector_norm(q, dim=1)
        beta = torch.where(beta > 10 * torch.finfo(z.dtype).eps * size, beta, 0.0)  # zero: the space is invariant
        H[:, j + 1, j] = beta
        V[:, j + 1] = torch.where(beta > 0, 1 / beta.clamp(min=tiny), 0.0)[:, None] * q
        T = H[:, : j + 1, : j + 1]
        ritz, Q = torch.linalg.eigh((T + T.mT) / 2)
        best = torch.einsum("rij,rj->ri", Q, ritz.clamp(min=0).sqrt() * Q[:, 0])
        change = torch.linalg.vector_norm(best - y[:, : j + 1], dim=1)
        y[:, : j + 1] = torch.where(active[:, None], best, y[:, : j + 1])
        cut = torch.where(active, (-ritz[:, 0]).clamp(min=0) / ritz[:, -1].abs().clamp(min=tiny), cut)
        active = active & (beta > 0) & (change > tolerance * torch.linalg.vector_norm(best, dim=1))
    w = length * torch.einsum("rj,rjd->rd", y, V[:, :m])
    return w.reshape(z.shape), cut
