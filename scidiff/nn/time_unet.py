r"""The U-Net of this library with a lead time for its label, and with randomness of two kinds.

*Dropout*, as DYffusion was published: masks before the first and the second convolution of every block.

*Noise*: standard normal fields :math:`z_l` of ``noise`` channels at the resolution of every level :math:`l`, and a
vector of ``latent`` numbers for the whole field. Both act through the adaptive norm of every block,

.. math:: h = norm(h)\,(1 + g + G_l z_l) + b + B_l z_l, \qquad (g, b) = \text{linear}(e(time) + E\,\zeta),

so the network shapes white noise into whatever spatial law the scores reward: fields at fine levels make local
detail, those at coarse levels and the vector make changes of the whole. Trained with a proper score of an ensemble
(`scidiff.forecast.losses`), the law of the output given the input is learned; dropout leaves its amount of randomness
to the probability that a person chose.

References:
    Rühling Cachay et al., DYffusion: a dynamics-informed diffusion model for spatiotemporal forecasting, 2023,
    arXiv:2306.01984 (time-conditioned U-Net with dropout). Lang et al., AIFS-CRPS: ensemble forecasting using a model
    trained with a loss function based on the continuous ranked probability score, 2024, arXiv:2412.15832 (noise
    through conditional norms).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scidiff.nn.grid import from_patches, pad_to_multiple, to_patches
from scidiff.nn.stochastic import Draws, Dropout, noise_fields
from scidiff.nn.unet import Block, UNet, _channel, conv

__all__ = ["TimeUNet"]


class NoisyBlock(Block):
    """A block of the U-Net with masks, and with gain and bias that also depend on a noise field."""

    def __init__(
        self,
        dims: int,
        inputs: int,
        outputs: int,
        embedding: int,
        padding: str,
        attention: bool,
        dropout: tuple[float, float, bool],
        noise: int,
        latent: int,
    ) -> None:
        super().__init__(dims, inputs, outputs, embedding, padding, attention)
        first, second, channels = dropout
        self.drop1, self.drop2 = Dropout(first, channels), Dropout(second, channels)
        self.noise = conv(dims, noise, 2 * outputs, size=1) if noise else None
        if noise or latent:
            # The second convolution of a block starts at zero in the plain U-Net. Here noise must reach the output
            # from the first step on: at zero spread the gradient of a score with respect to the spread is zero.
            nn.init.normal_(self.conv2.weight, std=0.1 / (outputs * 3**dims) ** 0.5)  # type: ignore[arg-type]
        if latent and self.modulate is not None:
            nn.init.normal_(self.modulate.weight, std=0.3 / embedding**0.5)

    def noisy(self, x: Tensor, embedding: Tensor, z: Tensor | None, streams: Draws | None) -> Tensor:
        """(B, inputs, ...), (B, E), noise (B, Z, ...) -> (B, outputs, ...)."""
        h = self.conv1(self.drop1(F.silu(self.norm1(x)), streams))
        gain, bias = (_channel(v, h) for v in cast(nn.Linear, self.modulate)(embedding).chunk(2, dim=1))
        if self.noise is not None and z is not None:
            more, shift = self.noise(z).chunk(2, dim=1)
            gain, bias = gain + more, bias + shift
        h = F.silu(torch.addcmul(bias.expand_as(h), self.norm2(h), 1 + gain))
        h = self.skip(x) + self.conv2(self.drop2(h, streams))
        return h if self.attention is None else self.attention(h)


class TimeUNet(UNet):
    r"""Maps fields, a lead time and the numbers of a stream to fields.

    Arguments:
        inputs, outputs, width, blocks, dims, patch, embedding, padding, attention: Those of `UNet`.
        horizon: Lead times are divided by it before they are embedded.
        dropout: Probability of the masks before the second convolution of every block.
        dropout_first: The same before the first convolution.
        dropout_channels: Drop whole channels instead of single points.
        noise: Channels of white noise at every level; 0 for none.
        latent: Numbers of the noise vector of the whole field; 0 for none.

    Shapes: ``x`` (B, inputs, \*grid), ``time`` (B,) in steps; returns (B, outputs, \*grid).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int | None = None,
        width: Sequence[int] = (32, 48, 64),
        blocks: int = 1,
        dims: int = 2,
        patch: int = 1,
        embedding: int = 64,
        padding: str = "zeros",
        attention: Sequence[int] = (),
        horizon: float = 1.0,
        dropout: float = 0.0,
        dropout_first: float = 0.0,
        dropout_channels: bool = False,
        noise: int = 0,
        latent: int = 0,
    ) -> None:
        if noise < 0 or latent < 0 or horizon <= 0:
            raise ValueError(f"noise and latent must be >= 0, horizon positive; got {noise}, {latent}, {horizon}.")
        self._randomness = (dropout_first, dropout, dropout_channels), noise, latent
        super().__init__(inputs, outputs, width, blocks, dims, patch, embedding, padding, attention)
        self.horizon, self.noise, self.latent = float(horizon), noise, latent
        self.dropout, self.dropout_first, self.dropout_channels = dropout, dropout_first, dropout_channels
        self.mix = nn.Linear(latent, embedding, bias=False) if latent else None
        if noise or latent:
            nn.init.normal_(self.tail.weight, std=0.1 / (width[0] * 3**dims) ** 0.5)  # type: ignore[arg-type]

    def _block(self, inputs: int, outputs: int, level: int) -> Block:
        dropout, noise, latent = self._randomness
        return NoisyBlock(
            self.dims, inputs, outputs, self.embedding, self.padding, level in self.attention, dropout, noise, latent
        )

    @property
    def stochastic(self) -> bool:
        """Whether streams change the result."""
        return bool(self.noise or self.latent or self.dropout or self.dropout_first)

    @property
    def config(self) -> dict[str, int | str | tuple[int, ...]]:
        """The constructor's arguments, for the card of a trained network."""
        names = ("horizon", "dropout", "dropout_first", "dropout_channels", "noise", "latent")
        return super().config | {name: getattr(self, name) for name in names}

    def forward(self, x: Tensor, time: Tensor, streams: Draws | None = None) -> Tensor:  # type: ignore[override]
        r"""(B, inputs, \*grid), (B,) -> (B, outputs, \*grid)."""
        self._check(x)
        grid = x.shape[2:]
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
        x = to_patches(pad_to_multiple(x, self.multiple, self.padding), self.patch)
        fields, vector = self._noise(x, streams)
        e = self._embed(time / self.horizon, x.dtype)
        if self.mix is not None and vector is not None:
            e = e + self.mix(vector)

        def apply(block: nn.Module, h: Tensor, level: int) -> Tensor:
            return cast(NoisyBlock, block).noisy(h, e, fields[level], streams)

        h = self._trunk(x, apply)
        return from_patches(self.tail(F.silu(self.norm(h))), self.patch, self.dims)[(..., *(slice(n) for n in grid))]

    def _noise(self, x: Tensor, streams: Draws | None) -> tuple[list[Tensor | None], Tensor | None]:
        """White fields for the levels and the vector; None where there is no noise."""
        levels = len(self.width)
        if streams is None or not (self.noise or self.latent):
            return [None] * levels, None
        shapes = [(self.noise, *(n >> level for n in x.shape[2:])) for level in range(levels)]
        *fields, vector = noise_fields(streams, [*shapes, (self.latent,)], x)
        return [field if self.noise else None for field in fields], vector
