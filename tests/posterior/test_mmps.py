"""MMPS for nonlinear measurements, counts and priors that are not affine, against brute force."""

import pytest
import torch
from torch import Generator

from scidiff.inference import Cost, Likelihood, Posterior
from scidiff.noise import GaussianNoise, PoissonNoise
from scidiff.operators import LinearMap
from scidiff.posterior import MMPS
from scidiff.posterior.base import Run
from scidiff.posterior.gauss_newton import Point
from scidiff.priors import GaussianPrior
from scidiff.rng import Streams
from scidiff.samplers import DPMSolver

F64 = torch.float64
COV = torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=F64)
METHOD = MMPS(DPMSolver(64))


def speed(x):
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True)


def cubic(x):
    return x[..., :1] + x[..., :1] ** 3 / 3


def rates(x):
    return 10 * torch.exp(x)


def mixed(x):
    return x @ torch.tensor([[1.0, 2.0], [0.5, 0.0]]).to(x)


def brute_force(prior, operator, noise, y, n=600, width=6.0):
    """Mean and covariance of the posterior by a sum over a grid in the prior's whitened coordinates."""
    axis = torch.linspace(-width, width, n, dtype=F64)
    x = prior.loc + torch.cartesian_prod(axis, axis) @ torch.linalg.cholesky(prior.covariance.double()).mT
    weights = torch.softmax(noise.log_prob(y.double().expand(len(x), -1), operator(x)) + prior.log_prob(x), 0)
    mean = weights @ x
    return mean, (weights[:, None] * (x - mean)).mT @ (x - mean)


@pytest.mark.parametrize("mean, cov, operator, noise, y", [
    ([2.0, 1.0], COV, speed, GaussianNoise(0.2), [3.0]),
    ([1.0, 0.5], COV, cubic, GaussianNoise(0.3), [2.5]),
    ([0.0, 0.5], COV, rates, PoissonNoise(), [15.0, 12.0]),
    ([10.0, 8.0], 4 * COV, mixed, PoissonNoise(), [15.0, 12.0]),
], ids=["speed", "cubic", "counts", "linear counts"])  # fmt: skip
def test_against_a_grid(mean, cov, operator, noise, y):
    prior, y = GaussianPrior(torch.tensor(mean), cov), torch.tensor([y])
    exact_mean, exact_cov = brute_force(prior, operator, noise, y)
    ensemble = METHOD(Posterior(prior, Likelihood(operator, noise, y)), 1000, Generator().manual_seed(0))
    x, std = ensemble.samples[:, 0].double(), exact_cov.diagonal().sqrt()
    assert ((x.mean(0) - exact_mean) / std).abs().max() < 0.12
    assert ((torch.cov(x.mT) - exact_cov) / torch.outer(std, std)).abs().max() < 0.15
    assert ensemble.cost.denoiser == 64


def test_a_linear_operator_without_adjoint_is_solved_like_one_with():
    """Gauss-Newton of a linear function is the linear solve: same draws."""
    matrix, noise = torch.tensor([[1.0, 0.3]]), GaussianNoise(0.2)
    prior, y = GaussianPrior(torch.tensor([280.0, 282.0], dtype=F64), COV), torch.tensor([[365.0]], dtype=F64)
    method = MMPS(DPMSolver(16), tolerance=1e-10)
    draws = [
        method(Posterior(prior, Likelihood(operator, noise, y)), 5, Generator().manual_seed(0)).samples
        for operator in (LinearMap(matrix), lambda x: x @ matrix.to(x).mT)
    ]
    assert torch.allclose(draws[0], draws[1], atol=1e-6)


def test_prior_that_is_not_affine():
    """A field exp(u) seen by a linear operator is a field u seen by its exponential."""

    class LogNormal:
        affine, shape, dtype = False, (2,), torch.float32

        def __init__(self, inside):
            self.inside = inside

        def denoise(self, u, sigma):
            return self.inside.denoise(u, sigma)

        def decode(self, u):
            return torch.exp(self.inside.decode(u))

        def encode(self, x):
            return self.inside.encode(x.log())

    inside, noise, y = GaussianPrior(torch.tensor([0.0, 0.5]), COV), GaussianNoise(0.3), torch.tensor([[1.5, 1.2]])
    one = Posterior(LogNormal(inside), Likelihood(LinearMap(torch.eye(2)), noise, y))
    two = Posterior(inside, Likelihood(torch.exp, noise, y))
    draws = [METHOD(p, 4, Generator().manual_seed(0)).samples for p in (one, two)]
    assert torch.allclose(draws[0], draws[1].exp(), rtol=1e-4)


def test_operator_calls_are_counted():
    class Counting:
        calls = 0

        def __call__(self, x):
            Counting.calls += 1
            return cubic(x)

    prior = GaussianPrior(torch.tensor([1.0, 0.5]), COV)
    cost = MMPS(DPMSolver(8))(
        Posterior(prior, Likelihood(Counting(), GaussianNoise(0.3), torch.tensor([[2.5]]))), 3
    ).cost
    assert cost.operator == Counting.calls
    assert cost.denoiser == 8


def test_steps_that_lower_the_probability_are_shortened_row_by_row():
    """Row 0 may go all the way, row 1 only a quarter, row 2 nowhere."""
    prior = GaussianPrior(torch.zeros(1, dtype=F64), torch.eye(1, dtype=F64))
    posterior = Posterior(prior, Likelihood(lambda x: x**2, GaussianNoise(1.0), torch.ones(1, 1, dtype=F64)))
    run = Run(posterior.tile(3), Streams(0, range(3)), Cost())
    D, zero = torch.full((3, 1), 0.5, dtype=F64), torch.zeros(3, 1, dtype=F64)
    step = torch.tensor([[0.2], [2.0], [-100.0]], dtype=F64)
    start = Point.at(run, D, zero, zero)
    end = start.towards(run, D, step / 100, step)
    assert torch.allclose(end.image[:, 0], torch.tensor([0.2, 0.5, 0.0], dtype=F64))
    assert bool((end.phi <= start.phi).all())
    assert torch.allclose(end.phi, Point.at(run, D, end.g, end.image).phi)
