"""Transformed Gaussian fields: the log-normal law in closed form, bounds, the exact denoiser."""

import math

import torch
from torch import Generator

from scidiff.priors import GaussianPrior, TransformedPrior
from scidiff.transforms import Log, Logit

F64 = torch.float64


def gaussian() -> GaussianPrior:
    root = torch.randn(6, 6, generator=Generator().manual_seed(0), dtype=F64)
    return GaussianPrior(torch.linspace(-1, 1, 6, dtype=F64).reshape(1, 2, 3), root @ root.mT / 6)


def test_log_normal():
    prior = TransformedPrior(gaussian(), Log(2.0))
    x = prior.sample(5, Generator().manual_seed(1))
    law = torch.distributions.MultivariateNormal(gaussian().mean.flatten(), gaussian().covariance)
    z = (x / 2).log().flatten(1)
    assert torch.allclose(prior.log_prob(x), law.log_prob(z) - x.log().flatten(1).sum(1), rtol=1e-9)
    many = prior.sample(200_000, Generator().manual_seed(2)).mean(0).flatten()
    exact = 2 * torch.exp(gaussian().mean.flatten() + gaussian().covariance.diagonal() / 2)
    assert torch.allclose(many, exact, rtol=0.05)


def test_bounds_state_and_denoiser():
    prior, plain = TransformedPrior(gaussian(), Logit(3.0, 12.0)), gaussian()
    u = 3 * torch.randn(4, 1, 2, 3, generator=Generator().manual_seed(3), dtype=F64)
    x = prior.decode(u)
    assert 3 < float(x.min()) < float(x.max()) < 12 and not prior.affine and prior.shape == (1, 2, 3)
    assert torch.allclose(prior.encode(x), u, atol=1e-9)
    sigma = torch.tensor(0.4, dtype=F64)
    assert torch.equal(prior.denoise(u, sigma), plain.denoise(u, sigma))
    one = TransformedPrior(GaussianPrior(torch.zeros(1, dtype=F64), 4.0), Logit(0.0, 1.0))
    points = (torch.arange(2000, dtype=F64)[:, None] + 0.5) / 2000
    assert math.isclose(float(one.log_prob(points).exp().mean()), 1, rel_tol=1e-3)
