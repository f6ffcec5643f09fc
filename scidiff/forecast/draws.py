"""Streams of rows as forecasters and their training need them: from seeds, for two calls in one, drawn once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from scidiff.nn.stochastic import Draws

__all__ = ["SeededStreams", "Twice"]


class SeededStreams:
    """One stream per row and member, from one seed per row: row (r, m) in C order.

    Arguments:
        seeds: An integer per row, (B,).
        members: Streams per row.
    """

    def __init__(self, seeds: Tensor, members: int = 1) -> None:
        self.generators = [_stream(int(s), m) for s in seeds.tolist() for m in range(members)]

    def first(self, members: int) -> SeededStreams:
        """The streams of the first member of every row, not copies of them."""
        part = SeededStreams(torch.zeros(0))
        part.generators = self.generators[::members]
        return part

    def __len__(self) -> int:
        return len(self.generators)

    def rand(
        self, shape: Sequence[int], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Tensor:
        r"""Uniform in [0, 1), (rows, \*shape)."""
        out = torch.empty(len(self), *shape, dtype=dtype)
        for row, generator in zip(out, self.generators, strict=True):
            torch.rand(tuple(shape), generator=generator, dtype=dtype, out=row)
        return out.to(device)

    def randn(
        self, shape: Sequence[int], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Tensor:
        r"""Standard normal, (rows, \*shape)."""
        out = torch.empty(len(self), *shape, dtype=dtype)
        for row, generator in zip(out, self.generators, strict=True):
            torch.randn(tuple(shape), generator=generator, dtype=dtype, out=row)
        return out.to(device)


def _stream(seed: int, member: int) -> Generator:
    digest = hashlib.blake2b(f"{seed}/{member}".encode(), digest_size=8).digest()
    return Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


class Twice:
    """Numbers for a batch that holds the rows of ``streams`` twice, first all for one call, then all for the other.

    Arguments:
        streams: Of the rows.
        shared: Both calls get the same numbers.
    """

    def __init__(self, streams: Draws, shared: bool = False) -> None:
        self.streams, self.shared = streams, shared

    def _pair(self, draw, *arguments) -> Tensor:  # noqa: ANN001 - a method of the streams
        first = draw(*arguments)
        return torch.cat([first, first if self.shared else draw(*arguments)])

    def rand(
        self, shape: Sequence[int], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Tensor:
        r"""Uniform in [0, 1), (2 rows, \*shape)."""
        return self._pair(self.streams.rand, shape, device, dtype)

    def randn(
        self, shape: Sequence[int], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Tensor:
        r"""Standard normal, (2 rows, \*shape)."""
        return self._pair(self.streams.randn, shape, device, dtype)
