"""Less memory for passes through a network: blocks keep their input, are computed again, and large ones in parts.

Guidance differentiates networks with respect to their input. The graph of a block of `scidiff.nn.unet` holds about ten
times what goes into it; computed again on the way back, one block at a time, it holds once that. The price is one more
pass forward for every pass back. A block is also local, so that a large field goes through it strip by strip
(`scidiff.nn.strips`), forward and back, and what it holds for itself is that of one strip. The numbers are the same up to
the order of sums inside a convolution. Samplers say where it is worth it.

`torch.utils.checkpoint` would do half of it; it loads a compiler (150 MB) when first used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from scidiff.nn.strips import SMALLEST, Part, join, parts

__all__ = ["SMALLEST", "maybe_recomputed", "recomputing", "whole_recomputed"]

_active: ContextVar[bool] = ContextVar("recomputing", default=False)


@contextmanager
def recomputing() -> Iterator[None]:
    """Within, large blocks keep their input only, and go in parts; those whose weights are trained are left alone."""
    token = _active.set(True)
    try:
        yield
    finally:
        _active.reset(token)


def maybe_recomputed(
    block: Callable[..., Tensor],
    x: Tensor,
    *more: Tensor | None,
    halo: int | None = None,
    periodic: bool = False,
    weights: Iterable[Tensor] = (),
) -> Tensor:
    r"""``block(x, *more)``; computed again on the way back and in parts, if that was asked for and ``x`` is large.

    Arguments:
        block: A map of rows (B, C, \*grid) to rows on the same grid; rows do not mix.
        x: Its input.
        more: One entry per row, one number for all, or None; constants: no gradient flows to them.
        halo: How far it looks, in points; None: everywhere.
        periodic: Whether fields go on at their other end.
        weights: Its weights.
    """
    if not _active.get() or x.numel() < SMALLEST:
        return block(x, *more)
    graph = torch.is_grad_enabled()
    if graph and any(t is not None and t.requires_grad for t in (*more, *weights)):
        return block(x, *more)
    pieces = parts(x, halo, periodic)
    if graph and x.requires_grad:
        return _Again.apply(x, more, block, pieces)  # type: ignore[return-value]
    return _through(block, x, more, pieces)


def whole_recomputed(network: Callable[..., Tensor], x: Tensor, *more: Tensor) -> Tensor:
    """``network(x, *more)`` without any graph but its input, if that was asked for: one more pass on the way back.

    So that of the network of codes, decoder and encoder one at a time holds the inputs of its blocks.
    """
    if _active.get() and torch.is_grad_enabled() and x.requires_grad and x.numel() >= SMALLEST // 2:
        return _Again.apply(x, more, network, [Part(slice(None))])  # type: ignore[return-value]
    return network(x, *more)


def _some(more: tuple[Tensor | None, ...], part: Part) -> list[Tensor | None]:
    """What belongs to the rows of a part."""
    return [t if t is None or t.ndim == 0 else t[part.rows] for t in more]


def _through(block: Callable[..., Tensor], x: Tensor, more: tuple[Tensor | None, ...], pieces: list[Part]) -> Tensor:
    """The block part by part."""
    return join(pieces, lambda part: part.cut(block(part.take(x), *_some(more, part))), len(x))


class _Again(torch.autograd.Function):
    """A block without a graph; on the way back its parts are computed again, one after the other."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, more: tuple[Tensor | None, ...], block: Callable[..., Tensor], pieces: list[Part]
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.more, ctx.block, ctx.pieces = more, block, pieces
        return _through(block, x, more, pieces)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # the product is to be differentiated again: one graph of the whole block
            here = x if x.requires_grad else x.detach().requires_grad_()
            return torch.autograd.grad(ctx.block(here, *ctx.more), here, g, create_graph=True)[0], None, None, None
        found = torch.zeros_like(x)
        for part in ctx.pieces:
            with torch.enable_grad():
                piece = part.take(x).detach().requires_grad_()
                y = part.cut(ctx.block(piece, *_some(ctx.more, part)))
            part.add(found, torch.autograd.grad(y, piece, part.of(g))[0])
        return found, None, None, None
