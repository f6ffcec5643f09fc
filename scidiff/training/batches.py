r"""The rows of a step: fields, times, noise and conditions, each row from its own stream.

Every number of a step is a function of (seed, step, row), so the batch is the same however many processes share it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor

from scidiff.nn.conditioned import joined
from scidiff.priors.diffusion import Network
from scidiff.training.config import TrainingConfig
from scidiff.training.losses import Loss

__all__ = ["Batch", "Source", "draw", "stream"]

Source = Callable[[Generator, tuple[int, ...]], "Tensor | tuple[Tensor, Tensor]"]
r"""Draws one field in units of ``u``: a stream and a grid -> (C, \*grid), or a pair (field, condition (K, \*grid))."""


@dataclass
class Batch:
    r"""Rows at work.

    Arguments:
        u, eps: Fields and noise, (B, C, \*grid); windows in time and nothing for a loss with ``windows = True``.
        time: What the loss drew, (B,) or (B, n).
        condition: (B, K, \*grid), or None.
        present: 1 where a row is trained with its condition, else 0, (B,).
    """

    u: Tensor
    time: Tensor
    eps: Tensor
    condition: Tensor | None = None
    present: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The same rows on a device."""
        return Batch(*(None if t is None else t.to(device) for t in self._parts))  # type: ignore[arg-type]

    def split(self, parts: int) -> list[Batch]:
        """Groups of rows, as even as possible; one empty group when there are no rows."""
        if parts == 1 or not len(self.u):
            return [self]
        chunks = [[None] * parts if t is None else t.tensor_split(parts) for t in self._parts]
        groups = [Batch(*group) for group in zip(*chunks, strict=True)]
        return [group for group in groups if len(group.u)]

    def losses(self, loss: Loss, network: Network) -> Tensor:
        """The loss of each row, (B,)."""
        if self.condition is not None and self.present is not None:
            network = partial(joined, network, self.condition, self.present)
        return loss(network, self.u, self.time, self.eps)

    @property
    def _parts(self) -> tuple[Tensor | None, ...]:
        return (self.u, self.time, self.eps, self.condition, self.present)


def stream(seed: int, step: int, row: int) -> Generator:
    """The random numbers of one row of one step."""
    digest = hashlib.blake2b(f"training/{seed}/{step}/{row}".encode(), digest_size=8).digest()
    return Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def draw(source: Source, step: int, rows: Sequence[int], crop: tuple[int, ...], config: TrainingConfig, loss: Loss):
    """The given rows of a step, a `Batch` on the CPU; without rows, an empty one of the right shape."""
    streams = [stream(config.seed, step, r) for r in rows] or [stream(config.seed, -2, 0)]
    found = [_row(source, g, crop, config, loss) for g in streams]
    parts = [None if part[0] is None else torch.stack(part) for part in zip(*found, strict=True)]  # type: ignore[arg-type]
    batch = Batch(*parts)  # type: ignore[arg-type]
    return batch if len(rows) else Batch(*(None if t is None else t[:0] for t in parts))  # type: ignore[arg-type]


def _row(source: Source, g: Generator, crop: tuple[int, ...], config: TrainingConfig, loss: Loss):  # noqa: ANN202
    drawn = source(g, crop)
    u, condition = drawn if isinstance(drawn, tuple) else (drawn, None)
    u = u.float()
    time = loss.draw(g)
    # Losses of windows in time draw their own noise, from the seed in ``time``.
    eps = torch.zeros(0) if getattr(loss, "windows", False) else torch.randn(u.shape, generator=g)
    if condition is None:
        return u, time, eps, None, None
    present = (torch.rand((), generator=g) >= config.condition_dropout).float()
    return u, time, eps, condition.float(), present
