"""RED-diff against the recursion and its resting point in dense linear algebra."""

import functools

import pytest
import torch
from torch import Generator

from scidiff.inference import Likelihood, Posterior
from scidiff.noise import GaussianNoise, PoissonNoise
from scidiff.operators.linear_map import LinearMap
from scidiff.posterior import REDDiff
from scidiff.priors import GaussianPrior
from scidiff.rng import Streams
from scidiff.schedules import log_linear, uniform

F64 = torch.float64
SHAPE, D, N, STD = (1, 3, 4), 12, 5, 0.3


def random(*shape, seed=0):
    return torch.randn(shape, generator=Generator().manual_seed(seed), dtype=F64)


def problem(fields=1):
    root = random(D, D)
    prior = GaussianPrior(torch.zeros(SHAPE, dtype=F64), root @ root.mT / D + 0.05 * torch.eye(D, dtype=F64))
    operator = LinearMap(random(N, D, seed=1), SHAPE)
    y = operator(prior.sample(fields, Generator().manual_seed(2))) + STD * random(fields, N, seed=3)
    return Posterior(prior, Likelihood(operator, GaussianNoise(STD), y))


def dense(posterior):
    """Covariance of u, whitened operator on u, whitened data (B, n), weight of the data term (B, 1)."""
    prior, part = posterior.prior, posterior.likelihoods[0]
    y = part.y / STD
    c2 = y.square().mean(1, keepdim=True).clamp(min=1)
    return prior.covariance / prior.scale**2, part.operator.matrix.to(F64) * prior.scale / STD, y, D / (N * c2)


def sgd(lr):
    return lambda params: torch.optim.SGD(params, lr=lr)


def test_every_step_is_the_formula():
    """A twin in matrices with the same random numbers, two fields and three members."""
    posterior, levels = problem(2), functools.partial(log_linear, sigma_max=10.0)
    C, A, y, weight = dense(posterior)
    y, weight = y.repeat(3, 1), weight.repeat(3, 1)
    method = REDDiff(40, levels, lam=0.4, optimizer=sgd(0.01))
    ensemble = method(posterior, 3, Generator().manual_seed(5))
    streams = Streams(ensemble.diagnostics["seed"], range(3), 2)
    mu = torch.linalg.solve(A @ A.mT + torch.eye(N, dtype=F64), y.mT).mT @ A
    for s in levels(40)[:-1].tolist():
        u = mu + s * streams.randn(SHAPE, dtype=F64).flatten(1)
        denoised = torch.linalg.solve(C + s**2 * torch.eye(D, dtype=F64), u.mT).mT @ C
        mu = mu - 0.01 * (0.4 * (mu - denoised) - weight * (y - mu @ A.mT) @ A)
    got = posterior.prior.encode(ensemble.samples.flatten(0, 1)).flatten(1)
    assert torch.allclose(got, mu, atol=2e-3 * mu.abs().max())  # the start is solved to 1e-3
    assert ensemble.cost.denoiser == 40
    assert ensemble.cost.denoiser_vjp == 0
    exact = REDDiff(40, levels, lam=0.4, optimizer=sgd(0.01), init="zeros")(posterior, 3, Generator().manual_seed(5))
    assert not torch.allclose(exact.samples, ensemble.samples, atol=1e-3)


def test_it_rests_where_prior_and_data_balance():
    """At a level held fixed: lam (I - C (C + s^2)^-1) mu = weight A'(y - A mu), a ridge regression."""
    posterior, s = problem(), 0.7
    C, A, y, weight = dense(posterior)
    method = REDDiff(
        2000, functools.partial(uniform, sigma_min=s, sigma_max=1.0001 * s), 0.25, 0.01, sgd(0.02), "zeros"
    )
    mu = posterior.prior.encode(method(posterior, 20, Generator().manual_seed(0)).samples[:, 0]).flatten(1)
    pull = torch.eye(D, dtype=F64) - torch.linalg.solve(C + s**2 * torch.eye(D, dtype=F64), C)
    rest = torch.linalg.solve(0.25 * pull + weight * A.mT @ A, (weight * y @ A)[0])
    error = mu.mean(0) - rest
    assert error.norm() < 3 * (mu.var(0).sum() / 20).sqrt()
    assert error.norm() < 0.05 * rest.norm()


def test_counts():
    """Poisson data through a nonlinear operator: rests where the gradients cancel, found by bisection."""

    class Rate:
        def __call__(self, x):
            return 3 * x.exp()

    prior = GaussianPrior(torch.zeros(1, dtype=F64), torch.ones(1, 1, dtype=F64))
    posterior = Posterior(prior, Likelihood(Rate(), PoissonNoise(), torch.tensor([[30.0]], dtype=F64)))
    s = 0.5
    levels = functools.partial(uniform, sigma_min=s, sigma_max=1.0001 * s)
    mu = REDDiff(800, levels, lam=2.0, optimizer=sgd(0.02))(posterior, 50, Generator().manual_seed(0)).samples
    c2, low, high = 27.0**2 / 30, -5.0, 5.0
    for _ in range(60):
        mid = (low + high) / 2
        slope = 2.0 * mid * s**2 / (1 + s**2) - (30 - 3 * torch.tensor(mid, dtype=F64).exp()) / c2
        low, high = (low, mid) if slope > 0 else (mid, high)
    assert abs(float(mu.mean()) - low) < 0.03
    assert 0.3 < low < 2.2  # neither the prior's mean 0 nor the data's 2.3


def test_members_say_that_they_are_no_draws():
    ensemble = REDDiff(20)(problem(), 2, Generator().manual_seed(0))
    assert ensemble.diagnostics["point_estimate"] is True


def test_members_and_fields_do_not_influence_each_other():
    posterior = problem(2)
    for method in (REDDiff(30), REDDiff(30, optimizer=sgd(0.01))):
        both = method(posterior, 3, Generator().manual_seed(0)).samples
        assert torch.allclose(method(posterior, [2], Generator().manual_seed(0)).samples, both[2:], atol=1e-9)
        assert torch.allclose(method(posterior.rows(1), 3, Generator().manual_seed(0)).samples, both[:, :1], atol=1e-9)


def test_optimisers_that_couple_members_are_refused():
    with pytest.raises(TypeError, match="closure"):
        REDDiff(optimizer=lambda params: torch.optim.LBFGS(params))
    with pytest.raises(TypeError, match="couples rows"):
        REDDiff(optimizer=lambda params: torch.optim.Adafactor(params, lr=0.1))
    REDDiff(optimizer=lambda params: torch.optim.RMSprop(params, lr=0.1))


def test_bad_use():
    with pytest.raises(ValueError, match="lam must not be negative"):
        REDDiff(lam=-1.0)
    with pytest.raises(ValueError, match="'ridge' or 'zeros'"):
        REDDiff(init="pinv")
    with pytest.raises(ValueError, match="n must lie"):
        REDDiff(2000)
