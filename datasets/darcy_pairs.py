r"""Pairs of a two-valued permeability and the pressure of Darcy's flow, :math:`-\nabla \cdot (a \nabla u) = 1`.

In the unit box, :math:`u = 0` on the walls, and

.. math:: a = 12 \text{ where } g \ge 0, \quad 3 \text{ elsewhere}, \qquad
          g \sim N\big(0, (-\Delta + \tau^2)^{-\alpha}\big),

where ``g`` has zero slope at the walls and the mean zero over the box.

The solver is that of `scidiff.solvers.darcy`: finite volumes in flux form with harmonic means.

References:
    Fourier neural operator for parametric partial differential equations, Li et al., 2021, arXiv:2010.08895 (the
    problem and its numbers). DiffusionPDE, Huang et al., 2024, arXiv:2406.17763 (the joint prior of the pair).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from scidiff.datasets.simulator import Simulator
from scidiff.linalg.cosine import Cosine
from scidiff.solvers.darcy import solve
from scidiff.solvers.laplace import BoxLaplacian

__all__ = ["DarcyPairs"]


class DarcyPairs(Simulator):
    r"""Draws (2, \*grid), permeability ``a`` and pressure ``u``, standardised.

    Arguments:
        low, high: The two values of the permeability.
        alpha: Smoothness of the field whose sign chooses between them.
        tau: Its inverse correlation length, in units of the box.
        shape: Grid on which mean and standard deviation of the pressure are measured, over 256 draws.
    """

    channels = 2

    def __init__(
        self,
        low: float = 3.0,
        high: float = 12.0,
        alpha: float = 2.0,
        tau: float = 3.0,
        shape: Sequence[int] = (64, 64),
    ) -> None:
        if not (0 < low < high and alpha > 0 and tau > 0):
            raise ValueError(
                f"expected 0 < low < high and positive alpha and tau, got {low}, {high}, {alpha} and {tau}."
            )
        self.low, self.high, self.alpha, self.tau = low, high, alpha, tau
        self._known: dict[tuple[int, ...], tuple[Cosine, BoxLaplacian]] = {}
        u = self.pairs(Generator().manual_seed(0), tuple(shape), 256)[:, 1]
        # Both values are equally probable, as the Gaussian field and its negative are.
        self.loc, self.scale = [(low + high) / 2, float(u.mean())], [(high - low) / 2, float(u.std())]
        self._loc, self._scale = (torch.tensor(v).reshape(2, 1, 1) for v in (self.loc, self.scale))

    def pairs(self, generator: Generator, grid: tuple[int, ...], n: int) -> Tensor:
        r"""Permeability and pressure (n, 2, \*grid), float32; the pressure is accurate to about 1e-5."""
        if grid not in self._known:
            self._known[grid] = Cosine.matern(grid, self.alpha, self.tau, constant=False), BoxLaplacian(grid)
        covariance, laplacian = self._known[grid]
        g = covariance.sample(generator, n, torch.float32)
        a = torch.where(g >= 0, self.high, self.low).float()
        return torch.stack([a, solve(a, torch.ones_like(a), laplacian, 1e-5)], 1)

    def __call__(self, generator: Generator, crop: tuple[int, ...]) -> Tensor:
        r"""One pair (2, \*crop) in units of ``u``."""
        return (self.pairs(generator, crop, 1)[0] - self._loc) / self._scale

    @property
    def card(self) -> dict[str, Any]:
        return {
            "variables": ["a", "u"],
            "law": f"a = {self.high:g} where a Gaussian field is not negative, else {self.low:g}; its covariance is "
            f"(-Laplacian + {self.tau:g}^2)^-{self.alpha:g} with zero slope at the walls and mean zero; "
            "-div(a grad u) = 1, u = 0 on the walls of the unit box",
        }
