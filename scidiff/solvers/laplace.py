r"""The Laplacian of a box with zero values at the walls, for cell-centred grids.

Second differences with the field mirrored with opposite sign at the walls have the eigenvectors
:math:`\sin(\pi k (i + 1/2) / n)`, :math:`k = 1, \dots, n`, with eigenvalues
:math:`-\big(\frac{2 n}{L} \sin\frac{\pi k}{2 n}\big)^2` per axis of length L. The sines are cosines in disguise,
:math:`\sin(\pi k (i + 1/2) / n) = (-1)^i \cos(\pi (n - k) (i + 1/2) / n)`, so the transform is that of
`scidiff.linalg.cosine`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scidiff.linalg.cosine import cosine_basis

__all__ = ["BoxLaplacian"]


class BoxLaplacian:
    r"""Solves :math:`\Delta u = a`, :math:`u = 0` on the walls, to rounding.

    Arguments:
        grid: Cells along each side of the box.
        lengths: Sides of the box; 1 by default.
    """

    def __init__(self, grid: Sequence[int], lengths: Sequence[float] | None = None) -> None:
        self.grid = tuple(grid)
        self.lengths = tuple(1.0 for _ in self.grid) if lengths is None else tuple(lengths)
        self.bases = [cosine_basis(n).flip(0) * (1 - 2 * (torch.arange(n) % 2)) for n in self.grid]
        """Orthonormal sines, one matrix an axis, row k - 1 is sine number k; float64."""
        axes = [
            -(2 * n / length * torch.sin(math.pi * torch.arange(1, n + 1, dtype=torch.float64) / (2 * n))).square()
            for n, length in zip(self.grid, self.lengths, strict=True)
        ]
        self.eigenvalues = torch.stack(torch.meshgrid(*axes, indexing="ij")).sum(0)

    def solve(self, a: Tensor) -> Tensor:
        r"""``u`` from ``a``, both (..., \*grid)."""
        for transposed in (False, True):
            for dim, basis in enumerate(self.bases, start=-len(self.grid)):
                matrix = basis.to(a)
                matrix = matrix.mT if transposed else matrix
                if dim == -1:
                    a = a @ matrix.mT
                elif dim == -2:
                    a = matrix @ a
                else:
                    a = (a.movedim(dim, -1) @ matrix.mT).movedim(-1, dim)
            if not transposed:
                a = a / self.eigenvalues.to(a)
        return a
