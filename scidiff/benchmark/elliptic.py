r"""Sources and solutions of Poisson's and Helmholtz' equation seen at 3 % of the points: the posterior in closed form.

The source is a Gaussian field, :math:`a \sim N(0, (-\Delta + 9)^{-2})` without slope at the walls and with mean zero,
and the solution linear in it. So the posterior given n = 123 points is Gaussian, with a matrix of n x n to solve.

References:
    DiffusionPDE: Generative PDE-Solving Under Partial Observation (Huang et al., 2024), arXiv:2406.17763. There: grid
    128x128, 500 points without noise.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Literal

import torch
from torch import Generator, Tensor

from scidiff.benchmark.exact import F64, ExactProblem
from scidiff.inference import Likelihood, Posterior
from scidiff.linalg import Cosine
from scidiff.noise import GaussianNoise
from scidiff.operators.linear_map import LinearMap
from scidiff.operators.pde import Helmholtz, Poisson
from scidiff.priors import GaussianPrior

__all__ = ["SensorPosterior", "elliptic"]


class SensorPosterior:
    r"""A Gaussian field given n linear measurements, by a system of n equations (the data space).

    With :math:`K = A C`, :math:`S = A C A^\top + s^2 I = L L^\top` and :math:`W = L^{-1} K` the mean is
    :math:`m + K^\top S^{-1}(y - A m)` and the covariance :math:`C - W^\top W`; no matrix of the field's size squared.

    Arguments:
        prior: Gaussian prior.
        operator: Measurement :math:`A` as a matrix.
        std: Standard deviation s of the noise.
        y: Measurement, (1, n).
    """

    def __init__(self, prior: GaussianPrior, operator: LinearMap, std: float, y: Tensor) -> None:
        self.prior, self.std = prior, std
        self.rows = operator.matrix.to(F64)
        self.K = prior.cov.matmul(self.rows)
        S = self.K @ self.rows.mT + std**2 * torch.eye(len(self.rows), dtype=F64)
        self.lower = torch.linalg.cholesky(S)
        self.W = torch.linalg.solve_triangular(self.lower, self.K, upper=False)
        loc = prior.loc.flatten()
        self._mean = loc + self.gain(y.to(F64) - self.rows @ loc)[0]
        self.scale = float(self.variance.mean().sqrt())

    def gain(self, r: Tensor) -> Tensor:
        r""":math:`K^\top S^{-1} r`, (B, n) -> (B, d)."""
        return torch.cholesky_solve(r.mT, self.lower).mT @ self.K

    @property
    def mean(self) -> Tensor:
        r"""(\*X), float64."""
        return self._mean.reshape(self.prior.shape)

    @cached_property
    def variance(self) -> Tensor:
        r"""(\*X), float64."""
        return self.prior.cov.diagonal().reshape(self.prior.shape) - self.W.square().sum(0).reshape(self.prior.shape)

    @property
    def covariance(self) -> Tensor:
        """The matrix (d, d): 134 MB for 64x64 pixels."""
        return self.prior.cov.dense() - self.W.mT @ self.W

    def encode(self, x: Tensor) -> Tensor:
        r"""``(x - mean) / scale`` with the root mean variance as scale, (B, \*X)."""
        return (x - self.mean.to(x)) / self.scale

    def marginal_cdf(self, x: Tensor) -> Tensor:
        r"""Probability that an entry is below the one in ``x`` (B, \*X)."""
        return torch.special.ndtr((x.to(F64) - self.mean) / self.variance.sqrt())

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        r"""Exact draws (n, \*X), float64: a draw of the prior, corrected by its own misfit (Matheron's rule)."""
        x = self.prior.cov.sample(generator, n, F64).flatten(1)
        e = torch.randn(n, len(self.rows), generator=generator, dtype=F64)
        return (self._mean + x - self.gain(x @ self.rows.mT + self.std * e)).reshape(n, *self.prior.shape)

    def bayes_error(
        self, draws: int, generator: Generator | None = None, readout: Callable[[Tensor], Tensor] = lambda x: x
    ) -> float:
        """Relative L2 error of the posterior mean, averaged over truths and noises: the least that any method has.

        Arguments:
            draws: Truths to draw from the prior, each measured at the same points.
            generator: Source of randomness.
            readout: Linear map of the field to what is asked for.
        """
        x = self.prior.cov.sample(generator, draws, F64)
        e = self.std * torch.randn(draws, len(self.rows), generator=generator, dtype=F64)
        mean = self.gain(x.flatten(1) @ self.rows.mT + e).reshape(x.shape)
        wrong, truth = readout(mean - x).flatten(1).norm(dim=1), readout(x).flatten(1).norm(dim=1)
        return float((wrong / truth).mean())


def elliptic(
    equation: Literal["poisson", "helmholtz"],
    given: Literal["inverse", "forward"],
    seed: int = 0,
    size: int = 64,
    points: int = 123,
    noise: float = 1e-3,
) -> ExactProblem:
    r"""A source and a solution on 64x64 cells; one of them is seen at 3 % of the points.

    Arguments:
        equation: :math:`\Delta u = a` or :math:`\Delta u + u = a`, both with u = 0 on the walls.
        given: ``"inverse"`` shows u and asks for a; ``"forward"`` shows a and asks for u.
        seed: Of the points, the source and the noise.
        size: Cells along a side.
        points: Number n of points.
        noise: Standard deviation of the noise relative to that of the numbers seen; small, as the published data have
            none, and not zero, as a posterior needs a density.
    """
    generator, grid = Generator().manual_seed(seed), (size, size)
    solve = Poisson(grid) if equation == "poisson" else Helmholtz(grid, 1.0)
    prior = GaussianPrior(torch.zeros(1, *grid), Cosine.matern(grid, 2.0, 3.0, channels=1, constant=False))
    places = torch.randperm(size**2, generator=generator)[:points]
    rows = torch.nn.functional.one_hot(places, size**2).to(F64).reshape(points, 1, *grid)
    if given == "inverse":
        rows = solve.adjoint(rows)
    matrix = rows.flatten(1)
    operator = LinearMap(matrix, (1, *grid))
    std = noise * float((prior.cov.matmul(matrix) * matrix).sum(1).mean().sqrt())
    truth = prior.sample(1, generator)
    y = GaussianNoise(std).sample(operator(truth), generator)
    exact = SensorPosterior(prior, operator, std, y)
    posterior = Posterior(prior, Likelihood(operator, GaussianNoise(std), y))
    readout = solve if given == "forward" else None
    return ExactProblem(f"{equation}, {given}", posterior, exact, truth, readout, "relative")
