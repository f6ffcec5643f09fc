"""Observation of some entries of a field."""

from __future__ import annotations

import torch
from torch import Tensor

from scidiff.linalg.svd import SVD, Frame
from scidiff.operators.algebra import Algebra

__all__ = ["Mask"]


class Mask(Algebra):
    r"""Observes a subset of the entries, :math:`A(x) = x_M`.

    Arguments:
        mask: The observed entries :math:`M`, a boolean tensor (\*X) or of the last dimensions of a field, such as
            (H, W) for fields (B, C, H, W). A field (B, \*R, \*M) is measured as (B, \*R, m) with m observed entries.

    Raises:
        TypeError: if the mask is not boolean.
        ValueError: if it observes nothing.
    """

    rows_orthonormal = True

    def __init__(self, mask: Tensor) -> None:
        if mask.dtype != torch.bool:
            raise TypeError(f"mask must be boolean, got {mask.dtype}; write `mask > 0`.")
        if mask.ndim == 0 or not bool(mask.any()):
            raise ValueError("mask observes no entry, so there is no measurement; set at least one entry to True.")
        self.mask = mask
        self._index = mask.flatten().nonzero()[:, 0]

    def __repr__(self) -> str:
        return f"Mask({tuple(self.mask.shape)}, {len(self._index)} observed)"

    def __call__(self, x: Tensor) -> Tensor:
        shape, n = tuple(self.mask.shape), self.mask.ndim
        if x.ndim <= n or tuple(x.shape[-n:]) != shape:
            raise ValueError(f"x has shape {tuple(x.shape)}, but the mask sees fields (B, ..., {str(shape)[1:-1]}).")
        return x.flatten(-n)[..., self._index.to(x.device)]

    def adjoint(self, y: Tensor) -> Tensor:
        if y.ndim < 2 or y.shape[-1] != len(self._index):
            raise ValueError(f"y has shape {tuple(y.shape)}, expected (B, ..., {len(self._index)}) observed entries.")
        x = y.new_zeros(*y.shape[:-1], self.mask.numel())
        return x.index_copy(-1, self._index.to(y.device), y).unflatten(-1, self.mask.shape)

    def svd(self) -> SVD:
        """Observed entries are their own coefficients; all singular values are 1."""
        same = Frame(lambda c: c, lambda y: y)
        return SVD(same, torch.ones(()), Frame(self.adjoint, self.__call__))
