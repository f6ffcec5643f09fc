"""Trajectories of a carried, decaying, randomly stirred field, whose predictive law is known exactly.

The equation, its law and the score that no forecast undercuts are in `scidiff.solvers.stochastic_transport`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from scidiff.datasets.time_series import split_counts, trajectory_dataset
from scidiff.rng import Streams
from scidiff.solvers.stochastic_transport import StochasticTransport

__all__ = ["law_of", "simulate"]


def simulate(
    grid: Sequence[int] = (16, 16),
    velocity: Sequence[float] = (0.02, 0.05),
    diffusivity: float = 1e-4,
    drag: float = 0.04,
    exponent: float = 4.0,
    cutoff: float = 2.0,
    times: int = 64,
    train: int = 256,
    validation: int = 16,
    test: int = 32,
    seed: int = 0,
) -> xr.Dataset:
    """Stationary trajectories of ``tracer`` (trajectory, time, y, x), variance one, float32; a step is one second.

    Trajectory k is the same however many there are.

    Arguments:
        grid, velocity, diffusivity, drag, exponent, cutoff: Of `StochasticTransport`, in two dimensions.
        times: States of each trajectory.
        train, validation, test: Numbers of trajectories.
        seed: Of the noise.
    """
    if len(grid) != 2 or times < 2:
        raise ValueError(f"expected a grid (height, width) and at least 2 times, got {tuple(grid)} and {times}.")
    law = StochasticTransport(grid, velocity, diffusivity, drag, exponent, cutoff)
    split = split_counts(train, validation, test)
    values = np.empty((len(split), times, *law.grid), np.float32)
    for first in range(0, len(split), 64):
        rows = range(first, min(first + 64, len(split)))
        values[rows.start : rows.stop] = law.trajectories(Streams(seed, rows), len(rows), times - 1).numpy()
    sides = {n: (np.arange(k) / k, {"units": "1"}) for n, k in zip(("y", "x"), law.grid, strict=True)}
    attrs = {
        "simulator": "stochastic-transport",
        **{"grid": list(law.grid), "velocity": list(law.velocity), "diffusivity": diffusivity, "drag": drag},
        **{"exponent": exponent, "cutoff": cutoff, "times": times},
        **{"train": train, "validation": validation, "test": test, "seed": seed},
    }
    about = {"units": "1", "long_name": "concentration of a tracer, without its mean"}
    return trajectory_dataset({"tracer": (values, about)}, ("y", "x"), sides, split, 1.0, attrs)


def law_of(data: xr.Dataset) -> StochasticTransport:
    """The exact law of what `simulate` made, from the attributes of the Dataset."""
    names = ("grid", "velocity", "diffusivity", "drag", "exponent", "cutoff")
    return StochasticTransport(**{name: data.attrs[name] for name in names})
