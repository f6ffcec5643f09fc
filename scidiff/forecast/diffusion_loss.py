r"""What a conditional diffusion minimises, on rows that are windows in time.

.. math:: L = E\; w(\sigma)\, \| D(z + \sigma\epsilon, \sigma, c) - z \|^2 / n

with z and c of `scidiff.forecast.conditional`. For masked models the past and the future are withheld independently,
each with the same probability.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from scidiff.forecast.conditional import ConditionalDiffusion
from scidiff.forecast.draws import SeededStreams
from scidiff.forecast.windows import WindowSource
from scidiff.training.levels import Levels, LogNormal
from scidiff.training.losses import edm

__all__ = ["BlockDenoisingLoss", "OnLevels", "residual_scale"]


@dataclass(frozen=True)
class OnLevels:
    """Noise levels of a chain of finitely many steps, all with the same probability: DDPM as published.

    Arguments:
        values: The levels.
    """

    values: Sequence[float]

    def draw(self, generator: Generator) -> Tensor:
        """One of them."""
        return torch.tensor(self.values)[int(torch.randint(len(self.values), (), generator=generator))]

    def density(self, sigma: Tensor) -> Tensor:
        """There is none."""
        raise NotImplementedError("finitely many levels have no density.")


class BlockDenoisingLoss:
    r"""The denoising loss of blocks, for `scidiff.training.train`.

    Arguments:
        model: Its target, scale and conditions are used; the trained denoiser is the loop's network.
        channels: Prognostic channels C; the others of a window are forcings.
        levels: Law of the noise levels; EDM's by default.
        weight: :math:`w(\sigma)`; EDM's by default.
        withhold: Probability that the past is withheld, and the same for the future; for masked models.
    """

    windows = True

    def __init__(
        self,
        model: ConditionalDiffusion,
        channels: int,
        levels: Levels | None = None,
        weight: Callable[[Tensor], Tensor] = edm,
        withhold: float = 0.5,
    ) -> None:
        if not 0 <= withhold < 1:
            raise ValueError(f"withhold is a probability in [0, 1), got {withhold}.")
        self.model, self.channels, self.weight = model, channels, weight
        self.levels: Levels = LogNormal() if levels is None else levels
        self.withhold = withhold

    def draw(self, generator: Generator) -> Tensor:
        """Noise level, seed of the noise, and whether past and future are given: float64 (4,)."""
        seed = torch.randint(2**52, (), generator=generator)
        given = torch.rand(2, generator=generator) >= self.withhold
        return torch.stack([self.levels.draw(generator).double(), seed.double(), *given.double()])

    def __call__(self, network: nn.Module, u: Tensor, time: Tensor, eps: Tensor | None = None) -> Tensor:
        r"""One number per row, (B,); ``u`` (B, window + h + future, C + K, \*grid), ``time`` (B, 4) from `draw`."""
        model, end = self.model, self.model.window + self.model.horizon
        x = u[:, :, : self.channels]
        forcing = u[:, :end, self.channels :] if u.shape[2] > self.channels else None
        past, future = x[:, : model.window], x[:, end:] if model.future else None
        z = model.encode(x[:, model.window : end], past[:, -1])
        condition = model.condition(past, future, forcing, time[:, 2:])
        sigma = time[:, 0].to(z)
        noise = SeededStreams(time[:, 1].long()).randn(z.shape[1:], z.device, z.dtype)
        noised = z + sigma.reshape(-1, *(1,) * (z.ndim - 1)) * noise
        error = network(noised, sigma, condition).to(torch.promote_types(z.dtype, torch.float32)) - z
        return self.weight(sigma) * error.square().flatten(1).mean(1)


def residual_scale(source: WindowSource, horizon: int, channels: int) -> Tensor:
    r"""Root mean square of :math:`x_{t+j} - x_t` over all times and points of the training stretches, (h, C).

    A residual that is zero everywhere gets the scale 1.
    """
    total, count = torch.zeros(horizon, channels, dtype=torch.float64), torch.zeros(horizon, 1, dtype=torch.float64)
    for stretch in source.stretches:
        x = stretch[:, :channels]
        for lead in range(1, min(horizon, len(x) - 1) + 1):
            change = (x[lead:] - x[:-lead]).square().flatten(2).mean(2, dtype=torch.float64)
            total[lead - 1] += change.sum(0)
            count[lead - 1] += len(change)
    found = (total / count).sqrt()
    return torch.where(found > 0, found, 1.0)
