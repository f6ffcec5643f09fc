"""What filtered backprojection of both geometries shares: pixel positions, interpolation, the weight of a view."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["coordinates", "interpolate", "scanned", "view_weights"]


def coordinates(shape: tuple[int, int], pixel: tuple[float, float], like: Tensor) -> tuple[Tensor, Tensor]:
    """Horizontal (W,) and vertical (H, 1) distance of pixel centres from the rotation axis in mm, v upwards."""
    height, width = shape
    u = torch.arange(width, device=like.device, dtype=like.dtype.to_real())
    v = torch.arange(height, device=like.device, dtype=like.dtype.to_real())
    return (u - (width - 1) / 2) * pixel[1], ((height - 1) / 2 - v)[:, None] * pixel[0]


def interpolate(q: Tensor, position: Tensor) -> Tensor:
    """Linear interpolation of (B, C, bins) at positions (H, W) in bins, zero beside the detector: (B, C, H, W)."""
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
