r"""A codebook: every vector is replaced by the nearest of K learned ones.

.. math:: q(z) = e_{k}, \qquad k = \arg\min_j \|z - e_j\|^2, \qquad \frac{\partial q}{\partial z} := 1

The gradient passes straight through. Training adds :math:`\|\mathrm{sg}(z) - e_k\|^2`, which moves the codebook, and
:math:`\beta\|z - \mathrm{sg}(e_k)\|^2`, which commits the encoder (`scidiff.training.reconstruction`). Entries that
nobody chooses get no gradient; they are moved to where codes are.

References:
    van den Oord, Vinyals & Kavukcuoglu, Neural discrete representation learning, 2017, arXiv:1711.00937, eq. 1-3.
    Dhariwal et al., Jukebox: a generative model for music, 2020, arXiv:2005.00341 (restart of unused entries).
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

__all__ = ["Codebook"]


class Codebook(nn.Module):
    """K vectors of C numbers.

    Arguments:
        entries: K.
        channels: C.
        memory: Share of the running usage that is kept from step to step.
        dead: Entries used less than this share of an even use are restarted.
    """

    def __init__(self, entries: int, channels: int, memory: float = 0.98, dead: float = 0.02) -> None:
        super().__init__()
        if entries < 2:
            raise ValueError(f"a codebook needs at least 2 entries, got {entries}.")
        self.vectors = nn.Parameter(torch.randn(entries, channels))
        self.memory, self.dead = memory, dead
        self.usage: Tensor
        self.register_buffer("usage", torch.ones(entries))
        self._seen: Tensor | None = None
        self._counts: Tensor | None = None

    def index(self, z: Tensor) -> Tensor:
        r"""The nearest entry: (B, C, \*grid) -> (B, \*grid), whole numbers."""
        with torch.autocast(z.device.type, enabled=False), torch.no_grad():
            points = z.movedim(1, -1).to(torch.promote_types(z.dtype, torch.float32))
            e = self.vectors.to(points)
            # Around the mean of the entries: no large numbers cancel in the expanded square.
            centre = e.mean(0)
            points, e = points - centre, e - centre
            return (e.square().sum(1) - 2 * points @ e.T).argmin(-1)

    def forward(self, z: Tensor) -> Tensor:
        r"""The nearest entries, (B, C, \*grid); gradients reach the codebook, not ``z``."""
        index = self.index(z)
        if self.training:
            self._note(z.detach(), index)
        return self.vectors[index].movedim(-1, 1).to(z.dtype)

    def straight(self, z: Tensor) -> Tensor:
        """The nearest entries, with the gradient of the identity."""
        return z + (self.forward(z) - z).detach()

    def _note(self, z: Tensor, index: Tensor) -> None:
        counts = torch.bincount(index.flatten(), minlength=len(self.vectors)).float()
        self._counts = counts if self._counts is None else self._counts + counts
        points = z.movedim(1, -1).flatten(0, -2).float()
        if len(points):
            self._seen = points[:: max(1, len(points) // len(self.vectors))][: len(self.vectors)]

    @torch.no_grad()
    def restart(self) -> None:
        """After an optimiser step: updates the usage, moves dead entries to codes of the last batch (of process 0)."""
        n = len(self.vectors)
        counts = torch.zeros_like(self.usage) if self._counts is None else self._counts
        seen = self.vectors.detach().clone() if self._seen is None else self._seen
        if dist.is_initialized():  # every process must do the same
            seen = seen[torch.arange(n, device=seen.device) % len(seen)].contiguous()
            dist.all_reduce(counts)
            dist.broadcast(seen, 0)
        self._counts = self._seen = None
        if not counts.sum() > 0:
            return
        self.usage.lerp_((counts * (n / counts.sum())).to(self.usage), 1 - self.memory)
        dead = (self.usage < self.dead).nonzero().flatten()
        if len(dead):
            self.vectors[dead] = seen[dead % len(seen)].to(self.vectors)
            self.usage[dead] = 1.0
