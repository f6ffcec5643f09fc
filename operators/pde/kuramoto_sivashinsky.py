r"""The flow map of the equation of Kuramoto and Sivashinsky, see `scidiff.solvers.kuramoto_sivashinsky`.

Exponential time differences of fourth order keep the stiff fourth derivative exact; Fourier series with the 2/3 rule.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from scidiff.operators.pde.flow_map import FlowMap
from scidiff.solvers.kuramoto_sivashinsky import KuramotoSivashinsky as Equation

__all__ = ["KuramotoSivashinsky"]


class KuramotoSivashinsky(FlowMap):
    r"""Maps fields (B, 1, N) on a periodic line at time 0 to (B, T, N) at T later times.

    .. math:: \partial_t u + u\, \partial_x u + \partial_x^2 u + \partial_x^4 u = 0

    Without dimensions; the module of the solver says how to scale another equation to this one. Chaotic for lengths
    above about 20: gradients grow with time as errors do.

    Arguments:
        points: Points N, at least 8.
        length: Of the line.
        times: Observation times, increasing, positive; a number stands for one time.
        steps: As in `FlowMap`: by default each field gets as many time steps as it needs.
        courant: Grid spacings that the flow crosses in a step, plus half the step; at most 1.2.
        scheme: ``"etdrk4"`` or ``"ifrk4"``.
        segments: Of gradient checkpointing, see `scidiff.solvers.advance`.

    Raises:
        ValueError: times that do not increase, too few steps, a line that is too short.
        NumericalError: in a call, if the fixed time step is too long (Courant number above 1.35).
    """

    def __init__(
        self,
        points: int,
        length: float = 32 * math.pi,
        times: Any = 1.0,
        steps: int | None = None,
        courant: float = 0.5,
        scheme: str = "etdrk4",
        segments: int | None = None,
    ) -> None:
        self.length = float(length)
        super().__init__((points,), times, steps, courant, scheme, segments)

    def _equation(self, dtype: torch.dtype, device: torch.device | str) -> Equation:
        return Equation(self.grid[0], self.length, dtype, device)
