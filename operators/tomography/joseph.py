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

from typing import TYPE_CHECKING, Any, NamedTuple

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


def joseph_matrix(
    rays: Rays, shape: tuple[int, int], pixel: tuple[float, float], average: int = 1, dtype: Any = np.float64
) -> csr_array:
    """The matrix (rays / average, H W) of line integrals in mm, with int32 indices.

    Arguments:
        rays: Lines; each run of ``average`` consecutive ones becomes one row, their mean.
        shape: (H, W) of the field, whose centre is the origin.
        pixel: Height and width of a pixel in mm.
        average: Rays per row.
        dtype: Type of the weights, which are computed in float64.

    Raises:
        ValueError: if 32-bit indices do not suffice.
    """
    from scipy.sparse import csr_array

    (height, width), (dy, dx) = shape, pixel
    # In units of pixels, counted from the centre of the first pixel: rows run downwards, columns to the right.
    column, row = rays.point[:, 0] / dx + (width - 1) / 2, (height - 1) / 2 - rays.point[:, 1] / dy
    dcolumn, drow = rays.direction[:, 0] / dx, -rays.direction[:, 1] / dy
    steep = np.abs(drow) >= np.abs(dcolumn)
    edges = np.flatnonzero(np.diff(steep)) + 1
    starts = np.unique(np.concatenate([[0], edges, np.arange(0, len(steep), max(1, _CHUNK // max(shape)))]))
    counts, columns, values = [], [], []
    for first, last in zip(starts, [*starts[1:], len(steep)], strict=True):
        run = slice(first, last)
        if steep[first]:
            found = _crossings(column[run], row[run], dcolumn[run], drow[run], (height, width), (width, 1))
        else:
            found = _crossings(row[run], column[run], drow[run], dcolumn[run], (width, height), (1, width))
        counts.append(found[0])
        columns.append(found[1])
        values.append((found[2] / average).astype(dtype))
    indptr = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    if indptr[-1] > np.iinfo(np.int32).max:
        raise ValueError(
            f"the projector has {indptr[-1]:.3g} weights, more than a sparse matrix of 32-bit indices holds; "
            "take fewer views, fewer bins or larger pixels."
        )
    parts = (np.concatenate(values), np.concatenate(columns), indptr[::average].astype(np.int32))
    matrix = csr_array(parts, shape=(len(steep) // average, height * width))
    if average > 1:
        matrix.sum_duplicates()
    return matrix


def _crossings(
    across: np.ndarray,
    along: np.ndarray,
    dacross: np.ndarray,
    dalong: np.ndarray,
    sizes: tuple[int, int],
    strides: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number of weights of every ray, their pixels, and the weights, two for each crossing of a line of pixels.

    Arguments:
        across, along: Point of each ray in pixels; rays cross lines while they move along.
        dacross, dalong: Its direction in pixels per mm.
        sizes: Number of lines, and pixels of each line.
        strides: Steps in the flattened field from line to line, and from pixel to pixel of a line.
    """
    lines, side = sizes
    slope = dacross / dalong
    offset = across - along * slope  # the crossing of line n is at offset + n slope
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = np.sort(np.stack([(-1 - offset) / slope, (side - offset) / slope]), axis=0)
    level = np.abs(slope) < 1e-12
    hit = (offset > -1) & (offset < side)
    first = np.where(level, np.where(hit, 0, lines), np.ceil(np.clip(ends[0], 0, lines))).astype(np.int64)
    last = np.where(level, lines, np.floor(np.clip(ends[1], -1, lines - 1)) + 1).astype(np.int64)
    count = np.maximum(last - first, 0)
    total = np.cumsum(count)
    n = np.arange(total[-1]) + np.repeat(first - (total - count), count)
    position = np.repeat(offset, count) + np.repeat(slope, count) * n
    # Beyond the border the field is zero: its neighbour gets the weight zero.
    low = np.floor(position)
    w = position - low
    low = low.astype(np.int32)
    length = np.repeat(1 / np.abs(dalong), count)
    weight = np.empty((total[-1], 2))
    np.multiply(w, length, out=weight[:, 1])
    np.subtract(length, weight[:, 1], out=weight[:, 0])
    weight[(low < 0) | (low >= side), 0] = 0
    weight[low >= side - 1, 1] = 0
    pixel = np.empty((total[-1], 2), dtype=np.int32)
    lines_at = n.astype(np.int32) * np.int32(strides[0])
    pixel[:, 0] = lines_at + np.clip(low, 0, side - 1) * np.int32(strides[1])
    pixel[:, 1] = lines_at + np.clip(low + 1, 0, side - 1) * np.int32(strides[1])
    return 2 * count, pixel.ravel(), weight.ravel()
