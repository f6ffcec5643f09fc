"""Covariances of fields in a box, diagonal in the cosine basis (zero slope at the walls) or another basis per axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor

from scidiff.linalg.covariance import Spectral

__all__ = ["Cosine", "Separable", "cosine_basis"]


def cosine_basis(n: int) -> Tensor:
    r"""Orthonormal cosines at cell centres, row k is :math:`c_k \cos(\pi k (i + 1/2) / n)`: (n, n), float64.

    :math:`c_0 = \sqrt{1/n}`, the others :math:`\sqrt{2/n}`; known as the discrete cosine transform of type II.
    """
    k, i = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64)
    basis = math.sqrt(2 / n) * torch.cos(math.pi * k * (i + 0.5) / n)
    basis[0] /= math.sqrt(2)
    return basis


class Separable(Spectral):
    r"""Covariance :math:`C = F^\top \mathrm{diag}(\lambda)\, F`; :math:`F` has an orthonormal basis for each axis.

    Leading dimensions of the field (channels) are independent. Transforms are matrix products along each axis: for
    sides of some hundred points that is faster than an FFT.

    Arguments:
        spectrum: :math:`\lambda \ge 0`, entry k belongs to the product of the vectors number k of every axis.
        shape: Shape of one field; ``spectrum`` is broadcast to it. Default: the shape of the spectrum.
        dims: Number of last dimensions that are transformed; default: all dimensions of the spectrum.
    """

    basis: ClassVar[Callable[[int], Tensor]]
    """Orthonormal vectors of an axis of n cells as rows, (n, n), float64."""

    def __init__(self, spectrum: Tensor, shape: Sequence[int] | None = None, dims: int | None = None) -> None:
        shape = tuple(spectrum.shape) if shape is None else tuple(shape)
        dims = spectrum.ndim if dims is None else dims
        if not 1 <= dims <= len(shape):
            raise ValueError(f"dims must be between 1 and {len(shape)} for fields of shape {shape}, got {dims}.")
        if spectrum.ndim < dims or tuple(spectrum.shape[-dims:]) != shape[-dims:]:
            raise ValueError(f"the spectrum has shape {tuple(spectrum.shape)}, but must end with {shape[-dims:]}.")
        super().__init__(spectrum.detach(), shape, spectrum.dtype)
        self._dims = tuple(range(-dims, 0))
        for dim in self._dims:
            setattr(self, f"basis{dim}", type(self).basis(shape[dim]))

    def _along(self, x: Tensor, transposed: bool) -> Tensor:
        for dim in self._dims:
            basis = self._cast(f"basis{dim}", x).to(x.dtype)
            x = (x.movedim(dim, -1) @ (basis if transposed else basis.mT)).movedim(-1, dim)
        return x

    def _forward(self, x: Tensor) -> Tensor:
        return self._along(x, transposed=False)

    def _backward(self, c: Tensor, like: Tensor) -> Tensor:
        return self._along(c, transposed=True)

    def coefficients(self, x: Tensor) -> Tensor:
        r"""Of fields (B, \*shape) in the basis, in the order of the spectrum, (B, \*shape)."""
        return self._along(self._fields(x), transposed=False)

    def field(self, c: Tensor) -> Tensor:
        """The field of coefficients."""
        return self._along(self._fields(c), transposed=True)

    def diagonal(self) -> Tensor:
        variance = self.eigenvalues.expand(self.shape)
        for dim in self._dims:
            variance = (variance.movedim(dim, -1) @ getattr(self, f"basis{dim}").square()).movedim(-1, dim)
        return variance.clone()

    def scaled(self, factor: float) -> Self:
        return type(self)(self.eigenvalues * factor, self.shape, len(self._dims))


class Cosine(Separable):
    r"""Covariance of fields with zero slope at the walls of a box (Neumann), diagonal in cosines of the cell centres.

    Functions of the Laplacian in such a box are of this kind. Arguments are those of `Separable`; entry k of the
    spectrum belongs to the cosines number k, counted from the constant.
    """

    basis = staticmethod(cosine_basis)

    @classmethod
    def matern(
        cls,
        grid: Sequence[int],
        alpha: float = 2.0,
        tau: float = 3.0,
        variance: float = 1.0,
        channels: int | None = None,
        constant: bool = True,
    ) -> Cosine:
        r"""Random fields :math:`N(0, (-\Delta + \tau^2)^{-\alpha})` in the unit box with zero slope at the walls.

        Arguments:
            grid: Cells along each side of the box.
            alpha: Smoothness :math:`\alpha`.
            tau: Inverse correlation length :math:`\tau`, in units of the box.
            variance: Variance of an entry, mean over the box; :math:`\lambda` is multiplied to reach it.
            channels: Number of independent channels; None for fields without a channel dimension.
            constant: Whether the mean over the box varies; without it every field has mean zero.
        """
        waves = torch.meshgrid(*[math.pi * torch.arange(n, dtype=torch.float64) for n in grid], indexing="ij")
        spectrum = (torch.stack(waves).square().sum(0) + tau**2) ** -alpha
        if not constant:
            spectrum.flatten()[0] = 0
        spectrum = spectrum * variance / spectrum.mean()
        return cls(spectrum, None if channels is None else (channels, *grid), len(spectrum.shape))
