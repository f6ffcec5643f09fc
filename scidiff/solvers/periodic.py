r"""Fourier series on a periodic grid, truncated so that products of two fields are free of aliasing.

A real field on :math:`n_1 \times \dots \times n_d` points of a box with sides :math:`L_i` is
:math:`x(r) = \sum_k \hat x_k e^{i k \cdot r}` with :math:`k_i = 2 \pi m_i / L_i`. Series are kept for
:math:`|m_i| < n_i / 3` (the 2/3 rule): wavenumbers of a product of two such series fold back only onto wavenumbers that
are cut off.

References:
    Spectral methods in fluid dynamics, Canuto, Hussaini, Quarteroni and Zang, 1988.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Periodic"]


class Periodic:
    r"""Transforms and wavenumbers of a periodic grid; fields are (..., \*grid), the last axis has the half series.

    Arguments:
        grid: Points :math:`n_i` along each axis, at least 4.
        lengths: Sides :math:`L_i`; by default :math:`2 \pi`.
        dtype: Real type of the wavenumbers.
        device: Where they are kept.
    """

    def __init__(
        self,
        grid: Sequence[int],
        lengths: Sequence[float] | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        self.grid = tuple(int(n) for n in grid)
        self.lengths = tuple(2 * math.pi for _ in self.grid) if lengths is None else tuple(float(v) for v in lengths)
        if not self.grid or min(self.grid) < 4:
            raise ValueError(f"grid must have at least 4 points along every axis, got {tuple(grid)}.")
        if len(self.lengths) != len(self.grid) or not min(self.lengths) > 0:
            raise ValueError(f"lengths must be {len(self.grid)} positive numbers, got {lengths}.")
        d = len(self.grid)
        self.dims = tuple(range(-d, 0))
        numbers = []
        for i, n in enumerate(self.grid):
            m = torch.fft.rfftfreq(n, 1 / n, dtype=dtype) if i == d - 1 else torch.fft.fftfreq(n, 1 / n, dtype=dtype)
            numbers.append(m.to(device).reshape(*(-1 if j == i else 1 for j in range(d))))
        self.k = [2 * math.pi / L * m for m, L in zip(numbers, self.lengths, strict=True)]
        """Wavenumbers along each axis, broadcasting against the series."""
        kept = torch.ones((), dtype=dtype, device=device)
        for m, n in zip(numbers, self.grid, strict=True):
            kept = kept * (3 * m.abs() < n).to(dtype)
        self.kept = kept
        """1 where the series is kept, else 0."""
        square = torch.zeros((), dtype=dtype, device=device)
        for k in self.k:
            square = square + k.square()
        self.square = square
        """:math:`|k|^2`."""

    def transform(self, x: Tensor) -> Tensor:
        """The truncated series of a field."""
        return torch.fft.rfftn(x, dim=self.dims) * self.kept

    def field(self, w: Tensor) -> Tensor:
        """Values on the grid."""
        return torch.fft.irfftn(w, s=self.grid, dim=self.dims)
