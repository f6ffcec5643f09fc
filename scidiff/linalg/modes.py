r"""Units for smooth fields: one standard deviation for each sine, instead of one for all points.

A smooth field holds nearly all of its variance in a few large patterns. Divided by one standard deviation, its finest
waves are a thousand times smaller than the noise levels at which a network learns its large patterns. With a number
:math:`d_{ck}` for every channel c and every sine k,

.. math:: x_c = \sum_k d_{ck}\, s_k\, \langle s_k, u_c \rangle, \qquad
          s_k(i) \propto \prod_j \sin\big(\pi k_j (i_j + \tfrac12) / n_j\big),

a state u can have whatever spectrum is easiest to learn. The map is linear and invertible, so linear measurements stay
linear. It belongs to one grid. All sines of a grid span all its fields, those that are not zero on the walls too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scidiff.linalg.sine import sine_basis

__all__ = ["SineUnits"]


class SineUnits:
    r"""The map from u to x of the module, channel by channel.

    Arguments:
        deviations: :math:`d`, (C, \*grid), positive; entry k along a side belongs to sine number k + 1.
    """

    def __init__(self, deviations: Tensor) -> None:
        if deviations.ndim < 2 or not bool(((deviations > 0) & deviations.isfinite()).all()):
            raise ValueError(f"deviations must be positive numbers (C, *grid), got shape {tuple(deviations.shape)}.")
        self.deviations = deviations
        self.grid: tuple[int, ...] = tuple(deviations.shape[1:])
        self._bases = [sine_basis(n) for n in self.grid]

    def _turn(self, u: Tensor, back: bool) -> Tensor:
        """Fields to coefficients of sines, or back."""
        for dim, basis in enumerate(self._bases, start=-len(self.grid)):
            matrix = basis.to(u)
            matrix = matrix.mT if back else matrix
            u = matrix @ u if dim == -2 else (u.movedim(dim, -1) @ matrix.mT).movedim(-1, dim)
        return u

    def _checked(self, u: Tensor) -> Tensor:
        if tuple(u.shape[1:]) != tuple(self.deviations.shape):
            raise ValueError(
                f"this prior has its own units for each wave of fields {tuple(self.deviations.shape)}, "
                f"got {tuple(u.shape[1:])}; take that grid, or a prior without such units."
            )
        return u

    def decode(self, u: Tensor) -> Tensor:
        r"""X from u, (B, C, \*grid)."""
        return self._turn(self._turn(self._checked(u), False) * self.deviations.to(u), True)

    def encode(self, x: Tensor) -> Tensor:
        r"""U from x, (B, C, \*grid)."""
        return self._turn(self._turn(self._checked(x), False) / self.deviations.to(x), True)


def tempered(variances: Sequence[Tensor], eigenvalues: Tensor, tau: float) -> Tensor:
    r"""Deviations that give every channel's state the spectrum :math:`\propto 1 / (\mu_k + \tau^2)`, of mean one.

    In two dimensions every octave of wavenumbers then has the same variance, as in photographs: the strongest pattern
    is some ten times, not some thousand times, stronger than the weakest.

    Arguments:
        variances: Variance of each sine's coefficient, (\*grid) for each channel.
        eigenvalues: :math:`\mu_k > 0` of the negative Laplacian, (\*grid).
        tau: Inverse length beyond which the spectrum is flat.
    """
    spectrum = 1 / (eigenvalues + tau**2)
    spectrum = spectrum / spectrum.mean()
    return torch.stack([(v / spectrum).sqrt() for v in variances])
