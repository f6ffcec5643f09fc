r"""A convolutional U-Net for fields of any size, in one, two or three dimensions.

Everything in it is local: convolutions, and a root-mean-square norm over the channels of one grid point. A network
trained on patches therefore does the same on a whole field, and the result at a point does not depend on how far the
field extends beyond the receptive field; only attention, where it is asked for, looks at the whole field. Sides that
are not a multiple of `multiple` are padded inside and cropped.

    x -> patches of p^d points -> [blocks, halve] x (L-1) -> blocks -> [double, join, blocks] x (L-1) -> points

Each block is ``h = conv(silu(norm(x)))``, ``h = norm(h) (1 + g) + b``, ``x + conv(silu(h))``, with gain ``g`` and bias
``b`` linear in the embedding of the noise level; the last convolution of a block starts at zero.

References:
    Dhariwal & Nichol, Diffusion models beat GANs on image synthesis, 2021, arXiv:2105.05233 (adaptive norm, residual
    U-Net). Karras et al., Analyzing and improving the training dynamics of diffusion models, 2024, arXiv:2312.02696
    (norm per pixel).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scidiff.nn.attention import Attention
from scidiff.nn.grid import PADDING, check_options, from_patches, pad_to_multiple, to_patches
from scidiff.nn.recompute import maybe_recomputed

__all__ = ["Block", "RMSNorm", "UNet", "conv"]

_CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def conv(dims: int, inputs: int, outputs: int, size: int = 3, stride: int = 1, padding: str = "zeros") -> nn.Module:
    """A convolution in ``dims`` dimensions; strided ones take what lies under them and nothing else."""
    around = size // 2 if stride == 1 else 0
    return _CONV[dims](inputs, outputs, size, stride=stride, padding=around, padding_mode=PADDING[padding])


def _channel(v: Tensor, like: Tensor) -> Tensor:
    """(B, C) -> (B, C, 1, ...) with the rank of ``like``."""
    return v.reshape(*v.shape, *(1,) * (like.ndim - 2))


class RMSNorm(nn.Module):
    r"""Divides the channels of every grid point by their root mean square, with a learned gain per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) -> the same shape."""
        kept = torch.promote_types(x.dtype, torch.float32)
        scale = torch.rsqrt(x.to(kept).square().mean(1, keepdim=True) + 1e-6).to(x.dtype)
        return x * scale * _channel(self.gain[None].to(x.dtype), x)


class Block(nn.Module):
    """Residual block, modulated by the embedding of the noise level; without one (``embedding = 0``) a plain one."""

    def __init__(
        self, dims: int, inputs: int, outputs: int, embedding: int, padding: str = "zeros", attention: bool = False
    ) -> None:
        super().__init__()
        self.norm1, self.conv1 = RMSNorm(inputs), conv(dims, inputs, outputs, padding=padding)
        self.norm2, self.conv2 = RMSNorm(outputs), conv(dims, outputs, outputs, padding=padding)
        self.modulate = nn.Linear(embedding, 2 * outputs) if embedding else None
        self.skip = conv(dims, inputs, outputs, size=1) if inputs != outputs else nn.Identity()
        nn.init.zeros_(self.conv2.weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]
        if self.modulate is not None:
            nn.init.zeros_(self.modulate.weight)
            nn.init.zeros_(self.modulate.bias)
        self.attention = Attention(outputs, RMSNorm(outputs), _CONV[dims]) if attention else None
        self.periodic = padding == "periodic"

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """(B, inputs, ...), (B, E) -> (B, outputs, ...)."""
        halo = 2 if self.attention is None else None
        return maybe_recomputed(
            self._forward, x, embedding, halo=halo, periodic=self.periodic, weights=self.parameters()
        )

    def _forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        h = self.norm2(self.conv1(F.silu(self.norm1(x))))
        if self.modulate is not None:
            gain, bias = (_channel(v, h) for v in self.modulate(embedding).chunk(2, dim=1))
            h = torch.addcmul(bias, h, 1 + gain)
        h = self.skip(x) + self.conv2(F.silu(h))
        return h if self.attention is None else self.attention(h)


class UNet(nn.Module):
    r"""Maps a noisy field and its noise label to a field of the same size.

    Arguments:
        inputs: Channels of the input.
        outputs: Channels of the output; equal to ``inputs`` by default.
        width: Channels at each level, finest first; the number of levels is its length.
        blocks: Residual blocks per level, on the way down and on the way up.
        dims: Dimensions of the grid, 1 to 3.
        patch: Side of the patches that become one point of the finest level; 1 keeps every grid point.
        embedding: Features of the noise label.
        padding: What lies beyond the edge: zeros, periodic or reflect, see `scidiff.nn.grid`.
        attention: Levels (0 is the finest) whose blocks end with self-attention over the whole field.

    Shapes: ``x`` (B, inputs, \*grid) with any grid, ``label`` (B,) real; returns (B, outputs, \*grid).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int | None = None,
        width: Sequence[int] = (64, 96, 128),
        blocks: int = 2,
        dims: int = 2,
        patch: int = 1,
        embedding: int = 128,
        padding: str = "zeros",
        attention: Sequence[int] = (),
    ) -> None:
        super().__init__()
        check_options(dims, width, blocks, patch, padding, attention)
        outputs = inputs if outputs is None else outputs
        self.inputs, self.outputs, self.dims, self.patch = inputs, outputs, dims, patch
        self.width, self.blocks, self.embedding = tuple(width), blocks, embedding
        self.padding, self.attention = padding, tuple(attention)
        self.multiple = patch * 2 ** (len(self.width) - 1)

        self.embed = nn.Sequential(
            nn.Linear(embedding, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU()
        )
        frequencies = torch.exp(torch.linspace(math.log(0.25), math.log(64.0), embedding // 2))
        self.frequencies: Tensor
        self.register_buffer("frequencies", frequencies, persistent=False)

        def stage(level: int, first: int) -> nn.ModuleList:
            c = self.width[level]
            sides = [first] + [c] * (blocks - 1)
            return nn.ModuleList(self._block(n, c, level) for n in sides)

        # One more input channel of ones tells the network where the field ends and the padding begins.
        self.head = conv(dims, (inputs + 1) * patch**dims, width[0], padding=padding)
        self.down, self.halve = nn.ModuleList(), nn.ModuleList()
        for level, channels in enumerate(self.width):
            self.down.append(stage(level, channels))
            if level + 1 < len(self.width):
                self.halve.append(conv(dims, channels, self.width[level + 1], size=2, stride=2))
        self.up, self.join = nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(len(self.width) - 1)):
            channels, coarse = self.width[level], self.width[level + 1]
            self.join.append(conv(dims, coarse, channels, size=1))
            self.up.append(stage(level, 2 * channels))
        self.norm = RMSNorm(width[0])
        self.tail = conv(dims, width[0], outputs * patch**dims, padding=padding)
        nn.init.zeros_(self.tail.weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.tail.bias)  # type: ignore[arg-type]

    @property
    def config(self) -> dict[str, int | str | tuple[int, ...]]:
        """The constructor's arguments, for the card of a trained network."""
        names = ("inputs", "outputs", "width", "blocks", "dims", "patch", "embedding", "padding", "attention")
        return {name: getattr(self, name) for name in names}

    def _block(self, inputs: int, outputs: int, level: int) -> Block:
        return Block(self.dims, inputs, outputs, self.embedding, self.padding, level in self.attention)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        r"""(B, inputs, \*grid), (B,) -> (B, outputs, \*grid)."""
        self._check(x)
        grid = x.shape[2:]
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
        x = pad_to_multiple(x, self.multiple, self.padding)
        e = self._embed(label, x.dtype)
        h = self._trunk(to_patches(x, self.patch), lambda block, h, level: block(h, e))
        periodic, weights = self.padding == "periodic", (*self.norm.parameters(), *self.tail.parameters())
        h = maybe_recomputed(self._end, h, halo=1, periodic=periodic, weights=weights)
        return from_patches(h, self.patch, self.dims)[(..., *(slice(n) for n in grid))]

    def _end(self, h: Tensor) -> Tensor:
        """Features of the finest level to numbers of patches."""
        return self.tail(F.silu(self.norm(h)))

    def _check(self, x: Tensor) -> None:
        if x.ndim != self.dims + 2 or x.shape[1] != self.inputs:
            raise ValueError(
                f"expected (B, {self.inputs}, {', '.join('n' * self.dims)}), got {tuple(x.shape)}; "
                f"the network takes {self.inputs} channels on a {self.dims}-D grid."
            )

    def _embed(self, label: Tensor, dtype: torch.dtype) -> Tensor:
        """(B,) -> (B, E)."""
        phase = label.float()[:, None] * self.frequencies
        return self.embed(torch.cat([phase.cos(), phase.sin()], dim=1).to(dtype))

    def _trunk(self, x: Tensor, apply: Callable[[nn.Module, Tensor, int], Tensor]) -> Tensor:
        """Features of the finest level; ``apply(block, h, level)`` runs one block."""
        h = self.head(x)
        skips: list[Tensor] = []
        for level, stage in enumerate(self.down):
            for block in stage:  # type: ignore[union-attr]
                h = apply(block, h, level)
            if level + 1 < len(self.width):
                skips.append(h)
                h = self.halve[level](h)
        for level, join, stage in zip(reversed(range(len(self.up))), self.join, self.up, strict=True):
            h = F.interpolate(join(h), scale_factor=2, mode="nearest")
            h = torch.cat([h, skips.pop()], dim=1)
            for block in stage:  # type: ignore[union-attr]
                h = apply(block, h, level)
        return h
