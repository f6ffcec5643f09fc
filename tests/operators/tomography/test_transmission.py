"""Photon counts: expected values, the Poisson law, gradients, and the logarithm's Gaussian approximation."""

import numpy as np
import pytest
import scipy.stats
import torch

from scidiff import Likelihood, Posterior
from scidiff.noise import GaussianNoise, PoissonNoise
from scidiff.operators import ParallelBeam, Transmission
from scidiff.operators.tomography import log_transform
from scidiff.posterior import MMPS
from scidiff.posterior.base import offers
from scidiff.priors import GaussianPrior
from scidiff.testing import check_batch_independence, check_posterior, check_vjp

F64 = torch.float64
PROJECTOR = ParallelBeam((6, 8), [0.0, 40.0, 95.0], pixel=0.5)
WHITE = torch.linspace(40, 90, PROJECTOR.bins, dtype=F64)
DARK = torch.linspace(0, 5, 3, dtype=F64)[:, None]


def field(batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 1, 6, 8, generator=torch.Generator().manual_seed(1), dtype=F64)


def test_expected_counts_and_gradient() -> None:
    operator = Transmission(WHITE, DARK, PROJECTOR)
    x = field()
    z = PROJECTOR(x)
    assert torch.allclose(operator(x), WHITE * torch.exp(-z) + DARK)
    assert torch.allclose(Transmission(WHITE, DARK)(z), operator(x))
    assert torch.equal(operator(torch.zeros_like(x)), (WHITE + DARK).expand(2, 1, 3, -1))
    check_vjp(operator, x)
    check_batch_independence(operator, x, contrast=2.0)
    assert operator(x.float()).dtype == torch.float32


def test_likelihood_is_that_of_counts(generator) -> None:
    operator, x = Transmission(WHITE, DARK, PROJECTOR), field()
    counts = PoissonNoise().sample(operator(x), generator)
    part = Likelihood(operator, PoissonNoise(), counts)
    expected = scipy.stats.poisson.logpmf(counts.numpy(), operator(x).numpy()).reshape(2, -1).sum(-1)
    assert np.allclose(part.log_prob(x).numpy(), expected)
    x = x.requires_grad_()
    (score,) = torch.autograd.grad(part.log_prob(x).sum(), x)
    direction = torch.randn(x.shape, generator=generator, dtype=F64)
    step = 1e-5
    with torch.no_grad():
        slope = (part.log_prob(x + step * direction) - part.log_prob(x - step * direction)) / (2 * step)
    assert torch.allclose((score * direction).flatten(1).sum(1), slope, rtol=1e-6)
    # In closed form: P' (white e^-z) (1 - counts / expected).
    mean = operator(x.detach())
    assert torch.allclose(score, PROJECTOR.adjoint((mean - DARK) * (1 - counts / mean)))


def test_moments_of_counts_and_of_their_logarithm(generator) -> None:
    z = torch.tensor([[0.0, 0.5, 1.5]], dtype=F64)
    white, dark, gain, n = torch.tensor([4e3, 9e3, 2e4], dtype=F64), 50.0, 2.0, 40_000
    mean = Transmission(white, dark)(z)
    counts = PoissonNoise(gain).sample(mean.expand(n, -1), generator)
    assert torch.allclose(counts.mean(0), mean[0], atol=5 * float((gain * mean.max() / n).sqrt()))
    assert torch.allclose(counts.var(0), gain * mean[0], rtol=0.04)
    y, std = log_transform(counts, white, dark, gain)
    assert torch.allclose(y.mean(0), z[0], atol=2e-3)
    assert torch.allclose(y.std(0), std.mean(0), rtol=0.02)
    whitened = GaussianNoise(std).whiten(y - z)
    assert torch.allclose(whitened.square().mean(0), torch.ones(3, dtype=F64), atol=0.04)


def test_logarithm_inverts_expected_counts() -> None:
    z = PROJECTOR(field(1))
    y, std = log_transform(Transmission(WHITE, DARK)(z), WHITE, DARK)
    assert torch.allclose(y, z)
    assert torch.allclose(std, (WHITE * torch.exp(-z) + DARK).sqrt() / (WHITE * torch.exp(-z)))


def test_what_samplers_may_do_with_either_description(generator) -> None:
    """Counts leave the gradient and the variance, their logarithm everything but a decomposition; both posteriors,
    close to each other at many photons, agree with the exact one of the linear problem."""
    prior = GaussianPrior(torch.full((1, 6, 8), 0.5, dtype=F64), torch.tensor(0.04, dtype=F64))
    x = prior.sample(1, generator)
    white = torch.full((PROJECTOR.bins,), 400.0, dtype=F64)
    operator = Transmission(white, 0.0, PROJECTOR)
    counts = PoissonNoise().sample(operator(x), generator)
    y, std = log_transform(counts, white)
    by_counts = Posterior(prior, Likelihood(operator, PoissonNoise(), counts))
    by_logarithm = Posterior(prior, Likelihood(PROJECTOR, GaussianNoise(std[0]), y))
    assert offers(by_counts) == {"gradient", "variance"}
    assert offers(by_logarithm) == {"gradient", "variance", "linear", "gaussian"}
    exact = prior.condition(PROJECTOR, GaussianNoise(std[0]), y)
    check_posterior(MMPS(), by_logarithm, exact, members=128, mean_error=0.13, coverage=(0.87, 0.93))
    check_posterior(
        MMPS(), by_counts, exact, members=128, mean_error=0.2, trace_ratio=(0.95, 1.05), coverage=(0.86, 0.93)
    )


def test_opaque_rays_stay_finite() -> None:
    y, std = log_transform(torch.tensor([[0, 3, 4]]), 100.0, dark=3.0)
    assert torch.allclose(y, torch.log(torch.tensor([[200.0, 200.0, 100.0]])))
    assert torch.allclose(std, torch.tensor([[0.5**0.5 / 0.5, 3**0.5 / 0.5, 2.0]]))


def test_refused() -> None:
    with pytest.raises(ValueError, match="1 of 2 counts are negative.*dark field"):
        log_transform(torch.tensor([[-1.0, 3.0]]), 10.0)
    with pytest.raises(ValueError, match="white must be finite and positive everywhere, 1 of 2"):
        Transmission(torch.tensor([0.0, 3.0]))
    with pytest.raises(ValueError, match="dark must be finite and zero or more"):
        Transmission(2.0, torch.tensor([-1.0]))
