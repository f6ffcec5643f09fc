r"""The ramp filter of filtered backprojection, band-limited to the detector, with the usual windows.

On bins of width :math:`\tau` the inverse Fourier transform of :math:`|f|` up to the Nyquist frequency
:math:`1 / 2\tau` is, at :math:`n\tau`,

.. math:: h_0 = \frac{1}{4\tau^2}, \qquad h_n = -\frac{1}{\pi^2 n^2 \tau^2} \text{ (n odd)}, \qquad 0 \text{ (n even)}.

Sampling it, instead of sampling :math:`|f|`, keeps the mean of the picture right. On an arc, where :math:`\tau` is an
angle, :math:`h_n` is multiplied by :math:`(n\tau / \sin n\tau)^2`.

References:
    Principles of Computerized Tomographic Imaging. Kak and Slaney, 1988, chapter 3.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

__all__ = ["FilterName", "ramp_filtered"]

FilterName = Literal["ramp", "shepp-logan", "cosine", "hamming", "hann"]


def _window(name: FilterName, f: Tensor) -> Tensor:
    """Window at the frequencies f, as a fraction of the highest; zero beyond it."""
    shapes = {
        "ramp": torch.ones_like(f),
        "shepp-logan": torch.sinc(f / 2),
        "cosine": torch.cos(math.pi * f / 2),
        "hamming": 0.54 + 0.46 * torch.cos(math.pi * f),
        "hann": 0.5 + 0.5 * torch.cos(math.pi * f),
    }
    return torch.where(f <= 1 + 1e-12, shapes[name], 0)


def ramp_filtered(y: Tensor, width: float, name: FilterName = "ramp", cutoff: float = 1.0, arc: bool = False) -> Tensor:
    r"""Convolves the last dimension with the ramp, :math:`\tau \sum_m h_{n - m}\, y_m`, same shape.

    Arguments:
        y: Sinogram (..., bins), taken as zero beyond the detector.
        width: :math:`\tau` in mm, or in radians on an arc.
        name: Window that multiplies the ramp; "ramp" is none.
        cutoff: Highest frequency kept, as a fraction of the Nyquist frequency, in (0, 1].
        arc: Whether bins are equally spaced in angle.

    Raises:
        ValueError: if the window or the cutoff is unknown.
    """
    if name not in get_args(FilterName):
        raise ValueError(f"filter must be one of {', '.join(get_args(FilterName))}, got {name!r}.")
    if not 0 < cutoff <= 1:
        raise ValueError(f"cutoff is a fraction of the highest frequency in (0, 1], got {cutoff}.")
    bins = y.shape[-1]
    size = 1 << max(1, (2 * bins - 1).bit_length())  # no wrap-around
    n = torch.arange(size, dtype=torch.float64)
    n = torch.minimum(n, size - n)
    odd = n % 2 == 1
    distance = torch.sin(n * width) if arc else n * width
    h = torch.where(odd & (n < bins), -1 / (math.pi * torch.where(odd, distance, 1.0)).square(), 0)
    h[0] = 1 / (4 * width**2)
    response = torch.fft.rfft(h).real * width
    response = response * _window(name, torch.linspace(0, 1, size // 2 + 1, dtype=torch.float64) / cutoff)
    return torch.fft.irfft(torch.fft.rfft(y, n=size) * response.to(y.device, y.dtype), n=size)[..., :bins]
