r"""One random stream per member and observation, so that results do not depend on how a batch is split.

A run has one integer root. The stream of row (member m, observation b) is a CPU generator whose seed is a hash of
(root, m, b). Draws are made on the CPU and moved, so the same seed gives the same ensemble on every device.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

__all__ = ["Streams", "explicit", "member_indices", "root_seed"]

AHEAD = 4096
"""Numbers drawn at once for one row, unless a single field has more."""


def explicit(generator: Generator | None) -> Generator:
    """The generator given, or a new one with fresh entropy from the system: never torch's global one."""
    if generator is None:
        generator = Generator()
        generator.seed()
    return generator


def root_seed(generator: Generator | None) -> int:
    """An integer that stands for the run.

    A given generator is read, not advanced: two calls with equal generators are equal. Its *state* enters, not only
    its seed, so a generator that has been used gives another run. None takes fresh entropy from the system.
    """
    if generator is None:
        return Generator().seed()
    state = generator.get_state().cpu().numpy().tobytes()
    return int.from_bytes(hashlib.blake2b(state, digest_size=8).digest(), "little") >> 1


def member_indices(members: int | Sequence[int]) -> list[int]:
    """``8`` means members 0 to 7; a sequence names the members to draw, so that a run can be split or resumed."""
    indices = list(range(members)) if isinstance(members, int) else [int(m) for m in members]
    if not indices:
        raise ValueError(f"members must be at least 1 or a non-empty sequence of indices, got {members!r}.")
    if min(indices) < 0 or len(set(indices)) < len(indices):
        raise ValueError(f"members must be distinct and not negative, got {indices}.")
    return indices


def _seeded(name: str) -> Generator:
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


class Streams:
    """Generators for the rows of a batch, row r = (member, observation) in C order.

    Arguments:
        root: Integer that stands for the run, see `root_seed`.
        members: Indices of the members in this batch.
        batch: Number of observations B; rows are ``len(members) * B``.
    """

    def __init__(self, root: int, members: Sequence[int], batch: int = 1) -> None:
        self.root, self.members, self.batch = root, tuple(members), batch
        self._ahead: dict[tuple[tuple[int, ...], torch.dtype, str], tuple[Tensor, int]] = {}
        self.generators = [self._generator(m, b) for m in self.members for b in range(batch)]

    @classmethod
    def named(cls, names: Sequence[str]) -> Streams:
        """One stream per row, from the row's name alone: no root, no members.

        For rows that are no grid of members and observations, as those of a forecast: a name such as
        ``seed/initial time/member/window`` gives every window its own stream, without a state to carry on.
        """
        streams = cls(0, (), 0)
        streams.generators = [_seeded(name) for name in names]
        return streams

    def _generator(self, member: int, row: int) -> Generator:
        return _seeded(f"{self.root}/{member}/{row}")

    def __len__(self) -> int:
        return len(self.generators)

    def randn(
        self, shape: Sequence[int], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Tensor:
        r"""Standard normal numbers (rows, \*shape), row r from stream r.

        Small fields are drawn several at a time, which saves a loop over the rows per call. How many depends on the
        shape alone, so that a row's numbers do not depend on the other rows.
        """
        shape = tuple(shape)
        count = max(1, AHEAD // max(1, math.prod(shape)))
        key = shape, dtype, str(device)
        block, used = self._ahead.get(key, (None, count))
        if block is None or used == count:
            block = torch.empty(len(self), count, *shape, dtype=dtype)
            for row, generator in zip(block, self.generators, strict=True):
                torch.randn((count, *shape), generator=generator, dtype=dtype, out=row)
            block, used = block.to(device), 0
        if count > 1:
            self._ahead[key] = block, used + 1
        return block[:, used]

    def randn_like(self, u: Tensor) -> Tensor:
        """Standard normal numbers of the shape, type and device of ``u``, whose first dimension is the rows."""
        return self.randn(u.shape[1:], u.device, u.dtype)

    def rand(
        self, shape: Sequence[int], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Tensor:
        r"""Uniform numbers in [0, 1) of shape (rows, \*shape), row r from stream r."""
        rows = [torch.rand(tuple(shape), generator=g, dtype=dtype) for g in self.generators]
        return torch.stack(rows).to(device)
