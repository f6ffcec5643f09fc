r"""The flow map of Burgers' equation: velocity at time 0 to velocity at later times.

The equation, its Fourier series (2/3 rule) and its exact solution are those of `scidiff.solvers.burgers`; time steps
are of fourth order with the viscous term integrated exactly. The derivative of the last kept wave and the limit 2.83 of
fourth-order steps on the imaginary axis make steps stable to :math:`3 \cdot 2.83 / 2 \pi = 1.35` grid spacings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from scidiff.operators.pde.flow_map import FlowMap
from scidiff.operators.units import magnitude
from scidiff.solvers.burgers import Burgers as Equation

__all__ = ["Burgers"]


class Burgers(FlowMap):
    r"""Maps velocity (B, 1, N) at time 0 to (B, T, N) at T times; in d dimensions (B, d, \*grid) to (B, T, d, \*grid).

    .. math:: \partial_t u + (u \cdot \nabla) u = \nu \Delta u

    Periodic box. In two dimensions the components are those along x (columns), then y (rows). Fourth order in time,
    spectral in space where the grid resolves the shocks, whose width is about :math:`4 \nu / |u|`.

    Arguments:
        grid: Points along each of one to three axes, at least 8 each.
        viscosity: :math:`\nu` in m2/s, or pint; not negative. Plain numbers may be in any consistent units.
        times: Observation times in s, increasing, positive; a number stands for one time.
        lengths: Sides of the box in m; 1 by default.
        steps: As in `FlowMap`: by default each field gets as many time steps as it needs.
        courant: Grid spacings that the flow crosses in a step, at most 1.2.
        scheme: ``"ifrk4"`` or ``"etdrk4"``.
        segments: Of gradient checkpointing, see `scidiff.solvers.advance`.

    Raises:
        ValueError: times that do not increase, too few steps, a negative viscosity.
        NumericalError: in a call, if the fixed time step is too long for the flow (Courant number above 1.35).
    """

    fields = "velocity"

    def __init__(
        self,
        grid: Sequence[int],
        viscosity: Any = 0.01,
        times: Any = 1.0,
        lengths: Sequence[Any] | None = None,
        steps: int | None = None,
        courant: float = 0.5,
        scheme: str = "ifrk4",
        segments: int | None = None,
    ) -> None:
        self.viscosity = float(magnitude(viscosity, "m**2/s", "viscosity"))
        self.components = len(grid)
        self.lengths = tuple(
            float(magnitude(v, "m", "lengths")) for v in ([1.0] * len(grid) if lengths is None else lengths)
        )
        super().__init__(grid, times, steps, courant, scheme, segments)

    def _equation(self, dtype: torch.dtype, device: torch.device | str) -> Equation:
        return Equation(self.grid, self.viscosity, self.lengths, dtype, device)
