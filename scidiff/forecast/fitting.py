r"""What baselines learn from a series: its states in a row, their mean, and how long a point remembers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scidiff.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

    from scidiff.forecast.state import StateSpec

__all__ = ["check_horizon", "lagged", "training_forcing", "training_states"]


def check_horizon(horizon: int) -> int:
    """At least one step.

    Raises:
        ValueError: otherwise.
    """
    if horizon < 1:
        raise ValueError(f"horizon must be at least 1 step, got {horizon}.")
    return int(horizon)


def training_states(data: xr.Dataset, spec: StateSpec, horizon: int, window: int = 1) -> Tensor:
    r"""Normalised states (N, T, C, \*grid): N trajectories, or N = 1 for one series.

    Raises:
        InputError: as `StateSpec.to_tensor`, or the series is too short for one window.
    """
    x = spec.to_tensor(data)
    x = x.reshape(-1, *x.shape[-len(spec.shape) - 1 :])
    if x.shape[1] < window + horizon:
        raise InputError(
            f"the training data have {x.shape[1]} times in a row; a window of {window} and {horizon} steps ahead need "
            f"{window + horizon}."
        )
    return x


def training_forcing(data: xr.Dataset, spec: StateSpec) -> Tensor | None:
    """Prescribed variables at every training time, averaged over the grid: (T, K); None for a model without."""
    if not spec.forcings:
        return None
    channels = sum(len(v.channels) for v in spec.forcings)
    return spec.forcing_tensor(data).flatten(-len(spec.grid.shape)).mean(-1)[..., :channels]


def lagged(x: Tensor, horizon: int) -> tuple[Tensor, Tensor, Tensor]:
    r"""Mean, variance (C, \*grid) and correlations at lags 0 ... h, (h + 1, C, \*grid), of every point, float64.

    A point that never varies (land) has correlations 0 from lag 1 on.

    Arguments:
        x: States (N, T, C, \*grid).
        horizon: h.
    """
    mean = x.mean((0, 1), dtype=torch.float64)
    found = []
    for lag in range(horizon + 1):
        total = torch.zeros_like(mean)
        for row in x:  # one trajectory at a time: no copy of everything in double precision
            a = row.double() - mean
            total += (a[: len(a) - lag] * a[lag:]).sum(0)
        found.append(total / (len(x) * (x.shape[1] - lag)))
    variance = found[0]
    ratio = torch.stack(found) / torch.where(variance > 0, variance, 1)
    return mean, variance, ratio.clamp(-1, 1)
