r"""Forecasts by diffusion: noise becomes the next h states, given the last ones.

What is noised is the block :math:`z`, h states one after the other as channels,

.. math:: z_j = (x_{t+j} - x_t) / s_j \;\;(\text{target "residual"}) \qquad \text{or} \qquad
          z_j = x_{t+j} / s_j \;\;(\text{target "state"}), \qquad j = 1 \dots h,

with one scale :math:`s_j` per lead and channel, so that :math:`z` has about unit variance. A denoiser
:math:`D(z + \sigma\epsilon, \sigma, c) = E[z \mid z + \sigma\epsilon, c]` that also sees the condition :math:`c`, the
past states (and prescribed fields), is all that a sampler of `scidiff.samplers` needs to draw from
:math:`p(x_{t+1}, \dots, x_{t+h} \mid c)`: jointly over space and leads. With the exact denoiser both targets draw from
the same law; a network finds the residual easier where states change little in a step.

**Which sampler.** z given a condition is a narrow law far from the noise it starts as, and the sampler's own error in
its variance is easily larger than the network's: `UniPC` needs 20 calls for what Heun's method does not reach in 79
(``benchmarks/block_samplers.py``).

**Masks** (``masked=True``; video diffusion with masked conditions). In training the past, and ``future`` states after
the block, are each withheld half of the time, told by a channel that is 1 where they are given. One network then
predicts (past given), interpolates (past and future given) and generates (neither): `ConditionalDiffusion.draw`.

References:
    Karras et al., Elucidating the design space of diffusion-based generative models, 2022, arXiv:2206.00364
    (preconditioning, Heun's method). Price et al., GenCast: diffusion-based ensemble forecasting for medium-range
    weather, 2023, arXiv:2312.15796 (residual target, conditional EDM). Ho, Jain, Abbeel, Denoising diffusion
    probabilistic models, 2020, arXiv:2006.11239. Voleti, Jolicoeur-Martineau, Pal, MCVD: masked conditional video
    diffusion for prediction, generation, and interpolation, 2022, arXiv:2205.09853.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn

from scidiff.forecast.base import Correct, Forecaster, streams_of
from scidiff.forecast.sampler_card import describe_sampler, make_sampler
from scidiff.priors.diffusion import precondition
from scidiff.rng import Streams
from scidiff.samplers import Sampler, UniPC

__all__ = ["ConditionalDenoiser", "ConditionalDiffusion"]

TARGETS = ("residual", "state")


class ConditionalDenoiser(nn.Module):
    r"""EDM's preconditioning around a network that is also given a condition.

    .. math:: D(z, \sigma, c) = \frac{z}{1 + \sigma^2} + \frac{\sigma}{\sqrt{1 + \sigma^2}}\,
              F\!\left(\frac{z}{\sqrt{1 + \sigma^2}}, c, \tfrac14\ln\sigma\right)

    Arguments:
        network: ``network(x, time, streams)`` on z and c side by side; the time it is told is the noise label. Networks
            that divide times by their ``horizon`` are given the label times it.
    """

    parts = ("network",)

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.stretch = float(getattr(network, "horizon", 1.0))

    @property
    def config(self) -> dict[str, object]:
        """No arguments besides the network."""
        return {}

    def forward(self, z: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
        r"""Denoises z (B, n, \*grid) at sigma () or (B,), given a condition (B, K, \*grid) -> (B, n, \*grid)."""
        return precondition(
            lambda x, label: self.network(torch.cat([x, condition], dim=1), self.stretch * label, None), z, sigma
        )


class ConditionalDiffusion(Forecaster):
    r"""Draws blocks of h states by a conditional denoiser and a sampler.

    Arguments:
        denoiser: ``denoiser(z, sigma, condition)``: z (B, h C, \*grid), sigma () or (B,), condition as `condition`
            makes it. A module; `ConditionalDenoiser` around a network, or a formula.
        horizon: Block length h; longer forecasts feed the last states back (h = 1 is autoregressive).
        window: Past states.
        sampler: Of `scidiff.samplers`, or its description (`scidiff.forecast.sampler_card`).
        target: ``residual`` or ``state``.
        scale: :math:`s`: a number, or (h, C).
        future: States after the block that may be given to `draw`; needs ``masked``.
        masked: The network was trained with withheld conditions and is told which are there; needs target ``state``.

    Raises:
        ValueError: Options that do not exist or do not fit each other.
    """

    parts = ("denoiser",)

    def __init__(
        self,
        denoiser: nn.Module,
        horizon: int,
        window: int = 1,
        *,
        sampler: Sampler | Mapping[str, Any] | None = None,
        target: str = "residual",
        scale: float | Sequence[Sequence[float]] | Tensor = 1.0,
        future: int = 0,
        masked: bool = False,
    ) -> None:
        super().__init__()
        if horizon < 1 or window < 1 or future < 0:
            raise ValueError(
                f"horizon and window must be at least 1, future 0 or more; got {horizon}, {window}, {future}."
            )
        if target not in TARGETS:
            raise ValueError(f"target must be one of {', '.join(TARGETS)}; got {target!r}.")
        if masked and target == "residual":
            raise ValueError('masked=True needs target="state": where the past is withheld there is no residual.')
        if future and not masked:
            raise ValueError("future states are conditions that may be missing: take masked=True.")
        found = torch.as_tensor(scale, dtype=torch.float64)
        if not bool((found > 0).all()) or found.ndim not in (0, 2) or (found.ndim and len(found) != horizon):
            raise ValueError(
                f"scale must be positive, one number or ({horizon}, channels); got shape {tuple(found.shape)}."
            )
        self.denoiser, self.horizon, self.window, self.target = denoiser, horizon, window, target
        self.future, self.masked = future, masked
        self.sampler = UniPC(20) if sampler is None else make_sampler(sampler)
        self.scale: Tensor
        self.register_buffer("scale", found, persistent=False)

    @property
    def config(self) -> dict[str, object]:
        """The arguments besides the denoiser."""
        names = ("horizon", "window", "target", "future", "masked")
        more = {"sampler": describe_sampler(self.sampler), "scale": self.scale.tolist()}
        return {name: getattr(self, name) for name in names} | more

    @property
    def network_calls(self) -> int:
        """Calls of the denoiser by the sampler, exactly."""
        return self.sampler.calls

    def inputs(self, channels: int, forcings: int = 0) -> int:
        """Channels that a network of `ConditionalDenoiser` is given: block, past, future, forcings, flags."""
        states = self.horizon + self.window + self.future
        return states * channels + (self.window + self.horizon) * forcings + self.flags

    @property
    def flags(self) -> int:
        """Channels that say which states are given."""
        return (1 + (self.future > 0)) * self.masked

    def encode(self, block: Tensor, last: Tensor) -> Tensor:
        r"""States (B, h, C, \*grid) after ``last`` (B, C, \*grid) as z, (B, h C, \*grid)."""
        if self.target == "residual":
            block = block - last[:, None]
        return (block / self._scale(block)).flatten(1, 2)

    def decode(self, z: Tensor, last: Tensor) -> Tensor:
        """Inverse of `encode`."""
        block = z.unflatten(1, (self.horizon, -1))
        block = block * self._scale(block)
        return block + last[:, None] if self.target == "residual" else block

    def _scale(self, block: Tensor) -> Tensor:
        scale = self.scale.to(block)
        return scale.reshape(*scale.shape, *(1,) * (block.ndim - 3)) if scale.ndim else scale

    def condition(self, past: Tensor, future: Tensor | None, forcing: Tensor | None, present: Tensor) -> Tensor:
        r"""What the denoiser is given besides the noised block: past, future, forcings, flags, (B, K, \*grid).

        Arguments:
            past: (B, window, C, \*grid).
            future: (B, future, C, \*grid), or None where there is none.
            forcing: (B, window + h, K, \*grid), or None.
            present: (B, 2), 1 where the past and the future are given, else 0; used by masked models.
        """
        if not self.masked:
            parts = [past] if forcing is None else [past, forcing]
            return torch.cat([part.flatten(1, 2) for part in parts], dim=1)
        flags = present.to(past).reshape(len(past), 2, *(1,) * (past.ndim - 3))
        parts = [past.flatten(1, 2) * flags[:, :1]]
        if self.future:
            given = past.new_zeros(len(past), self.future, *past.shape[2:]) if future is None else future
            parts.append(given.flatten(1, 2) * flags[:, 1:])
        if forcing is not None:
            parts.append(forcing.flatten(1, 2))
        parts.append(flags[:, : self.flags].expand(-1, -1, *past.shape[3:]))
        return torch.cat(parts, dim=1)

    @torch.no_grad()
    def sample(
        self,
        state: Tensor,
        forcing: Tensor | None = None,
        *,
        generator: Generator | Streams | None = None,
        correct: Correct | None = None,
    ) -> Tensor:
        """See `Forecaster.sample`. Corrections are applied to the finished block, lead by lead."""
        x = self._block(state[:, -self.window :], None, forcing, (1.0, 0.0), streams_of(generator, len(state)))
        if correct is None:
            return x
        return torch.stack([correct(x[:, j], j + 1.0) for j in range(self.horizon)], dim=1)

    @torch.no_grad()
    def draw(
        self,
        past: Tensor | None,
        future: Tensor | None = None,
        forcing: Tensor | None = None,
        *,
        shape: Sequence[int] | None = None,
        generator: Generator | Streams | None = None,
    ) -> Tensor:
        r"""Draws a block given the past, the future, both or neither: prediction, interpolation, generation.

        Arguments:
            past: (B, window, C, \*grid), or None.
            future: The ``future`` states after the block, (B, future, C, \*grid), or None.
            forcing: As in `Forecaster.sample`.
            shape: (B, C, \*grid), needed where neither past nor future is given.
            generator: As in `Forecaster.sample`.

        Returns:
            (B, h, C, \*grid).

        Raises:
            ValueError: The model was not trained without what is missing, or knows no future states.
        """
        if not self.masked and (past is None or future is not None):
            raise ValueError("this model was trained with the past alone; train one of kind mcvd for other conditions.")
        if future is not None and future.shape[1] != self.future:
            raise ValueError(f"expected {self.future} future states, got {future.shape[1]}.")
        given = past if past is not None else future
        if given is None and shape is None:
            raise ValueError("give shape=(rows, channels, *grid) where neither past nor future is given.")
        present = (float(past is not None), float(future is not None))
        if past is None:
            rows = given[:, 0].shape if given is not None else tuple(shape or ())
            like = self.scale.new_zeros((), dtype=torch.get_default_dtype()) if given is None else given
            past = like.new_zeros(rows[0], self.window, *rows[1:])
        return self._block(past, future, forcing, present, streams_of(generator, len(past)))

    def _block(
        self,
        past: Tensor,
        future: Tensor | None,
        forcing: Tensor | None,
        present: tuple[float, float],
        streams: Streams,
    ) -> Tensor:
        condition = self.condition(past, future, forcing, past.new_tensor(present).expand(len(past), 2))
        shape = (self.horizon * past.shape[2], *past.shape[3:])
        z = self.sampler.start(streams, shape, past.device, past.dtype)
        z = self.sampler.integrate(lambda z, sigma: self.denoiser(z, sigma, condition), z, streams)
        return self.decode(z, past[:, -1])
