r"""A U-Net whose activations keep unit magnitude and whose weights cannot drift (EDM2).

Every layer maps inputs of unit mean square to outputs of unit mean square, in expectation over random data:

===============================  ===============================================================================
layer                            rule
===============================  ===============================================================================
weights                          each output's weights are used as :math:`w / \|w\|`; after every optimiser step
                                 `MPUNet.constrain` sets :math:`\|w\|` to :math:`\sqrt{\text{fan in}}`, so that
                                 the size of an update relative to the weights is the learning rate's alone
silu                             :math:`\mathrm{silu}(x) / 0.596`
sum                              :math:`((1-t) a + t b) / \sqrt{(1-t)^2 + t^2}`, t = 0.3
concatenation                    each part scaled so that both contribute equally
norm                             down path only: each grid point divided by its root mean square
noise label                      Fourier features :math:`\sqrt2\cos(2\pi(f c + \varphi))` with random f, phi
===============================  ===============================================================================

There are no biases; a channel of ones stands for them. Gains that start at zero multiply the embedding and the output.

    x -> patches -> [blocks, halve] x (L-1) -> blocks -> [double, join, blocks] x (L-1) -> points

References:
    Karras et al., Analyzing and improving the training dynamics of diffusion models, 2024, arXiv:2312.02696, section 2
    and appendix B (configuration G).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scidiff.nn.attention import attend, heads
from scidiff.nn.grid import check_options, from_patches, pad_around, pad_to_multiple, to_patches

__all__ = ["MPConv", "MPUNet", "mp_cat", "mp_silu", "mp_sum", "pixel_norm"]

_CONV = {0: F.linear, 1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def mp_silu(x: Tensor) -> Tensor:
    """Silu over its root mean square for standard normal input, 0.596."""
    return F.silu(x) / 0.596


def mp_sum(a: Tensor, b: Tensor, t: float = 0.3) -> Tensor:
    """A blend of two independent tensors of unit magnitude that has unit magnitude."""
    return a.lerp(b, t) / math.hypot(1 - t, t)


def mp_cat(a: Tensor, b: Tensor, t: float = 0.5) -> Tensor:
    """Both tensors along the channels; ``b`` contributes the fraction ``t``, however many channels it has."""
    na, nb = a.shape[1], b.shape[1]
    c = math.sqrt((na + nb) / ((1 - t) ** 2 + t**2))
    return torch.cat([c * (1 - t) / math.sqrt(na) * a, c * t / math.sqrt(nb) * b], dim=1)


def pixel_norm(x: Tensor) -> Tensor:
    """Every grid point divided by the root mean square of its channels."""
    kept = torch.promote_types(x.dtype, torch.float32)
    return x * (x.to(kept).square().mean(1, keepdim=True) + 1e-8).rsqrt().to(x.dtype)


class MPConv(nn.Module):
    """A convolution (or, with ``dims = 0``, a linear map) with weights of unit norm per output and no bias."""

    def __init__(self, dims: int, inputs: int, outputs: int, size: int = 3, padding: str = "zeros") -> None:
        super().__init__()
        self.dims, self.padding, self.around = dims, padding, size // 2
        self.weight = nn.Parameter(torch.randn(outputs, inputs, *(size,) * dims))
        self.constrain()

    @torch.no_grad()
    def constrain(self) -> None:
        """Sets the norm of each output's weights to the root of their number (unit magnitude per weight)."""
        w = self.weight
        w.mul_(math.sqrt(w[0].numel()) / _norm(w))

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        r"""(B, inputs, \*grid) -> (B, outputs, \*grid)."""
        w = (self.weight * (gain / _norm(self.weight))).to(x.dtype)
        if self.dims and self.around:
            x = pad_around(x, self.around, self.padding) if self.padding != "zeros" else x
            return _CONV[self.dims](x, w, padding=self.around if self.padding == "zeros" else 0)
        return _CONV[self.dims](x, w)


def _norm(w: Tensor) -> Tensor:
    return w.flatten(1).norm(dim=1).clamp_min(1e-12).reshape(-1, *(1,) * (w.ndim - 1))


class MPBlock(nn.Module):
    """Residual block; ``down`` blocks normalise their input per grid point."""

    def __init__(
        self, dims: int, inputs: int, outputs: int, embedding: int, padding: str, down: bool, attention: bool
    ) -> None:
        super().__init__()
        self.down = down
        first = outputs if down else inputs
        self.skip = MPConv(dims, inputs, outputs, 1) if inputs != outputs else None
        self.conv1, self.conv2 = MPConv(dims, first, outputs, 3, padding), MPConv(dims, outputs, outputs, 3, padding)
        self.modulate, self.gain = MPConv(0, embedding, outputs), nn.Parameter(torch.zeros(()))
        self.qkv = MPConv(dims, outputs, 3 * outputs, 1) if attention else None
        self.out = MPConv(dims, outputs, outputs, 1) if attention else None
        self.count = heads(outputs)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """(B, inputs, ...), (B, E) -> (B, outputs, ...)."""
        if self.down:
            x = pixel_norm(x if self.skip is None else self.skip(x))
        h = self.conv1(mp_silu(x))
        c = self.modulate(e, self.gain) + 1
        h = self.conv2(mp_silu(h * c.reshape(*c.shape, *(1,) * (h.ndim - 2)).to(h.dtype)))
        x = mp_sum(x if self.down or self.skip is None else self.skip(x), h)
        if self.qkv is None or self.out is None:
            return x
        parts = self.qkv(x).unflatten(1, (3, self.count, -1)).transpose(0, 1)
        q, k, v = (pixel_norm(p.flatten(0, 1)).reshape(x.shape) for p in parts)
        return mp_sum(x, self.out(attend(q, k, v, self.count)))


class MPUNet(nn.Module):
    r"""Maps a noisy field and its noise label to a field of the same size; arguments as those of `scidiff.nn.UNet`.

    Arguments:
        inputs: Channels of the input.
        outputs: Channels of the output; equal to ``inputs`` by default.
        width: Channels at each level, finest first.
        blocks: Residual blocks per level, on the way down and on the way up.
        dims: Dimensions of the grid, 1 to 3.
        patch: Side of the patches that become one point of the finest level.
        embedding: Features of the noise label.
        padding: zeros, periodic or reflect, see `scidiff.nn.grid`.
        attention: Levels (0 is the finest) whose blocks end with self-attention over the whole field.
        frequencies: Seed of the random frequencies of the label.

    Shapes: ``x`` (B, inputs, \*grid), ``label`` (B,) real; returns (B, outputs, \*grid).
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
        frequencies: int = 0,
    ) -> None:
        super().__init__()
        check_options(dims, width, blocks, patch, padding, attention)
        self.inputs, self.outputs = inputs, inputs if outputs is None else outputs
        self.dims, self.patch, self.padding, self.seed = dims, patch, padding, frequencies
        self.width, self.blocks, self.embedding, self.attention = tuple(width), blocks, embedding, tuple(attention)
        self.multiple = patch * 2 ** (len(self.width) - 1)

        g = torch.Generator().manual_seed(frequencies)
        self.frequencies: Tensor
        self.phases: Tensor
        self.register_buffer("frequencies", 2 * math.pi * torch.randn(embedding, generator=g), persistent=False)
        self.register_buffer("phases", 2 * math.pi * torch.rand(embedding, generator=g), persistent=False)
        self.embed = MPConv(0, embedding, embedding)

        def stage(level: int, first: int, down: bool) -> nn.ModuleList:
            c, attends = self.width[level], level in self.attention
            sides = [first] + [c] * (blocks - 1)
            return nn.ModuleList(MPBlock(dims, n, c, embedding, padding, down, attends) for n in sides)

        levels = range(len(self.width))
        self.head = MPConv(dims, (inputs + 1) * patch**dims, self.width[0], 3, padding)
        self.down = nn.ModuleList(stage(i, self.width[max(i - 1, 0)], True) for i in levels)
        self.up = nn.ModuleList(stage(i, self.width[i] + self.width[i + 1], False) for i in reversed(levels[:-1]))
        self.tail = MPConv(dims, self.width[0], self.outputs * patch**dims, 3, padding)
        self.gain = nn.Parameter(torch.zeros(()))

    @property
    def config(self) -> dict[str, int | str | tuple[int, ...]]:
        """The constructor's arguments, for the card of a trained network."""
        names = ("inputs", "outputs", "width", "blocks", "dims", "patch", "embedding", "padding", "attention")
        return {**{name: getattr(self, name) for name in names}, "frequencies": self.seed}

    def constrain(self) -> None:
        """Puts all weights back to unit magnitude; the training loop calls it after every step."""
        for module in self.modules():
            if isinstance(module, MPConv):
                module.constrain()

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        r"""(B, inputs, \*grid), (B,) -> (B, outputs, \*grid)."""
        if x.ndim != self.dims + 2 or x.shape[1] != self.inputs:
            raise ValueError(
                f"expected (B, {self.inputs}, {', '.join('n' * self.dims)}), got {tuple(x.shape)}; "
                f"the network takes {self.inputs} channels on a {self.dims}-D grid."
            )
        grid = x.shape[2:]
        x = pad_to_multiple(torch.cat([x, torch.ones_like(x[:, :1])], dim=1), self.multiple, self.padding)
        phase = label.to(self.frequencies)[:, None] * self.frequencies + self.phases
        e = mp_silu(self.embed((math.sqrt(2) * phase.cos()).to(x.dtype)))

        h = self.head(to_patches(x, self.patch))
        skips: list[Tensor] = []
        for level, stage in enumerate(self.down):
            h = _POOL[self.dims](h, 2) if level else h
            for block in stage:  # type: ignore[union-attr]
                h = block(h, e)
            skips.append(h)
        skips.pop()
        for stage in self.up:
            h = mp_cat(F.interpolate(h, scale_factor=2, mode="nearest"), skips.pop())
            for block in stage:  # type: ignore[union-attr]
                h = block(h, e)
        h = from_patches(self.tail(h, self.gain), self.patch, self.dims)
        return h[(..., *(slice(n) for n in grid))]
