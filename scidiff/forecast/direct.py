r"""Forecasters without a chain: every lead, or all leads, from the state itself.

==================  ===========================================  ==========================================
class               one draw                                     network calls per block
==================  ===========================================  ==========================================
`Deterministic`     :math:`F(x_t, i)`, i = 1 ... h                h
`DropoutEnsemble`   the same with masks of the member            h
`PerturbedEnsemble` :math:`F(x_t + s \epsilon, i)`               h
`NoiseEnsemble`     :math:`F(x_t \mid z)`: all leads at once     1
==================  ===========================================  ==========================================

The first three are the baselines of the DYffusion paper. `NoiseEnsemble` is trained by a score of ensembles
(`scidiff.forecast.losses.BlockLoss`): its spread is learned from data.

References:
    Gal & Ghahramani, Dropout as a Bayesian approximation, 2016, arXiv:1506.02142. Rühling Cachay et al., DYffusion,
    2023, arXiv:2306.01984 (baselines). Lang et al., AIFS-CRPS, 2024, arXiv:2412.15832 (noise and CRPS).
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from scidiff.forecast.base import Correct, Forecaster, streams_of
from scidiff.forecast.forcing import at_time
from scidiff.forecast.interpolator import Predictor
from scidiff.rng import Streams

__all__ = ["Deterministic", "DropoutEnsemble", "NoiseEnsemble", "PerturbedEnsemble"]


class _Direct(Forecaster):
    """Holds one network, a horizon and a window."""

    parts = ("forecaster",)

    def __init__(self, forecaster: Predictor, horizon: int, window: int = 1) -> None:
        super().__init__()
        if horizon < 1 or window < 1:
            raise ValueError(f"horizon and window must be at least 1, got {horizon} and {window}.")
        self.forecaster, self.horizon, self.window = forecaster, horizon, window

    @property
    def config(self) -> dict[str, object]:
        """The arguments besides the network."""
        return {"horizon": self.horizon, "window": self.window}

    def _past(self, state: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The last state, and the earlier ones as conditions."""
        earlier = [state[:, -self.window : -1].flatten(1, 2)] if self.window > 1 else []
        return state[:, -1], earlier


class Deterministic(_Direct):
    r"""A network that is told the lead: :math:`x_{t+i} = F(x_t, i)`.

    Arguments:
        forecaster: F.
        horizon: Leads 1 ... h.
        window: Past states.
    """

    stochastic = False

    @property
    def network_calls(self) -> int:
        """One per lead."""
        return self.horizon

    @torch.no_grad()
    def sample(
        self,
        state: Tensor,
        forcing: Tensor | None = None,
        *,
        generator: Generator | Streams | None = None,
        correct: Correct | None = None,
    ) -> Tensor:
        """See `Forecaster.sample`."""
        return self._leads(state, forcing, streams_of(generator, len(state)) if self.stochastic else None, correct)

    def _leads(self, state: Tensor, forcing: Tensor | None, streams: Streams | None, correct: Correct | None) -> Tensor:
        x, earlier = self._past(state)
        found = []
        for lead in range(1, self.horizon + 1):
            time = x.new_full((len(x),), float(lead))
            parts = earlier if forcing is None else [*earlier, at_time(forcing, time, self.window)]
            y = self.forecaster(x, time, streams, torch.cat(parts, 1) if parts else None)
            found.append(y if correct is None else correct(y, float(lead)))
        return torch.stack(found, dim=1)


class DropoutEnsemble(Deterministic):
    """The same network with its dropout on, every member with masks of its own.

    Arguments:
        forecaster: A network with dropout.
        horizon, window: As in `Deterministic`.
    """

    stochastic = True


class PerturbedEnsemble(Deterministic):
    r"""A deterministic network from perturbed initial states, :math:`x_t + s\,\epsilon`.

    Arguments:
        forecaster: F.
        horizon, window: As in `Deterministic`.
        scale: s, in standard deviations of a channel.
    """

    stochastic = True

    def __init__(self, forecaster: Predictor, horizon: int, window: int = 1, scale: float = 0.1) -> None:
        super().__init__(forecaster, horizon, window)
        if scale < 0:
            raise ValueError(f"scale must not be negative, got {scale}.")
        self.scale = scale

    @property
    def config(self) -> dict[str, object]:
        """The arguments besides the network."""
        return {**super().config, "scale": self.scale}

    @torch.no_grad()
    def sample(
        self,
        state: Tensor,
        forcing: Tensor | None = None,
        *,
        generator: Generator | Streams | None = None,
        correct: Correct | None = None,
    ) -> Tensor:
        """See `Forecaster.sample`."""
        streams = streams_of(generator, len(state))
        noise = streams.randn(state.shape[2:], state.device, state.dtype)
        moved = torch.cat([state[:, :-1], state[:, -1:] + self.scale * noise[:, None]], 1)
        return self._leads(moved, forcing, None, correct)


class NoiseEnsemble(_Direct):
    r"""All h states in one call of a network driven by noise.

    Arguments:
        forecaster: Predictor whose outputs are h states, one after the other; given earlier states, then the forcings
            of the whole window, as conditions.
        horizon, window: As in `Deterministic`.
    """

    @property
    def network_calls(self) -> int:
        """One."""
        return 1

    @torch.no_grad()
    def sample(
        self,
        state: Tensor,
        forcing: Tensor | None = None,
        *,
        generator: Generator | Streams | None = None,
        correct: Correct | None = None,
    ) -> Tensor:
        """See `Forecaster.sample`."""
        x, parts = self._past(state)
        streams = streams_of(generator, len(state))
        parts = parts if forcing is None else [*parts, forcing.flatten(1, 2)]
        y = self.forecaster(x, x.new_zeros(len(x)), streams, torch.cat(parts, 1) if parts else None)
        y = y.unflatten(1, (self.horizon, -1))
        if correct is None:
            return y
        return torch.stack([correct(y[:, j], j + 1.0) for j in range(self.horizon)], dim=1)
