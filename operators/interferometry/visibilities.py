r"""What a radio interferometer measures of the sky: samples of its Fourier transform.

.. math:: V_n = \sum_{h, w} R_n\, I_{hw}\, e^{+2\pi i (u_n x_w + v_n y_h)}

===========  ==========================================================================================
``I``        brightness in Jy per pixel, real, (B, 1, H, W)
``u_n,v_n``  baseline n, seen from the source, towards east and north, in wavelengths, (n, 2)
``x_w``      angle towards **east**, in radians; east is left in a picture: :math:`x_w = ((W-1)/2 - w)\,p_x`
``y_h``      angle towards **north**, in radians; row 0 is north: :math:`y_h = ((H-1)/2 - h)\,p_y`
``R_n``      response of a pixel: 1 for points, a product of two sincs for rectangles of even brightness
``V``        complex visibilities in Jy, (B, n); a baseline listed backwards has the conjugate
===========  ==========================================================================================

The sum is separable, :math:`V_n = \sum_h F_{hn} (\sum_w I_{hw} E_{wn})`: one matrix product and one weighted sum, with
:math:`n (H + W)` stored numbers instead of :math:`n H W`.

References:
    Interferometry and Synthesis in Radio Astronomy, chapters 2 to 4. Thompson, Moran and Swenson, 2017, Springer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scidiff.operators.algebra import Algebra
from scidiff.operators.units import magnitude

__all__ = ["Visibilities", "angles", "baselines", "pixel_sides"]


def pixel_sides(pixel: Any) -> tuple[float, float]:
    """Height and width of a pixel in radians, from one number or two, plain or pint.

    Raises:
        ValueError: if they are not positive, or not angles.
    """
    sides = np.asarray(magnitude(pixel, "radian", "pixel"), float)
    if sides.shape not in ((), (2,)) or not bool((sides > 0).all()) or not bool(np.isfinite(sides).all()):
        raise ValueError(f"pixel must be one positive angle in radians, or (height, width), got {pixel}.")
    height, width = np.broadcast_to(sides, 2)
    return float(height), float(width)


def angles(shape: Sequence[int], pixel: Any) -> tuple[Tensor, Tensor]:
    """Angles ``y`` (H,) to the north and ``x`` (W,) to the east of the field's centre, radians, float64."""
    y, x = (
        ((side - 1) / 2 - torch.arange(side, dtype=torch.float64)) * p
        for side, p in zip(shape, pixel_sides(pixel), strict=True)
    )
    return y, x


def baselines(uv: Any) -> Tensor:
    """Baselines as a float64 tensor (n, 2).

    Raises:
        ValueError: if they have another shape or are not finite.
    """
    uv = torch.as_tensor(magnitude(uv, "dimensionless", "uv"))
    if uv.ndim != 2 or uv.shape[1] != 2 or len(uv) == 0 or uv.is_complex():
        raise ValueError(f"uv must hold pairs (u, v) in wavelengths, shape (n, 2), got {tuple(uv.shape)}.")
    if not bool(torch.isfinite(uv).all()):
        raise ValueError("uv holds NaN or infinite values; leave these baselines out.")
    return uv.detach().to(torch.float64)


class Visibilities(Algebra):
    r"""Visibilities of a small field by the exact sum, :math:`V_n = \sum R_n I_{hw} e^{2\pi i (u_n x_w + v_n y_h)}`.

    Fields (B, 1, H, W) in Jy per pixel, real; visibilities (B, n) in Jy, complex. Rows run from north to south, columns
    from east to west, the origin of the phases is the centre of the picture.

    Arguments:
        uv: Baselines :math:`(u, v)` in wavelengths, (n, 2).
        shape: Height and width of the field in pixels.
        pixel: Side of a pixel in radians, or a pint angle; two for (height, width).
        square: Whether pixels are rectangles of even brightness; else all light comes from their centres.

    Raises:
        ValueError: if shapes or units are wrong; the message says which.
    """

    def __init__(self, uv: Any, shape: Sequence[int], pixel: Any, square: bool = False) -> None:
        self.uv = baselines(uv)
        """Baselines, (n, 2), wavelengths, float64."""
        if len(tuple(shape)) != 2 or min(shape) < 1:
            raise ValueError(f"shape must be (height, width) in pixels, got {tuple(shape)}.")
        self.grid = (int(shape[0]), int(shape[1]))
        self.pixel = pixel_sides(pixel)
        """Height and width of a pixel, radians."""
        self.square = bool(square)
        y, x = (axis.to(self.uv.device) for axis in angles(self.grid, self.pixel))
        u, v = self.uv.T
        height, width = self.pixel
        east = torch.polar(torch.ones(1, 1, dtype=torch.float64), 2 * torch.pi * x[:, None] * u)  # E (W, n)
        north = torch.polar(torch.ones(1, 1, dtype=torch.float64), 2 * torch.pi * y[:, None] * v)  # F (H, n)
        if self.square:
            east, north = east * torch.sinc(u * width), north * torch.sinc(v * height)
        self._parts: dict[Any, tuple[Tensor, Tensor]] = {}
        for real in (torch.float64, torch.float32):
            self._parts[real] = (torch.cat([east.real, east.imag], 1).to(real), north.to(real.to_complex()))

    def __repr__(self) -> str:
        pixel = ", ".join(f"{p:.4g}" for p in self.pixel)
        return f"Visibilities({len(self)} baselines, shape={self.grid}, pixel=({pixel}) rad, square={self.square})"

    def __len__(self) -> int:
        return len(self.uv)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one field, (1, H, W)."""
        return (1, *self.grid)

    def _on(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """E (W, 2 n), real parts first, and F (H, n), as precise as ``like`` and where it is; copies are kept."""
        real = like.dtype.to_real()
        key = real if like.device == self.uv.device else (real, like.device)
        if key not in self._parts:
            east, north = self._parts.get(real, self._parts[torch.float32])
            self._parts[key] = (east.to(like.device, real), north.to(like.device, real.to_complex()))
        return self._parts[key]

    def __call__(self, x: Tensor) -> Tensor:
        """Fields (B, 1, H, W) in Jy per pixel to visibilities (B, n) in Jy."""
        if x.ndim != 4 or tuple(x.shape[1:]) != self.shape or x.is_complex():
            raise ValueError(
                f"x must be a real field (B, 1, {self.grid[0]}, {self.grid[1]}), got {x.dtype} {tuple(x.shape)}."
            )
        east, north = self._on(x)
        real, imag = (x.squeeze(1) @ east).chunk(2, -1)
        return (torch.complex(real, imag) * north).sum(1)

    def adjoint(self, y: Tensor) -> Tensor:
        r"""Visibilities (B, n) to :math:`\mathrm{Re} \sum_n R_n V_n e^{-2\pi i (u_n x + v_n y)}`, (B, 1, H, W)."""
        if y.ndim != 2 or y.shape[1] != len(self):
            raise ValueError(f"y must have shape (B, n) = (B, {len(self)}), got {tuple(y.shape)}.")
        y = y if y.is_complex() else y.to(y.dtype.to_complex())
        east, north = self._on(y)
        p = y[:, None] * north.conj()  # Re(p conj(E)) = Re p Re E + Im p Im E
        return (torch.cat([p.real, p.imag], -1) @ east.mT)[:, None]
