r"""The equation of Kuramoto and Sivashinsky: flame fronts, chaos on a line.

.. math:: \partial_t u + u\, \partial_x u + \partial_x^2 u + \partial_x^4 u = 0

on a periodic line. Waves longer than :math:`2 \pi` grow, at most at the rate 1/4; short ones are damped strongly, which
asks for exponential time differences. Any equation :math:`u_t + a\, u u_x + b\, u_{xx} + c\, u_{xxxx} = 0` is this one
in units of length :math:`\sqrt{c / b}`, time :math:`c / b^2` and speed :math:`b^{3/2} / (a c^{1/2})`.

References:
    Kassam and Trefethen, Fourth-order time-stepping for stiff PDEs, SIAM Journal on Scientific Computing 26, 2005.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scidiff.solvers.periodic import Periodic

__all__ = ["KuramotoSivashinsky"]

GROWTH = 0.25


class KuramotoSivashinsky(Periodic):
    """The equation for the truncated Fourier series ``w`` (..., N/2+1) of the field.

    Arguments:
        points: Points on the line, at least 8.
        length: Of the line.
        dtype: Real type.
        device: Where constants are kept.
    """

    def __init__(
        self,
        points: int,
        length: float,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        if points < 8:
            raise ValueError(f"the line must have at least 8 points, got {points}.")
        super().__init__((points,), (length,), dtype, device)
        self.linear = self.square - self.square.square()
        self._flux = -0.5j * self.k[0] * self.kept

    def change(self, w: Tensor) -> Tensor:
        r""":math:`-\partial_x u^2 / 2`, truncated."""
        return self._flux * torch.fft.rfft(self.field(w).square())

    def courant(self, w: Tensor, dt: float) -> Tensor:
        """Grid spacings crossed in a step, plus twice the growth of the fastest wave in it."""
        return (self.field(w).abs().amax(-1) * (self.grid[0] / self.lengths[0]) + 2 * GROWTH) * dt
