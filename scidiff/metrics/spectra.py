"""How the variance of a field is shared among scales."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["power_spectrum"]


def power_spectrum(x: Tensor, spacing: float | tuple[float, float] = 1.0) -> tuple[Tensor, Tensor]:
    r"""Isotropic power spectrum: the variance of ``x`` in rings of wavenumber.

    .. math:: P_i = \sum_{k: \; (i - 1/2) \Delta \le |k| < (i + 1/2) \Delta} |\hat x_k|^2,
        \qquad \hat x_k = \frac{1}{H W} \sum_j x_j e^{-2 \pi i k \cdot r_j}

    so that :math:`\sum_i P_i = \langle |x|^2 \rangle` (Parseval). The rings reach the corners of the Fourier grid;
    beyond the smaller Nyquist wavenumber they are incomplete.

    Arguments:
        x: (..., H, W), real or complex, on a periodic grid (window it otherwise).
        spacing: Grid spacing, one number or (dy, dx).

    Returns:
        Wavenumbers (K,) in cycles per unit of ``spacing``, the ring width being the larger of the two fundamental
        wavenumbers, and the power (..., K).
    """
    if x.ndim < 2:
        raise ValueError(f"x must have two dimensions last, got shape {tuple(x.shape)}.")
    dy, dx = (spacing, spacing) if isinstance(spacing, (int, float)) else spacing
    if not (dy > 0 and dx > 0):
        raise ValueError(f"spacing must be positive, got {spacing}.")
    height, width = x.shape[-2:]
    ky = torch.fft.fftfreq(height, dy, dtype=torch.float64)[:, None]
    kx = torch.fft.fftfreq(width, dx, dtype=torch.float64)[None, :]
    ring = max(1 / (height * dy), 1 / (width * dx))
    index = torch.floor(torch.hypot(ky, kx) / ring + 0.5).long().flatten().to(x.device)
    power = torch.fft.fft2(x, norm="forward").abs().square().flatten(-2)
    total = power.new_zeros(*power.shape[:-1], int(index.max()) + 1)
    total.index_add_(-1, index, power)
    return ring * torch.arange(total.shape[-1], dtype=torch.float64), total
