r"""Windows of Kolmogorov flow: some frames of vorticity in a row.

The flow of `scidiff.problems.KolmogorovAssimilation`: :math:`\partial_t \omega + v \cdot \nabla \omega = \nu \Delta
\omega - \mu\,\omega - m \cos(m y)` in :math:`[0, 2\pi]^2`, computed on a grid twice as fine and truncated. Windows
are moved and mirrored by everything that maps solutions to solutions: shifts along x; shifts along y by the period of
the forcing; the turn by :math:`\pi`; and the mirror :math:`\omega'(x, y) = -\omega(-x, y + \pi/m)`.

References:
    Score-based Data Assimilation (Rozet and Louppe, 2023), arXiv:2306.10574, section 4.2.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from scidiff.datasets.simulator import Simulator, window
from scidiff.datasets.vorticity import cached
from scidiff.errors import InputError, NumericalError
from scidiff.linalg.stationary import Stationary
from scidiff.solvers.navier_stokes import NavierStokes
from scidiff.solvers.stepping import advance, ifrk4

__all__ = ["KolmogorovWindows", "truncated"]


def truncated(fine: Tensor, grid: Sequence[int]) -> Tensor:
    """Fields (..., H', W') on a fine grid -> (..., H, W): the wave numbers that the coarse grid resolves (2/3 rule)."""
    height, width = int(grid[0]), int(grid[1])
    w = torch.fft.rfft2(fine) * (height * width / (fine.shape[-2] * fine.shape[-1]))
    w = torch.cat([w[..., : height // 2, :], w[..., -(height - height // 2) :, :]], -2)
    small = NavierStokes((height, width), 1.0, dtype=fine.dtype)
    return small.field(w[..., : small.kept.shape[1]] * small.kept)


class KolmogorovWindows(Simulator):
    r"""Draws (1, T, H, W): T frames in a row, over the whole square.

    Arguments:
        shape: Grid (H, W) of the frames, even, multiples of twice the forcing's wavenumber.
        reynolds: :math:`1/\nu`.
        drag: Linear drag :math:`\mu`.
        forcing: Wavenumber m of the forcing.
        spacing: Time between two frames.
        trajectories: Number of independent trajectories; a tenth, at least one, is held out for validation.
        start, stop: Times of the first and the last frame.
        seed: Of the initial fields: Gaussian, peak of the enstrophy near wavenumber 5, standard deviation 3.
        cache: HDF5 file that keeps the frames for the next run; by default they are only in memory.
    """

    units = "s-1"

    def __init__(
        self,
        shape: Sequence[int] = (32, 32),
        reynolds: float = 200.0,
        drag: float = 0.1,
        forcing: int = 4,
        spacing: float = 0.2,
        trajectories: int = 64,
        start: float = 8.0,
        stop: float = 24.0,
        seed: int = 0,
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        grid = (int(shape[0]), int(shape[1]))
        if forcing < 1 or any(n % (2 * forcing) for n in grid):
            raise ValueError(f"shape must be multiples of 2 * forcing = {2 * forcing}, got {grid}.")
        if not (reynolds > 0 and spacing > 0 and 0 <= start < stop and trajectories >= 2):
            raise ValueError(
                "expected reynolds > 0, spacing > 0, 0 <= start < stop and at least 2 trajectories, got "
                f"{reynolds}, {spacing}, {start}, {stop} and {trajectories}."
            )
        self.grid = grid
        self.settings = {
            **{"shape": list(grid), "reynolds": reynolds, "drag": drag, "forcing": forcing, "spacing": spacing},
            **{"trajectories": trajectories, "start": start, "stop": stop, "seed": seed},
        }
        frames = cached(None if cache is None else Path(cache), self.settings, self._run)
        apart = max(1, trajectories // 10)
        self.scale = float(frames[:-apart].double().square().mean().sqrt())
        self.frames, self._apart = frames[:-apart] / self.scale, frames[-apart:] / self.scale

    def _run(self) -> Tensor:
        """Frames (trajectories, times, H, W)."""
        s = self.settings
        fine = NavierStokes([2 * n for n in self.grid], 1 / s["reynolds"], s["drag"], s["forcing"], dtype=torch.float32)
        # Slower than a speed of 8 with drag 0.1: a Courant number below 1.2.
        steps = math.ceil(s["spacing"] * 8 * 2 * max(self.grid) / (2 * math.pi) / 1.2)
        step, dt = ifrk4(fine, s["spacing"] / steps), s["spacing"] / steps
        law = Stationary.power_law(fine.grid, exponent=6.0, cutoff=5.0, variance=9.0)
        w = fine.transform(law.sample(Generator().manual_seed(s["seed"]), s["trajectories"], torch.float32))
        w[..., 0, 0] = 0
        found, first = [], round(s["start"] / s["spacing"])
        for number in range(round(s["stop"] / s["spacing"]) + 1):
            if number:
                w = advance(step, w, steps)
            if not (crossed := float(fine.courant(w, dt).max())) < 1.3:
                raise NumericalError(
                    f"the flow crosses {crossed:.3g} grid spacings in a step at time {number * s['spacing']:.4g}; "
                    "the solver is stable to about 1.3. Choose a smaller data.reynolds or more drag."
                )
            if number >= first:
                found.append(truncated(fine.field(w), self.grid))
        return torch.stack(found, 1)

    def _draw(self, pool: Tensor, generator: Generator, crop: tuple[int, ...]) -> Tensor:
        height, width = self.grid
        if len(crop) != 3 or tuple(crop[1:]) != self.grid:
            raise InputError(f"a window of Kolmogorov flow is (T, {height}, {width}), training.crops asks for {crop}.")
        (part,) = window((pool.shape[1],), crop[:1], generator, "a trajectory")
        m = self.settings["forcing"]
        item, right, periods, mirror, turn = (
            int(torch.randint(n, (), generator=generator)) for n in (len(pool), width, m, 2, 2)
        )
        return self.moved(pool[item, part], right, periods * height // m, bool(mirror), bool(turn))[None]

    def moved(self, x: Tensor, right: int, down: int, mirror: bool, turn: bool) -> Tensor:
        """Frames (..., H, W) after symmetries of the equation; ``down`` a multiple of the forcing's period."""
        if turn:  # point i goes to -i, which is a flip and a shift by one
            x = x.flip(-2, -1).roll((1, 1), (-2, -1))
        if mirror:
            x = -x.flip(-1).roll((-(self.grid[0] // (2 * self.settings["forcing"])), 1), (-2, -1))
        return x.roll((down, right), (-2, -1))

    def __call__(self, generator: Generator, crop: tuple[int, ...]) -> Tensor:
        """One window (1, T, H, W) in units of ``u``, of the trajectories for training."""
        return self._draw(self.frames, generator, crop)

    @property
    def held_out(self):  # noqa: ANN201 - a source
        return lambda generator, crop: self._draw(self._apart, generator, crop)

    @property
    def card(self) -> dict[str, Any]:
        return {"variables": ["vorticity"], "frames": self.frames.shape[0] * self.frames.shape[1], "periodic": True}
