r"""The flow map of shallow water on a periodic plane, see `scidiff.solvers.shallow_water`.

Fourier series that conserve energy, time steps of fourth order; stable while flow and waves together cross less than
1.35 grid spacings in a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from scidiff.errors import NumericalError
from scidiff.operators.pde.flow_map import FlowMap
from scidiff.operators.units import magnitude
from scidiff.solvers.shallow_water import ShallowWater as Equation

__all__ = ["ShallowWater"]


class ShallowWater(FlowMap):
    r"""Maps height and velocity :math:`(\eta, u, v)` (B, 3, H, W) at time 0 to (B, T, 3, H, W) at T later times.

    Rows are y, columns x; u is the velocity along x, v that along y.

    Arguments:
        grid: Points (H, W), at least 8 each.
        depth: Mean depth in m, or pint; positive. Plain numbers may be in any consistent units.
        gravity: In m/s2, positive.
        coriolis: :math:`f` in 1/s.
        viscosity: Of the velocity in m2/s, not negative; without it energy is conserved.
        times: Observation times in s, increasing, positive; a number stands for one time.
        lengths: Sides (L_y, L_x) of the periodic box in m; 1 by default.
        steps: As in `FlowMap`: by default each field gets as many time steps as it needs.
        courant: Grid spacings that flow and waves cross in a step, at most 1.2.
        scheme: ``"ifrk4"`` or ``"etdrk4"``; they differ by the viscous term.
        segments: Of gradient checkpointing, see `scidiff.solvers.advance`.

    Raises:
        ValueError: times that do not increase, too few steps, a depth that is not positive.
        NumericalError: in a call, if the layer is dry somewhere at time 0, or a fixed time step is too long.
    """

    components = 3
    crossed = "flow and waves cross {:.3g} grid spacings"
    fields = "height and velocity"

    def __init__(
        self,
        grid: Sequence[int],
        depth: Any = 1.0,
        gravity: Any = 9.81,
        coriolis: Any = 0.0,
        viscosity: Any = 0.0,
        times: Any = 1.0,
        lengths: Sequence[Any] | None = None,
        steps: int | None = None,
        courant: float = 0.6,
        scheme: str = "ifrk4",
        segments: int | None = None,
    ) -> None:
        self.depth = float(magnitude(depth, "m", "depth"))
        self.gravity = float(magnitude(gravity, "m/s**2", "gravity"))
        self.coriolis = float(magnitude(coriolis, "1/s", "coriolis"))
        self.viscosity = float(magnitude(viscosity, "m**2/s", "viscosity"))
        self.lengths = tuple(float(magnitude(v, "m", "lengths")) for v in ((1.0, 1.0) if lengths is None else lengths))
        super().__init__(grid, times, steps, courant, scheme, segments)

    def _equation(self, dtype: torch.dtype, device: torch.device | str) -> Equation:
        return Equation(self.grid, self.depth, self.gravity, self.coriolis, self.viscosity, self.lengths, dtype, device)

    def _start(self, x: Tensor) -> Tensor:
        w = super()._start(x)
        least = float((self.depth + self.equation(x.dtype, x.device).field(w.detach())[:, 0]).min())
        if least <= 0:
            raise NumericalError(
                f"the layer is {least:.3g} deep somewhere at time 0; heights must stay above minus the depth "
                f"{self.depth:g}."
            )
        return w
