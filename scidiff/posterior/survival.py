r"""What becomes of members for which the forward model failed.

A failed row keeps a finite, meaningless measurement (zero) and is marked. **Independent members**: the marked ones are
left out of the ensemble, or drawn again with random numbers of their own; the others never notice. **Queries** of a
member (`scidiff.posterior.queries`) that fail are left out of its estimate, and the member lives on. **Populations**:
a lost particle is left out of the covariances of that update,

.. math:: C_{uz} = \frac{1}{n - 1} \sum_{j\ \mathrm{alive}} e_j z_j^\top ,

and is then replaced by a draw :math:`\bar u + (n-1)^{-1/2}\sum_j \epsilon_j e_j`, :math:`\epsilon \sim N(0, I)`, from
the Gaussian of the n living ones, with random numbers of its own; if it shall be dropped, it no longer takes part, and
is not returned.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from scidiff.errors import NumericalError

if TYPE_CHECKING:
    from scidiff.posterior.base import Run

__all__ = ["ATTEMPTS", "FEWEST", "replaced", "spare_root", "survivors"]

ATTEMPTS = 10
"""How often a member is drawn again before the run gives up."""
FEWEST = 2
"""Particles that a covariance needs."""


def spare_root(root: int, *key: int | str) -> int:
    """A root for random numbers that belong to none of the members' streams."""
    text = "/".join(map(str, ("spare", root, *key)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def survivors(run: Run) -> Tensor | None:
    """Weights (B, K, 1) of the particles after an operator call, or None where all live.

    Zero for those lost in this call or dropped before; for the n others the factor that makes sums of products over
    K - 1 to sums over n - 1. The marks of this call are taken down; those to be dropped are remembered.
    """
    batch, lost = run.streams.batch, dict(run.measurement.failed)
    run.measurement.failed.clear()
    run.dropped.update(row for row, failure in lost.items() if failure.policy == "drop")
    gone = sorted(run.dropped.union(lost))
    if not gone:
        return None
    K = len(run.streams.members)
    alive = torch.ones(K * batch, dtype=run.posterior.dtype, device=run.posterior.device)
    alive[gone] = 0
    alive = alive.reshape(K, batch, 1).transpose(0, 1)
    n = alive.sum(1, keepdim=True)
    if float(n.min()) < max(FEWEST, 1):
        first = next(iter(lost.values())).message if lost else "see diagnostics"
        raise NumericalError(f"the forward model failed for all but {int(n.min())} of {K} particles: {first}")
    return alive * ((K - 1) / (n - 1)).sqrt()


def replaced(run: Run, u: Tensor, weights: Tensor | None) -> Tensor:
    """Particles (B, K, d) with lost ones drawn from the Gaussian of the others."""
    if weights is None:
        return u
    alive = (weights > 0).to(u)
    mean = (u * alive).sum(1, keepdim=True) / alive.sum(1, keepdim=True)
    e, K = (u - mean) * weights.to(u), u.shape[1]
    out = u.clone()
    for b, k in (weights[..., 0] == 0).nonzero().tolist():
        seed = spare_root(run.streams.root, run.streams.members[k], b, run.cost.operator)
        noise = torch.randn(K, generator=Generator().manual_seed(seed), dtype=u.dtype).to(u.device)
        out[b, k] = mean[b, 0] + noise @ e[b] / (K - 1) ** 0.5
    return out
