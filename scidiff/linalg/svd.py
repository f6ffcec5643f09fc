r"""The singular value decomposition of a linear operator as functions, :math:`A = U\,\mathrm{diag}(s)\,V^\top`.

The coefficients have any shape (B, \*K); ``s`` broadcasts against them. The columns of :math:`U` and of :math:`V` are
orthonormal, so ``V.adjoint(V(c)) = c``; what :math:`V` does not reach the operator does not see. Zeros in ``s`` are
allowed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["SVD", "Frame", "dense_svd"]


class Frame(NamedTuple):
    r"""Orthonormal columns, applied without a matrix.

    Arguments:
        forward: Coefficients (B, \*K) to vectors (B, \*X).
        adjoint: Vectors (B, \*X) to coefficients (B, \*K); ``adjoint(forward(c)) = c``.
    """

    forward: Callable[[Tensor], Tensor]
    adjoint: Callable[[Tensor], Tensor]

    def __call__(self, c: Tensor) -> Tensor:
        """Vectors with the coefficients ``c``."""
        return self.forward(c)


class SVD(NamedTuple):
    r"""``A(x) = U(s * V.adjoint(x))``.

    Arguments:
        U: Orthonormal measurements.
        s: Singular values, not negative, in any order; broadcasts against coefficients (B, \*K).
        V: Orthonormal fields.
    """

    U: Frame
    s: Tensor
    V: Frame


def dense_svd(matrix: Tensor, shape: tuple[int, ...], relative: float = 1e-10) -> SVD:
    r"""The decomposition of a real matrix (m, d) on flattened fields of ``shape``, in double precision.

    Arguments:
        matrix: Real matrix; computed in float64, applied in the type of what it acts on.
        shape: Shape (\*X) of a field.
        relative: Singular values below this fraction of the largest are taken as zero and left out.
    """
    if matrix.is_complex():
        raise TypeError("an SVD in real numbers needs a real matrix; stack real and imaginary rows.")
    U, s, Vh = torch.linalg.svd(matrix.to(torch.float64), full_matrices=False)
    keep = s > relative * s.max().clamp(min=torch.finfo(s.dtype).tiny)
    U, s, V = U[:, keep], s[keep], Vh[keep].mT

    def frame(columns: Tensor, size: tuple[int, ...]) -> Frame:
        return Frame(
            lambda c: (c @ columns.to(c).mT).unflatten(-1, size),
            lambda x: x.flatten(1) @ columns.to(x),
        )

    return SVD(frame(U, (len(matrix),)), s, frame(V, shape))
