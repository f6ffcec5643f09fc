"""Which pixels are seen: masks for inpainting, True where a pixel is observed.

Every mask is a boolean tensor of the given shape, for `scidiff.operators.Mask`; random ones take a generator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from scidiff.rng import explicit

__all__ = ["box", "centre", "lines", "random_pixels"]


def random_pixels(shape: Sequence[int], observed: float, generator: Generator) -> Tensor:
    """Exactly ``round(observed * n)`` of n pixels, at least one, drawn without replacement.

    Arguments:
        shape: Sides of the field.
        observed: Share of the pixels that is seen, in (0, 1].
        generator: Source of the draw.
    """
    if not 0 < observed <= 1:
        raise ValueError(f"observed is a share in (0, 1], got {observed}.")
    n = math.prod(shape)
    mask = torch.zeros(n, dtype=torch.bool)
    mask[torch.randperm(n, generator=explicit(generator))[: max(1, round(observed * n))]] = True
    return mask.reshape(tuple(shape))


def box(shape: Sequence[int], size: Sequence[int], first: Sequence[int] | Generator) -> Tensor:
    """All but a box.

    Arguments:
        shape: Sides of the field.
        size: Sides of the box, smaller than the field.
        first: First entry of the box along each axis; or a generator, which draws one among all places inside.
    """
    shape, size = tuple(shape), tuple(size)
    if len(size) != len(shape) or not all(0 < s < n for s, n in zip(size, shape, strict=False)):
        raise ValueError(f"a box of {size} does not fit into a field of {shape} and leave something to see.")
    if isinstance(first, Generator):
        draw = [int(torch.randint(n - s + 1, (), generator=first)) for s, n in zip(size, shape, strict=True)]
        first = draw
    if any(not 0 <= f <= n - s for f, s, n in zip(first, size, shape, strict=True)):
        raise ValueError(f"a box of {size} that begins at {tuple(first)} reaches beyond a field of {shape}.")
    mask = torch.ones(shape, dtype=torch.bool)
    mask[tuple(slice(f, f + s) for f, s in zip(first, size, strict=True))] = False
    return mask


def centre(shape: Sequence[int], missing: float) -> Tensor:
    """All but a box in the middle with the share ``missing`` of each side, in (0, 1)."""
    if not 0 < missing < 1:
        raise ValueError(f"missing is a share of each side in (0, 1), got {missing}.")
    size = [max(1, min(n - 1, round(missing * n))) for n in shape]
    return box(shape, size, [(n - s) // 2 for n, s in zip(shape, size, strict=True)])


def lines(shape: Sequence[int], observed: float, generator: Generator, dim: int = -1) -> Tensor:
    """Whole lines along one dimension, as of a scanner that skips: exactly ``round(observed * m)`` of m lines.

    Arguments:
        shape: Sides of the field.
        observed: Share of the lines that is seen, in (0, 1].
        generator: Source of the draw.
        dim: Dimension along which a line runs.
    """
    rest = list(shape)
    rest[dim] = 1
    return random_pixels(rest, observed, generator).expand(tuple(shape)).clone()
