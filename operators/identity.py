"""The field itself, for denoising."""

from __future__ import annotations

import torch
from torch import Tensor

from scidiff.linalg.svd import SVD, Frame
from scidiff.operators.algebra import Algebra

__all__ = ["Identity"]


class Identity(Algebra):
    """Observes the whole field, ``A(x) = x``."""

    rows_orthonormal = columns_orthonormal = True

    def __call__(self, x: Tensor) -> Tensor:
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        return y

    def svd(self) -> SVD:
        """Entries are their own coefficients; all singular values are 1."""
        same = Frame(lambda c: c, lambda x: x)
        return SVD(same, torch.ones(()), same)
