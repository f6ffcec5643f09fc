"""The lossy part of JPEG: block cosine transform and rounding."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scidiff.operators.algebra import Algebra

__all__ = ["JPEG"]

LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
"""Quantisation steps for grey levels 0 to 255 (ITU-T T.81, table K.1)."""


class JPEG(Algebra):
    r"""Blocks of 8x8 pixels in cosines, rounded to whole steps of a quantisation table,

    .. math:: h(x)_{ij} = \mathrm{round}\Big(\frac{(C\,x\,C^T)_{ij}}{q_{ij}\,\mathrm{scale} / 255}\Big),

    with the orthonormal cosine matrix :math:`C` (8, 8) and the table :math:`q` for a quality. Rounding has no gradient,
    so ``differentiable`` is False; `pinv` decodes, and :math:`h(h^+(h(x))) = h(x)`. Nothing is clipped, and each
    channel is treated as a grey image.

    Arguments:
        quality: 1 (coarse) to 100 (steps of one grey level), scaling the table as the IJG library does.
        scale: Range of the field that the 256 grey levels span, in the units of the field.
        offset: Value of the field in the middle of that range.
    """

    differentiable = False

    def __init__(self, quality: int, scale: float, offset: float = 0.0) -> None:
        if not 1 <= quality <= 100:
            raise ValueError(f"quality must lie between 1 and 100, got {quality}.")
        if not 0 < scale < math.inf:
            raise ValueError(f"scale must be positive and finite, in the units of the field, got {scale}.")
        self.quality, self.scale, self.offset = quality, scale, offset
        percent = 5000 / quality if quality < 50 else 200 - 2 * quality
        table = torch.tensor(LUMINANCE, dtype=torch.float64)
        self.table = ((table * percent + 50) / 100).floor().clamp(1, 255)
        k, i = torch.arange(8, dtype=torch.float64)[:, None], torch.arange(8, dtype=torch.float64)
        self.cosines = torch.cos((2 * i + 1) * k * math.pi / 16) / 2
        self.cosines[0] /= math.sqrt(2)

    def __call__(self, x: Tensor) -> Tensor:
        r"""Fields (B, \*C, H, W), sides multiples of 8, to whole numbers (B, \*C, H/8, W/8, 8, 8)."""
        if x.is_complex() or x.ndim < 3 or x.shape[-2] % 8 or x.shape[-1] % 8:
            raise ValueError(f"JPEG maps real fields (B, ..., H, W) with sides multiples of 8, got {tuple(x.shape)}.")
        blocks = x.unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8)).transpose(-3, -2)
        c = self.cosines.to(x)
        return (c @ (blocks - self.offset) @ c.mT / self._steps(x)).round()

    def pinv(self, y: Tensor) -> Tensor:
        """The field that is decoded from the whole numbers: (B, ..., H/8, W/8, 8, 8) to (B, ..., H, W)."""
        if y.ndim < 5 or tuple(y.shape[-2:]) != (8, 8):
            raise ValueError(f"y has shape {tuple(y.shape)}, expected (B, ..., H/8, W/8, 8, 8).")
        c = self.cosines.to(y)
        blocks = c.mT @ (y * self._steps(y)) @ c + self.offset
        return blocks.transpose(-3, -2).flatten(-4, -3).flatten(-2)

    def _steps(self, like: Tensor) -> Tensor:
        """Quantisation steps in the units of the field."""
        return (self.table * (self.scale / 255)).to(like)
