"""Trajectories of two chaotic systems: forced two-dimensional turbulence, and Lorenz' ring of weather.

The equations are in `scidiff.solvers.navier_stokes` and `scidiff.solvers.lorenz`; both are integrated with fourth-order
Runge-Kutta methods from random states until they have forgotten them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr

from scidiff.datasets.time_series import split_counts, trajectory_dataset
from scidiff.errors import NumericalError
from scidiff.linalg.stationary import Stationary
from scidiff.rng import Streams
from scidiff.solvers.lorenz import lorenz96
from scidiff.solvers.navier_stokes import NavierStokes
from scidiff.solvers.stepping import ifrk4, rk4

__all__ = ["simulate_kolmogorov", "simulate_lorenz96"]


def simulate_kolmogorov(
    grid: Sequence[int] = (64, 64),
    reynolds: float = 200.0,
    drag: float = 0.1,
    forcing: int = 4,
    start: float = 20.0,
    every: float = 0.25,
    times: int = 64,
    dt: float = 1 / 64,
    train: int = 32,
    validation: int = 4,
    test: int = 4,
    seed: int = 0,
) -> xr.Dataset:
    """``vorticity`` (trajectory, time, y, x) of Kolmogorov flow in a periodic box of side 2 pi, float32.

    Arguments:
        grid, drag, forcing: Of `NavierStokes`.
        reynolds: One over the viscosity.
        start: Time of the first state that is kept.
        every: Time between two states.
        times: States of each trajectory.
        dt: Time step, a divisor of ``every`` and ``start``.
        train, validation, test: Numbers of trajectories; trajectory k is the same however many there are.
        seed: Of the first states: Gaussian, enstrophy near wavenumber 5, standard deviation 3.

    Raises:
        NumericalError: The flow crosses more than 1.2 cells in a step.
    """
    between, before = round(every / dt), round(start / dt)
    if not (reynolds > 0 and dt > 0 and times >= 2 and before >= 0 and between >= 1):
        raise ValueError(f"expected reynolds, dt > 0, times >= 2, every >= dt and start >= 0, got {locals()}.")
    if abs(between * dt - every) > 1e-9 * every or abs(before * dt - start) > 1e-9 * max(start, 1.0):
        raise ValueError(f"dt must divide every and start, got {dt}, {every} and {start}.")
    solver = NavierStokes(grid, 1 / reynolds, drag, forcing, dtype=torch.float32)
    split = split_counts(train, validation, test)
    law = Stationary.power_law(solver.grid, exponent=6.0, cutoff=5.0, variance=9.0)
    values = np.empty((len(split), times, *solver.grid), np.float32)
    step = ifrk4(solver, dt)
    for first in range(0, len(split), 16):
        rows = range(first, min(first + 16, len(split)))
        w = solver.transform(law.sample(Streams(seed, rows), dtype=torch.float32))
        w[..., 0, 0] = 0
        for number in range(before + between * (times - 1) + 1):
            if number % between == 0:
                crossed = float(solver.courant(w, dt).max())
                if not crossed < 1.2:
                    raise NumericalError(
                        f"the flow crosses {crossed:.3g} grid spacings in a step at time {number * dt:.4g}; the solver "
                        f"is stable to about 1.3. Choose dt below {dt:g}."
                    )
            if number >= before and (number - before) % between == 0:
                values[rows.start : rows.stop, (number - before) // between] = solver.field(w).numpy()
            w = step(w)
    sides = {n: (2 * np.pi * np.arange(k) / k, {"units": "1"}) for n, k in zip(("y", "x"), solver.grid, strict=True)}
    attrs = {
        "simulator": "kolmogorov",
        **{"grid": list(solver.grid), "reynolds": reynolds, "drag": drag, "forcing": forcing},
        **{"start": start, "every": every, "times": times, "dt": dt},
        **{"train": train, "validation": validation, "test": test, "seed": seed},
    }
    about = {"units": "s-1", "long_name": "vorticity"}
    return trajectory_dataset({"vorticity": (values, about)}, ("y", "x"), sides, split, every, attrs)


def simulate_lorenz96(
    size: int = 40,
    forcing: float = 8.0,
    noise: float = 0.0,
    every: float = 0.05,
    burn_in: float = 20.0,
    times: int = 256,
    dt: float = 0.0125,
    train: int = 64,
    validation: int = 4,
    test: int = 8,
    seed: int = 0,
) -> xr.Dataset:
    """``x`` (trajectory, time, place) of Lorenz-96, float32.

    Arguments:
        size, forcing: Number of places on the ring, at least 4, and F.
        noise: Standard deviation of the noise that is added to every place between two states; 0 for none.
        every: Time between two states; 0.05 is often compared with six hours of weather.
        burn_in: Time before the first state.
        times: States of each trajectory.
        dt: Time step, a divisor of ``every``.
        train, validation, test: Numbers of trajectories; trajectory k is the same however many there are.
        seed: Of the first states and of the noise.
    """
    between, before = round(every / dt), round(burn_in / every)
    if size < 4 or noise < 0 or times < 2 or between < 1 or before < 0 or abs(between * dt - every) > 1e-9 * every:
        raise ValueError(
            "expected size >= 4, noise >= 0, times >= 2, burn_in >= 0 and a dt that divides every, got "
            f"{size}, {noise}, {times}, {burn_in}, {dt} and {every}."
        )
    split = split_counts(train, validation, test)
    streams = Streams(seed, range(len(split)))
    x = forcing + streams.randn((size,), dtype=torch.float64)
    step = rk4(lambda x: lorenz96(x, forcing), dt)
    values = np.empty((len(split), times, size), np.float32)
    for number in range(before + times):
        if number >= before:
            values[:, number - before] = x.numpy()
        for _ in range(between):
            x = step(x)
        if noise:
            x = x + noise * streams.randn((size,), dtype=torch.float64)
    attrs = {
        "simulator": "lorenz96",
        **{"size": size, "forcing": forcing, "noise": noise, "every": every, "burn_in": burn_in},
        **{"times": times, "dt": dt, "train": train, "validation": validation, "test": test, "seed": seed},
    }
    places = {"place": (np.arange(size), {"units": "1"})}
    about = {"units": "1", "long_name": "weather on a ring"}
    return trajectory_dataset({"x": (values, about)}, ("place",), places, split, every, attrs)
