"""The climate as an ensemble: stretches of the training data, drawn near the time of year if it is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from scidiff.forecast.base import Correct, Forecaster, streams_of
from scidiff.forecast.fitting import check_horizon, training_forcing, training_states
from scidiff.forecast.persistence import corrected
from scidiff.rng import Streams

if TYPE_CHECKING:
    import xarray as xr

    from scidiff.forecast.state import StateSpec

__all__ = ["Climatology"]


class Climatology(Forecaster):
    r"""A member is a stretch of h states of the training data that begins at a random time.

    With ``phases``, which say where in the year (or in another cycle) a training time lies, a stretch begins at one of
    the ``near`` training times whose phase is closest to that of the forecast's initial time; it is read from the
    forcing, averaged over the grid.

    Arguments:
        states: Training states (N, T, C, \*grid).
        horizon: Steps h.
        phases: (T, K), the forcing at the training times of a single series (N = 1), or None.
        near: Number of training times to draw from.
    """

    states: Tensor
    phases: Tensor | None

    def __init__(self, states: Tensor, horizon: int, phases: Tensor | None = None, near: int | None = None) -> None:
        super().__init__()
        self.horizon = check_horizon(horizon)
        starts = states.shape[1] - self.horizon
        if states.ndim < 3 or starts < 1:
            raise ValueError(f"states must be (N, T, C, *grid) with T above {horizon}, got {tuple(states.shape)}.")
        if phases is not None and (len(states) > 1 or len(phases) != states.shape[1] or phases.ndim != 2):
            raise ValueError(f"phases are (T, K) of one series, got {tuple(phases.shape)} for {tuple(states.shape)}.")
        self.near = starts if near is None else int(near)
        if not 1 <= self.near <= starts:
            raise ValueError(f"near must lie between 1 and {starts}, got {near}.")
        self.register_buffer("states", states)
        self.register_buffer("phases", None if phases is None else phases[:starts])

    @classmethod
    def fit(cls, data: xr.Dataset, spec: StateSpec, horizon: int, share: float = 61 / 365.2425) -> Climatology:
        """From the training part of a Dataset; its forcings, if any, are the phases.

        Arguments:
            data, spec, horizon: Of the model.
            share: Of the training times that count as near: by default 30 days on either side in the year.
        """
        states, phases = training_states(data, spec, horizon), training_forcing(data, spec)
        starts = states.shape[1] - horizon
        near = None if phases is None else max(1, min(starts, round(share * starts)))
        return cls(states, horizon, phases, near)

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
        streams = streams_of(generator, len(state))
        pick = streams.rand((2,), dtype=torch.float64)
        starts = self.states.shape[1] - self.horizon
        if self.phases is None:
            first = (pick[:, 0] * starts).long().clamp(max=starts - 1)
        else:
            if forcing is None:
                raise ValueError("this climatology knows the time of year of its data; give the forcing.")
            now = forcing[:, state.shape[1] - 1, : self.phases.shape[1]].flatten(2).mean(-1)
            near = torch.cdist(now.double(), self.phases.double()).topk(self.near, largest=False).indices
            first = near.gather(1, (pick[:, :1] * self.near).long().clamp(max=self.near - 1).to(near.device))[:, 0]
        row = (pick[:, 1] * len(self.states)).long().clamp(max=len(self.states) - 1)
        times = first.to(row.device)[:, None] + torch.arange(1, self.horizon + 1)
        found = self.states[row.to(self.states.device)[:, None], times.to(self.states.device)]
        return corrected(found.to(state), correct)
