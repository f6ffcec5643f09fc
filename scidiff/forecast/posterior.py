r"""Forecasts by conditioning: a law of windows in time, and what is known of their past.

A prior of windows of w + h states knows how states follow each other. The last w states are observations of the first
part of a window, with the operator "these states" and a small error :math:`s`; further measurements of the past are
more observations. A posterior sampler of `scidiff.posterior` draws whole windows,

.. math:: (x_{t-w+1}, \dots, x_{t+h}) \sim p(\,\cdot \mid y), \qquad
          y_i = x_{t-i} + s\,\epsilon, \quad y' = A(x_{t-i}) + \text{noise}, \qquad i = 0 \dots w-1,

whose last h states are the forecast. No network was trained for forecasting: one prior serves every kind of
observation. With an exact prior (`scidiff.forecast.exact.window_prior`) and an exact sampler (`MMPS`) the predictive
law is exact.

**Assimilation** differs from forecasting only by what is observed. The given states are then a background with an error
``background_std``, or, where that is None, not used at all in the first block. Later blocks start from the states
drawn before.

References:
    Rozet & Louppe, Score-based data assimilation, 2023, arXiv:2306.10574 (a prior of windows, conditioned).
    Finzi et al., User-defined event sampling and uncertainty quantification in diffusion models for physical
    dynamical systems, 2023 (first states as observations).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor, nn

from scidiff.assimilation.observations import AtTimes, Observations
from scidiff.errors import NumericalError
from scidiff.forecast.base import Correct, Forecaster, streams_of
from scidiff.inference import Cost, Likelihood, Posterior
from scidiff.noise import GaussianNoise
from scidiff.operators.identity import Identity
from scidiff.posterior.base import GuidedSampler, MemberSampler, Run
from scidiff.posterior.mmps import MMPS
from scidiff.protocols import Prior
from scidiff.rng import Streams

if TYPE_CHECKING:
    from scidiff.forecast.state import StateSpec

__all__ = ["PosteriorForecaster"]


class PosteriorForecaster(Forecaster):
    r"""Draws the future from a prior of windows, given the past.

    Arguments:
        prior: Its fields are windows (C, w + h, \*grid) of the forecaster's (normalised) states.
        horizon: h.
        window: w, past states in a window.
        sampler: Of `scidiff.posterior`, one that draws members independently.
        given_std: s, error of given states: how closely a draw keeps to them, in units of the states. Smaller values
            need more noise levels near zero.
        background_std: Error of the given states where there are observations of the past; None ignores the states.
        observations: Of the past, the same for all rows: steps 0 ... w - 1 of the window, y with one row or with as
            many as states are given. `observe` brings those of a Dataset.

    Raises:
        ValueError: The prior has windows of another length, or an observation lies in the future.
    """

    def __init__(
        self,
        prior: Prior,
        horizon: int,
        window: int = 1,
        sampler: MemberSampler | None = None,
        *,
        given_std: float = 0.01,
        background_std: float | None = None,
        observations: Sequence[Observations] = (),
    ) -> None:
        super().__init__()
        if horizon < 1 or window < 1:
            raise ValueError(f"horizon and window must be at least 1, got {horizon} and {window}.")
        if not given_std > 0 or (background_std is not None and not background_std > 0):
            raise ValueError(f"given_std and background_std must be positive, got {given_std} and {background_std}.")
        if prior.shape is not None and (len(prior.shape) < 2 or prior.shape[1] != window + horizon):
            raise ValueError(
                f"the prior has states of shape {tuple(prior.shape)}; a window of {window} and {horizon} steps ahead "
                f"need (channels, {window + horizon}, *grid)."
            )
        if any(part.steps[-1] >= window for part in observations):
            raise ValueError(f"observations lie in the past: steps 0 to {window - 1} of the window.")
        self.prior, self.horizon, self.window = prior, horizon, window
        self.sampler: MemberSampler = MMPS() if sampler is None else sampler
        self.given_std, self.background_std = given_std, background_std
        self.observations = tuple(observations)
        self.description = f"{prior!r} {self.sampler!r}"
        network = getattr(prior, "network", None)
        self.network = network if isinstance(network, nn.Module) else None
        self.observed = ""
        self._by_time: Mapping[Any, Sequence[Observations]] = {}
        self._here: tuple[Any, int] = (None, 0)

    @property
    def network_calls(self) -> int:
        """Calls of the prior's denoiser by the integrator of a guided sampler; products with its Jacobian are more."""
        inner = self.sampler.sampler if isinstance(self.sampler, GuidedSampler) else self.sampler
        return int(getattr(inner, "calls", 0))

    def observe(self, observations: Any, init_times: Any, spec: StateSpec) -> PosteriorForecaster:
        r"""The forecaster that knows measurements made before the initial times; `scidiff.forecast` calls it.

        Arguments:
            observations: Dataset (or path) with variables of the model by (time, [level], \*grid), NaN where nothing
                was measured, and an attribute ``error_std`` each, in the variable's units.
            init_times: Initial times.
            spec: Of the model.

        Raises:
            InputError: No ``error_std``, a variable or grid that the model does not know, or, without
                ``background_std``, an initial time without observations.
        """
        from scidiff.forecast.observed import observations_before

        other = copy.copy(self)
        other._by_time, other.observed = observations_before(
            observations, init_times, spec, self.window, needed=self.background_std is None
        )
        return other

    def at(self, times: Any, base: int) -> PosteriorForecaster:
        """The forecaster of rows with these initial times, ``base`` steps after them."""
        other = copy.copy(self)
        other._here = (times, base)
        return other

    @torch.no_grad()
    def sample(
        self,
        state: Tensor,
        forcing: Tensor | None = None,
        *,
        generator: Generator | Streams | None = None,
        correct: Correct | None = None,
    ) -> Tensor:
        """See `Forecaster.sample`. The prior knows no forcings; corrections are applied to the finished states."""
        if forcing is not None:
            raise ValueError("a prior of windows knows no forcings; condition on them as observations.")
        streams = streams_of(generator, len(state))
        times, base = self._here
        if base or not self._by_time:
            x = self._draw(state, streams.generators, self.observations if not base else ())
        else:
            x = state.new_empty(len(state), self.horizon, *state.shape[2:])
            for time in dict.fromkeys(times.tolist()):
                rows = [row for row, other in enumerate(times.tolist()) if other == time]
                found = [*self.observations, *self._by_time.get(time, ())]
                x[rows] = self._draw(state[rows], [streams.generators[row] for row in rows], found)
        if correct is None:
            return x
        return torch.stack([correct(x[:, j], j + 1.0) for j in range(self.horizon)], dim=1)

    def likelihoods(self, state: Tensor, observations: Sequence[Observations] = ()) -> tuple[Likelihood, ...]:
        r"""What is known of windows: the given states (B, window, C, \*grid), and observations."""
        length, parts = self.window + self.horizon, []
        assimilating = bool(observations) or (bool(self._by_time) and not self._here[1])
        std = self.background_std if assimilating else self.given_std
        if std is not None:
            past = AtTimes(Identity(), range(self.window), length)
            parts.append(Likelihood(past, GaussianNoise(std), state[:, -self.window :]))
        for part in observations:
            known = part.likelihood(length)
            y = known.y.to(state).expand(len(state), *known.y.shape[1:])
            parts.append(Likelihood(known.operator, known.noise, y))
        return tuple(parts)

    def _draw(self, state: Tensor, generators: Sequence[Generator], observations: Sequence[Observations]) -> Tensor:
        length = self.window + self.horizon
        shape = (state.shape[2], length, *state.shape[3:])
        posterior = Posterior(self.prior, self.likelihoods(state, observations), shape)
        self.sampler.check(posterior)
        streams = Streams(0, (), 1)
        streams.members, streams.generators = tuple(range(len(state))), list(generators)
        run = Run(posterior, streams, Cost())
        u = self.sampler.draw(run)
        if run.failures:
            raise NumericalError(f"an operator of the observations failed: {run.failures[0]['message']}")
        return self.prior.decode(u.detach())[:, :, self.window :].movedim(2, 1)
