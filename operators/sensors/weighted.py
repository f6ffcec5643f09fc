r"""Sensors that see weighted means of a field: one sparse matrix, applied to the last axes.

.. math:: y_i = \sum_k w_{ik}\, x_{j_{ik}}, \qquad (A^\ast y)_j = \sum_{i,k:\, j_{ik} = j} w_{ik}\, y_i

with the entries :math:`j` of the grid counted in C order. Point sensors, footprints and regional means differ only in
how they choose :math:`j` and :math:`w`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scidiff.operators.algebra import Algebra

__all__ = ["WeightedSensors"]


class WeightedSensors(Algebra):
    r"""Maps fields (B, \*R, \*grid) to measurements (B, \*R, m); linear. Base of the sensors of this package.

    Arguments:
        grid: Sides of the grid, the last axes of a field.
        index: Entries :math:`j` of the flattened grid, whole numbers (m, K); sensors that see fewer than K entries
            repeat one of them with weight zero.
        weight: :math:`w`, real (m, K).
    """

    def __init__(self, grid: Sequence[int], index: Tensor, weight: Tensor) -> None:
        self.grid = tuple(int(n) for n in grid)
        if index.ndim != 2 or index.shape != weight.shape or len(index) == 0:
            raise ValueError(f"index {tuple(index.shape)} and weight {tuple(weight.shape)} must both be (m, K), m > 0.")
        if int(index.min()) < 0 or int(index.max()) >= math.prod(self.grid):
            raise ValueError(f"index must lie in 0 to {math.prod(self.grid) - 1}, the entries of a grid {self.grid}.")
        self.index, self.weight = index.to(torch.int64), weight.to(torch.float64)

    @property
    def count(self) -> int:
        """Number of sensors m."""
        return len(self.index)

    def __call__(self, x: Tensor) -> Tensor:
        n = len(self.grid)
        if x.ndim <= n or tuple(x.shape[-n:]) != self.grid:
            raise ValueError(f"expected a field (B, ..., {', '.join(map(str, self.grid))}), got {tuple(x.shape)}.")
        seen = x.flatten(-n).index_select(-1, self.index.flatten().to(x.device)).unflatten(-1, self.index.shape)
        return (seen * self._weight(x)).sum(-1)

    def adjoint(self, y: Tensor) -> Tensor:
        r"""Spreads each measurement over what the sensor sees, (B, \*R, \*grid)."""
        if y.ndim < 2 or y.shape[-1] != self.count:
            raise ValueError(f"expected a measurement (B, ..., {self.count}), got {tuple(y.shape)}.")
        x = y.new_zeros(*y.shape[:-1], math.prod(self.grid))
        spread = (y[..., None] * self._weight(y)).flatten(-2)
        return x.index_add(-1, self.index.flatten().to(y.device), spread).unflatten(-1, self.grid)

    def _weight(self, like: Tensor) -> Tensor:
        return self.weight.to(like.device, like.dtype.to_real())


def gathered(rows: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Index and weight (m, K) of sensors that see different numbers of entries; entries seen twice are joined."""
    joined = []
    for index, weight in rows:
        entries, place = index.unique(return_inverse=True)
        joined.append((entries, weight.new_zeros(len(entries)).index_add(0, place, weight)))
    width = max(len(entries) for entries, _ in joined)
    index = torch.stack([torch.cat([e, e[:1].expand(width - len(e))]) for e, _ in joined])
    weight = torch.stack([torch.cat([w, w.new_zeros(width - len(w))]) for _, w in joined])
    return index, weight
