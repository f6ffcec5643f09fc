r"""A local map, part by part: the same answer with the memory of one part.

A map whose value at a point depends on points at most ``halo`` away can be taken over strips of its field, each with
``halo`` more rows on both sides that are cut off afterwards. At the edge of the field a strip ends where the field
does, so that the map itself knows the boundary; a periodic field goes on at its other end. Rows of a batch do not mix:
they are parts as well.

The price is ``2 halo`` more rows per strip. How a field is divided depends on the field alone and not on the batch it is
in, so that a member is the same alone and among others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["SMALLEST", "Part", "join", "parts"]

SMALLEST = 2**18
"""Fewer numbers than that (1 MB) are not worth dividing."""

MOST = 8
"""Strips of one field: more of them save little beside what is kept between blocks."""


@dataclass(frozen=True)
class Part:
    """Some rows of a batch, and of each either everything or the points from ``start`` to ``stop`` along ``axis``.

    Arguments:
        rows: Of the batch.
        axis: That is divided; None takes all points, and an answer of any size.
        start, stop: Points of the answer.
        first, last: Points of the field that it depends on; beyond the field's ends where it is periodic.
        side: Points of the whole field along the axis.
    """

    rows: slice
    axis: int | None = None
    start: int = 0
    stop: int = 0
    first: int = 0
    last: int = 0
    side: int = 0

    def take(self, x: Tensor) -> Tensor:
        """What the part of the answer depends on."""
        x = x[self.rows]
        if self.axis is None:
            return x
        if self.first >= 0 and self.last <= self.side:
            return x.narrow(self.axis, self.first, self.last - self.first)
        return x.index_select(self.axis, self._points(x))

    def cut(self, y: Tensor) -> Tensor:
        """The part of the answer that is right, of the map's value on `take`."""
        return y if self.axis is None else y.narrow(self.axis, self.start - self.first, self.stop - self.start)

    def of(self, y: Tensor) -> Tensor:
        """That part of a whole answer."""
        y = y[self.rows]
        return y if self.axis is None else y.narrow(self.axis, self.start, self.stop - self.start)

    def add(self, whole: Tensor, x: Tensor) -> None:
        """The transpose of `take`: adds to a whole field, in place."""
        whole = whole[self.rows]
        if self.axis is None:
            whole.add_(x)
        elif self.first >= 0 and self.last <= self.side:
            whole.narrow(self.axis, self.first, self.last - self.first).add_(x)
        else:
            whole.index_add_(self.axis, self._points(x), x)

    def _points(self, x: Tensor) -> Tensor:
        return torch.arange(self.first, self.last, device=x.device) % self.side


def parts(x: Tensor, halo: int | None, periodic: bool) -> list[Part]:
    r"""How to divide a batch (B, C, \*grid): large fields into strips along their longest side, small ones into groups.

    Arguments:
        x: The batch.
        halo: How far the map looks, in points; None looks everywhere, and only rows are divided.
        periodic: Whether the field goes on at its other end.
    """
    axis = max(range(2, x.ndim), key=lambda i: x.shape[i])
    side, each = x.shape[axis], max(1, x[:1].numel())
    strips = 1 if halo is None else min(MOST, each // SMALLEST, side // (8 * max(halo, 1)))
    if strips < 2:
        group = max(1, SMALLEST // each)
        return [Part(slice(k, k + group)) for k in range(0, len(x), group)]
    assert halo is not None
    ends = [side * k // strips for k in range(strips + 1)]
    found = []
    for row in range(len(x)):
        for a, b in zip(ends, ends[1:], strict=False):
            low, high = (a - halo, b + halo) if periodic else (max(0, a - halo), min(side, b + halo))
            found.append(Part(slice(row, row + 1), axis, a, b, low, high, side))
    return found


def join(pieces: list[Part], values: Callable[[Part], Tensor], rows: int) -> Tensor:
    """The whole answer from ``values(part)``, the right part of it, for a batch of ``rows``."""
    if len(pieces) == 1:
        return values(pieces[0])
    whole: Tensor | None = None
    for part in pieces:
        y = values(part)
        if whole is None:
            shape = [rows, *y.shape[1:]]
            if part.axis is not None:
                shape[part.axis] = part.side
            whole = y.new_empty(shape)
        part.of(whole).copy_(y)
    assert whole is not None
    return whole
