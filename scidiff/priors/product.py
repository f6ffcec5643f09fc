r"""Independent priors side by side along the channel dimension."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scidiff.protocols import Prior

__all__ = ["ProductPrior"]


class ProductPrior:
    r"""The law of ``x = (x_1, x_2, ...)`` with independent parts stacked along the channels.

    The state is stacked likewise, and :math:`D(u, \sigma) = (D_1(u_1, \sigma), D_2(u_2, \sigma), \dots)`.

    Arguments:
        parts: Priors whose states are (channels, \*grid) with one common grid. Each must know its number of channels,
            by ``shape`` or ``channels``.

    Raises:
        ValueError: if a part does not know its channels, or grids differ.
    """

    def __init__(self, parts: Sequence[Prior]) -> None:
        self.parts = tuple(parts)
        if not self.parts:
            raise ValueError("a product needs at least one prior.")
        self._sizes = [self._channels(part) for part in self.parts]
        grids = {tuple(part.shape[1:]) for part in self.parts if part.shape is not None}
        if len(grids) > 1:
            raise ValueError(f"all parts must live on one grid, got {sorted(grids)}.")
        self._grid = grids.pop() if grids else None
        self.affine = all(part.affine for part in self.parts)

    @staticmethod
    def _channels(part: Prior) -> int:
        channels = part.shape[0] if part.shape else getattr(part, "channels", None)
        if channels is None:
            raise ValueError(f"{type(part).__name__} has neither shape nor channels, so it cannot be stacked.")
        return int(channels)

    @property
    def channels(self) -> int:
        """Channels of the state."""
        return sum(self._sizes)

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape of one state, or None if no part has a fixed size."""
        return None if self._grid is None else (self.channels, *self._grid)

    def _split(self, u: Tensor) -> tuple[Tensor, ...]:
        if u.ndim < 2 or u.shape[1] != self.channels:
            raise ValueError(f"the state has shape {tuple(u.shape)}, but needs {self.channels} channels, (B, C, ...).")
        return u.split(self._sizes, 1)

    def denoise(self, u: Tensor, sigma: Tensor) -> Tensor:
        r""":math:`E[u_0 | u_0 + \sigma\epsilon = u]`; ``u`` (B, \*S), ``sigma`` () or (B,)."""
        return torch.cat([p.denoise(v, sigma) for p, v in zip(self.parts, self._split(u), strict=True)], 1)

    def decode(self, u: Tensor) -> Tensor:
        r"""The field in physical units: (B, \*S) -> (B, \*X), channels of the parts in order."""
        fields = [p.decode(v) for p, v in zip(self.parts, self._split(u), strict=True)]
        if len({x.is_complex() for x in fields}) > 1:
            raise TypeError("some parts decode to complex and some to real fields; they cannot be stacked.")
        return torch.cat(fields, 1)

    def encode(self, x: Tensor) -> Tensor:
        r"""Inverse of `decode`: (B, \*X) -> (B, \*S)."""
        per_field = 2 if x.is_complex() else 1
        if x.ndim < 2 or x.shape[1] * per_field != self.channels:
            raise ValueError(f"fields have shape {tuple(x.shape)}, not {self.channels // per_field} channels.")
        fields = x.split([size // per_field for size in self._sizes], 1)
        return torch.cat([p.encode(v) for p, v in zip(self.parts, fields, strict=True)], 1)
