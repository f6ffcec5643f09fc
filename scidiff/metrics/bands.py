r"""Errors by band of wavenumber: which scales of a field were reproduced, and which were not."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["BANDS", "band_errors"]

BANDS = (0.0, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0, math.inf)
"""Edges in units of the Nyquist wavenumber: octaves; beyond 1 lie the corners of the Fourier grid."""


def band_errors(
    x: Tensor, estimate: Tensor, dims: int = 2, periodic: bool = False, edges: Sequence[float] = BANDS
) -> tuple[Tensor, Tensor]:
    r"""Relative error in each band, over all fields together, and the share of the variance that the band holds.

    .. math:: r_b = \left(\frac{\sum_{k \in b} |\hat x_k - \hat y_k|^2}{\sum_{k \in b} |\hat x_k|^2}\right)^{1/2},
        \qquad k \in b \iff e_b \le \kappa < e_{b+1}

    with :math:`\kappa = 2 |k|`, k in cycles per grid spacing, so that 1 is the Nyquist wavenumber of an axis. The mean
    (k = 0) is left out: it has a scale of its own.

    Arguments:
        x, estimate: (..., \*grid) of the same shape, real or complex, the last ``dims`` dimensions being the grid.
        dims: Dimensions of the grid.
        periodic: False multiplies by a Hann window along every side, so that the jump at the edge does not count.
        edges: Edges of the bands, ascending.

    Returns:
        Errors and shares, (number of bands,) each; the error of an empty band is NaN.
    """
    if x.shape != estimate.shape or x.ndim < dims:
        raise ValueError(
            f"expected two tensors of one shape with {dims} dimensions or more, "
            f"got {tuple(x.shape)} and {tuple(estimate.shape)}."
        )
    if len(edges) < 2 or any(b <= a for a, b in zip(edges, edges[1:], strict=False)):
        raise ValueError(f"edges must ascend, got {list(edges)}.")
    grid = x.shape[-dims:]
    error = estimate - x
    axes = tuple(range(-dims, 0))
    if not periodic:
        x = x - x.mean(axes, keepdim=True)  # else the window leaks the mean into the lowest band
        for i, n in enumerate(grid):
            window = torch.hann_window(n, periodic=True, dtype=x.real.dtype, device=x.device)
            window = window.reshape(-1, *(1,) * (dims - 1 - i))
            x, error = x * window, error * window
    squares = 0.0
    for n, i in zip(grid, range(dims), strict=True):
        k = torch.fft.fftfreq(n, dtype=torch.float64, device=x.device)
        squares = squares + k.square().reshape(-1, *(1,) * (dims - 1 - i))
    kappa = 2 * torch.as_tensor(squares).sqrt()
    power, wrong = (torch.fft.fftn(v, dim=axes).abs().square().double() for v in (x, error))
    power, wrong = (v.reshape(-1, *grid).sum(0) for v in (power, wrong))
    inside = [(kappa >= a) & (kappa < b) & (kappa > 0) for a, b in zip(edges, edges[1:], strict=False)]
    held = torch.stack([power[band].sum() for band in inside])
    lost = torch.stack([wrong[band].sum() for band in inside])
    return (lost / held).sqrt(), held / power[kappa > 0].sum()
