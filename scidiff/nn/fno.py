r"""A Fourier neural operator that is told a lead time and driven by noise: for periodic fields.

Every layer mixes channels at the lowest wavenumbers, each with a matrix of its own, and at every point,

.. math:: h \leftarrow h + W_2\,\sigma\!\left( (1 + g)\, n(F^{-1} R_k F h + W_1 h + B z) + b \right),

with gain and bias linear in the embedded time and white noise fields z. It acts on the field as a whole: one layer can
carry it by any fraction of a grid point, diffuse it or correlate noise over any distance; above the kept wavenumbers it
acts point by point. Circular shifts commute with it, and it works on any grid that holds its wavenumbers.

References:
    Li et al., Fourier neural operator for parametric partial differential equations, 2020, arXiv:2010.08895.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scidiff.nn.stochastic import Draws, Dropout, noise_fields
from scidiff.nn.unet import RMSNorm, _channel, conv

__all__ = ["FNO"]


class SpectralConv(nn.Module):
    """A matrix over channels for every wavenumber below ``modes`` along every axis."""

    def __init__(self, channels: int, modes: int, dims: int) -> None:
        super().__init__()
        self.modes, self.dims = modes, dims
        kept = (2 * modes - 1,) * (dims - 1) + (modes,)
        self.weight = nn.Parameter(torch.randn(channels, channels, *kept, 2) / (2 * channels) ** 0.5 / 2)

    def forward(self, h: Tensor) -> Tensor:
        """(B, C, ...) -> the same shape."""
        axes, m = tuple(range(2, 2 + self.dims)), self.modes
        series = torch.fft.rfftn(h, dim=axes, norm="ortho")
        where = [torch.arange(-m + 1, m, device=h.device) for _ in axes[:-1]] + [torch.arange(m, device=h.device)]
        index = (slice(None), slice(None), *torch.meshgrid(*where, indexing="ij"))
        mixed = torch.einsum("bi...,io...->bo...", series[index], torch.view_as_complex(self.weight).to(series))
        out = torch.zeros_like(series)
        out[index] = mixed
        return torch.fft.irfftn(out, s=h.shape[2:], dim=axes, norm="ortho")


class Layer(nn.Module):
    """One layer of the module's formula."""

    def __init__(self, width: int, modes: int, dims: int, embedding: int, dropout: float, noise: int) -> None:
        super().__init__()
        self.spectral, self.point = SpectralConv(width, modes, dims), conv(dims, width, width, size=1)
        self.noise = conv(dims, noise, width, size=1) if noise else None
        self.norm, self.modulate = RMSNorm(width), nn.Linear(embedding, 2 * width)
        self.drop, self.out = Dropout(dropout), conv(dims, width, width, size=1)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def forward(self, h: Tensor, e: Tensor, z: Tensor | None, streams: Draws | None) -> Tensor:
        """(B, C, ...), (B, E), noise (B, Z, ...) -> (B, C, ...)."""
        y = self.spectral(h) + self.point(h)
        if self.noise is not None and z is not None:
            y = y + self.noise(z)
        gain, bias = (_channel(v, h) for v in self.modulate(e).chunk(2, dim=1))
        return h + self.out(self.drop(F.silu(self.norm(y) * (1 + gain) + bias), streams))


class FNO(nn.Module):
    r"""Maps periodic fields, a lead time and the numbers of a stream to fields.

    Arguments:
        inputs, outputs: Channels.
        width: Channels inside.
        modes: Wavenumbers kept along every axis: 0 ... modes - 1 and their negatives; at most half the shortest side.
        layers: Number of layers.
        dims: Dimensions of the grid, 1 to 3.
        embedding: Features of the time.
        horizon: Times are divided by it.
        dropout: Probability of the masks in every layer.
        noise: Channels of white noise in every layer; 0 for none.

    Shapes: ``x`` (B, inputs, \*grid), ``time`` (B,) in steps; returns (B, outputs, \*grid).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int = 32,
        modes: int = 8,
        layers: int = 4,
        dims: int = 2,
        embedding: int = 32,
        horizon: float = 1.0,
        dropout: float = 0.0,
        noise: int = 0,
    ) -> None:
        super().__init__()
        if min(width, modes, layers) < 1 or dims not in (1, 2, 3) or noise < 0 or horizon <= 0:
            raise ValueError(
                "FNO needs width, modes, layers >= 1, dims 1 to 3, noise >= 0 and horizon > 0, got "
                f"{width}, {modes}, {layers}, {dims}, {noise}, {horizon}."
            )
        self.inputs, self.outputs, self.width, self.modes, self.layers = inputs, outputs, width, modes, layers
        self.dims, self.embedding, self.horizon, self.dropout, self.noise = dims, embedding, horizon, dropout, noise
        self.embed = nn.Sequential(nn.Linear(2 * 8, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU())
        self.head, self.tail = conv(dims, inputs, width, size=1), conv(dims, width, outputs, size=1)
        self.body = nn.ModuleList(Layer(width, modes, dims, embedding, dropout, noise) for _ in range(layers))
        nn.init.normal_(self.tail.weight, std=0.1 / width**0.5)  # type: ignore[arg-type]
        nn.init.zeros_(self.tail.bias)  # type: ignore[arg-type]

    @property
    def stochastic(self) -> bool:
        """Whether streams change the result."""
        return bool(self.noise or self.dropout)

    @property
    def config(self) -> dict[str, int | float]:
        """The constructor's arguments, for the card of a trained network."""
        names = ("inputs", "outputs", "width", "modes", "layers", "dims", "embedding", "horizon", "dropout", "noise")
        return {name: getattr(self, name) for name in names}

    def forward(self, x: Tensor, time: Tensor, streams: Draws | None = None) -> Tensor:
        r"""(B, inputs, \*grid), (B,) -> (B, outputs, \*grid)."""
        if x.ndim != self.dims + 2 or x.shape[1] != self.inputs or min(x.shape[2:]) < 2 * self.modes - 1:
            raise ValueError(
                f"expected (B, {self.inputs}, {', '.join('n' * self.dims)}) with sides of at least "
                f"{2 * self.modes - 1}, got {tuple(x.shape)}; reduce modes or change the grid."
            )
        phase = (time / self.horizon).to(x)[:, None] * torch.pi * torch.arange(1, 9, device=x.device).to(x) / 2
        e = self.embed(torch.cat([phase.cos(), phase.sin()], dim=1))
        fields: list[Tensor | None] = [None] * self.layers
        if streams is not None and self.noise:
            fields = list(noise_fields(streams, [(self.noise, *x.shape[2:])] * self.layers, x))
        h = self.head(x)
        for layer, z in zip(self.body, fields, strict=True):
            h = layer(h, e, z, streams)
        return self.tail(h)
