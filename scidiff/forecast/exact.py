"""The exact law of a field that is carried, decays and is stirred anew, as a forecaster: the floor of every score."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from scidiff.forecast.base import Correct, Forecaster, streams_of
from scidiff.priors.gaussian import GaussianPrior
from scidiff.rng import Streams
from scidiff.solvers.stochastic_transport import StochasticTransport

__all__ = ["ExactForecaster", "window_prior"]


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


def window_prior(law: StochasticTransport, length: int) -> GaussianPrior:
    r"""The exact law of ``length`` successive fields, as a prior of windows (1, length, \*grid).

    Stationary Gaussian with :math:`\mathrm{Cov}(x_{t+j}, x_t) = A^j C`, where A is one step of the mean and C the
    stationary covariance; a dense matrix, for small grids.

    Arguments:
        law: Of the fields.
        length: States of a window.
    """
    if length < 1:
        raise ValueError(f"a window has at least 1 state, got {length}.")
    n = math.prod(law.grid)
    ahead = law.stationary.dense().double()
    found = torch.zeros(length, n, length, n, dtype=torch.float64)
    for lag in range(length):
        for first in range(length - lag):
            found[first + lag, :, first] = ahead
            found[first, :, first + lag] = ahead.mT
        ahead = law.mean(ahead.mT.reshape(n, *law.grid)).reshape(n, n).mT  # A on every column
    mean = torch.zeros(1, length, *law.grid)
    return GaussianPrior(mean, found.reshape(length * n, length * n))
