"""Training rows of forecasters: windows of consecutive states, drawn from stretches of time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from scidiff.errors import InputError

__all__ = ["WindowSource"]


class WindowSource:
    r"""Draws windows (length, C + K, \*grid), every possible start with the same probability.

    Arguments:
        stretches: Normalised states of consecutive times, each (T, C + K, \*grid), forcings after the states. Windows
            do not cross from one stretch into the next.
        length: Times of a window: window + horizon.

    Raises:
        InputError: No stretch is long enough.
    """

    def __init__(self, stretches: Sequence[Tensor], length: int) -> None:
        self.stretches, self.length = list(stretches), length
        counts = [max(0, len(s) - length + 1) for s in self.stretches]
        self.ends = torch.tensor(counts).cumsum(0) if counts else torch.zeros(0)
        if not sum(counts):
            longest = max((len(s) for s in self.stretches), default=0)
            raise InputError(
                f"a window takes {length} consecutive times; the longest stretch of the data has {longest}."
            )

    def __len__(self) -> int:
        return int(self.ends[-1])

    def window(self, index: int) -> Tensor:
        """The window of that number."""
        which = int(torch.searchsorted(self.ends, index, right=True))
        start = index - (int(self.ends[which - 1]) if which else 0)
        return self.stretches[which][start : start + self.length]

    def __call__(self, generator: Generator, crop: tuple[int, ...]) -> Tensor:
        """A random window on the whole grid, whatever ``crop``: a state is not cut."""
        return self.window(int(torch.randint(len(self), (), generator=generator)))
