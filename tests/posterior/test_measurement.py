"""The measurement in the coordinates of the state."""

import torch
from torch import Generator

from scidiff.inference import Cost, Likelihood, Posterior
from scidiff.noise import GaussianNoise
from scidiff.operators.mask import Mask
from scidiff.posterior.measurement import Measurement
from scidiff.priors import GaussianPrior


class Fourier:
    """Complex measurements of a real field."""

    def __call__(self, x):
        return torch.fft.fft2(x, norm="ortho")[..., :3, :]

    def adjoint(self, y):
        full = torch.cat([y, y.new_zeros(*y.shape[:-2], 2, 8)], -2)
        return torch.fft.ifft2(full, norm="ortho").real


def measurement(dtype=torch.float64, loc=280.0):
    prior = GaussianPrior(torch.full((1, 5, 8), loc, dtype=dtype), 25 * torch.eye(40, dtype=torch.float64))
    g = Generator().manual_seed(0)
    x = prior.sample(2, g)
    parts = []
    for operator, std in [(Fourier(), 0.3), (Mask(torch.arange(40).reshape(5, 8) % 3 > 0), 2.0)]:
        noise = GaussianNoise(std)
        parts.append(Likelihood(operator, noise, noise.sample(operator(x), g)))
    return Measurement(Posterior(prior, tuple(parts)), Cost())


def randn(*shape, seed=1, dtype=torch.float64):
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=dtype)


def test_residual_is_affine_with_forward_as_its_slope():
    m = measurement()
    u, zero = randn(2, 1, 5, 8), torch.zeros(2, 1, 5, 8, dtype=torch.float64)
    assert torch.allclose(m.residual(u), m.residual(zero) - m.forward(u), atol=1e-8)
    assert torch.equal(m.residual(u), m.posterior.residual(u))


def test_adjoint():
    m = measurement()
    u = randn(2, 1, 5, 8)
    v = randn(*m.residual(u).shape, seed=2)
    left, right = (m.forward(u) * v).sum(1), (u * m.adjoint(v)).flatten(1).sum(1)
    assert torch.allclose(left, right, rtol=1e-9)


def test_small_vectors_keep_their_digits_far_from_zero():
    """In float32 at 280 K, 1e-6 of a standard deviation is below the rounding of the field."""
    wide, narrow = measurement(), measurement(torch.float32)
    u = 1e-6 * randn(2, 1, 5, 8)
    exact, ours = wide.forward(u), narrow.forward(u.float())
    assert ((ours - exact).norm() / exact.norm()).item() < 1e-5


def test_counts():
    m = measurement()
    u = randn(2, 1, 5, 8)
    v = m.residual(u)
    m.forward(u)
    m.adjoint(v)
    m.adjoint(v)
    assert m.cost.as_dict() == {"denoiser": 0, "denoiser_vjp": 0, "operator": 3, "operator_vjp": 2}
