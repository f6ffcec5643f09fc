r"""Sources and solutions of Poisson's and Helmholtz' equation seen at 3 % of the points: the posterior in closed form.

The source is a Gaussian field, :math:`a \sim N(0, (-\Delta + 9)^{-2})` without slope at the walls and with mean zero,
and the solution linear in it. So the posterior given n = 123 points is Gaussian, with a matrix of n x n to solve.

References:
    DiffusionPDE: Generative PDE-Solving Under Partial Observation (Huang et al., 2024), arXiv:2406.17763. There: grid
    128x128, 500 points without noise.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator

from scidiff.benchmark.exact import F64, ExactProblem
from scidiff.inference import Likelihood, Posterior
from scidiff.linalg import Cosine
from scidiff.noise import GaussianNoise
from scidiff.operators.linear_map import LinearMap
from scidiff.operators.pde import Helmholtz, Poisson
from scidiff.priors import GaussianPrior, Kriging

__all__ = ["elliptic"]


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
    exact = Kriging(prior, operator.matrix, std, y)
    posterior = Posterior(prior, Likelihood(operator, GaussianNoise(std), y))
    readout = solve if given == "forward" else None
    return ExactProblem(f"{equation}, {given}", posterior, exact, truth, readout, "relative")
