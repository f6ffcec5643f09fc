"""Sheets of samples as PNG, written with the standard library alone, so that training needs no plotting package."""

from __future__ import annotations

import struct
import zlib

import torch
from torch import Tensor

__all__ = ["png", "sheet"]


def png(grey: Tensor) -> bytes:
    """An 8-bit grey image (H, W) of type uint8 as PNG."""
    if grey.dtype != torch.uint8 or grey.ndim != 2:
        raise ValueError(f"expected (H, W) of uint8, got {tuple(grey.shape)} of {grey.dtype}.")
    height, width = grey.shape
    rows = b"".join(b"\0" + bytes(row) for row in grey.tolist())

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def sheet(fields: Tensor) -> bytes:
    r"""Fields (N, C, \*grid) side by side, one row a channel, each row from its least to its greatest value.

    Complex fields show their magnitude, 1-D fields are drawn as stripes, of 3-D fields the middle slice is shown.
    """
    x = (fields.abs() if fields.is_complex() else fields).detach().cpu().double()
    if x.ndim == 3:
        x = x[:, :, None].expand(-1, -1, 16, -1)
    elif x.ndim == 5:
        x = x[:, :, x.shape[2] // 2]
    low, high = x.amin((0, 2, 3), keepdim=True), x.amax((0, 2, 3), keepdim=True)
    x = (255 * (x - low) / (high - low).clamp_min(1e-300)).round()
    x = torch.nn.functional.pad(x, (1, 1, 1, 1), value=255)
    return png(x.permute(1, 2, 0, 3).flatten(2).flatten(0, 1).to(torch.uint8))
