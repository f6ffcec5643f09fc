r"""Multiplication in Fourier space: the fast core of every blur.

.. math:: G(x) = C\, F^{-1} \mathrm{diag}(h)\, F\, E\, x

E appends zeros to the field (\*inside) until it fills the grid of the transform, F is the Fourier transform over that
grid, C keeps the first entries (\*outside). C is the transpose of an E, so the adjoint is the same map with the
conjugate spectrum and the two shapes exchanged.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scidiff.operators.autodiff import linear

__all__ = ["FourierFilter", "fast_size", "shifted_spectrum"]


def fast_size(n: int) -> int:
    """The smallest size of at least ``n`` whose prime factors are 2, 3, 5 and 7: transforms of it are fast."""
    while True:
        rest = n
        for prime in (2, 3, 5, 7):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 1


def shifted_spectrum(kernel: Tensor, grid: Sequence[int], first: Sequence[int]) -> Tensor:
    r"""Half the spectrum (\*R, \*half) of a real kernel (\*R, \*K) whose entry ``first`` stands at the origin."""
    dims = tuple(range(-len(grid), 0))
    full = torch.zeros(*kernel.shape[: -len(grid)], *grid, dtype=torch.float64, device=kernel.device)
    full[(..., *(slice(k) for k in kernel.shape[-len(grid) :]))] = kernel.to(torch.float64)
    return torch.fft.rfftn(full.roll([-f for f in first], dims), dim=dims)


class FourierFilter:
    r"""The map of the module and its adjoint.

    Arguments:
        spectrum: Half of :math:`h`, complex, (\*R, \*half), as `torch.fft.rfftn` of a real kernel gives it.
        grid: Sides of the transform.
        inside: Sides of the field, at most those of the grid; default the grid.
        outside: Sides of the result, likewise.
    """

    def __init__(
        self,
        spectrum: Tensor,
        grid: Sequence[int],
        inside: Sequence[int] | None = None,
        outside: Sequence[int] | None = None,
    ) -> None:
        self.grid = tuple(grid)
        self.inside, self.outside = tuple(inside or grid), tuple(outside or grid)
        self._dims = tuple(range(-len(self.grid), 0))
        self.spectrum = spectrum.to(torch.complex128)
        self._single = spectrum.to(torch.complex64)  # not converted at every call

    def __call__(self, x: Tensor) -> Tensor:
        return linear(x, self._forward, self._backward)

    def adjoint(self, y: Tensor) -> Tensor:
        r"""(B, \*R, \*outside) to (B, \*R, \*inside)."""
        return linear(y, self._backward, self._forward)

    def _forward(self, x: Tensor) -> Tensor:
        return self._apply(x, False, self.outside)

    def _backward(self, y: Tensor) -> Tensor:
        return self._apply(y, True, self.inside)

    def _apply(self, x: Tensor, conjugate: bool, keep: tuple[int, ...]) -> Tensor:
        if x.is_complex():
            return torch.complex(self._apply(x.real, conjugate, keep), self._apply(x.imag, conjugate, keep))
        h = (self.spectrum if x.dtype == torch.float64 else self._single).to(x.device)
        X = torch.fft.rfftn(x, s=self.grid, dim=self._dims)
        h = h.conj() if conjugate else h
        X = X.mul_(h) if h.ndim <= X.ndim and _fits(h.shape, X.shape) else X * h
        z = torch.fft.irfftn(X, s=self.grid, dim=self._dims)
        return z if keep == self.grid else z[(..., *(slice(n) for n in keep))]


def _fits(small: Sequence[int], large: Sequence[int]) -> bool:
    """Whether a product with ``small`` keeps the shape ``large``."""
    return all(a in (1, b) for a, b in zip(reversed(small), reversed(large), strict=False))
