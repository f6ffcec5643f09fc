r"""Turbulence in a periodic square: snapshots of the vorticity of forced two-dimensional flow.

The equation is that of `scidiff.solvers.navier_stokes` with Kolmogorov's forcing :math:`f = -m \cos(m y)` (the curl of
a body force :math:`\sin(m y)` along x), viscosity :math:`\nu = 1/\mathrm{Re}` and linear drag :math:`\mu` in
:math:`[0, 2\pi]^2`. Without forcing the turbulence decays.

References:
    Machine learning-accelerated computational fluid dynamics, Kochkov et al., 2021, arXiv:2102.01010 (forcing with
    m = 4 and drag 0.1).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from scidiff.datasets.simulator import Simulator, window
from scidiff.errors import InputError, NumericalError
from scidiff.linalg.stationary import Stationary
from scidiff.solvers.navier_stokes import NavierStokes
from scidiff.solvers.stepping import ifrk4

__all__ = ["VorticityFields", "cached"]


class VorticityFields(Simulator):
    r"""Draws (1, h, w): snapshots of trajectories, shifted at random and mirrored.

    Trajectories are computed once, when training starts: with the defaults in about two minutes on one
    core.
    Shifts move the phase of the forcing, so the law is the same everywhere; a mirror image changes the sign.

    Arguments:
        shape: Grid (H, W) of the solver and of the snapshots.
        reynolds: :math:`1/\nu`.
        drag: Linear drag :math:`\mu`.
        forcing: Wavenumber of the forcing; 0 for decaying turbulence.
        trajectories: Number of independent trajectories; a tenth, at least one, is held out for validation.
        start, stop, every: Times of the first and the last snapshot, and the time between two.
        dt: Time step.
        seed: Of the initial fields: Gaussian, peak of the enstrophy near wavenumber 5, standard deviation 3.
        cache: HDF5 file that keeps the snapshots for the next run; by default they are only in memory.
    """

    def __init__(
        self,
        shape: Sequence[int] = (64, 64),
        reynolds: float = 200.0,
        drag: float = 0.1,
        forcing: int = 4,
        trajectories: int = 64,
        start: float = 20.0,
        stop: float = 40.0,
        every: float = 1.0,
        dt: float = 1 / 64,
        seed: int = 0,
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        if not (reynolds > 0 and dt > 0 and every >= dt and 0 <= start <= stop and trajectories >= 2):
            raise ValueError(
                "expected reynolds > 0, 0 <= start <= stop, every >= dt > 0 and at least 2 trajectories, got "
                f"{reynolds}, {start}, {stop}, {every}, {dt} and {trajectories}."
            )
        self.solver = NavierStokes(shape, 1 / reynolds, drag, forcing, dtype=torch.float32)
        self.settings = {
            **{"shape": list(self.solver.grid), "reynolds": reynolds, "drag": drag, "forcing": forcing},
            **{"trajectories": trajectories, "start": start, "stop": stop, "every": every, "dt": dt, "seed": seed},
        }
        snapshots = cached(None if cache is None else Path(cache), self.settings, self._run)
        apart = max(1, trajectories // 10)
        self.scale = float(snapshots[:-apart].double().square().mean().sqrt())
        self.units = "s-1"
        self.snapshots = snapshots[:-apart].flatten(0, 1) / self.scale
        self._apart = snapshots[-apart:].flatten(0, 1) / self.scale

    def _run(self) -> Tensor:
        """Snapshots (trajectories, times, H, W)."""
        s, solver = self.settings, self.solver
        generator = Generator().manual_seed(s["seed"])
        law = Stationary.power_law(solver.grid, exponent=6.0, cutoff=5.0, variance=9.0)
        w = solver.transform(law.sample(generator, s["trajectories"], torch.float32))
        w[..., 0, 0] = 0
        step = ifrk4(solver, s["dt"])
        found, between, first = [], round(s["every"] / s["dt"]), round(s["start"] / s["dt"])
        for number in range(round(s["stop"] / s["dt"]) + 1):
            if number % between == 0:
                crossed = float(solver.courant(w, s["dt"]).max())
                if not crossed < 1.2:
                    raise NumericalError(
                        f"the flow crosses {crossed:.3g} grid spacings in a step at time {number * s['dt']:.4g}; "
                        f"the solver is stable to about 1.3. Choose data.dt below {s['dt']:g}."
                    )
                if number >= first:
                    found.append(solver.field(w))
            w = step(w)
        return torch.stack(found, 1)

    def _draw(self, pool: Tensor, generator: Generator, crop: tuple[int, ...]) -> Tensor:
        height, width = self.solver.grid
        part = window(self.solver.grid, crop, generator, "the vorticity")
        item, down, right, mirror, turn = (
            int(torch.randint(n, (), generator=generator)) for n in (len(pool), height, width, 2, 2)
        )
        field = pool[item].roll((down, right), (0, 1))
        field = -field.flip(1) if mirror else field
        return (field.flip(0, 1) if turn else field)[part][None]

    def __call__(self, generator: Generator, crop: tuple[int, ...]) -> Tensor:
        """One field (1, h, w) in units of ``u``, of the trajectories for training."""
        return self._draw(self.snapshots, generator, crop)

    @property
    def held_out(self):  # noqa: ANN201 - a source
        return lambda generator, crop: self._draw(self._apart, generator, crop)

    @property
    def card(self) -> dict[str, Any]:
        return {"variables": ["vorticity"], "snapshots": len(self.snapshots), "periodic": True}


def cached(path: Path | None, settings: dict[str, Any], make) -> Tensor:  # noqa: ANN001
    """What ``make()`` returns, from the file if it holds the same settings."""
    if path is None:
        return make()
    import h5py
    import numpy as np

    text = json.dumps(settings, sort_keys=True)
    if path.exists():
        with h5py.File(path) as file:
            kept = str(file.attrs.get("settings"))
            if kept != text:
                raise InputError(f"{path}: the snapshots belong to other settings, {kept}; remove the file.")
            return torch.from_numpy(np.asarray(file["snapshots"]))
    made = make()
    part = path.with_name(path.name + ".part")
    with h5py.File(part, "w") as file:
        file["snapshots"] = made.numpy()
        file.attrs["settings"] = text
    os.replace(part, path)
    return made
