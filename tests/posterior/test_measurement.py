"""The measurement in the coordinates of the state."""

import torch
from torch import Generator

from scidiff.inference import Cost, Likelihood, Posterior
from scidiff.noise import GaussianNoise, PoissonNoise
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


def test_linearise_against_differences():
    """Two instruments, one nonlinear and complex, one counting: slope and adjoint at a state far from zero."""
    prior = GaussianPrior(torch.full((1, 5, 8), 3.0, dtype=torch.float64), torch.eye(40, dtype=torch.float64))
    parts = []
    for operator, noise in [
        (lambda x: Fourier()(x) ** 2, GaussianNoise(0.3)),
        (lambda x: x.square() + 2, PoissonNoise(0.5)),
    ]:
        parts.append(Likelihood(operator, noise, noise.sample(operator(prior.sample(2, None)), None).detach()))
    m = Measurement(Posterior(prior, tuple(parts)), Cost())
    u, w = randn(2, 1, 5, 8), randn(2, 1, 5, 8, seed=2)
    near = m.linearise(u)
    v, h = randn(*near.residual.shape, seed=3), 1e-5
    weight = torch.cat([torch.full((2, 48), 0.3), (0.5 * parts[1].operator(prior.decode(u))).sqrt().flatten(1)], 1)

    def clean(u):
        z = [part.operator(prior.decode(u)) for part in parts]
        return torch.cat([torch.view_as_real(z[0]).flatten(1), z[1].flatten(1)], 1) / weight

    slope = (clean(u + h * w) - clean(u - h * w)) / (2 * h)
    assert torch.allclose(near.forward(w), slope, rtol=1e-6, atol=1e-6)
    assert torch.allclose((near.forward(w) * v).sum(1), (w * near.adjoint(v)).flatten(1).sum(1), rtol=1e-9)
    y = torch.cat([torch.view_as_real(parts[0].y).flatten(1), parts[1].y.flatten(1)], 1)
    assert torch.allclose(near.residual, y / weight - clean(u))
    gradient = m.gradient(u)[1]  # of the log likelihood: Fisher scoring has the same
    assert torch.allclose(near.adjoint(near.residual), gradient, rtol=1e-9)


def test_linearise_of_a_linear_measurement_costs_one_residual():
    m = measurement()
    u = randn(2, 1, 5, 8)
    near = m.linearise(u)
    assert torch.equal(near.residual, m.posterior.residual(u))
    assert m.cost.operator == 1 and near.forward == m.forward and near.adjoint == m.adjoint


def test_an_operator_known_by_its_adjoint_can_be_linearised():
    """Its gradient is the adjoint, and the gradient of that the operator, both outside autograd."""

    class ByHand:
        differentiable = False

        def __call__(self, x):
            return torch.from_numpy(x.detach().numpy()[..., ::2] * 3.0)

        def adjoint(self, y):
            x = torch.zeros(*y.shape[:-1], 8, dtype=y.dtype)
            x[..., ::2] = 3 * y.detach()
            return x

    prior = GaussianPrior(torch.zeros(8, dtype=torch.float64), torch.eye(8, dtype=torch.float64))
    y = torch.full((1, 4), 20.0, dtype=torch.float64)
    m = Measurement(Posterior(prior, Likelihood(ByHand(), PoissonNoise(), y)), Cost())
    u, w = 3 + 0.1 * randn(1, 8), randn(1, 8, seed=2)
    assert torch.allclose(m.linearise(u).forward(w), (3 * w / (3 * u).sqrt())[:, ::2])
