r"""Flow through a channel past discs at random places: a small version of a published benchmark.

The channel is 0.41 across and about 2.2 long; :math:`U (1 - e^{-5 t})\, 4 y (0.41 - y) / 0.41^2` flows in from rest,
viscosity 0.001. Discs lie at least 0.25 from both ends, 0.05 from the walls and 0.05 from each other. States are 0.08
apart. The published data come from finite elements on a grid of 221 x 42; these from `scidiff.solvers.channel`, whose
discs are staircases of cells.

References:
    Otness et al., An extensible benchmark suite for learning to simulate physical systems, 2021, arXiv:2108.07799.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from torch import Generator, Tensor

from scidiff.datasets.time_series import split_counts, trajectory_dataset
from scidiff.errors import InputError, NumericalError
from scidiff.rng import Streams
from scidiff.solvers.channel import Channel, discs

__all__ = ["place_discs", "simulate"]

HEIGHT, LENGTH, VISCOSITY = 0.41, 2.2, 1e-3
ENDS, WALLS, APART = 0.25, 0.05, 0.05


def place_discs(count: int, radius: Sequence[float], generator: Generator) -> tuple[Tensor, Tensor]:
    """Centres (n, 2) as (y, x) and radii (n,) of discs that keep their distances, drawn one after the other.

    Raises:
        InputError: They do not fit.
    """
    for _ in range(20):
        found: list[tuple[float, float, float]] = []
        for _ in range(50 * count):
            if len(found) == count:
                break
            share = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
            r = radius[0] + share[0] * (radius[1] - radius[0])
            y = WALLS + r + share[1] * (HEIGHT - 2 * (WALLS + r))
            x = ENDS + r + share[2] * (LENGTH - 2 * (ENDS + r))
            if all(math.hypot(y - b, x - a) >= r + s + APART for b, a, s in found):
                found.append((y, x, r))
        if len(found) == count:
            places = torch.tensor(found, dtype=torch.float64).reshape(-1, 3)
            return places[:, :2], places[:, 2]
    raise InputError(
        f"{count} discs with radii {tuple(radius)} do not fit into the channel; take fewer or smaller ones."
    )


def simulate(
    rows: int = 24,
    discs_each: int = 4,
    radius: Sequence[float] = (0.05, 0.1),
    speed: float = 1.0,
    times: int = 65,
    dt: float = 0.08,
    substeps: int = 16,
    train: int = 32,
    validation: int = 4,
    test: int = 5,
    seed: int = 0,
) -> xr.Dataset:
    """``velocity_x``, ``velocity_y``, ``pressure`` (trajectory, time, y, x), and ``solid`` (trajectory, y, x).

    Arguments:
        rows: Cells across the channel; 42 is the published grid.
        discs_each: Discs in each trajectory.
        radius: Smallest and largest radius; (0.025, 0.05) for tests out of distribution.
        speed: U, in the middle of the inflow.
        times: States of each trajectory.
        dt: Time between two states.
        substeps: Steps of the solver between two states.
        train, validation, test: Numbers of trajectories; trajectory k is the same however many there are.
        seed: Of the discs.

    Raises:
        NumericalError: The flow crosses more than 1.6 cells in a step.
    """
    if not (0 < radius[0] <= radius[1] < HEIGHT / 2 - WALLS) or discs_each < 1 or times < 2 or substeps < 1:
        raise ValueError(
            f"expected radii in (0, {HEIGHT / 2 - WALLS:g}), at least 1 disc, 2 times and 1 substep, got {radius}, "
            f"{discs_each}, {times} and {substeps}."
        )
    split, cells = split_counts(train, validation, test), (rows, round(LENGTH / HEIGHT * rows))
    values = np.empty((3, len(split), times, *cells), np.float32)
    solid = np.empty((len(split), *cells), bool)
    step = dt / substeps
    for first in range(0, len(split), 8):
        chosen = range(first, min(first + 8, len(split)))
        streams = Streams(seed, chosen).generators
        places = [place_discs(discs_each, radius, generator) for generator in streams]
        channel = Channel(
            cells,
            HEIGHT,
            VISCOSITY,
            lambda t: speed * (1 - math.exp(-5 * t)),
            discs(torch.stack([c for c, _ in places]), torch.stack([r for _, r in places])),
        )
        part = slice(chosen.start, chosen.stop)
        solid[part] = channel.free.eq(0).numpy()
        flow = channel.rest(len(chosen))
        for number in range(times):
            values[:2, part, number] = channel.centred(flow).movedim(1, 0).numpy()
            values[2, part, number] = (channel.pressure(flow, number * dt) * channel.free).numpy()
            crossed = float(channel.courant(flow, step).max())
            if not crossed < 1.6:
                raise NumericalError(
                    f"the flow crosses {crossed:.3g} cells in a step at time {number * dt:.3g}; take more substeps "
                    f"than {substeps}."
                )
            for k in range(substeps if number < times - 1 else 0):
                flow = channel.step(flow, number * dt + k * step, step)
    attrs = {
        "simulator": "obstacles",
        **{"rows": rows, "discs_each": discs_each, "radius": [float(r) for r in radius], "speed": speed},
        **{"times": times, "dt": dt, "substeps": substeps},
        **{"train": train, "validation": validation, "test": test, "seed": seed},
    }
    about = (("velocity_x", "m s-1"), ("velocity_y", "m s-1"), ("pressure", "m2 s-2"))
    data = trajectory_dataset(
        {
            n: (v, {"units": units, "long_name": n.replace("_", " along ")})
            for v, (n, units) in zip(values, about, strict=True)
        },
        ("y", "x"),
        {"y": (channel.y.numpy(), {"units": "m"}), "x": (channel.x.numpy(), {"units": "m"})},
        split,
        dt,
        attrs,
    )
    data["pressure"].attrs["long_name"] = "pressure over density"
    return data.assign(solid=(("trajectory", "y", "x"), solid, {"units": "1", "long_name": "inside a disc"}))
