r"""Randomness inside a network: masks and noise that come from the streams of the rows, never from a global state.

A network of this kind is called as ``network(x, time, streams)``. ``streams`` gives uniform and normal numbers, one
generator per row (`scidiff.rng.Streams` is one); None switches all randomness off, in training as in use. The modes
``train()`` and ``eval()`` play no part in it, so a frozen network keeps its masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

__all__ = ["Dropout", "Draws", "noise_fields"]


class Draws(Protocol):
    """Random numbers for the rows of a batch, each row from a stream of its own."""

    def rand(
        self, shape: Sequence[int], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Tensor:
        r"""Uniform in [0, 1), (rows, \*shape)."""
        ...

    def randn(
        self, shape: Sequence[int], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Tensor:
        r"""Standard normal, (rows, \*shape)."""
        ...


class Dropout(nn.Module):
    r"""Multiplies by a mask: :math:`h\, m / (1 - p)`, :math:`m = 1` with probability :math:`1 - p`, else 0.

    Arguments:
        p: Probability that a number is dropped, in [0, 1).
        channels: One number of the mask per channel instead of one per channel and point.
    """

    def __init__(self, p: float, channels: bool = False) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"a dropout probability must lie in [0, 1), got {p}.")
        self.p, self.channels = p, channels

    def forward(self, h: Tensor, streams: Draws | None) -> Tensor:
        r"""(B, C, \*grid) -> the same shape; the identity without streams."""
        if streams is None or self.p == 0:
            return h
        shape = (h.shape[1], *(1,) * (h.ndim - 2)) if self.channels else tuple(h.shape[1:])
        return h * (streams.rand(shape, h.device) >= self.p).to(h.dtype) / (1 - self.p)


def noise_fields(streams: Draws, shapes: Sequence[Sequence[int]], like: Tensor) -> list[Tensor]:
    """White noise of several shapes with the rows, type and device of ``like``, in one draw per row."""
    sizes = [int(torch.Size(shape).numel()) for shape in shapes]
    parts = streams.randn((sum(sizes),), like.device, like.dtype).split(sizes, dim=1)
    return [part.unflatten(1, tuple(shape)) for part, shape in zip(parts, shapes, strict=True)]
