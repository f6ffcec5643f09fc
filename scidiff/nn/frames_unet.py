r"""A two-dimensional U-Net for windows of a few frames: the frames are its channels.

For windows of few frames this costs a T-th of a network in three dimensions and lets every frame speak to every other in
the first layer. Frames stand in a fixed order, so a window has one length. Where the law of the flow depends on the place
(a forcing along the rows), two more channels, :math:`\cos(m y)` and :math:`\sin(m y)` of the row
:math:`y \in [0, 2\pi)`, tell it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scidiff.nn.unet import UNet

__all__ = ["FramesUNet"]


class FramesUNet(nn.Module):
    r"""Maps noisy windows of frames and their noise label to windows.

    Arguments:
        inputs: Channels of a frame, C.
        window: Frames of a window, T.
        rows: Wavenumber m of the place along the rows, 0 for a law that is the same everywhere.
        width, blocks, patch, embedding, padding, attention: Of the `UNet`.

    Shapes: ``x`` (B, C, T, H, W), ``label`` (B,); returns (B, C, T, H, W).
    """

    dims = 3

    def __init__(
        self,
        inputs: int,
        window: int,
        rows: int = 0,
        width: Sequence[int] = (48, 64),
        blocks: int = 2,
        patch: int = 1,
        embedding: int = 128,
        padding: str = "periodic",
        attention: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if window < 1 or rows < 0:
            raise ValueError(f"window must be at least 1 and rows not negative, got {window} and {rows}.")
        self.inputs, self.window, self.rows = inputs, window, rows
        own = inputs * window
        places = 2 if rows else 0
        self.frames = UNet(own + places, own, width, blocks, 2, patch, embedding, padding, attention)

    @property
    def config(self) -> dict[str, int | str | tuple[int, ...]]:
        """The constructor's arguments, for the card of a trained network."""
        names = ("width", "blocks", "patch", "embedding", "padding", "attention")
        inner = {name: getattr(self.frames, name) for name in names}
        return {"inputs": self.inputs, "window": self.window, "rows": self.rows, **inner}

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """(B, C, T, H, W), (B,) -> (B, C, T, H, W)."""
        if x.ndim != 5 or x.shape[1:3] != (self.inputs, self.window):
            raise ValueError(f"expected (B, {self.inputs}, {self.window}, H, W), got {tuple(x.shape)}.")
        h = x.flatten(1, 2)
        if self.rows:
            y = torch.arange(x.shape[3], dtype=x.dtype, device=x.device) * (2 * math.pi * self.rows / x.shape[3])
            places = torch.stack([y.cos(), y.sin()])[None, :, :, None] * math.sqrt(2)
            h = torch.cat([h, places.expand(len(x), 2, *x.shape[3:])], 1)
        return self.frames(h, label).reshape(x.shape)
