r"""Turbulence in a periodic square: vorticity of the two-dimensional Navier-Stokes equations.

.. math:: \partial_t \omega + v \cdot \nabla \omega = \nu \Delta \omega - \mu\,\omega + f, \qquad
          v = (\partial_y \psi, -\partial_x \psi), \quad -\Delta \psi = \omega, \qquad (x, y) \in [0, 2\pi]^2,

with Kolmogorov's forcing :math:`f = -m \cos(m y)` (the curl of a body force :math:`\sin(m y)` along x), viscosity
:math:`\nu = 1/\mathrm{Re}` and linear drag :math:`\mu`. Without forcing the turbulence decays.

Fields are Fourier series truncated by the 2/3 rule, :math:`|k_i| < n_i / 3`. The product is then free of aliasing,
so the inviscid equations conserve energy and enstrophy up to the error of the time step. That is the fourth-order
Runge-Kutta method for :math:`e^{-Lt}\hat\omega`, where :math:`L = -\nu |k|^2 - \mu` is integrated exactly.

References:
    Spectral methods in fluid dynamics, Canuto, Hussaini, Quarteroni and Zang, 1988 (the 2/3 rule, the integrating
    factor). Machine learning-accelerated computational fluid dynamics, Kochkov et al., 2021, arXiv:2102.01010 (forcing
    with m = 4 and drag 0.1).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from scidiff.datasets.simulator import Simulator, window
from scidiff.errors import InputError, NumericalError
from scidiff.linalg.stationary import Stationary

__all__ = ["NavierStokes", "VorticityFields"]


class NavierStokes:
    r"""One time step of the vorticity's Fourier series, for a batch (..., H, W/2+1).

    Rows of the grid are y, columns x.

    Arguments:
        grid: Points (H, W) of the square.
        viscosity: :math:`\nu`.
        drag: :math:`\mu`.
        forcing: Wavenumber :math:`m` of the forcing; 0 for none.
        dtype: Real type.
    """

    def __init__(
        self,
        grid: Sequence[int],
        viscosity: float,
        drag: float = 0.0,
        forcing: int = 4,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.grid = (int(grid[0]), int(grid[1]))
        height, width = self.grid
        if len(grid) != 2 or min(grid) < 8:
            raise ValueError(f"grid must be (height, width), at least 8 points each, got {tuple(grid)}.")
        if viscosity < 0 or drag < 0 or not 0 <= forcing < min(self.grid) / 3:
            raise ValueError(
                f"viscosity and drag must not be negative and forcing must lie in [0, {min(self.grid) / 3:.3g}), "
                f"got {viscosity}, {drag} and {forcing}."
            )
        ky = torch.fft.fftfreq(height, 1 / height, dtype=dtype)[:, None]
        kx = torch.fft.rfftfreq(width, 1 / width, dtype=dtype)[None, :]
        self.kept = ((3 * ky.abs() < height) & (3 * kx < width)).to(dtype)
        square = ky.square() + kx.square()
        self.inverse = torch.where(square > 0, 1 / square.clamp_min(1), 0)
        """:math:`1/|k|^2`, zero for the mean."""
        self.linear = -viscosity * square - drag
        self.ix, self.iy = 1j * kx, 1j * ky
        y = 2 * math.pi * torch.arange(height, dtype=dtype)[:, None] / height
        force = -forcing * torch.cos(forcing * y) if forcing else 0 * y
        self.force = torch.fft.rfft2(force.expand(self.grid)) * self.kept

    def transform(self, vorticity: Tensor) -> Tensor:
        """The truncated Fourier series of (..., H, W)."""
        return torch.fft.rfft2(vorticity) * self.kept

    def field(self, w: Tensor) -> Tensor:
        """Values on the grid, (..., H, W)."""
        return torch.fft.irfft2(w, s=self.grid)

    def velocity(self, w: Tensor) -> Tensor:
        """(..., 2, H, W), the components along x and y."""
        psi = w * self.inverse
        return self.field(torch.stack([self.iy * psi, -self.ix * psi], -3))

    def energy(self, w: Tensor) -> Tensor:
        """Mean kinetic energy over the square."""
        return self.velocity(w).square().sum(-3).mean((-2, -1)) / 2

    def enstrophy(self, w: Tensor) -> Tensor:
        """Half the mean squared vorticity."""
        return self.field(w).square().mean((-2, -1)) / 2

    def change(self, w: Tensor) -> Tensor:
        r""":math:`f - v \cdot \nabla \omega`, truncated."""
        psi = w * self.inverse
        u, v, wx, wy = self.field(torch.stack([self.iy * psi, -self.ix * psi, self.ix * w, self.iy * w])).unbind()
        return self.force - self.transform(u * wx + v * wy)

    def step(self, w: Tensor, dt: float) -> Tensor:
        """The series a time ``dt`` later."""
        half = torch.exp(self.linear * dt / 2)
        full = half.square()
        k1 = self.change(w)
        k2 = self.change(half * (w + dt / 2 * k1))
        k3 = self.change(half * w + dt / 2 * k2)
        k4 = self.change(full * w + dt * half * k3)
        return full * w + dt / 6 * (full * k1 + 2 * half * (k2 + k3) + k4)

    def courant(self, w: Tensor, dt: float) -> float:
        """Largest number of grid spacings that the flow crosses in a step; stable to about 1.3."""
        height, width = self.grid
        u, v = self.velocity(w).abs().unbind(-3)
        return float((u * width + v * height).max()) * dt / (2 * math.pi)


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
        self.solver = NavierStokes(shape, 1 / reynolds, drag, forcing, torch.float32)
        self.settings = {
            **{"shape": list(self.solver.grid), "reynolds": reynolds, "drag": drag, "forcing": forcing},
            **{"trajectories": trajectories, "start": start, "stop": stop, "every": every, "dt": dt, "seed": seed},
        }
        snapshots = _cached(None if cache is None else Path(cache), self.settings, self._run)
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
        found, between, first = [], round(s["every"] / s["dt"]), round(s["start"] / s["dt"])
        for number in range(round(s["stop"] / s["dt"]) + 1):
            if number % between == 0:
                crossed = solver.courant(w, s["dt"])
                if not crossed < 1.2:
                    raise NumericalError(
                        f"the flow crosses {crossed:.3g} grid spacings in a step at time {number * s['dt']:.4g}; "
                        f"the solver is stable to about 1.3. Choose data.dt below {s['dt']:g}."
                    )
                if number >= first:
                    found.append(solver.field(w))
            w = solver.step(w, s["dt"])
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


def _cached(path: Path | None, settings: dict[str, Any], make) -> Tensor:  # noqa: ANN001
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
