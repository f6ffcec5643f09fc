"""Densities against torch.distributions, moments of samples within their confidence bounds, units."""

import math

import pytest
import torch
from torch import Generator, Tensor
from torch.distributions import MultivariateNormal, Normal, Poisson

from scidiff.linalg import Dense, LowRank
from scidiff.noise import CoilNoise, GaussianNoise, PoissonNoise

F64, C128 = torch.float64, torch.complex128


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=dtype)


def hermitian(n: int, dtype: torch.dtype) -> Tensor:
    a = randn(n, n, dtype=dtype)
    return a @ a.mH / n + 0.1 * torch.eye(n, dtype=dtype)


STD = 0.3 + torch.rand(3, 5, generator=Generator().manual_seed(9), dtype=F64)

NOISES = {
    "scalar": (lambda: GaussianNoise(0.7), lambda: 0.49 * torch.eye(15, dtype=F64)),
    "diagonal": (lambda: GaussianNoise(STD), lambda: torch.diag(STD.flatten().square())),
    "broadcast": (lambda: GaussianNoise(STD[0]), lambda: torch.diag(STD[0].repeat(3).square())),
    "correlated": (lambda: GaussianNoise(Dense(hermitian(15, F64))), lambda: hermitian(15, F64)),
    "low_rank": (
        lambda: GaussianNoise(LowRank(randn(2, 15), STD.flatten())),
        lambda: randn(2, 15).mT @ randn(2, 15) + torch.diag(STD.flatten()),
    ),
    "coils": (
        lambda: CoilNoise(hermitian(3, F64)),
        lambda: torch.kron(hermitian(3, F64), torch.eye(5, dtype=F64)),
    ),
    "coils_last": (
        lambda: CoilNoise(hermitian(5, F64), dim=2),
        lambda: torch.kron(torch.eye(3, dtype=F64), hermitian(5, F64)),
    ),
}


@pytest.fixture(params=list(NOISES))
def pair(request: pytest.FixtureRequest):
    make, cov = NOISES[request.param]
    return make(), cov()


def test_gaussian_density(pair) -> None:
    noise, cov = pair
    y, z = randn(4, 3, 5, seed=1), randn(4, 3, 5, seed=2)
    truth = MultivariateNormal(z.flatten(1), cov).log_prob(y.flatten(1))
    assert torch.allclose(noise.log_prob(y, z), truth, atol=1e-10)


def test_complex_density_treats_components_as_numbers(pair) -> None:
    noise, cov = pair
    y, z = randn(4, 3, 5, seed=1, dtype=C128), randn(4, 3, 5, seed=2, dtype=C128)
    law = MultivariateNormal(torch.zeros(15, dtype=F64), cov)
    truth = law.log_prob((y - z).real.flatten(1)) + law.log_prob((y - z).imag.flatten(1))
    assert torch.allclose(noise.log_prob(y, z), truth, atol=1e-10)


@pytest.mark.parametrize("dtype", [F64, C128])
def test_score_is_the_gradient(pair, dtype: torch.dtype) -> None:
    noise, _ = pair
    y, z = randn(2, 3, 5, seed=1, dtype=dtype), randn(2, 3, 5, seed=2, dtype=dtype).requires_grad_()
    (gradient,) = torch.autograd.grad(noise.log_prob(y, z).sum(), z)
    assert torch.allclose(noise.score(y, z.detach()), gradient, atol=1e-10)


def test_whitening_inverts_coloring_and_has_its_adjoint(pair) -> None:
    noise, _ = pair
    e, f = randn(2, 3, 5, dtype=C128), randn(2, 3, 5, seed=3, dtype=C128)
    assert torch.allclose(noise.whiten(noise.color(e)), e, atol=1e-11)
    assert torch.allclose((noise.whiten(e).conj() * f).sum(), (e.conj() * noise.whiten_adjoint(f)).sum(), atol=1e-11)


def test_samples_have_the_covariance(pair) -> None:
    noise, cov = pair
    n = 30_000
    z = randn(3, 5, seed=4).expand(n, 3, 5)
    r = (noise.sample(z, Generator().manual_seed(1)) - z).flatten(1)
    d = cov.diagonal()
    assert float((r.mean(0) / (d / n).sqrt()).abs().max()) < 4.5
    sd = ((d[:, None] * d + cov.square()) / n).sqrt()
    assert float(((r.mT @ r / n - cov) / sd).abs().max()) < 5


def test_complex_samples_have_std_per_component() -> None:
    n, cov = 40_000, hermitian(3, C128)
    z = torch.zeros(n, 3, 1, dtype=C128)
    r = CoilNoise(cov).sample(z, Generator().manual_seed(1))[..., 0]
    d = cov.diagonal().real
    sd = (d[:, None] * d / n).sqrt()
    assert float(((r.mT @ r.conj() / n / 2 - cov).abs() / sd).max()) < 5  # E[n n^H] = 2 cov
    assert float(((r.mT @ r / n / 2).abs() / sd).max()) < 5  # circular: E[n n^T] = 0
    scalar = GaussianNoise(0.5).sample(z, Generator().manual_seed(2))
    assert abs(float(scalar.real.std()) - 0.5) < 0.5 * 5 / math.sqrt(2 * scalar.numel())
    assert abs(float(scalar.imag.std()) - 0.5) < 0.5 * 5 / math.sqrt(2 * scalar.numel())


def test_complex_coil_density_against_real_form() -> None:
    cov = hermitian(3, C128)
    noise = CoilNoise(cov)
    y, z = randn(2, 3, 4, seed=1, dtype=C128), randn(2, 3, 4, seed=2, dtype=C128)
    # per-component covariance of (Re n, Im n) of a circular vector with E[n n^H] = 2 cov
    real = torch.cat([torch.cat([cov.real, -cov.imag], 1), torch.cat([cov.imag, cov.real], 1)])
    r = torch.cat([(y - z).real, (y - z).imag], 1).movedim(1, -1)  # (2, 4, 6)
    truth = MultivariateNormal(torch.zeros(6, dtype=F64), real).log_prob(r).sum(-1)
    assert torch.allclose(noise.log_prob(y, z), truth, atol=1e-10)
    white = noise.whiten(noise.sample(torch.zeros(20_000, 3, 1, dtype=C128), Generator().manual_seed(0)))[..., 0]
    assert float((white.mT @ white.conj() / 20_000 / 2 - torch.eye(3)).abs().max()) < 5 / math.sqrt(20_000)


def test_coil_noise_from_samples() -> None:
    cov, n = hermitian(4, C128), 50_000
    samples = CoilNoise(cov).sample(torch.zeros(n, 4, dtype=C128), Generator().manual_seed(3))
    estimate = CoilNoise.from_samples(samples.to(torch.complex64)).cov.dense()
    d = cov.diagonal().real
    assert float(((estimate - cov).abs() / (d[:, None] * d / n).sqrt()).max()) < 5


def test_coils_and_scalar_agree() -> None:
    y, z = randn(2, 3, 5, dtype=C128), randn(2, 3, 5, seed=1, dtype=C128)
    coils = CoilNoise(0.49 * torch.eye(3, dtype=C128))
    assert torch.allclose(coils.log_prob(y, z), GaussianNoise(0.7).log_prob(y, z), atol=1e-11)
    assert torch.allclose(coils.whiten(y), GaussianNoise(0.7).whiten(y), atol=1e-12)


def test_units_of_gaussian_noise() -> None:
    y, z, c = randn(2, 3, 5), randn(2, 3, 5, seed=1), 1e7
    for small, large in [
        (GaussianNoise(0.7), GaussianNoise(0.7 * c)),
        (CoilNoise(hermitian(3, F64)), CoilNoise(hermitian(3, F64) * c**2)),
    ]:
        assert torch.allclose(large.whiten(c * y), small.whiten(y), rtol=1e-10)
        assert torch.allclose(large.log_prob(c * y, c * z), small.log_prob(y, z) - 15 * math.log(c), rtol=1e-10)
        a, b = (n.sample(x, Generator().manual_seed(0)) for n, x in ((small, z), (large, c * z)))
        assert torch.allclose(b, c * a, rtol=1e-10)


def test_poisson_density_gradient_and_zero() -> None:
    z = torch.rand(4, 6, generator=Generator().manual_seed(0), dtype=F64) * 20 + 0.1
    noise = PoissonNoise(2.5)
    y = noise.sample(z, Generator().manual_seed(1))
    assert torch.allclose(noise.log_prob(y, z), Poisson(z / 2.5).log_prob(y / 2.5).sum(-1), atol=1e-10)
    leaf = z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(noise.log_prob(y, leaf).sum(), leaf)
    assert torch.allclose(noise.score(y, z), gradient, atol=1e-12)
    dark = torch.zeros(1, 2, dtype=F64)
    assert noise.log_prob(dark, dark).item() == 0.0
    assert noise.log_prob(torch.full((1, 2), 2.5, dtype=F64), dark).item() == -math.inf
    assert noise.log_prob(dark, dark - 1).item() == -math.inf


def test_poisson_moments_and_units() -> None:
    n, gain = 100_000, torch.tensor([0.01, 3.0], dtype=F64)
    z = torch.tensor([0.5, 40.0], dtype=F64).expand(n, 2)
    noise = PoissonNoise(gain)
    y = noise.sample(z, Generator().manual_seed(2))
    variance = noise.variance(z)[0]
    assert float(((y.mean(0) - z[0]) / (variance / n).sqrt()).abs().max()) < 4.5
    rate = z[0] / gain
    fourth = (3 * rate**2 + rate) / rate**2  # kurtosis of a Poisson law
    assert float(((y.var(0) / variance - 1) / ((fourth - 1) / n).sqrt()).abs().max()) < 4.5
    other = PoissonNoise(gain * 1e6).sample(z * 1e6, Generator().manual_seed(2))
    assert torch.allclose(other, y * 1e6, rtol=1e-12)


def test_equal_generators_give_equal_draws() -> None:
    z = torch.ones(2, 3)
    for noise in (GaussianNoise(1.0), PoissonNoise(0.5)):
        assert torch.equal(noise.sample(z, Generator().manual_seed(4)), noise.sample(z, Generator().manual_seed(4)))


def test_float32_measurements_stay_float32() -> None:
    y = torch.ones(2, 3, 5)
    for noise in (GaussianNoise(STD), CoilNoise(hermitian(3, F64)), GaussianNoise(Dense(hermitian(15, F64)))):
        assert noise.sample(y).dtype == noise.whiten(y).dtype == noise.log_prob(y, y).dtype == torch.float32
    assert Normal(0.0, 0.7).log_prob(torch.tensor(0.3)) == pytest.approx(
        GaussianNoise(0.7).log_prob(torch.full((1, 1), 0.3), torch.zeros(1, 1)).item(), abs=1e-6
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianNoise(0.0), "positive"),
        (lambda: GaussianNoise(torch.tensor([1.0, -1.0])), "positive"),
        (lambda: GaussianNoise(math.nan), "positive"),
        (lambda: PoissonNoise(0.0), "positive"),
        (lambda: PoissonNoise(1.0).sample(torch.tensor([[-1.0]])), "z >= 0"),
        (lambda: CoilNoise(torch.ones(2, 2)), "singular"),
        (lambda: CoilNoise(torch.eye(2)).whiten(torch.ones(1, 3, 4)), "receivers"),
        (lambda: CoilNoise.from_samples(torch.ones(2, 3)), "N > C"),
    ],
)
def test_wrong_input_is_explained(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
