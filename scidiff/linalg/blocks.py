"""Covariances made of small dense blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scidiff.linalg.covariance import Spectral

__all__ = ["BlockDiagonal"]


class BlockDiagonal(Spectral):
    r"""Entries correlated within groups and independent between them, :math:`C = \mathrm{diag}(C_1, \dots, C_K)`.

    Blocks of equal size are decomposed and applied together, so a call costs the sum of the squares of their sizes.

    Arguments:
        blocks: Symmetric positive semi-definite matrices :math:`C_k` (d_k, d_k), real, in the order of the entries.

    Raises:
        ValueError: if there is no block, or one is no covariance; the message names its number.
    """

    def __init__(self, blocks: Sequence[Tensor]) -> None:
        if not blocks:
            raise ValueError("a block covariance needs at least one block.")
        self.blocks = [b.detach().to(torch.float64) for b in blocks]
        """The matrices, float64."""
        sizes: dict[int, list[int]] = {}
        for number, block in enumerate(self.blocks):
            if block.ndim != 2 or block.shape[0] != block.shape[1] or blocks[number].is_complex():
                raise ValueError(f"block {number} must be a real square matrix, got shape {tuple(block.shape)}.")
            if not bool(torch.isfinite(block).all()):
                raise ValueError(f"block {number} holds NaN or infinite values.")
            if float((block - block.mT).abs().max()) > 1e-6 * float(block.abs().max()):
                raise ValueError(f"block {number} is not symmetric.")
            sizes.setdefault(len(block), []).append(number)
        starts = torch.tensor([0, *(len(b) for b in self.blocks)]).cumsum(0)
        self._groups: list[tuple[Tensor, Tensor]] = []  # entries (k, size) and eigenvectors (k, size, size)
        eigenvalues = self.blocks[0].new_zeros(int(starts[-1]))
        for size, members in sizes.items():
            stack = torch.stack([self.blocks[k] for k in members])
            lam, q = torch.linalg.eigh((stack + stack.mT) / 2)
            rounding = size * 1e-7 * lam[:, -1:].abs()
            if bool((lam < -rounding).any()):
                bad = members[int((lam < -rounding).any(1).int().argmax())]
                raise ValueError(f"block {bad} has a negative eigenvalue, so it is no covariance.")
            lam = torch.where(lam > size * torch.finfo(lam.dtype).eps * lam[:, -1:], lam, 0.0)
            place = (starts[members][:, None] + torch.arange(size)).to(lam.device)
            eigenvalues[place] = lam
            self._groups.append((place, q))
        self._order = torch.cat([place.flatten() for place, _ in self._groups]).argsort()
        super().__init__(eigenvalues, tuple(eigenvalues.shape))
        self._copies: dict[tuple[torch.device, torch.dtype], list[tuple[Tensor, Tensor]]] = {}

    def _on(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        key = (x.device, x.dtype)
        if key not in self._copies:
            self._copies[key] = [(place.to(x.device), q.to(x.device, x.dtype)) for place, q in self._groups]
        return self._copies[key]

    def _apply(self, x: Tensor, transposed: bool) -> Tensor:
        parts = [(x[:, place, None] * (q.mT if transposed else q)).sum(-2) for place, q in self._on(x)]
        return torch.cat([p.flatten(1) for p in parts], 1)[:, self._order.to(x.device)]

    def _forward(self, x: Tensor) -> Tensor:
        return self._apply(x, transposed=False)

    def _backward(self, c: Tensor, like: Tensor) -> Tensor:
        return self._apply(c, transposed=True).reshape(like.shape)

    def diagonal(self) -> Tensor:
        return torch.cat([b.diagonal() for b in self.blocks])

    def scaled(self, factor: float) -> BlockDiagonal:
        return BlockDiagonal([factor * b for b in self.blocks])
