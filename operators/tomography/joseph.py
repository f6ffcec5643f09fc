r"""Joseph's projector as a sparse matrix: how much every pixel weighs in every line integral.

The field is known at pixel centres. A ray that is closer to vertical than to horizontal (in pixels) crosses every row
of pixels once; there the field is interpolated linearly between the two nearest columns, and

.. math:: z = \ell \sum_i \big[(1 - w_i)\, x_{i, c_i} + w_i\, x_{i, c_i + 1}\big]

with the crossing at column :math:`c_i + w_i` and :math:`\ell` the length of the ray from one row to the next. Flat rays
exchange the roles of rows and columns. Outside of the field x is zero. The error is of second order in the pixel for
smooth fields.

References:
    An improved algorithm for reprojecting rays through pixel images. Joseph, 1982, IEEE Trans. Med. Imaging 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["Rays", "joseph_matrix"]

_CHUNK = 1 << 21  # crossings handled at once: bounds the memory of temporary arrays


class Rays(NamedTuple):
    """Straight lines in the plane of the field: x to the right, y upwards, mm from the rotation axis.

    Arguments:
        point: A point of each ray, (rays, 2).
        direction: Its unit direction, (rays, 2).
    """

    point: np.ndarray
    direction: np.ndarray


def joseph_matrix(rays: Rays, shape: tuple[int, int], pixel: tuple[float, float], average: int = 1) -> csr_array:
    """The matrix (rays / average, H W) of line integrals in mm, float64 values and int32 indices.

    Arguments:
        rays: Lines; each run of ``average`` consecutive ones becomes one row, their mean.
        shape: (H, W) of the field, whose centre is the origin.
        pixel: Height and width of a pixel in mm.
        average: Rays per row.
    """
    from scipy.sparse import csr_array

    (height, width), (dy, dx) = shape, pixel
    # In units of pixels, counted from the centre of the first pixel: rows run downwards, columns to the right.
    column, row = rays.point[:, 0] / dx + (width - 1) / 2, (height - 1) / 2 - rays.point[:, 1] / dy
    dcolumn, drow = rays.direction[:, 0] / dx, -rays.direction[:, 1] / dy
    steep = np.abs(drow) >= np.abs(dcolumn)
    per_run = max(1, _CHUNK // max(shape))
    edges = np.flatnonzero(np.diff(steep)) + 1
    starts = np.unique(np.concatenate([[0], edges, np.arange(0, len(steep), per_run)]))
    counts, columns, values = [], [], []
    for first, last in zip(starts, [*starts[1:], len(steep)], strict=True):
        run = slice(first, last)
        if steep[first]:
            found = _crossings(column[run], row[run], dcolumn[run], drow[run], height, width, width, 1)
        else:
            found = _crossings(row[run], column[run], drow[run], dcolumn[run], width, height, 1, width)
        for store, part in zip((counts, columns, values), found, strict=True):
            store.append(part)
    indptr = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    if indptr[-1] > np.iinfo(np.int32).max:
        raise ValueError(
            f"the projector has {indptr[-1]:.3g} weights, more than a sparse matrix of 32-bit indices holds; "
            "take fewer views, fewer bins or larger pixels."
        )
    parts = (np.concatenate(values) / average, np.concatenate(columns), indptr[::average].astype(np.int32))
    matrix = csr_array(parts, shape=(len(steep) // average, height * width))
    if average > 1:
        matrix.sum_duplicates()
    return matrix


def _crossings(
    across: np.ndarray,
    along: np.ndarray,
    dacross: np.ndarray,
    dalong: np.ndarray,
    lines: int,
    side: int,
    line_stride: int,
    side_stride: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights per ray, pixels, and weights, of rays that cross every line of pixels once."""
    slope = dacross / dalong
    position = (across - along * slope)[:, None] + slope[:, None] * np.arange(lines)
    left = np.floor(position)
    w = position - left
    index = left.astype(np.int32)
    pixel = index * np.int32(side_stride) + np.arange(lines, dtype=np.int32) * np.int32(line_stride)
    pair = np.stack([pixel, pixel + np.int32(side_stride)], -1)
    length = (1 / np.abs(dalong))[:, None]
    weight = np.stack([(1 - w) * length, w * length], -1)
    inside = np.stack([(index >= 0) & (index < side), (index >= -1) & (index < side - 1)], -1)
    return inside.sum((1, 2)), pair[inside], weight[inside]
