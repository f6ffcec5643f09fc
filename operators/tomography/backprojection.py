"""What filtered backprojection of both geometries shares: pixel positions, interpolation, the weight of a view."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["coordinates", "extended", "interpolate", "mirror_shares", "scanned", "view_weights"]


def coordinates(shape: tuple[int, int], pixel: tuple[float, float], like: Tensor) -> tuple[Tensor, Tensor]:
    """Horizontal (W,) and vertical (H, 1) distance of pixel centres from the rotation axis in mm, v upwards."""
    height, width = shape
    u = torch.arange(width, device=like.device, dtype=like.dtype.to_real())
    v = torch.arange(height, device=like.device, dtype=like.dtype.to_real())
    return (u - (width - 1) / 2) * pixel[1], ((height - 1) / 2 - v)[:, None] * pixel[0]


def extended(y: Tensor, centre: float, reach: float) -> tuple[Tensor, float]:
    """The sinogram (..., bins) with zeros on both sides up to ``reach`` bins from the axis, and the new ``centre``.

    Behind the filter values do not vanish beside the detector, and pixels that project there need them.
    """
    left = max(0, math.ceil(reach - centre))
    right = max(0, math.ceil(reach - (y.shape[-1] - 1 - centre)))
    return torch.nn.functional.pad(y, (left, right)), centre + left


def interpolate(q: Tensor, position: Tensor) -> Tensor:
    """Linear interpolation of (B, C, bins) at positions (H, W) in bins, zero beside them: (B, C, H, W)."""
    bins = q.shape[-1]
    padded = torch.nn.functional.pad(q, (1, 1))
    position = (position + 1).clamp(0, bins + 1)
    left = position.floor().clamp(max=bins)
    w = position - left
    index = left.long().flatten()
    low, high = padded[..., index].unflatten(-1, w.shape), padded[..., index + 1].unflatten(-1, w.shape)
    return low + w * (high - low)


def view_weights(theta: Tensor, period: float) -> Tensor:
    """Angle that each view stands for, (views,): half the way to both neighbours on a circle of this circumference."""
    views = len(theta)
    if views == 1:
        return torch.full((1,), period, dtype=theta.dtype)
    place, order = torch.sort(theta % period)
    gaps = torch.diff(place, append=place[:1] + period)
    distinct = gaps[gaps > 1e-9 * period]
    usual = distinct.median() if len(distinct) else torch.tensor(period)
    gaps = torch.where(gaps > 4 * usual, usual, gaps)
    return torch.zeros_like(gaps).index_copy(0, order, (gaps + gaps.roll(1)) / 2)


def scanned(theta: Tensor, period: float) -> tuple[float, float] | None:
    """Start and length of the arc that views cover, half a step beyond the outermost; None where it is a full circle.

    A gap more than four times as wide as the median one is taken for the end of the scan.
    """
    place = torch.sort(theta % period).values
    gaps = torch.diff(place, append=place[:1] + period)
    usual = gaps[gaps > 1e-9 * period].median()
    widest = int(gaps.argmax())
    if len(place) < 2 or bool(gaps[widest] <= 4 * usual):
        return None
    start = place[(widest + 1) % len(place)] - usual / 2
    return float(start), float(period - gaps[widest] + usual)


def mirror_shares(position: Tensor, low: float, high: float, step: float) -> Tensor:
    """Shares of rays in a full turn, where the mirrored ray is measured too unless it falls beside the detector.

    One half each; near the end of the shorter side of the detector they go smoothly to 1 and 0, so that what only the
    longer side sees counts in full. The shares of a ray and its mirror have the sum 1 wherever both are measured.

    Arguments:
        position: Of the rays from the axis, (bins,).
        low, high: Distances from the axis to the two ends of the detector.
        step: Width of a bin; a smaller offset of the axis is ignored.
    """
    shorter, offset = min(low, high), (high - low) / 2
    if abs(offset) <= step or shorter <= 0:
        return torch.full_like(position, 0.5 if shorter > 0 else 1.0)
    beyond = ((position.abs() - 0.75 * shorter) / (0.25 * shorter)).clamp(0, 1)
    towards = torch.sign(position) * (1 if offset > 0 else -1)
    return 0.5 + 0.5 * towards * torch.sin(beyond * math.pi / 2)
