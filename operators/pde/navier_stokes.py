r"""The flow map of two-dimensional turbulence: vorticity at time 0 to vorticity at later times.

The equation and its Fourier series are those of `scidiff.solvers.navier_stokes`; time steps are of fourth order with
the viscous term integrated exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scidiff.operators.pde.flow_map import FlowMap
from scidiff.solvers.navier_stokes import NavierStokes as Equation

__all__ = ["NavierStokes"]


class NavierStokes(FlowMap):
    r"""Maps vorticity (B, 1, H, W) at time 0 to vorticity (B, T, H, W) at T later times.

    .. math:: \partial_t \omega + v \cdot \nabla \omega = \nu \Delta \omega - \mu\,\omega + f

    Periodic square; rows are y, columns x. Differentiable; also usable as a black box (`scidiff.operators.BlackBox`).

    Arguments:
        grid: Points (H, W), at least 8 each.
        reynolds: :math:`1/\nu` in units of the box and of time.
        times: Observation times, increasing, positive; a number stands for one time.
        steps: Time steps up to the last observation, divided among the intervals by their lengths. By default each
            field gets as many as its flow needs for the Courant number ``courant`` at time 0 (rounded up on a ladder
            of factors 1.25), and more where the flow accelerates.
        drag: :math:`\mu`.
        forcing: :math:`f`, a field (H, W) or a whole number m for :math:`-m \cos(m y)`; 0 for none.
        side: Length of the square, by default :math:`2 \pi`.
        courant: Grid spacings that the flow crosses in a step, at most 1.2; the error falls with its fourth power.
        scheme: ``"ifrk4"`` or ``"etdrk4"``.
        segments: Of gradient checkpointing, see `scidiff.solvers.advance`.

    Raises:
        ValueError: times that do not increase, steps too few for the intervals, an unknown scheme.
        NumericalError: in a call, if the fixed time step is too long for the flow (Courant number above 1.8).
    """

    limit = 1.8  # beyond 2 the step is unstable on the imaginary axis
    fields = "vorticity"

    def __init__(
        self,
        grid: Sequence[int],
        reynolds: float = 200.0,
        times: float | Sequence[float] = 1.0,
        steps: int | None = None,
        drag: float = 0.0,
        forcing: int | Tensor = 4,
        side: float = 2 * math.pi,
        courant: float = 1.2,
        scheme: str = "ifrk4",
        segments: int | None = None,
    ) -> None:
        if not reynolds > 0:
            raise ValueError(f"reynolds must be positive, got {reynolds}.")
        self.reynolds, self.drag, self.forcing, self.side = float(reynolds), float(drag), forcing, float(side)
        super().__init__((int(grid[0]), int(grid[1])), times, steps, courant, scheme, segments)

    def __repr__(self) -> str:
        return f"NavierStokes({self.grid}, reynolds={self.reynolds:g}, times={self.times})"

    def _equation(self, dtype: torch.dtype, device: torch.device | str) -> Equation:
        lengths = (self.side, self.side * self.grid[1] / self.grid[0])
        return Equation(self.grid, 1 / self.reynolds, self.drag, self.forcing, lengths, dtype, device)

    def __call__(self, x: Tensor) -> Tensor:
        """Vorticity at the observation times, (B, T, H, W)."""
        return super().__call__(x)
