"""Random tensors, inner products and demands that the checks share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

__all__ = ["inner", "norm", "precision", "randn", "require"]


def randn(shape: Sequence[int], dtype: torch.dtype, generator: Generator | None) -> Tensor:
    """Normal numbers where the generator lives; from a fixed one without it."""
    generator = generator if generator is not None else Generator().manual_seed(0)
    return torch.randn(tuple(shape), generator=generator, dtype=dtype, device=generator.device)


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Real inner product of every row, in double precision."""
    return (a.flatten(1).to(torch.complex128).conj() * b.flatten(1)).sum(-1).real


def norm(a: Tensor) -> Tensor:
    """Norm of every row, in double precision."""
    return inner(a, a).sqrt()


def require(condition: bool, message: str) -> None:
    """Raises AssertionError, also under ``python -O``."""
    if not condition:
        raise AssertionError(message)


def precision(dtype: torch.dtype, factor: float) -> float:
    """``factor`` times a little more than the rounding of a type."""
    return factor * torch.finfo(dtype).eps ** 0.9
