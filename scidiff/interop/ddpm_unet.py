r"""The U-Net of DDPM with the parameter names of diffusers' ``UNet2DModel``, so that its files can be read.

    x -> conv_in -> [resnets (attention), halve] x L -> resnet, attention, resnet -> [resnets (attention), double] x L
      -> norm, silu, conv_out

A residual block adds a linear function of the time embedding between its two convolutions (``default``), or scales
and shifts with it (``scale_shift``). Attention is over all grid points, in heads of `attention_head_dim` channels.
What the format allows beyond that (Fourier or learned times, classes, skip and residual-sampling blocks) is refused.

References:
    Denoising diffusion probabilistic models (Ho, Jain and Abbeel, 2020), arXiv:2006.11239, appendix B. Improved
    denoising diffusion probabilistic models (Nichol and Dhariwal, 2021), arXiv:2102.09672 (scale and shift).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["DDPMUNet", "UNetConfig"]

_ACTIVATIONS = {"silu": F.silu, "swish": F.silu, "mish": F.mish, "gelu": F.gelu, "relu": F.relu}
_ONLY: dict[str, tuple[Any, ...]] = {
    "time_embedding_type": ("positional",),
    "mid_block_type": ("UNetMidBlock2D", None),
    "downsample_type": ("conv",),
    "upsample_type": ("conv",),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "act_fn": tuple(_ACTIVATIONS),
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
}


@dataclass(frozen=True)
class UNetConfig:
    """The keys of ``config.json`` with the defaults of the format; see `UNetConfig.read`."""

    sample_size: Any = None
    in_channels: int = 3
    out_channels: int = 3
    center_input_sample: bool = False
    time_embedding_type: str = "positional"
    time_embedding_dim: int | None = None
    freq_shift: float = 0
    flip_sin_to_cos: bool = True
    down_block_types: tuple[str, ...] = ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D")
    mid_block_type: str | None = "UNetMidBlock2D"
    up_block_types: tuple[str, ...] = ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D")
    block_out_channels: tuple[int, ...] = (224, 448, 672, 896)
    layers_per_block: int = 2
    mid_block_scale_factor: float = 1
    downsample_padding: int = 1
    downsample_type: str = "conv"
    upsample_type: str = "conv"
    dropout: float = 0.0
    act_fn: str = "silu"
    attention_head_dim: int | None = 8
    norm_num_groups: int | None = 32
    attn_norm_num_groups: int | None = None
    norm_eps: float = 1e-5
    resnet_time_scale_shift: str = "default"
    add_attention: bool = True
    class_embed_type: str | None = None
    num_class_embeds: int | None = None
    num_train_timesteps: int | None = None

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> UNetConfig:
        """The configuration in a file; keys that begin with an underscore are notes.

        Raises:
            ValueError: names every key that is unknown or has a value that this network cannot have.
        """
        given: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in config.items() if not k.startswith("_")
        }
        known = {f.name for f in fields(cls)}
        wrong = [f"{k}={config[k]!r} (unknown key)" for k in given if k not in known]
        wrong += [
            f"{k}={given[k]!r} (only {', '.join(map(repr, choice))})"
            for k, choice in _ONLY.items()
            if k in given and given[k] not in choice
        ]
        wrong += [
            f"{k} with {name} (only {plain}, Attn{plain})"
            for k, plain in (("down_block_types", "DownBlock2D"), ("up_block_types", "UpBlock2D"))
            for name in dict.fromkeys(given.get(k, ()))
            if name not in (plain, f"Attn{plain}")
        ]
        self = cls(**{k: v for k, v in given.items() if k in known})
        if not len(self.down_block_types) == len(self.up_block_types) == len(self.block_out_channels):
            wrong.append("down_block_types, up_block_types and block_out_channels of different lengths")
        if wrong:
            raise ValueError("the network's configuration is not supported: " + "; ".join(wrong) + ".")
        return self

    def groups(self, channels: int) -> int:
        """Groups of a group norm."""
        return self.norm_num_groups if self.norm_num_groups is not None else min(channels // 4, 32)

    @property
    def embedding(self) -> int:
        """Channels of the time embedding."""
        return self.time_embedding_dim or 4 * self.block_out_channels[0]


class _Resnet(nn.Module):
    """``h = conv1(act(norm1(x)))``, join the time, ``conv2(act(norm2(h)))``, add ``x``, divide by the scale factor."""

    def __init__(self, c: UNetConfig, inputs: int, outputs: int, factor: float = 1.0) -> None:
        super().__init__()
        self.act, self.factor, self.shift = _ACTIVATIONS[c.act_fn], factor, c.resnet_time_scale_shift == "scale_shift"
        self.norm1 = nn.GroupNorm(c.groups(inputs), inputs, eps=c.norm_eps)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time_emb_proj = nn.Linear(c.embedding, 2 * outputs if self.shift else outputs)
        self.norm2 = nn.GroupNorm(c.groups(outputs), outputs, eps=c.norm_eps)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """(B, inputs, H, W), (B, E) -> (B, outputs, H, W)."""
        h = self.conv1(self.act(self.norm1(x)))
        e = self.time_emb_proj(self.act(e))[:, :, None, None]
        if self.shift:
            scale, shift = e.chunk(2, dim=1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + e)
        h = self.conv2(self.act(h))
        x = x if self.conv_shortcut is None else self.conv_shortcut(x)
        return (x + h) / self.factor


class _Attention(nn.Module):
    """Self-attention over all grid points, added to its input."""

    def __init__(self, c: UNetConfig, channels: int, groups: int | None, factor: float = 1.0) -> None:
        super().__init__()
        size = c.attention_head_dim if c.attention_head_dim is not None else channels
        if channels % size:
            raise ValueError(f"attention_head_dim={size} does not divide a block of {channels} channels.")
        self.heads, self.factor = channels // size, factor
        self.group_norm = None if groups is None else nn.GroupNorm(groups, channels, eps=c.norm_eps)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        h = x if self.group_norm is None else self.group_norm(x)
        h = h.flatten(2).mT
        q, k, v = (f(h).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.to_q, self.to_k, self.to_v))
        weights = torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), dim=-1)
        h = self.to_out[0]((weights @ v).transpose(1, 2).flatten(2))
        return (x + h.mT.reshape(x.shape)) / self.factor


class _Halve(nn.Module):
    def __init__(self, channels: int, padding: int) -> None:
        super().__init__()
        self.padding = padding
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        # Without padding of its own the original pads one row and one column at the far ends.
        return self.conv(x if self.padding else F.pad(x, (0, 1, 0, 1)))


class _Double(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class _Stage(nn.Module):
    """The blocks of one resolution; those absent are None, as nothing is stored for them."""

    def __init__(
        self, c: UNetConfig, sizes: list[tuple[int, int]], attention: bool, halve: bool = False, double: bool = False
    ) -> None:
        super().__init__()
        outputs = sizes[-1][1]
        groups = c.groups(outputs)
        self.resnets = nn.ModuleList(_Resnet(c, a, b) for a, b in sizes)
        self.attentions = nn.ModuleList(_Attention(c, outputs, groups) for _ in sizes) if attention else None
        self.downsamplers = nn.ModuleList([_Halve(outputs, c.downsample_padding)]) if halve else None
        self.upsamplers = nn.ModuleList([_Double(outputs)]) if double else None

    def block(self, i: int, x: Tensor, e: Tensor) -> Tensor:
        """Residual block i and the attention after it."""
        x = self.resnets[i](x, e)
        return x if self.attentions is None else self.attentions[i](x)


class _Middle(nn.Module):
    def __init__(self, c: UNetConfig) -> None:
        super().__init__()
        channels, factor = c.block_out_channels[-1], c.mid_block_scale_factor
        groups = c.attn_norm_num_groups
        if groups is None and c.resnet_time_scale_shift == "default":
            groups = c.groups(channels)
        self.resnets = nn.ModuleList(_Resnet(c, channels, channels, factor) for _ in range(2))
        self.attentions = nn.ModuleList([_Attention(c, channels, groups, factor)] if c.add_attention else [])

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        x = self.resnets[0](x, e)
        for attention in self.attentions:
            x = attention(x)
        return self.resnets[1](x, e)


class DDPMUNet(nn.Module):
    r"""Maps a noisy field and a time to what it was trained to predict.

    Arguments:
        config: Sizes of the network.

    Shapes: ``x`` (B, in_channels, H, W), sides a multiple of `multiple`; ``time`` (B,), which may be fractional;
    returns (B, out_channels, H, W).
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        c, widths = config, config.block_out_channels
        self.config = config
        self.multiple = 2 ** (len(widths) - 1)
        self.conv_in = nn.Conv2d(c.in_channels, widths[0], 3, padding=1)
        self.time_embedding = nn.ModuleDict(
            {"linear_1": nn.Linear(widths[0], c.embedding), "linear_2": nn.Linear(c.embedding, c.embedding)}
        )
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        skips, channels = [widths[0]], widths[0]
        for level, (kind, width) in enumerate(zip(c.down_block_types, widths, strict=True)):
            last = level + 1 == len(widths)
            sizes = [(channels if i == 0 else width, width) for i in range(c.layers_per_block)]
            self.down_blocks.append(_Stage(c, sizes, kind.startswith("Attn"), halve=not last))
            skips += [width] * (c.layers_per_block + (not last))
            channels = width
        self.mid_block = _Middle(c) if c.mid_block_type is not None else None
        for level, (kind, width) in enumerate(zip(c.up_block_types, reversed(widths), strict=True)):
            sizes = []
            for _ in range(c.layers_per_block + 1):
                sizes.append((channels + skips.pop(), width))
                channels = width
            self.up_blocks.append(_Stage(c, sizes, kind.startswith("Attn"), double=level + 1 < len(widths)))
        self.conv_norm_out = nn.GroupNorm(c.groups(widths[0]), widths[0], eps=c.norm_eps)
        self.conv_out = nn.Conv2d(widths[0], c.out_channels, 3, padding=1)

    def features(self, time: Tensor) -> Tensor:
        """Sines and cosines of the time, (B,) -> (B, width of the first level)."""
        size = self.config.block_out_channels[0]
        half = size // 2
        exponent = torch.arange(half, device=time.device, dtype=torch.float32) / (half - self.config.freq_shift)
        # Times beside weights of less than single precision would lose their fractions.
        phase = time.to(torch.promote_types(time.dtype, torch.float32))[:, None] * torch.exp(-math.log(1e4) * exponent)
        parts = [phase.cos(), phase.sin()] if self.config.flip_sin_to_cos else [phase.sin(), phase.cos()]
        return F.pad(torch.cat(parts, dim=1), (0, size % 2))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(B, in_channels, H, W), (B,) -> (B, out_channels, H, W)."""
        if x.ndim != 4 or x.shape[1] != self.config.in_channels or any(n % self.multiple for n in x.shape[2:]):
            raise ValueError(
                f"expected (B, {self.config.in_channels}, H, W) with sides a multiple of {self.multiple}, "
                f"got {tuple(x.shape)}; pad or crop the field."
            )
        e = self.time_embedding["linear_1"](self.features(time).to(x.dtype))
        e = self.time_embedding["linear_2"](F.silu(e))
        h = self.conv_in(2 * x - 1 if self.config.center_input_sample else x)
        skips = [h]
        for stage in self.down_blocks:
            assert isinstance(stage, _Stage)
            for i in range(len(stage.resnets)):
                h = stage.block(i, h, e)
                skips.append(h)
            if stage.downsamplers is not None:
                h = stage.downsamplers[0](h)
                skips.append(h)
        if self.mid_block is not None:
            h = self.mid_block(h, e)
        for stage in self.up_blocks:
            assert isinstance(stage, _Stage)
            for i in range(len(stage.resnets)):
                h = stage.block(i, torch.cat([h, skips.pop()], dim=1), e)
            if stage.upsamplers is not None:
                h = stage.upsamplers[0](h)
        return self.conv_out(F.silu(self.conv_norm_out(h)))
