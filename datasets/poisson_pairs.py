r"""Pairs of a random source and the solution of Poisson's equation, :math:`\Delta u = a` in the unit box.

.. math:: a \sim N\big(0,\; c\,(-\Delta + \tau^2)^{-\alpha}\big), \qquad \Delta u = a,

with ``u = 0`` at the walls, zero slope of ``a`` at the walls and ``c`` such that the mean variance of ``a`` is one.
Both live at the centres of the same cells, and the discrete equation (`scidiff.operators.pde.elliptic`) holds to
rounding. The pair is Gaussian: its exact denoiser and posterior are known too.

**Units.** With ``modes`` each sine of each field has its own unit (`scidiff.linalg.modes`), so that the spectrum of the
state falls as :math:`1/(\mu_k + \tau^2)` with the eigenvalues of the Laplacian, for both fields. As sines also
diagonalise the equation, the states of source and solution then differ in sign only: **these units hold all of the
equation**, and what is left for a network to learn is the law of the source.

References:
    DiffusionPDE: generative PDE-solving under partial observation, Huang, Yang, Wang and Park, 2024, arXiv:2406.17763
    (pairs (a, u) with one joint prior, and the law of a with alpha = 2, tau = 3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from scidiff.datasets.simulator import Simulator
from scidiff.linalg.cosine import Cosine, cosine_basis
from scidiff.linalg.modes import SineUnits, tempered
from scidiff.solvers.laplace import BoxLaplacian

__all__ = ["PoissonPairs"]


class PoissonPairs(Simulator):
    r"""Draws (2, \*grid), the source ``a`` and the solution ``u``, each divided by its standard deviation.

    Arguments:
        alpha: Smoothness of the source.
        tau: Inverse correlation length of the source, in units of the box.
        shape: Grid on which the standard deviation of the solution is computed, once and exactly; that of other grids
            differs by their discretisation.
        modes: Whether each sine has its own unit, see the module.
    """

    channels = 2

    def __init__(
        self, alpha: float = 2.0, tau: float = 3.0, shape: Sequence[int] = (64, 64), modes: bool = False
    ) -> None:
        if not (alpha > 0 and tau > 0):
            raise ValueError(f"alpha and tau must be positive, got {alpha} and {tau}.")
        self.alpha, self.tau = alpha, tau
        self._known: dict[tuple[int, ...], tuple[Cosine, BoxLaplacian]] = {}
        self._deviation = math.sqrt(self.variance(shape))
        self.loc, self.scale = [0.0, 0.0], [1.0, self._deviation]
        self._units: dict[tuple[int, ...], SineUnits] = {}
        if modes:
            self.modes = self.units_on(shape).deviations

    def _parts(self, grid: Sequence[int]) -> tuple[Cosine, BoxLaplacian]:
        grid = tuple(grid)
        if grid not in self._known:
            self._known[grid] = Cosine.matern(grid, self.alpha, self.tau), BoxLaplacian(grid)
        return self._known[grid]

    def variance(self, grid: Sequence[int]) -> float:
        r"""Variance of the solution, mean over the box: :math:`\frac1d \sum_k \mu_k^{-2} \sum_l W_{kl}^2 \lambda_l`.

        :math:`\mu` are the eigenvalues of the Laplacian, :math:`\lambda` those of the source's covariance, and
        :math:`W_{kl}` the product of sine k with cosine l.
        """
        return float((self.spread(grid) / self._parts(grid)[1].eigenvalues.square()).mean())

    def spread(self, grid: Sequence[int]) -> Tensor:
        r"""Variance of each sine's coefficient of the source, :math:`\sum_l W_{kl}^2 \lambda_l`, (\*grid)."""
        covariance, laplacian = self._parts(grid)
        spread = covariance.eigenvalues
        for dim, (n, sines) in enumerate(zip(grid, laplacian.bases, strict=True)):
            squares = (sines @ cosine_basis(n).mT).square()
            spread = (spread.movedim(dim, -1) @ squares.mT).movedim(-1, dim)
        return spread

    def units_on(self, grid: Sequence[int]) -> SineUnits:
        """The units of each sine of source and solution, each field in units of its standard deviation."""
        grid = tuple(grid)
        if grid not in self._units:
            spread, eigenvalues = self.spread(grid), self._parts(grid)[1].eigenvalues
            parts = [spread, spread / (eigenvalues * self._deviation).square()]
            self._units[grid] = SineUnits(tempered(parts, -eigenvalues, self.tau))
        return self._units[grid]

    def __call__(self, generator: Generator, crop: tuple[int, ...]) -> Tensor:
        r"""One pair (2, \*crop) in units of ``u``."""
        covariance, laplacian = self._parts(crop)
        a = covariance.sample(generator, 1, torch.float64)[0]
        pair = torch.stack([a, laplacian.solve(a) / self._deviation])
        if self.modes is not None:
            pair = self.units_on(crop).encode(pair[None])[0]
        return pair.float()

    @property
    def card(self) -> dict[str, Any]:
        return {
            "variables": ["a", "u"],
            "law": f"a Gaussian, covariance (-Laplacian + {self.tau:g}^2)^-{self.alpha:g}, zero slope at the walls; "
            "Laplacian u = a, u = 0 on the walls of the unit box",
        }
