r"""What a simulator of fields offers to training: a kind of ``[data]`` that needs no files.

A simulator draws a new field for every row of every step from the stream it is given, so a field is a function of
(seed, step, row) and none is seen twice. Held-out fields are draws of other streams, unless the simulator keeps some
trajectories or pictures apart.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from torch import Generator, Tensor

from scidiff.errors import InputError

__all__ = ["Simulator", "window"]


class Simulator(ABC):
    """A source of fields in units of ``u``; the attributes say how to come back to physical units."""

    channels: int = 1
    loc: list[float] | float = 0.0
    scale: list[float] | float = 1.0
    units: str = "1"
    modes: Tensor | None = None
    r"""Units of the sines of each channel, (channels, \*grid), see `scidiff.linalg.modes`; None: one unit for all."""

    @abstractmethod
    def __call__(self, generator: Generator, crop: tuple[int, ...]) -> Tensor:
        r"""One field (channels, \*crop), about standard normal number by number."""

    @property
    def held_out(self) -> Callable[[Generator, tuple[int, ...]], Tensor]:
        """Fields for validation; by default the same law."""
        return self

    @property
    def card(self) -> dict[str, Any]:
        """What a prior's card keeps besides the options, for example names and units of the channels."""
        return {}


def window(grid: Sequence[int], crop: Sequence[int], generator: Generator, what: str) -> tuple[slice, ...]:
    """A random window of ``crop`` points in a grid.

    Raises:
        InputError: The window does not fit.
    """
    import torch

    if len(grid) != len(crop) or any(n < c for n, c in zip(grid, crop, strict=True)):
        raise InputError(f"{what} has the grid {tuple(grid)}, training.crops asks for {tuple(crop)}.")
    corner = [int(torch.randint(n - c + 1, (), generator=generator)) for n, c in zip(grid, crop, strict=True)]
    return tuple(slice(k, k + c) for k, c in zip(corner, crop, strict=True))
