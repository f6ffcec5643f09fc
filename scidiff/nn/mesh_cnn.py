r"""The small convolutional network of the spring-mesh experiments: four wide kernels, residual, batch norm.

    x -> points -> [conv 9, norm, time, silu, drop (+ x)] -> [conv 7 ...] -> [conv 5 ...] -> [conv 3 ...] -> points

Kernels of 9, 7, 5 and 3 points see 21 points in all: the whole of a mesh of 10 by 10 masses, so that one step of the
network can carry any wave across it.

References:
    Rühling Cachay et al., DYffusion: a dynamics-informed diffusion model for spatiotemporal forecasting, 2023,
    arXiv:2306.01984 (appendix; the time enters as scale and shift). Otness et al., An extensible benchmark suite for
    learning to simulate physical systems, 2021, arXiv:2108.07799 (the network without time).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scidiff.nn.grid import PADDING
from scidiff.nn.stochastic import Draws, Dropout, noise_fields
from scidiff.nn.unet import _CONV, _channel

__all__ = ["MeshCNN"]

_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class MeshCNN(nn.Module):
    r"""Maps fields and a lead time to fields.

    Arguments:
        inputs, outputs: Channels.
        width: Channels inside.
        kernels: Odd sizes of the kernels, one layer each.
        dims: Dimensions of the grid, 1 to 3.
        embedding: Features of the time.
        padding: What lies beyond the edge: zeros, periodic or reflect.
        horizon: Times are divided by it.
        dropout: Probability of the masks after every layer.
        noise: Channels of white noise added before every layer's norm; 0 for none.

    Shapes: ``x`` (B, inputs, \*grid), ``time`` (B,) in steps; returns (B, outputs, \*grid).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int = 64,
        kernels: Sequence[int] = (9, 7, 5, 3),
        dims: int = 2,
        embedding: int = 64,
        padding: str = "zeros",
        horizon: float = 1.0,
        dropout: float = 0.0,
        noise: int = 0,
    ) -> None:
        super().__init__()
        if not kernels or any(k < 1 or k % 2 == 0 for k in kernels) or dims not in (1, 2, 3):
            raise ValueError(f"kernels must be odd and dims 1 to 3, got {list(kernels)} and {dims}.")
        if padding not in PADDING or width < 1 or noise < 0 or horizon <= 0:
            raise ValueError(
                f"padding must be one of {', '.join(PADDING)}, width >= 1, noise >= 0 and horizon > 0; got "
                f"{padding!r}, {width}, {noise}, {horizon}."
            )
        self.inputs, self.outputs, self.width, self.kernels = inputs, outputs, width, tuple(kernels)
        self.dims, self.embedding, self.padding = dims, embedding, padding
        self.horizon, self.dropout, self.noise = float(horizon), dropout, noise
        conv = _CONV[dims]
        self.embed = nn.Sequential(
            nn.Linear(embedding, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU()
        )
        self.frequencies: Tensor
        frequencies = torch.exp(torch.linspace(math.log(0.5), math.log(256.0), embedding // 2))
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.head, self.tail = conv(inputs, width, 1), conv(width, outputs, 1)
        self.convs = nn.ModuleList(
            conv(width, width, k, padding=k // 2, padding_mode=PADDING[padding]) for k in self.kernels
        )
        self.norms = nn.ModuleList(_NORM[dims](width) for _ in self.kernels)
        self.modulate = nn.ModuleList(nn.Linear(embedding, 2 * width) for _ in self.kernels)
        self.drops = nn.ModuleList(Dropout(dropout) for _ in self.kernels)
        self.sources = nn.ModuleList(conv(noise, width, 1, bias=False) for _ in self.kernels if noise)
        nn.init.normal_(self.tail.weight, std=0.1 / width**0.5)
        nn.init.zeros_(self.tail.bias)  # type: ignore[arg-type]

    @property
    def stochastic(self) -> bool:
        """Whether streams change the result."""
        return bool(self.noise or self.dropout)

    @property
    def config(self) -> dict[str, int | float | str | tuple[int, ...]]:
        """The constructor's arguments, for the card of a trained network."""
        names = "inputs outputs width kernels dims embedding padding horizon dropout noise"
        return {name: getattr(self, name) for name in names.split()}

    def forward(self, x: Tensor, time: Tensor, streams: Draws | None = None) -> Tensor:
        r"""(B, inputs, \*grid), (B,) -> (B, outputs, \*grid)."""
        if x.ndim != self.dims + 2 or x.shape[1] != self.inputs:
            raise ValueError(f"expected (B, {self.inputs}, {', '.join('n' * self.dims)}), got {tuple(x.shape)}.")
        phase = (time / self.horizon).float()[:, None] * self.frequencies
        e = self.embed(torch.cat([phase.cos(), phase.sin()], dim=1).to(x.dtype))
        fields: list[Tensor | None] = [None] * len(self.kernels)
        if streams is not None and self.noise:
            fields = list(noise_fields(streams, [(self.noise, *x.shape[2:])] * len(self.kernels), x))
        h = self.head(x)
        for n, (conv, norm, modulate, drop) in enumerate(
            zip(self.convs, self.norms, self.modulate, self.drops, strict=True)
        ):
            y = conv(h)
            if (z := fields[n]) is not None:
                y = y + self.sources[n](z)
            gain, bias = (_channel(v, h) for v in modulate(e).chunk(2, dim=1))
            h = h + drop(F.silu(torch.addcmul(bias.expand_as(y), norm(y), 1 + gain)), streams)
        return self.tail(h)
