r"""What all tomographic operators share: a stored sparse matrix, its transpose, and their place in autograd.

Both the matrix and its transpose are kept in compressed rows, so that projection and adjoint read memory in order. They
are made at the first use of a device and number type, and take 16 bytes per weight in float32, 24 in float64. A field
of n pixels seen from V sides with bins as wide as pixels has about 1.8 n V weights: 256 x 256 pixels and 90 views take
170 MB, 512 x 512 pixels and 180 views 1.4 GB.
"""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scidiff.operators.algebra import Algebra
from scidiff.operators.tomography.joseph import Rays, joseph_matrix

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["Projector"]


class Projector(Algebra):
    """Line integrals of fields (B, C, H, W) as sinograms (B, C, views, bins), with exact adjoint.

    Subclasses fill in the geometry: ``shape`` (H, W), ``pixel`` (height and width in mm), ``angles`` in degrees,
    ``bins`` and ``rays_per_bin``, and `rays`.
    """

    shape: tuple[int, int]
    pixel: tuple[float, float]
    angles: Tensor
    bins: int
    rays_per_bin: int

    def rays(self) -> Rays:
        """The lines of every view, bin and ray within the bin, in this order."""
        raise NotImplementedError

    @property
    def views(self) -> int:
        """Number of angles."""
        return len(self.angles)

    def matrix(self, dtype: Any = "float64") -> csr_array:
        """The matrix (views bins, H W) in mm, made anew: for use outside of torch."""
        return joseph_matrix(self.rays(), self.shape, self.pixel, self.rays_per_bin, dtype)

    @cached_property
    def _stored(self) -> dict[tuple[torch.device, torch.dtype], tuple[Tensor | csr_array, Tensor | csr_array]]:
        return {}

    def _matrices(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor | csr_array, Tensor | csr_array]:
        """The matrix and its transpose, made at the first use of a device and number type."""
        key = (device, dtype)
        if key not in self._stored:
            matrix = self.matrix(str(dtype).removeprefix("torch."))
            self._stored[key] = _compressed(matrix, device), _compressed(matrix.T.tocsr(), device)
        return self._stored[key]

    def __call__(self, x: Tensor) -> Tensor:
        """Fields (B, C, H, W) in 1/mm to line integrals (B, C, views, bins)."""
        if x.ndim != 4 or tuple(x.shape[-2:]) != self.shape:
            raise ValueError(f"x must have shape (B, C, {self.shape[0]}, {self.shape[1]}), got {tuple(x.shape)}.")
        return self._linear(x, False)

    def adjoint(self, y: Tensor) -> Tensor:
        """Backprojection without filter, the transpose of the call: (B, C, views, bins) to (B, C, H, W)."""
        self._check(y)
        return self._linear(y, True)

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        """Vector-Jacobian product at any ``x``: the adjoint of ``v`` (B, C, views, bins)."""
        return self.adjoint(v)

    def _check(self, y: Tensor) -> None:
        if y.ndim != 4 or tuple(y.shape[-2:]) != (self.views, self.bins):
            raise ValueError(
                f"y must have shape (B, C, views, bins) = (B, C, {self.views}, {self.bins}), got {tuple(y.shape)}."
            )

    def _linear(self, x: Tensor, transposed: bool) -> Tensor:
        if x.is_complex():
            return torch.complex(self._linear(x.real, transposed), self._linear(x.imag, transposed))
        return _Product.apply(x, self, transposed)  # type: ignore[return-value]

    def _multiply(self, x: Tensor, transposed: bool) -> Tensor:
        matrix = self._matrices(x.device, x.dtype)[transposed]
        shape = (*x.shape[:-2], *(self.shape if transposed else (self.views, self.bins)))
        columns = x.reshape(-1, x.shape[-2] * x.shape[-1])
        if len(columns) == 0:
            product = x.new_zeros(shape)
        elif not isinstance(matrix, Tensor):
            product = torch.from_numpy(matrix @ columns.mT.numpy()).mT
        elif len(columns) == 1:
            product = (matrix @ columns[0])[None]
        else:
            product = (matrix @ columns.mT.contiguous()).mT.contiguous()
        return product.reshape(shape)


def _compressed(matrix: csr_array, device: torch.device) -> Tensor | csr_array:
    """The matrix as torch tensor; on a CPU without MKL, where torch is slow, as it is."""
    if device.type == "cpu" and not torch.backends.mkl.is_available():
        return matrix
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        parts = (torch.from_numpy(part).to(device) for part in (matrix.indptr, matrix.indices, matrix.data))
        return torch.sparse_csr_tensor(*parts, size=matrix.shape, check_invariants=False)


class _Product(torch.autograd.Function):
    """Product with the matrix or its transpose; the derivative of one is the other, to any order."""

    @staticmethod
    def forward(x: Tensor, projector: Projector, transposed: bool) -> Tensor:  # type: ignore[override]
        return projector._multiply(x.detach(), transposed)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.projector, ctx.transposed = inputs

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return _Product.apply(v, ctx.projector, not ctx.transposed), None, None  # type: ignore[return-value]

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:  # type: ignore[override]
        return _Product.apply(tangent, ctx.projector, ctx.transposed)  # type: ignore[return-value]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], x: Tensor, projector: Projector, transposed: bool) -> Any:
        return _Product.apply(x.movedim(in_dims[0] or 0, 0), projector, transposed), 0
