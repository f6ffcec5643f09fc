r"""Two unknowns seen by a nonlinear instrument: the posterior on a grid.

With two unknowns any posterior can be tabulated: prior density times likelihood on :math:`G \times G` cells that span
six standard deviations of the prior to each side. Moments and marginals are sums over cells; their error is that of the
midpoint rule, whose integrand is smooth and vanishes at the border (checked against twice the grid by the tests).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from scidiff.benchmark.exact import F64, ExactProblem
from scidiff.inference import Likelihood, Posterior
from scidiff.noise import GaussianNoise, PoissonNoise
from scidiff.priors import GaussianPrior
from scidiff.protocols import Operator
from scidiff.rng import explicit

__all__ = ["GridPosterior", "counts", "cube", "nonlinear", "product", "speed"]


class GridPosterior:
    r"""A law of two numbers tabulated on cells.

    Arguments:
        posterior: Gaussian prior of fields (2,), any noise; one observation.
        cells: Cells G along each axis.
        reach: Half the width of the table in prior standard deviations.
    """

    def __init__(self, posterior: Posterior, cells: int = 801, reach: float = 6.0) -> None:
        prior = posterior.prior
        if not isinstance(prior, GaussianPrior) or prior.field_shape != (2,):
            raise TypeError("the table is of two numbers with a Gaussian prior.")
        sd = prior.cov.diagonal().sqrt()
        edges = torch.linspace(-reach, reach, cells + 1, dtype=F64)
        self.edges = prior.loc[:, None] + sd[:, None] * edges  # (2, G + 1)
        self.centres = (self.edges[:, 1:] + self.edges[:, :-1]) / 2
        points = torch.cartesian_prod(self.centres[0], self.centres[1])
        (part,) = posterior.likelihoods
        y = part.y.to(F64).expand(len(points), *part.y.shape[1:])
        log = prior.log_prob(points) + part.noise.log_prob(y, part.operator(points))
        self.p = torch.softmax(log, 0).reshape(cells, cells)
        marginals = torch.stack([self.p.sum(1), self.p.sum(0)])
        zero = torch.zeros(2, 1, dtype=F64)
        self.cdf = torch.cat([zero, marginals.cumsum(1)], 1)
        self.mean = (marginals * self.centres).sum(1)
        self.variance = (marginals * (self.centres - self.mean[:, None]).square()).sum(1)
        self.scale = float(self.variance.mean().sqrt())

    @property
    def covariance(self) -> Tensor:
        """(2, 2)."""
        x, y = self.centres - self.mean[:, None]
        off = (self.p * x[:, None] * y).sum()
        return torch.stack([self.variance[0], off, off, self.variance[1]]).reshape(2, 2)

    def encode(self, x: Tensor) -> Tensor:
        """``(x - mean) / scale``, (B, 2)."""
        return (x - self.mean.to(x)) / self.scale

    def marginal_cdf(self, x: Tensor) -> Tensor:
        """Probability that an entry is below the one in ``x`` (B, 2); linear inside cells."""
        out = []
        for edges, cdf, column in zip(self.edges, self.cdf, x.to(F64).unbind(1), strict=True):
            at = ((column - edges[0]) / (edges[1] - edges[0])).clamp(0, len(edges) - 1)
            cell = at.long().clamp(max=len(edges) - 2)
            out.append(cdf[cell] + (at - cell) * (cdf[cell + 1] - cdf[cell]))
        return torch.stack(out, 1)

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        """Draws (n, 2): a cell by its probability, then a place inside it."""
        generator = explicit(generator)
        edges = self.p.flatten().cumsum(0)
        uniform = torch.rand(n, generator=generator, dtype=F64) * edges[-1]
        index = torch.searchsorted(edges, uniform, right=True).clamp(max=len(edges) - 1)
        cells = torch.stack([index // self.p.shape[1], index % self.p.shape[1]], 1)
        width = self.edges[:, 1] - self.edges[:, 0]
        return self.edges[:, 0] + (cells + torch.rand(n, 2, generator=generator, dtype=F64)) * width


@dataclass(frozen=True)
class Instrument:
    """A nonlinear operator with a name."""

    name: str
    function: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(x)

    def __repr__(self) -> str:
        return self.name


SPEED = Instrument("speed", lambda x: (x.square().sum(1, keepdim=True) + 1e-12).sqrt())  # smooth at zero
CUBE = Instrument("cube", lambda x: x**3)
PRODUCT = Instrument("product", lambda x: x.prod(1, keepdim=True))


def nonlinear(
    name: str, mean: tuple[float, float], stds: tuple[float, float], operator: Operator, noise: float | None, seed: int
) -> ExactProblem:
    """A problem whose truth and measurement are drawn with ``seed``.

    Arguments:
        name: Name in tables.
        mean: Prior mean.
        stds: Prior standard deviations; the correlation is 0.3 times the product of the signs of the means.
        operator: Nonlinear operator on fields (B, 2).
        noise: Standard deviation; None counts: Poisson noise with a gain of 0.25.
        seed: Of the truth and the noise.
    """
    m, s = torch.tensor(mean), torch.tensor(stds, dtype=F64)
    correlation = torch.eye(2, dtype=F64)
    correlation[0, 1] = correlation[1, 0] = 0.3 * float(torch.sign(m[0] * m[1]))
    prior, generator = GaussianPrior(m, s[:, None] * correlation * s), Generator().manual_seed(seed)
    law = PoissonNoise(0.25) if noise is None else GaussianNoise(noise)
    truth = prior.sample(1, generator)
    posterior = Posterior(prior, Likelihood(operator, law, law.sample(operator(truth), generator)))
    return ExactProblem(name, posterior, GridPosterior(posterior), truth, distance="sliced")


def speed(seed: int = 0, two: bool = False) -> ExactProblem:
    """The speed of a wind with noise 0.2: an arc; with ``two`` a wind along one axis, either way: two arcs."""
    if two:
        return nonlinear("speed, two modes", (0.0, 0.0), (2.0, 0.5), SPEED, 0.2, seed)
    return nonlinear("speed", (2.0, 1.0), (1.0, 1.0), SPEED, 0.2, seed)


def cube(seed: int = 0) -> ExactProblem:
    """Both numbers cubed, noise 0.5: flat where the numbers are small, steep elsewhere."""
    return nonlinear("cube", (0.5, -0.5), (1.0, 1.0), CUBE, 0.5, seed)


def product(seed: int = 0) -> ExactProblem:
    """The product of two numbers with noise 0.3; both signs explain it: two modes."""
    return nonlinear("product", (0.0, 0.0), (1.5, 1.5), PRODUCT, 0.3, seed)


def counts(seed: int = 0) -> ExactProblem:
    """Counts whose rate is four times the speed: Poisson noise; an arc."""
    return nonlinear("counts", (2.0, 1.0), (1.0, 1.0), SPEED, None, seed)
