r"""Gain and offset of a camera from the stack itself.

A count of photons k has equal mean and variance. A camera that shows :math:`y = g k + o` has

.. math:: \mathrm{Var}\,y = g\,(\mathrm{E}\,y - o),

a straight line: its slope is the gain, its zero the offset. The variance comes from fourth differences along rows and
columns, :math:`(1, -4, 6, -4, 1)/\sqrt{70}`, which remove what is smooth; the median of their squares within groups of
equal brightness ignores the few places where structure is left. Resampled stacks have smaller, correlated noise: the
gain is then that of white noise with the same fine grain, not that of the camera.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["PhotonTransfer", "photon_transfer"]

_MEDIAN = 0.45493642  # of a squared standard normal number
_FOURTH = (1.0, -4.0, 6.0, -4.0, 1.0)


class PhotonTransfer(NamedTuple):
    """What the straight line says, and how straight it is."""

    gain: float
    """g, units of the stack per photon."""
    offset: float
    """o, units of the stack; never above the darkest group."""
    deviation: float
    """Root mean square of (variance of a group / that of the line - 1)."""


def photon_transfer(stack: Tensor, groups: int = 16) -> PhotonTransfer:
    """Fits the line to groups of equal brightness.

    Arguments:
        stack: Real, (..., H, W) with sides of at least 5.
        groups: Number of groups.

    Raises:
        ValueError: if the stack is too small, or its noise does not grow with brightness.
    """
    if stack.ndim < 2 or min(stack.shape[-2:]) < 5 or stack.numel() < 64 * groups:
        raise ValueError(
            f"photon transfer needs (..., H, W) with sides of at least 5 and {64 * groups} pixels, "
            f"got {tuple(stack.shape)}; state the gain instead."
        )
    weights = torch.tensor(_FOURTH, dtype=torch.float64, device=stack.device)
    squares, means = [], []
    for dim in (-2, -1):
        windows = stack.double().movedim(dim, -1).unfold(-1, 5, 1)
        squares.append(((windows @ weights).square() / 70).flatten())
        means.append(windows.mean(-1).flatten())
    square, mean = torch.cat(squares), torch.cat(means)
    chunks = mean.argsort().chunk(groups)
    m = torch.stack([mean[c].mean() for c in chunks])
    variance = torch.stack([square[c].median() / _MEDIAN for c in chunks])
    gain, offset = 0.0, 0.0
    weight = torch.ones_like(m)
    for _ in range(20):  # a variance is known to a fixed fraction of itself: weigh by the line's inverse square
        centre, level = (weight * m).sum() / weight.sum(), (weight * variance).sum() / weight.sum()
        slope = (weight * (m - centre) * (variance - level)).sum() / (weight * (m - centre).square()).sum()
        if not float(slope) > 0:
            raise ValueError(
                f"the noise does not grow with brightness (slope {float(slope):.3g}): these are no photon counts, or "
                "the stack was denoised; state the gain."
            )
        gain, offset = float(slope), min(float(centre - level / slope), float(m[0] - variance[0] / slope / 100))
        line = gain * (m - offset)
        weight = 1 / line.clamp(min=float(line.max()) * 1e-3).square()
    return PhotonTransfer(gain, offset, float((variance / line - 1).square().mean().sqrt()))
