r"""Which points of k-space are measured: boolean masks (H, W) of centred k-space.

``acceleration`` R is the number of points (or lines) of the full grid divided by the number measured, counting the
fully sampled calibration region in the middle, as in fastMRI. The number measured is ``round(N / R)`` exactly.

=================  ================================================================================
`uniform`          every R-th line, with a calibration band
`random`           random lines, denser near the centre, with a calibration band
`poisson_disc`     random points at least ``r`` apart, ``r`` growing outwards, with a calibration box
=================  ================================================================================

References:
    fastMRI: An Open Dataset and Benchmarks for Accelerated MRI. Zbontar et al., 2018, arXiv 1811.08839.
    Fast Poisson disk sampling in arbitrary dimensions. Bridson, 2007, SIGGRAPH sketches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from scidiff.rng import explicit

__all__ = ["calibration_region", "poisson_disc", "random", "uniform"]


def uniform(shape: Sequence[int], acceleration: float, calibration: float | int = 0.08, axis: int = -1) -> Tensor:
    """Equally spaced lines and a fully sampled band in the middle.

    Arguments:
        shape: Size (H, W) of k-space.
        acceleration: Lines of the grid per measured line, at least 1.
        calibration: Width of the band, as a fraction of all lines (float) or in lines (int).
        axis: The axis along which lines are skipped; -1 skips columns.

    Raises:
        ValueError: If ``acceleration < 1``, or the band alone holds more lines than the acceleration allows.
    """
    lines = _size(shape, axis)
    keep, band = _budget(lines, acceleration, calibration)
    chosen = torch.zeros(lines, dtype=torch.bool)
    chosen[_centre(lines, band)] = True
    outside = (~chosen).nonzero()[:, 0]
    wanted = keep - band
    if wanted > 0:
        # Midpoints of `wanted` equal parts of the lines outside the band: distinct, because wanted <= len(outside).
        picks = ((torch.arange(wanted, dtype=torch.float64) + 0.5) * len(outside) / wanted).floor().long()
        chosen[outside[picks]] = True
    return _expand(chosen, shape, axis)


def random(
    shape: Sequence[int],
    acceleration: float,
    calibration: float | int = 0.08,
    axis: int = -1,
    decay: float = 0.0,
    generator: Generator | None = None,
) -> Tensor:
    r"""Random lines and a fully sampled band in the middle.

    Arguments:
        shape: Size (H, W) of k-space.
        acceleration: Lines of the grid per measured line, at least 1.
        calibration: Width of the band, as a fraction of all lines (float) or in lines (int).
        axis: The axis along which lines are skipped; -1 skips columns.
        decay: Exponent p of the density :math:`(1 - |k|/k_{max})^p` of the lines outside the band: 0 is fastMRI's
            uniform density, 2 favours the middle.
        generator: Source of randomness.

    Raises:
        ValueError: If ``acceleration < 1``, or the band alone holds more lines than the acceleration allows.
    """
    lines = _size(shape, axis)
    if decay < 0:
        raise ValueError(f"decay must not be negative, got {decay}.")
    keep, band = _budget(lines, acceleration, calibration)
    chosen = torch.zeros(lines, dtype=torch.bool)
    chosen[_centre(lines, band)] = True
    outside = (~chosen).nonzero()[:, 0]
    if keep > band:
        distance = (outside - lines // 2).abs().double() / (lines // 2 + 1)
        density = (1 - distance).clamp_min(1e-6) ** decay
        picks = torch.multinomial(density, keep - band, generator=explicit(generator))
        chosen[outside[picks]] = True
    return _expand(chosen, shape, axis)


def poisson_disc(
    shape: Sequence[int],
    acceleration: float,
    calibration: int | float | tuple[int, int] = 24,
    slope: float = 1.0,
    generator: Generator | None = None,
) -> Tensor:
    r"""Random points that keep apart by :math:`r_0 (1 + s |k|)`, and a fully sampled box in the middle.

    Points are visited in random order; one is taken when no earlier one lies within its distance. The scale
    :math:`r_0` is found by bisection, then single points are added or dropped to measure ``round(H * W / R)`` exactly.

    Arguments:
        shape: Size (H, W) of k-space.
        acceleration: Points of the grid per measured point, at least 1.
        calibration: Size of the box in points, an int or (rows, columns); or a fraction of each side (float).
        slope: Growth s of the distance from the centre (|k| = 0) to the edge of k-space (|k| = 1).
        generator: Source of randomness.

    Raises:
        ValueError: If ``acceleration < 1``, or the box alone holds more points than the acceleration allows.
    """
    height, width = _shape(shape)
    keep = _keep(height * width, acceleration, "points")
    sides = calibration if isinstance(calibration, tuple) else (calibration, calibration)
    box_h, box_w = (_width(side, size) for side, size in zip(sides, (height, width), strict=True))
    if box_h * box_w > keep:
        raise ValueError(
            f"the calibration box of {box_h} x {box_w} points alone exceeds the {keep} points that acceleration "
            f"{acceleration:g} allows; lower the acceleration or the calibration."
        )
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[_centre(height, box_h), _centre(width, box_w)] = True
    wanted = keep - box_h * box_w
    if wanted == 0:
        return mask
    free = (~mask).flatten().nonzero()[:, 0]
    order = free[torch.randperm(len(free), generator=explicit(generator))]
    rows, cols = order // width, order % width
    norm = torch.hypot((rows - height // 2) / (height / 2), (cols - width // 2) / (width / 2))
    growth = 1 + slope * norm / math.sqrt(2)
    points = list(zip(rows.tolist(), cols.tolist(), growth.tolist(), strict=True))
    low, high = 0.0, 2 * math.sqrt(height * width / wanted)
    taken = list(range(len(points)))
    for _ in range(12):
        radius = (low + high) / 2
        found = _dart_throwing(points, (height, width), radius)
        if len(found) >= wanted:  # too many, or just enough: keep them, move further apart
            taken, low = found, radius
        else:
            high = radius
    chosen = order[torch.tensor(taken)]
    # Drop the surplus at random: at most the gap of one bisection step.
    chosen = chosen[torch.randperm(len(chosen), generator=explicit(generator))[:wanted]]
    mask.view(-1)[chosen] = True
    return mask


def calibration_region(mask: Tensor) -> tuple[slice, slice]:
    """The largest fully sampled centred rectangle of a mask (H, W): slices of rows and columns.

    Centred means from ``H // 2 - a // 2`` to ``H // 2 - a // 2 + a`` for a height of ``a`` rows, columns alike.

    Raises:
        ValueError: If the zero frequency is not sampled.
    """
    height, width = mask.shape
    if not bool(mask[height // 2, width // 2]):
        raise ValueError(
            "the centre of k-space is not sampled: there is no calibration region; give coil maps instead."
        )
    best, region = 0, (slice(0, 0), slice(0, 0))
    columns = mask.new_ones(width)
    for rows in range(1, height + 1):
        band = _centre(height, rows)
        # Bands grow by one row at a time, below and above in turns.
        columns = columns & mask[band.start if rows % 2 == 0 else band.stop - 1]
        cols = _run(columns, width)
        if cols == 0:
            break
        if rows * cols > best:
            best, region = rows * cols, (band, _centre(width, cols))
    return region


def _run(line: Tensor, size: int) -> int:
    """Longest centred run of True."""
    right = size // 2
    after = (~line[right:]).nonzero()
    before = (~line[:right].flip(0)).nonzero()
    forward = int(after[0]) if len(after) else size - right
    backward = int(before[0]) if len(before) else right
    # A centred run of n starts n // 2 before the middle and ends (n + 1) // 2 after it.
    return min(2 * forward, 2 * backward + 1)


def _dart_throwing(points: list[tuple[int, int, float]], shape: tuple[int, int], scale: float) -> list[int]:
    """Indices of the points, in order, farther than ``scale * growth`` from all taken before them."""
    height, width = shape
    blocked = [bytearray(width) for _ in range(height)]
    taken = []
    for index, (row, col, growth) in enumerate(points):
        if blocked[row][col]:
            continue
        taken.append(index)
        radius = scale * growth
        for r in range(max(0, math.ceil(row - radius)), min(height - 1, math.floor(row + radius)) + 1):
            half = math.sqrt(radius * radius - (r - row) ** 2)
            first, last = max(0, math.ceil(col - half)), min(width - 1, math.floor(col + half))
            if last >= first:
                blocked[r][first : last + 1] = b"\x01" * (last + 1 - first)
    return taken


def _shape(shape: Sequence[int]) -> tuple[int, int]:
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"shape must be (H, W) with positive sizes, got {tuple(shape)}.")
    return int(shape[0]), int(shape[1])


def _size(shape: Sequence[int], axis: int) -> int:
    if axis not in (-2, -1, 0, 1):
        raise ValueError(f"axis must be -1 (skip columns) or -2 (skip rows), got {axis}.")
    return _shape(shape)[axis]


def _keep(total: int, acceleration: float, what: str) -> int:
    if not acceleration >= 1 or math.isinf(acceleration):
        raise ValueError(f"acceleration must be a finite number of at least 1, got {acceleration}.")
    keep = round(total / acceleration)
    if keep < 1:
        raise ValueError(f"the mask samples nothing: acceleration {acceleration:g} leaves none of {total} {what}.")
    return keep


def _width(calibration: float | int, size: int) -> int:
    width = calibration if isinstance(calibration, int) else round(calibration * size)
    if not 0 <= width <= size or (isinstance(calibration, float) and not 0 <= calibration <= 1):
        raise ValueError(
            f"calibration must be a fraction in [0, 1] (float) or 0 to {size} lines (int), got {calibration!r}."
        )
    return width


def _budget(lines: int, acceleration: float, calibration: float | int) -> tuple[int, int]:
    keep = _keep(lines, acceleration, "lines")
    band = _width(calibration, lines)
    if band > keep:
        raise ValueError(
            f"the calibration band of {band} lines alone exceeds the {keep} of {lines} lines that acceleration "
            f"{acceleration:g} allows; lower the acceleration or the calibration."
        )
    return keep, band


def _centre(size: int, width: int) -> slice:
    start = size // 2 - width // 2
    return slice(start, start + width)


def _expand(chosen: Tensor, shape: Sequence[int], axis: int) -> Tensor:
    height, width = _shape(shape)
    line = chosen[None, :] if axis in (-1, 1) else chosen[:, None]
    return line.expand(height, width).clone()
