r"""Trajectories of a damped sheet of masses and springs, made by the rules of nn-benchmark; not its data.

Every mass that is not pinned starts at rest at a place drawn uniformly from a ring around its place in the grid:
``radius`` (0, 0.35), and (0.35, 0.45) for tests out of distribution. 805 states lie 0.00781 apart, about
:math:`2 \pi`. The equations are in `scidiff.solvers.spring_mesh`.

References:
    Otness et al., An extensible benchmark suite for learning to simulate physical systems, 2021, arXiv:2108.07799.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from scidiff.datasets.time_series import split_counts, trajectory_dataset
from scidiff.rng import Streams
from scidiff.solvers.spring_mesh import SpringMesh

__all__ = ["disturbed", "simulate"]


def disturbed(mesh: SpringMesh, streams: Streams, radius: Sequence[float]) -> Tensor:
    """Positions (rows, 2, H, W) with every free mass drawn from the ring ``radius`` around its place at rest."""
    inner, outer = float(radius[0]), float(radius[1])
    if not 0 <= inner <= outer:
        raise ValueError(f"radius is (inner, outer) with 0 <= inner <= outer, got {tuple(radius)}.")
    turn, area = streams.rand((2, *mesh.grid), dtype=torch.float64).unbind(1)
    r = (inner**2 + area * (outer**2 - inner**2)).sqrt()
    away = torch.stack([r * torch.cos(2 * math.pi * turn), r * torch.sin(2 * math.pi * turn)], 1)
    return mesh.rest + away.masked_fill(mesh.fixed, 0)


def simulate(
    grid: Sequence[int] = (10, 10),
    decay: float = 0.1,
    fixed: str = "top",
    radius: Sequence[float] = (0.0, 0.35),
    times: int = 805,
    dt: float = 0.00781,
    substeps: int = 2,
    train: int = 100,
    validation: int = 5,
    test: int = 15,
    seed: int = 0,
) -> xr.Dataset:
    """Positions ``q_x, q_y``, momenta ``p_x, p_y`` (trajectory, time, y, x), float32, and ``fixed`` (y, x).

    Arguments:
        grid, decay, fixed: Of `SpringMesh`.
        radius: Ring from which first displacements are drawn.
        times: States of each trajectory.
        dt: Time between two states.
        substeps: Steps of the integrator between two states.
        train, validation, test: Numbers of trajectories; trajectory k is the same however many there are.
        seed: Of the first displacements.
    """
    if times < 2 or not dt > 0 or substeps < 1:
        raise ValueError(f"expected times >= 2, dt > 0 and substeps >= 1, got {times}, {dt} and {substeps}.")
    mesh, split = SpringMesh(grid, decay, fixed=fixed), split_counts(train, validation, test)
    q = disturbed(mesh, Streams(seed, range(len(split))), radius)
    p = torch.zeros_like(q)
    values = np.empty((4, len(split), times, *mesh.grid), np.float32)
    for number in range(times):
        values[:2, :, number], values[2:, :, number] = q.movedim(1, 0).numpy(), p.movedim(1, 0).numpy()
        if number < times - 1:
            q, p = mesh.advance(q, p, dt / substeps, substeps)
    attrs = {
        "simulator": "spring-mesh",
        **{"grid": list(mesh.grid), "decay": decay, "fixed": fixed, "radius": [float(r) for r in radius]},
        **{"times": times, "dt": dt, "substeps": substeps},
        **{"train": train, "validation": validation, "test": test, "seed": seed},
    }
    long = ("position along x", "position along y", "momentum along x", "momentum along y")
    data = trajectory_dataset(
        {
            name: (array, {"units": "1", "long_name": text})
            for name, array, text in zip(("q_x", "q_y", "p_x", "p_y"), values, long, strict=True)
        },
        ("y", "x"),
        {n: (np.arange(k, dtype=np.float64), {"units": "1"}) for n, k in zip(("y", "x"), mesh.grid, strict=True)},
        split,
        dt,
        attrs,
    )
    return data.assign(fixed=(("y", "x"), mesh.fixed.numpy(), {"units": "1", "long_name": "mass that does not move"}))
