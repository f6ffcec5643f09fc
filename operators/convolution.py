r"""Blur of periodic fields, with a real singular value decomposition.

With the orthonormal Fourier transform :math:`F` and :math:`h` the Fourier transform of the kernel,
:math:`A = F^\ast \mathrm{diag}(h)\, F`. The real orthonormal Hartley transform
:math:`H = \mathrm{Re} F - \mathrm{Im} F` (symmetric, hence its own inverse) diagonalises every spectrum that is even,
such as :math:`|h|`. So

.. math:: A = P\, H\, \mathrm{diag}(|h|)\, H, \qquad P = F^\ast \mathrm{diag}(h / |h|)\, F,

where P is real and orthogonal: :math:`V = H`, :math:`s = |h|`, :math:`U = P H`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scidiff.linalg.svd import SVD, Frame
from scidiff.operators.algebra import Algebra
from scidiff.operators.fourier_filter import FourierFilter

__all__ = ["Convolution"]


class Convolution(Algebra):
    r"""Periodic convolution, :math:`A(x)_i = \sum_j k_j\, x_{i - j}` with :math:`j = 0` at the kernel's centre.

    Fields are (B, \*R, \*grid), with a grid of one, two, three or more dimensions; channels :math:`R` are blurred each
    with the same kernel, or each with its own. Other boundaries: `scidiff.operators.blur`.

    Arguments:
        kernel: :math:`k`, real, (\*K) with as many dimensions as the grid and sides no larger; its centre is the entry
            ``side // 2`` along each axis. Leading dimensions, if any, broadcast against those of the fields, so that
            (C, h, w) holds one kernel per channel.
        grid: Sides of the grid.

    Raises:
        TypeError: if the kernel is complex.
        ValueError: if it is larger than the grid or has too few dimensions.
    """

    def __init__(self, kernel: Tensor, grid: Sequence[int]) -> None:
        self.grid = tuple(int(n) for n in grid)
        d = len(self.grid)
        if kernel.is_complex():
            raise TypeError("the kernel must be real; blur real and imaginary parts of the field alike.")
        if d < 1 or kernel.ndim < d:
            raise ValueError(f"a grid of {d} dimensions needs a kernel of at least {d}, got {tuple(kernel.shape)}.")
        if any(k > n for k, n in zip(kernel.shape[-d:], self.grid, strict=True)):
            raise ValueError(f"the kernel {tuple(kernel.shape)} is larger than the grid {self.grid}; crop it.")
        self.kernel = kernel.detach()
        self._dims = tuple(range(-d, 0))
        full = torch.zeros(*kernel.shape[:-d], *self.grid, dtype=torch.float64, device=kernel.device)
        full[(..., *(slice(k) for k in kernel.shape[-d:]))] = self.kernel.to(torch.float64)
        full = full.roll([-(k // 2) for k in kernel.shape[-d:]], self._dims)
        h = torch.fft.fftn(full, dim=self._dims)
        mirrored = h.conj().resolve_conj()
        for dim in self._dims:
            mirrored = mirrored.roll(-1, dim).flip(dim)
        self.spectrum = (h + mirrored) / 2  # exactly that of a real kernel, so that P is exactly real
        self._blur = FourierFilter(self.spectrum[..., : self.grid[-1] // 2 + 1], self.grid)

    def __repr__(self) -> str:
        return f"Convolution(kernel {tuple(self.kernel.shape)}, grid={self.grid})"

    def _check(self, x: Tensor) -> None:
        if x.ndim <= len(self.grid) or tuple(x.shape[-len(self.grid) :]) != self.grid:
            raise ValueError(
                f"expected fields (B, ..., {', '.join(map(str, self.grid))}), got {tuple(x.shape)}; "
                "the operator blurs the grid it was made for."
            )

    def _filter(self, x: Tensor, h: Tensor) -> Tensor:
        """Multiplies by ``h`` in Fourier space; real fields stay real."""
        self._check(x)
        h = h.to(x.device, x.dtype.to_complex())
        if x.is_complex():
            return torch.fft.ifftn(torch.fft.fftn(x, dim=self._dims) * h, dim=self._dims)
        half = h[..., : self.grid[-1] // 2 + 1]
        return torch.fft.irfftn(torch.fft.rfftn(x, dim=self._dims) * half, s=self.grid, dim=self._dims)

    def __call__(self, x: Tensor) -> Tensor:
        self._check(x)
        return self._blur(x)

    def adjoint(self, y: Tensor) -> Tensor:
        r"""Correlation with the kernel, (B, \*R, \*grid)."""
        self._check(y)
        return self._blur.adjoint(y)

    def _hartley(self, x: Tensor) -> Tensor:
        self._check(x)
        if x.is_complex():
            return torch.complex(self._hartley(x.real), self._hartley(x.imag))
        c = torch.fft.fftn(x, dim=self._dims, norm="ortho")
        return c.real - c.imag

    def svd(self) -> SVD:
        """In the Hartley basis: coefficients have the shape of the fields, ``s`` that of the kernel's spectrum.

        Singular values below 1e-14 of the largest are rounding and set to zero.
        """
        s = self.spectrum.abs()
        phase = torch.where(s > 0, self.spectrum.sgn(), 1)
        s = torch.where(s > 1e-14 * s.max(), s, 0)
        U = Frame(
            lambda c: self._filter(self._hartley(c), phase),
            lambda y: self._hartley(self._filter(y, phase.conj())),
        )
        return SVD(U, s, Frame(self._hartley, self._hartley))
