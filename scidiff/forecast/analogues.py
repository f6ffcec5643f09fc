r"""Analogues: what followed the states of the past that were most like the present one.

A member takes one of the k nearest training states :math:`a_s` at random and adds what followed it,

.. math:: x_{t+j} = a_{s+j} + r_j (x_t - a_s),

where the difference to the analogue fades with the correlation :math:`r_j` of every point over j steps. For a linear
Gaussian point process, :math:`a_{s+1} = r a_s + e_s`, a member is :math:`r x_t + e_s`: a draw of the exact law.

References:
    Lorenz, Atmospheric predictability as revealed by naturally occurring analogues, Journal of the Atmospheric
    Sciences 26, 1969.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from scidiff.forecast.base import Correct, Forecaster, streams_of
from scidiff.forecast.fitting import check_horizon, lagged, training_states
from scidiff.forecast.persistence import corrected
from scidiff.rng import Streams

if TYPE_CHECKING:
    import xarray as xr

    from scidiff.forecast.state import StateSpec

__all__ = ["Analogues"]


class Analogues(Forecaster):
    r"""The formula of the module.

    Arguments:
        states: Training states (N, T, C, \*grid).
        horizon: Steps h.
        near: Number k of analogues to draw from.
        fade: Whether the difference to the analogue is kept as far as it lasts; otherwise :math:`r_j = 0`.
        weight: Of the points in the distance, (\*grid), or None for equal weights.
    """

    states: Tensor
    memory: Tensor
    features: Tensor
    root: Tensor

    def __init__(
        self, states: Tensor, horizon: int, near: int = 50, fade: bool = True, weight: Tensor | None = None
    ) -> None:
        super().__init__()
        self.horizon = check_horizon(horizon)
        starts = states.shape[1] - horizon
        if states.ndim < 3 or starts < 1:
            raise ValueError(f"states must be (N, T, C, *grid) with T above {horizon}, got {tuple(states.shape)}.")
        if not 1 <= near <= len(states) * starts:
            raise ValueError(f"near must lie between 1 and {len(states) * starts}, got {near}.")
        self.near = int(near)
        memory = lagged(states, horizon)[2][1:].float() if fade else torch.zeros(horizon, *states.shape[2:])
        root = torch.ones(states.shape[3:]) if weight is None else weight.sqrt()
        self.register_buffer("states", states)
        self.register_buffer("memory", memory)
        self.register_buffer("root", root.to(states))
        self.register_buffer("features", (states[:, :starts] * self.root).flatten(0, 1).flatten(1))

    @classmethod
    def fit(cls, data: xr.Dataset, spec: StateSpec, horizon: int, near: int = 50, fade: bool = True) -> Analogues:
        """From the training part of a Dataset; distances are weighted by the area of the cells."""
        return cls(training_states(data, spec, horizon), horizon, near, fade, spec.area)

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
        features, starts = self.features.to(x), self.states.shape[1] - self.horizon
        here = (x * self.root.to(x)).flatten(1)
        # |a - x|^2 without |x|^2, which is the same for all.
        distance = features.square().sum(1) - 2 * here @ features.T
        near = distance.topk(self.near, largest=False).indices
        pick = (streams.rand((1,), dtype=torch.float64) * self.near).long().clamp(max=self.near - 1)
        chosen = near.gather(1, pick.to(near.device))[:, 0].to(self.states.device)
        row, first = chosen // starts, chosen % starts
        times = first[:, None] + torch.arange(1, self.horizon + 1, device=first.device)
        after, then = self.states[row[:, None], times].to(x), self.states[row, first].to(x)
        return corrected(after + self.memory.to(x) * (x - then)[:, None], correct)
