"""The exact law of a field that is carried, decays and is stirred anew, as a forecaster: the floor of every score."""

from __future__ import annotations

from torch import Generator, Tensor

from scidiff.forecast.base import Correct, Forecaster, streams_of
from scidiff.rng import Streams
from scidiff.solvers.stochastic_transport import StochasticTransport

__all__ = ["ExactForecaster"]


class ExactForecaster(Forecaster):
    r"""Draws from :math:`p(x_{t+1}, \dots, x_{t+h} \mid x_t)` of `StochasticTransport`, jointly over the leads.

    Arguments:
        law: Of the fields in their own units.
        horizon: Steps h of one call.
        loc, scale: States are (x - loc) / scale: numbers, or tensors that broadcast to (C, \*grid). Channels are
            independent fields of the same law.
    """

    def __init__(
        self, law: StochasticTransport, horizon: int, loc: float | Tensor = 0.0, scale: float | Tensor = 1.0
    ) -> None:
        super().__init__()
        if horizon < 1:
            raise ValueError(f"horizon must be at least 1 step, got {horizon}.")
        self.law, self.horizon, self.loc, self.scale = law, horizon, loc, scale
        self._noise = law.covariance(1)

    @property
    def network_calls(self) -> int:
        return 0

    def sample(
        self,
        state: Tensor,
        forcing: Tensor | None = None,
        *,
        generator: Generator | Streams | None = None,
        correct: Correct | None = None,
    ) -> Tensor:
        x, streams = state[:, -1], streams_of(generator, len(state))
        loc = self.loc.to(x) if isinstance(self.loc, Tensor) else self.loc
        scale = self.scale.to(x) if isinstance(self.scale, Tensor) else self.scale
        found = x.new_empty(len(x), self.horizon, *x.shape[1:])
        for lead in range(1, self.horizon + 1):
            noise = self._noise.sqrt_matmul(streams.randn_like(x).flatten(0, 1)).reshape(x.shape)
            x = (self.law.mean(x * scale + loc) + noise - loc) / scale
            if correct is not None:
                x = correct(x, float(lead))
            found[:, lead - 1] = x
        return found
