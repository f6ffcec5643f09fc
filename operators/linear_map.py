"""A linear operator given as a matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scidiff.linalg.svd import SVD, dense_svd
from scidiff.operators.algebra import Algebra
from scidiff.protocols import Operator

__all__ = ["LinearMap"]


class LinearMap(Algebra):
    r"""Matrix on flattened fields, :math:`A(x) = M\,\mathrm{vec}(x)`.

    Arguments:
        matrix: :math:`M`, real or complex, (m, d).
        shape: Shape (\*X) of a field with d entries; default (d,).
        real_fields: Whether fields are real although the matrix is complex; the adjoint is then
            :math:`\mathrm{Re}(M^H y)`.

    Raises:
        ValueError: if sizes differ.
    """

    def __init__(self, matrix: Tensor, shape: Sequence[int] | None = None, real_fields: bool = False) -> None:
        if matrix.ndim != 2:
            raise ValueError(f"matrix must have two dimensions (m, d), got shape {tuple(matrix.shape)}.")
        self.shape = (matrix.shape[1],) if shape is None else tuple(shape)
        if math.prod(self.shape) != matrix.shape[1]:
            raise ValueError(
                f"the matrix has {matrix.shape[1]} columns, but a field of shape {self.shape} "
                f"has {math.prod(self.shape)} entries."
            )
        self.field_shape = self.shape
        self.matrix = matrix
        self.real_fields = real_fields

    def __repr__(self) -> str:
        return f"LinearMap({self.matrix.shape[0]} x {self.matrix.shape[1]}, shape={self.shape})"

    def _matrix(self, like: Tensor) -> Tensor:
        real = like.dtype.to_real()
        return self.matrix.to(like.device, real.to_complex() if self.matrix.is_complex() else real)

    def __call__(self, x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"x has shape {tuple(x.shape)}, but the operator maps (B, {str(self.shape)[1:-1]}).")
        matrix = self._matrix(x)
        dtype = torch.promote_types(x.dtype, matrix.dtype)
        return x.flatten(1).to(dtype) @ matrix.to(dtype).mT

    def adjoint(self, y: Tensor) -> Tensor:
        r"""Maps measurements (B, m) to fields (B, \*X), :math:`M^H y`."""
        if y.ndim != 2 or y.shape[1] != self.matrix.shape[0]:
            raise ValueError(f"y has shape {tuple(y.shape)}, expected (B, {self.matrix.shape[0]}).")
        matrix = self._matrix(y)
        dtype = torch.promote_types(y.dtype, matrix.dtype)
        x = (y.to(dtype) @ matrix.to(dtype).conj()).unflatten(-1, self.shape)
        return x.real if self.real_fields and x.is_complex() else x

    def svd(self) -> SVD:
        """Dense decomposition of the real matrix, computed in double precision.

        Raises:
            TypeError: if the matrix is complex.
        """
        return dense_svd(self.matrix, self.shape)

    @classmethod
    def dense(cls, operator: Operator, shape: Sequence[int], batch: int = 256) -> LinearMap:
        r"""The matrix of any linear operator on real fields, for samplers that need a decomposition.

        Costs d operator calls for fields of d entries and d times m numbers; for small grids.

        Arguments:
            operator: Linear operator on real fields (B, \*X); real measurements of any shape are flattened, complex
                ones become two real numbers each.
            shape: Shape (\*X) of a field.
            batch: Fields per call of the operator.

        Raises:
            ValueError: if the operator is not linear: it does not map zero to zero.
        """
        d = math.prod(shape)
        with torch.no_grad():
            zero = operator(torch.zeros(1, *shape, dtype=torch.float64))
            if bool((zero != 0).any()):
                raise ValueError("the operator does not map zero to zero, so it is not linear; move its offset into y.")
            rows = []
            for first in range(0, d, batch):
                basis = torch.eye(d, dtype=torch.float64)[first : first + batch].reshape(-1, *shape)
                z = operator(basis)
                rows.append((torch.view_as_real(z) if z.is_complex() else z).flatten(1))
        return cls(torch.cat(rows).mT.contiguous(), shape)
