r"""Blur of fields that end: what lies beyond the border of a picture.

.. math:: A(x)_i = \sum_j k_j\, x_{i - j}, \qquad j = 0 \text{ at the kernel's centre, the entry side // 2.}

`ValidConvolution` assumes nothing: the field is larger than the measurement by the reach of the kernel. It is the
honest model of a photograph, whose border pixels saw light from outside the frame. `ZeroConvolution` takes the outside
as dark, as around a bead on a dark slide; `ReflectiveConvolution` as the mirror image of the inside, the border entry
repeated; `scidiff.operators.Convolution` as its periodic continuation.

A kernel that is even along every axis is diagonal in the cosine basis under reflection. With
:math:`D` the orthonormal discrete cosine transform and :math:`\lambda_q = \sum_j k_j \prod_a \cos(\pi q_a j_a / n_a)`,

.. math:: A = D^\top \mathrm{diag}(\lambda)\, D, \qquad U = D^\top \mathrm{diag}(\mathrm{sign} \lambda), \;
          s = |\lambda|, \; V = D^\top .

References:
    A fast algorithm for deblurring models with Neumann boundary conditions (Ng, Chan and Tang, 1999).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from scidiff.linalg.cosine import cosine_basis
from scidiff.linalg.svd import SVD, Frame
from scidiff.operators.algebra import Algebra
from scidiff.operators.autodiff import linear
from scidiff.operators.convolution import Convolution
from scidiff.operators.downsampling import along
from scidiff.operators.fourier_filter import FourierFilter, fast_size, shifted_spectrum

__all__ = ["BOUNDARIES", "ReflectiveConvolution", "ValidConvolution", "ZeroConvolution", "blur"]


def _validated(kernel: Tensor, grid: Sequence[int]) -> tuple[Tensor, tuple[int, ...], tuple[int, ...]]:
    """The kernel, the grid and the kernel's sides on it."""
    grid = tuple(int(n) for n in grid)
    d = len(grid)
    if kernel.is_complex():
        raise TypeError("the kernel must be real; blur real and imaginary parts of the field alike.")
    if d < 1 or kernel.ndim < d:
        raise ValueError(f"a grid of {d} dimensions needs a kernel of at least {d}, got {tuple(kernel.shape)}.")
    sides = tuple(kernel.shape[-d:])
    if any(k > n for k, n in zip(sides, grid, strict=True)):
        raise ValueError(f"the kernel {tuple(kernel.shape)} is larger than the grid {grid}; crop it.")
    return kernel.detach(), grid, sides


class _Blur(Algebra):
    """A linear map between the fields (B, *R, *grid) and measurements (B, *R, *observed)."""

    def __init__(self, kernel: Tensor, grid: tuple[int, ...], observed: tuple[int, ...]) -> None:
        self.kernel, self.grid, self.observed = kernel, grid, observed

    def __repr__(self) -> str:
        return f"{type(self).__name__}(kernel {tuple(self.kernel.shape)}, grid={self.grid})"

    def _check(self, x: Tensor, sides: tuple[int, ...], what: str) -> None:
        if x.ndim <= len(sides) or tuple(x.shape[-len(sides) :]) != sides:
            raise ValueError(f"expected {what} (B, ..., {', '.join(map(str, sides))}), got {tuple(x.shape)}.")


class ValidConvolution(_Blur):
    r"""Convolution where the kernel lies inside the field: a field of sides n is measured with sides n - k + 1.

    Entry 0 of the measurement sees the field around its entry ``k - 1 - k // 2``, see `offset`.

    Arguments:
        kernel: Real, (\*K) or with leading dimensions that broadcast against those of the fields.
        grid: Sides of the field, no smaller than the kernel's.

    Raises:
        TypeError: if the kernel is complex.
        ValueError: if it is larger than the grid or has too few dimensions.
    """

    def __init__(self, kernel: Tensor, grid: Sequence[int]) -> None:
        kernel, grid, sides = _validated(kernel, grid)
        super().__init__(kernel, grid, tuple(n - k + 1 for n, k in zip(grid, sides, strict=True)))
        self.offset = tuple(k - 1 - k // 2 for k in sides)
        size = [fast_size(n) for n in grid]  # what wraps around is cut off
        spectrum = shifted_spectrum(kernel, size, [k - 1 for k in sides])
        self._filter = FourierFilter(spectrum, size, grid, self.observed)

    def __call__(self, x: Tensor) -> Tensor:
        self._check(x, self.grid, "fields")
        return self._filter(x)

    def adjoint(self, y: Tensor) -> Tensor:
        r"""Spreads every measured entry over what it sees, (B, \*R, \*grid)."""
        self._check(y, self.observed, "measurements")
        return self._filter.adjoint(y)


class ZeroConvolution(_Blur):
    r"""Convolution of a field that is zero outside its grid; the measurement has the same sides.

    Arguments:
        kernel: Real, (\*K) or with leading dimensions that broadcast against those of the fields.
        grid: Sides of the field, no smaller than the kernel's.

    Raises:
        TypeError: if the kernel is complex.
        ValueError: if it is larger than the grid or has too few dimensions.
    """

    def __init__(self, kernel: Tensor, grid: Sequence[int]) -> None:
        kernel, grid, sides = _validated(kernel, grid)
        super().__init__(kernel, grid, grid)
        size = [fast_size(n + k // 2) for n, k in zip(grid, sides, strict=True)]
        self._filter = FourierFilter(shifted_spectrum(kernel, size, [k // 2 for k in sides]), size, grid, grid)

    def __call__(self, x: Tensor) -> Tensor:
        self._check(x, self.grid, "fields")
        return self._filter(x)

    def adjoint(self, y: Tensor) -> Tensor:
        r"""Correlation with the kernel, (B, \*R, \*grid)."""
        self._check(y, self.grid, "measurements")
        return self._filter.adjoint(y)


class ReflectiveConvolution(_Blur):
    r"""Convolution of a field continued as its mirror image; the measurement has the same sides.

    Arguments:
        kernel: Real, (\*K) or with leading dimensions that broadcast against those of the fields.
        grid: Sides of the field, no smaller than the kernel's.

    Raises:
        TypeError: if the kernel is complex.
        ValueError: if it is larger than the grid or has too few dimensions.
    """

    def __init__(self, kernel: Tensor, grid: Sequence[int]) -> None:
        kernel, grid, sides = _validated(kernel, grid)
        super().__init__(kernel, grid, grid)
        self._before = tuple(k - 1 - k // 2 for k in sides)
        self._after = tuple(k // 2 for k in sides)
        padded = [n + k - 1 for n, k in zip(grid, sides, strict=True)]
        size = [fast_size(n) for n in padded]
        spectrum = shifted_spectrum(kernel, size, [k - 1 for k in sides])
        self._filter = FourierFilter(spectrum, size, size, grid)

    def __call__(self, x: Tensor) -> Tensor:
        self._check(x, self.grid, "fields")
        return linear(x, self._forward, self._backward)

    def adjoint(self, y: Tensor) -> Tensor:
        r"""Correlation with the kernel, what falls outside folded back, (B, \*R, \*grid)."""
        self._check(y, self.grid, "measurements")
        return linear(y, self._backward, self._forward)

    def _strips(self) -> Iterator[tuple[int, int, int, int]]:
        """Dimension, and first entry, first mirrored entry and length of every strip beyond the border."""
        for dim, (n, a, b) in enumerate(zip(self.grid, self._before, self._after, strict=True), -len(self.grid)):
            yield dim, 0, a, a
            yield dim, a + n, a + n - b, b

    def _forward(self, x: Tensor) -> Tensor:
        size = self._filter.grid
        z = x.new_empty(*x.shape[: -len(size)], *size)
        inside = z
        for dim, (n, a, b) in enumerate(zip(self.grid, self._before, self._after, strict=True), -len(size)):
            z.narrow(dim, n + a + b, size[dim] - n - a - b).zero_()  # so that what wraps around is a number
            inside = inside.narrow(dim, a, n)
        inside.copy_(x)
        for dim, to, mirrored, n in self._strips():
            z.narrow(dim, to, n).copy_(z.narrow(dim, mirrored, n).flip(dim))
        return self._filter(z)

    def _backward(self, y: Tensor) -> Tensor:
        x = self._filter.adjoint(y)
        for dim, to, mirrored, n in reversed(tuple(self._strips())):
            x.narrow(dim, mirrored, n).add_(x.narrow(dim, to, n).flip(dim))
        for dim, (n, a) in enumerate(zip(self.grid, self._before, strict=True), -len(self.grid)):
            x = x.narrow(dim, a, n)
        return x

    def svd(self) -> SVD:
        """In the cosine basis; coefficients have the shape of the fields. Singular values below 1e-14 are set to zero.

        Raises:
            TypeError: if the kernel is not even along every axis.
        """
        d, k = len(self.grid), self.kernel.to(torch.float64)
        for dim in range(-d, 0):
            if k.shape[dim] % 2 == 0 or not torch.equal(k, k.flip(dim)):
                raise TypeError(
                    f"a kernel {tuple(k.shape)} that is not even along every axis has no cosine decomposition; use "
                    "periodic boundaries, or LinearMap.dense(operator, shape) on a small grid."
                )
        eigenvalues = k
        for dim, n in zip(range(-d, 0), self.grid, strict=True):
            j = torch.arange(k.shape[dim], dtype=torch.float64, device=k.device) - k.shape[dim] // 2
            q = torch.arange(n, dtype=torch.float64, device=k.device)
            cosines = torch.cos(math.pi / n * q[:, None] * j)
            eigenvalues = (eigenvalues.movedim(dim, -1) @ cosines.mT).movedim(-1, dim)
        s, sign = eigenvalues.abs(), torch.where(eigenvalues < 0, -1.0, 1.0)
        s = torch.where(s > 1e-14 * s.max(), s, 0)
        forward = [cosine_basis(n).to(k.device) for n in self.grid]
        back = [m.mT for m in forward]
        U = Frame(
            lambda c: along(c * sign.to(c), back, "coefficients"),
            lambda y: along(y, forward, "a measurement") * sign.to(y),
        )
        return SVD(U, s, Frame(lambda c: along(c, back, "coefficients"), lambda x: along(x, forward, "a field")))


BOUNDARIES = {
    "valid": ValidConvolution,
    "periodic": Convolution,
    "reflective": ReflectiveConvolution,
    "zero": ZeroConvolution,
}
"""Name -> class, for the command line."""


def blur(
    kernel: Tensor, grid: Sequence[int], boundary: str = "valid"
) -> ValidConvolution | ZeroConvolution | ReflectiveConvolution | Convolution:
    """The blur with a boundary given by name.

    Raises:
        ValueError: for another name than those of `BOUNDARIES`.
    """
    if boundary not in BOUNDARIES:
        raise ValueError(f"boundary must be one of {', '.join(BOUNDARIES)}, got {boundary!r}.")
    return BOUNDARIES[boundary](kernel, grid)
