"""The exact answers are exact: against another way to compute them, and against draws."""

import math

import pytest
import torch
from torch import Generator

from scidiff.benchmark.catalogue import PROBLEMS
from scidiff.benchmark.elliptic import elliptic
from scidiff.benchmark.exact import blur, hartley, inpainting
from scidiff.benchmark.nonlinear import PRODUCT, SPEED, GridPosterior, counts, product
from scidiff.inference import Posterior
from scidiff.noise import GaussianNoise
from scidiff.posterior import offers

F64 = torch.float64
PAIRS = [("poisson", "inverse"), ("poisson", "forward"), ("helmholtz", "inverse"), ("helmholtz", "forward")]


def test_blur_is_the_posterior_by_conditioning():
    problem = blur(seed=1, size=8)
    part = problem.posterior.likelihoods[0]
    dense = problem.posterior.prior.condition(part.operator, part.noise, part.y)
    assert torch.allclose(problem.exact.mean, dense.mean, atol=1e-5)
    assert torch.allclose(problem.exact.covariance, dense.covariance, atol=1e-5)


def test_blur_is_symmetric_and_hartley_its_own_inverse():
    """The even kernel has a real spectrum, which the exact answer takes for granted."""
    operator = blur().posterior.likelihoods[0].operator
    assert float(operator.spectrum.imag.abs().max()) < 1e-12
    field = torch.randn(2, 1, 6, 9, generator=Generator().manual_seed(0), dtype=F64)
    assert torch.allclose(hartley(hartley(field)), field, atol=1e-12)


@pytest.mark.parametrize("equation, given", PAIRS)
def test_data_space_is_the_posterior_by_conditioning(equation, given):
    problem = elliptic(equation, given, seed=2, size=8, points=12, noise=0.1)
    part = problem.posterior.likelihoods[0]
    dense = problem.posterior.prior.condition(part.operator, part.noise, part.y)
    assert torch.allclose(problem.exact.mean.float(), dense.mean, atol=2e-5)
    assert torch.allclose(problem.exact.covariance.float(), dense.covariance, atol=2e-5)
    assert torch.allclose(problem.exact.variance.float(), dense.variance, atol=2e-5)
    x = dense.sample(4, Generator().manual_seed(0))
    assert torch.allclose(problem.exact.marginal_cdf(x).float(), dense.marginal_cdf(x).float(), atol=1e-3)


def test_draws_in_data_space_have_the_exact_covariance():
    exact = elliptic("poisson", "inverse", seed=0, size=6, points=8, noise=0.2).exact
    x = exact.encode(exact.sample(20000, Generator().manual_seed(1))).flatten(1)
    expected = exact.covariance / exact.scale**2
    assert float(x.mean(0).abs().max()) < 4 * float(expected.diagonal().max().sqrt()) / 20000**0.5
    size = expected.diagonal().max()
    assert float((x.mT @ x / 20000 - expected).abs().max()) < 5 * float(size) * (2 / 20000) ** 0.5


def test_bayes_error_of_the_elliptic_problems():
    """The error of the mean follows from the covariance: its square, summed over the field, has the trace as mean."""
    problem = elliptic("poisson", "inverse", noise=1e-3)
    got = problem.exact.bayes_error(300, Generator().manual_seed(0))
    pooled = math.sqrt(float(problem.exact.variance.sum()) / problem.posterior.prior.cov.trace)
    assert 0.9 < got / pooled < 1.3  # mean of ratios against ratio of means
    assert 0.11 < got < 0.14  # 123 points of 64x64
    forward = elliptic("poisson", "forward")
    assert 0.05 < forward.exact.bayes_error(300, Generator().manual_seed(0), forward.readout) < 0.08


@pytest.mark.parametrize("build", [product, counts])
def test_table_of_two_numbers_against_importance_sampling(build):
    problem = build(seed=0)
    (part,) = problem.posterior.likelihoods
    x = problem.posterior.prior.sample(400_000, Generator().manual_seed(0)).double()
    y = part.y.double().expand(len(x), 1)
    w = torch.softmax(part.noise.log_prob(y, part.operator(x)), 0)
    error = 5 / float(1 / w.square().sum()) ** 0.5  # five standard errors in standard deviations
    mean = (w[:, None] * x).sum(0)
    sd = problem.exact.variance.sqrt()
    assert float(((mean - problem.exact.mean) / sd).abs().max()) < error
    second = torch.einsum("n,ni,nj->ij", w, x - mean, x - mean)
    assert float(((second - problem.exact.covariance) / torch.outer(sd, sd)).abs().max()) < 3 * error
    below = (w[:, None] * (x < problem.exact.mean)).sum(0)
    assert float((below - problem.exact.marginal_cdf(problem.exact.mean[None])[0]).abs().max()) < error


def test_table_has_converged():
    for name in ("speed", "speed-two", "cube", "product", "counts"):
        problem = PROBLEMS[name].build(seed=0)
        coarse, fine = problem.exact, GridPosterior(problem.posterior, 1602, 7.0)
        scale = fine.scale
        assert float((coarse.mean - fine.mean).abs().max()) < 2e-3 * scale, name
        assert float((coarse.variance - fine.variance).abs().max()) < 2e-3 * scale**2, name


def test_two_modes_where_the_name_says_so():
    for name, modes in (("speed", 1), ("speed-two", 2), ("cube", 1), ("product", 2), ("counts", 1)):
        exact = PROBLEMS[name].build(seed=0).exact
        at_mean = exact.p[
            tuple(int(torch.argmin((c - m).abs())) for c, m in zip(exact.centres, exact.mean, strict=True))
        ]
        assert bool(at_mean < 0.05 * exact.p.max()) == (modes == 2), name


def test_draws_of_the_table():
    exact = product(seed=0).exact
    x = exact.sample(50_000, Generator().manual_seed(0))
    assert torch.allclose(x.mT.cov(), exact.covariance, atol=0.05 * exact.scale**2)
    u = exact.marginal_cdf(x)
    assert torch.allclose(u.mean(0), torch.full((2,), 0.5, dtype=F64), atol=0.01)
    assert torch.allclose(u.var(0), torch.full((2,), 1 / 12, dtype=F64), atol=0.002)


def test_instruments_have_gradients_at_zero():
    x = torch.zeros(1, 2, dtype=F64, requires_grad=True)
    for instrument in (SPEED, PRODUCT):
        (gradient,) = torch.autograd.grad(instrument(x).sum(), x)
        assert bool(torch.isfinite(gradient).all())


def test_catalogue():
    for name, entry in PROBLEMS.items():
        problem = entry.build(seed=0)
        assert isinstance(problem.posterior, Posterior) and problem.truth is not None
        nonlinear = name in ("speed", "speed-two", "cube", "product", "counts")
        assert ("linear" in offers(problem.posterior)) is not nonlinear, name
        x = problem.exact.sample(2, Generator().manual_seed(0))
        assert x.shape[1:] == problem.truth.shape[1:]
    assert isinstance(inpainting().posterior.likelihoods[0].noise, GaussianNoise)
