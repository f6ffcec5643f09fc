r"""What networks on grids share: patches, padding to whole patches, convolutions that know the boundary.

=============  ========================================================================================
padding        beyond the edge
=============  ========================================================================================
``zeros``      zeros; a channel of ones tells the network where the field ends
``periodic``   the field again: the network commutes with circular shifts by multiples of ``multiple``
``reflect``    the mirrored field, edge point not repeated
=============  ========================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

__all__ = ["PADDING", "check_options", "from_patches", "pad_around", "pad_to_multiple", "to_patches"]

PADDING = {"zeros": "zeros", "periodic": "circular", "reflect": "reflect"}
"""Names of ours -> names of torch."""


def pad_around(x: Tensor, width: int, padding: str) -> Tensor:
    """``width`` more points on every side."""
    pad = [width] * 2 * (x.ndim - 2)
    return F.pad(x, pad) if padding == "zeros" else F.pad(x, pad, mode=PADDING[padding])


def pad_to_multiple(x: Tensor, multiple: int, padding: str) -> Tensor:
    """Pads the far end of every side to a multiple; periodic fields must be one already.

    Raises:
        ValueError: A periodic field whose sides are no multiples, or a side too short to be mirrored.
    """
    grid = x.shape[2:]
    pad = [p for n in reversed(grid) for p in (0, -n % multiple)]
    if not any(pad):
        return x
    if padding == "zeros":
        return F.pad(x, pad)
    if padding == "periodic":
        raise ValueError(
            f"a periodic field cannot be padded: its sides {tuple(grid)} must be multiples of {multiple} "
            "(patch times 2 for every level after the first); choose another grid, fewer levels or smaller patches."
        )
    if any(-n % multiple >= n for n in grid):
        raise ValueError(f"sides {tuple(grid)} are too short to be mirrored to multiples of {multiple}.")
    return F.pad(x, pad, mode="reflect")


def to_patches(x: Tensor, p: int) -> Tensor:
    """(B, C, n1, ...) -> (B, C p^d, n1/p, ...)."""
    if p == 1:
        return x
    batch, channels, *grid = x.shape
    d = len(grid)
    x = x.reshape(batch, channels, *(m for n in grid for m in (n // p, p)))
    x = x.permute(0, 1, *range(3, 3 + 2 * d, 2), *range(2, 2 + 2 * d, 2))
    return x.reshape(batch, channels * p**d, *(n // p for n in grid))


def from_patches(x: Tensor, p: int, d: int) -> Tensor:
    """Inverse of `to_patches`."""
    if p == 1:
        return x
    batch, channels, *grid = x.shape
    x = x.reshape(batch, channels // p**d, *(p,) * d, *grid)
    x = x.permute(0, 1, *(i for k in range(d) for i in (2 + d + k, 2 + k)))
    return x.reshape(batch, channels // p**d, *(n * p for n in grid))


def check_options(
    dims: int, width: Sequence[int], blocks: int, patch: int, padding: str, attention: Sequence[int]
) -> None:
    """Raises ValueError for arguments of a U-Net that make no sense."""
    if dims not in (1, 2, 3):
        raise ValueError(f"dims must be 1, 2 or 3, got {dims}.")
    if not width or blocks < 1 or patch < 1:
        raise ValueError(f"width must name a level, blocks and patch be >= 1; got {width}, {blocks}, {patch}.")
    if padding not in PADDING:
        raise ValueError(f"padding must be one of {', '.join(PADDING)}; got {padding!r}.")
    if any(not 0 <= level < len(width) for level in attention):
        raise ValueError(f"attention lists levels 0 (finest) to {len(width) - 1} (coarsest); got {list(attention)}.")
