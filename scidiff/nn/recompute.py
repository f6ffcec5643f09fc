"""Less memory for passes back through a network: blocks keep their input and are computed again when needed.

Guidance differentiates networks with respect to their input. The graph of a block of `scidiff.nn.unet` holds about ten
times what goes into it; computed again on the way back, one block at a time, it holds once that. The price is one more
pass forward for every pass back, the numbers are the same to the bit. Samplers say where it is worth it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ["SMALLEST", "maybe_recomputed", "recomputing"]

SMALLEST = 2**18
"""Inputs with fewer numbers than that (1 MB) are not worth it."""

_active: ContextVar[bool] = ContextVar("recomputing", default=False)


@contextmanager
def recomputing() -> Iterator[None]:
    """Within, large blocks keep their input only."""
    token = _active.set(True)
    try:
        yield
    finally:
        _active.reset(token)


def maybe_recomputed(block: Callable[..., Tensor], x: Tensor, *more: Tensor | None) -> Tensor:
    """``block(x, *more)``; computed again on the way back, if that was asked for and ``x`` is large."""
    if not (_active.get() and torch.is_grad_enabled() and x.requires_grad and x.numel() >= SMALLEST):
        return block(x, *more)
    found = checkpoint(block, x, *more, use_reentrant=False, preserve_rng_state=False, determinism_check="none")
    assert isinstance(found, Tensor)
    return found
