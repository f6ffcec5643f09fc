"""The Gaussian prior against textbook formulas, brute force and Monte Carlo."""

import math

import pytest
import torch
from torch import Generator, Tensor
from torch.distributions import MultivariateNormal

from scidiff.linalg import Dense, Diagonal, LowRank, Stationary
from scidiff.noise import CoilNoise, GaussianNoise, PoissonNoise
from scidiff.operators.linear_map import LinearMap
from scidiff.operators.mask import Mask
from scidiff.priors import GaussianPrior
from scidiff.priors.gaussian import from_real, to_real
from scidiff.protocols import Prior
from scidiff.rng import Streams
from scidiff.testing import check_batch_independence

F64, C128 = torch.float64, torch.complex128
SHAPE = (2, 3, 4)


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=dtype)


def dense(d: int = 24, seed: int = 0) -> Tensor:
    a = randn(d, d, seed=seed)
    return 25 * (a @ a.mT / d + 0.05 * torch.eye(d, dtype=F64))


MEAN = 280 + randn(*SHAPE, seed=8)
PRIORS = {
    "dense": lambda: GaussianPrior(MEAN, dense()),
    "diagonal": lambda: GaussianPrior(MEAN, Diagonal(1 + randn(*SHAPE).square())),
    "low_rank": lambda: GaussianPrior(MEAN, LowRank(randn(3, *SHAPE), 0.4)),
    "stationary": lambda: GaussianPrior(MEAN, Stationary.power_law((3, 4), variance=25.0, channels=2)),
    "isotropic": lambda: GaussianPrior(MEAN, 4.0),
}


@pytest.fixture(params=list(PRIORS))
def prior(request: pytest.FixtureRequest) -> GaussianPrior:
    return PRIORS[request.param]()


def test_state_has_unit_scale_and_round_trips(prior: GaussianPrior) -> None:
    assert isinstance(prior, Prior) and prior.affine and prior.shape == SHAPE and prior.channels == 2
    x = prior.sample(20_000, Generator().manual_seed(0))
    u = prior.encode(x)
    assert torch.allclose(prior.decode(u), x, rtol=1e-12)
    assert abs(float(u.mean())) < 0.05 and abs(float(u.square().mean()) - 1) < 0.05
    assert math.isclose(float(prior.covariance.trace()) / 24, prior.scale**2, rel_tol=1e-12)


def test_denoiser_is_tweedie(prior: GaussianPrior) -> None:
    u, sigma = randn(4, *SHAPE, seed=2).requires_grad_(), torch.tensor([1e-2, 0.5, 3.0, 80.0], dtype=F64)
    (score,) = torch.autograd.grad(prior.noised_log_prob(u, sigma).sum(), u)
    rows = sigma.reshape(-1, 1, 1, 1)
    assert torch.allclose(prior.denoise(u, sigma), u + rows.square() * score, atol=1e-8)
    law = MultivariateNormal(torch.zeros(24, dtype=F64), prior.covariance / prior.scale**2 + 9 * torch.eye(24))
    assert torch.allclose(prior.noised_log_prob(u[2:3], sigma[2]), law.log_prob(u[2:3].flatten(1)), atol=1e-10)


def test_denoiser_is_the_conditional_mean(prior: GaussianPrior) -> None:
    """Brute force: the regression of clean on noisy states."""
    c = prior.covariance / prior.scale**2
    u, s = randn(3, *SHAPE, seed=2), torch.tensor([0.1, 1.0, 10.0], dtype=F64)
    for row in range(3):
        truth = c @ torch.linalg.solve(c + s[row] ** 2 * torch.eye(24), u[row].flatten())
        assert torch.allclose(prior.denoise(u, s)[row].flatten(), truth, atol=1e-12)
    assert torch.allclose(prior.denoise(u, torch.tensor(0.0)), u, atol=1e-12)
    check_batch_independence(prior.denoise, u, s)
    assert prior.denoise(u.float(), s.float()).dtype == torch.float32


def test_density(prior: GaussianPrior) -> None:
    x = prior.sample(5, Generator().manual_seed(1))
    truth = MultivariateNormal(MEAN.flatten(), prior.covariance).log_prob(x.flatten(1))
    assert torch.allclose(prior.log_prob(x), truth, atol=1e-9)


def test_samples_and_marginals(prior: GaussianPrior) -> None:
    n = 20_000
    x = prior.sample(n, Generator().manual_seed(4))
    c = prior.covariance
    r = (x - MEAN).flatten(1)
    d = c.diagonal()
    assert float(((r.mT @ r / n - c) / ((d[:, None] * d + c.square()) / n).sqrt()).abs().max()) < 5
    inside = ((prior.marginal_cdf(x) - 0.5).abs() < 0.45).to(F64).flatten(1).mean(0)
    assert float((inside - 0.9).abs().max()) < 5 * math.sqrt(0.09 / n)
    assert torch.equal(prior.sample(3, Generator().manual_seed(4)), prior.sample(3, Generator().manual_seed(4)))
    assert torch.allclose(prior.sample(3, Streams(1, [0, 1, 2]))[2:], prior.sample(1, Streams(1, [2])), rtol=1e-13)


def textbook(prior: GaussianPrior, a: Tensor, noise: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    c, m = prior.covariance, prior.loc.flatten()
    gain = c @ a.mT @ torch.linalg.inv(a @ c @ a.mT + noise)
    return m + gain @ (y - a @ m), c - gain @ a @ c


@pytest.mark.parametrize("count", [7, 40])
def test_conditioning_is_the_textbook_formula(prior: GaussianPrior, count: int) -> None:
    a, s = randn(count, 24, seed=3), dense(count, seed=4)
    y = a @ prior.sample(1, Generator().manual_seed(5))[0].flatten() + randn(count, seed=6)
    for given in (y, y[None]):
        posterior = prior.condition(LinearMap(a, SHAPE), GaussianNoise(Dense(s)), given)
        mean, cov = textbook(prior, a, s, y)
        assert posterior.mean.shape == SHAPE and posterior.covariance.shape == (24, 24)
        assert torch.allclose(posterior.mean.flatten(), mean, atol=1e-8)
        assert torch.allclose(posterior.covariance, cov, atol=1e-8)
    assert isinstance(posterior, GaussianPrior)


def test_conditioning_twice_is_conditioning_on_both() -> None:
    prior = PRIORS["dense"]()
    a, b = randn(4, 24, seed=3), randn(5, 24, seed=4)
    y, z = randn(4, seed=5) + 280, randn(5, seed=6)
    std_a, std_b = 0.3, 0.2 + randn(5, seed=7).abs()
    twice = prior.condition(LinearMap(a, SHAPE), GaussianNoise(std_a), y)
    twice = twice.condition(LinearMap(b, SHAPE), GaussianNoise(std_b), z)
    both = prior.condition(
        LinearMap(torch.cat([a, b]), SHAPE),
        GaussianNoise(torch.cat([torch.full((4,), std_a), std_b])),
        torch.cat([y, z]),
    )
    assert torch.allclose(twice.mean, both.mean, atol=1e-8)
    assert torch.allclose(twice.covariance, both.covariance, atol=1e-8)


def test_conditioning_against_importance_weighted_draws() -> None:
    prior = GaussianPrior(torch.tensor([[1.0, -2.0, 0.5]], dtype=F64), dense(3) / 25)
    mask, noise = Mask(torch.tensor([True, False, True])), GaussianNoise(torch.tensor([0.8, 1.1], dtype=F64))
    y = torch.tensor([[1.5, 0.2]], dtype=F64)
    posterior = prior.condition(mask, noise, y)
    n = 400_000
    x = prior.sample(n, Generator().manual_seed(0))
    w = torch.softmax(noise.log_prob(y[None].expand(n, 1, 2), mask(x)), 0)
    mean = (w[:, None] * x[:, 0]).sum(0)
    error = ((w[:, None] * (x[:, 0] - mean)).square().sum(0)).sqrt()  # standard error of the weighted mean
    assert float(((mean - posterior.mean[0]) / error).abs().max()) < 4.5
    r = x[:, 0] - mean
    cov = (w[:, None] * r).mT @ r
    assert float((cov - posterior.covariance).abs().max()) < 0.02


def fourier(x: Tensor) -> Tensor:
    """A real field seen by two complex receivers in a few Fourier coefficients."""
    maps = randn(2, 3, 4, seed=1, dtype=C128).to(x.dtype.to_complex())
    k = torch.fft.fft2(x[:, :1] * maps, norm="ortho")
    return k[:, :, ::2].to(x.dtype.to_complex())


def test_complex_measurements_of_real_fields() -> None:
    prior = GaussianPrior(MEAN[:1], dense(12))
    cov = torch.tensor([[2.0, 0.5 + 0.4j], [0.5 - 0.4j, 1.0]], dtype=C128)
    truth = prior.sample(1, Generator().manual_seed(2))
    y = CoilNoise(cov).sample(fourier(truth), Generator().manual_seed(3))
    posterior = prior.condition(fourier, CoilNoise(cov), y[0])
    columns = fourier(torch.eye(12, dtype=F64).reshape(12, 1, 3, 4)).flatten(1).mT
    a = torch.cat([columns.real, columns.imag])
    full = torch.kron(cov, torch.eye(8, dtype=F64))
    s = torch.cat([torch.cat([full.real, -full.imag], 1), torch.cat([full.imag, full.real], 1)])
    mean, c = textbook(prior, a, s, torch.cat([y.flatten().real, y.flatten().imag]))
    assert torch.allclose(posterior.mean.flatten(), mean, atol=1e-8)
    assert torch.allclose(posterior.covariance, c, atol=1e-8)


def test_complex_fields() -> None:
    x = randn(3, 2, 3, 4, dtype=C128)
    assert torch.equal(from_real(to_real(x)), x)
    assert torch.equal(to_real(x)[:, 2], x[:, 1].real) and torch.equal(to_real(x)[:, 1], x[:, 0].imag)
    prior = GaussianPrior(randn(1, 3, 4, dtype=C128), dense(24))
    assert prior.shape == SHAPE and prior.sample(2, Generator().manual_seed(0)).dtype == C128
    x = prior.sample(4, Generator().manual_seed(1))
    truth = MultivariateNormal(to_real(prior.mean[None]).flatten(), prior.covariance).log_prob(to_real(x).flatten(1))
    assert torch.allclose(prior.log_prob(x), truth, atol=1e-9)
    assert torch.allclose(prior.decode(prior.encode(x)), x)
    a = randn(5, 12, seed=3, dtype=C128)
    y = randn(5, seed=4, dtype=C128)
    posterior = prior.condition(LinearMap(a, (1, 3, 4)), GaussianNoise(0.5), y)
    re = torch.stack([a.real, -a.imag], -1).reshape(5, 12, 2)  # entries are re, im planes in the state
    im = torch.stack([a.imag, a.real], -1)
    real = torch.cat([re, im]).movedim(-1, 1).reshape(10, 24)
    mean, c = textbook(prior, real, 0.25 * torch.eye(10), torch.cat([y.real, y.imag]))
    assert torch.allclose(posterior.covariance, c, atol=1e-9)
    assert torch.allclose(to_real(posterior.mean[None]).flatten(), mean, atol=1e-9)


def test_units_do_not_matter() -> None:
    a, y, x = randn(5, 24, seed=3), 280 + randn(5, seed=4), randn(2, *SHAPE)
    small = PRIORS["dense"]()
    for c in (1e-20, 1e12):
        large = GaussianPrior(MEAN * c, dense() * c**2)
        assert torch.allclose(large.denoise(x, torch.tensor(0.3)), small.denoise(x, torch.tensor(0.3)), rtol=1e-9)
        low = large.denoise(x.float(), torch.tensor(1e-3))
        assert torch.allclose(low, small.denoise(x.float(), torch.tensor(1e-3)), rtol=1e-4)
        p = small.condition(LinearMap(a, SHAPE), GaussianNoise(0.3), y)
        q = large.condition(LinearMap(a, SHAPE), GaussianNoise(0.3 * c), y * c)
        assert torch.allclose(q.mean / c, p.mean, rtol=1e-8)
        assert torch.allclose(q.covariance / c**2, p.covariance, rtol=1e-6, atol=1e-8)


def test_fit_recovers_the_law_and_shrinks_optimally() -> None:
    truth = PRIORS["dense"]()
    data = truth.sample(20_000, Generator().manual_seed(1))
    fitted = GaussianPrior.fit(data, shrinkage=0.0)
    r = (data - data.mean(0)).flatten(1)
    assert torch.allclose(fitted.covariance, r.mT @ r / (len(r) - 1), atol=1e-9)
    assert float((fitted.covariance - truth.covariance).norm() / truth.covariance.norm()) < 0.05
    few = truth.sample(12, Generator().manual_seed(2))  # fewer than entries

    def error(p: GaussianPrior) -> float:
        return float((p.covariance - truth.covariance).norm())

    auto = error(GaussianPrior.fit(few))
    assert auto < error(GaussianPrior.fit(few, shrinkage=0.0)) and auto < error(GaussianPrior.fit(few, shrinkage=1.0))
    assert torch.isfinite(GaussianPrior.fit(few).log_prob(data[:2])).all()
    with pytest.raises(ValueError, match="singular"):
        GaussianPrior.fit(few, shrinkage=0.0).log_prob(data[:2])


def test_ledoit_wolf_weight_is_its_definition() -> None:
    x = PRIORS["dense"]().sample(30, Generator().manual_seed(2)).flatten(1)
    r = x - x.mean(0)
    s = r.mT @ r / 29
    target = s.diagonal().mean() * torch.eye(24)
    error = sum((torch.outer(v, v) - s).square().sum() for v in r) / 30**2
    weight = float(error / (s - target).square().sum())
    got = GaussianPrior.fit(x.reshape(-1, *SHAPE)).covariance
    assert torch.allclose(got, (1 - weight) * s + weight * target, atol=1e-9)


def test_stationary_fit_recovers_the_spectrum_from_few_fields() -> None:
    cov = Stationary.power_law((16, 20), variance=4.0, channels=1)
    truth = GaussianPrior(torch.full((1, 16, 20), 7.0, dtype=F64), cov)
    fitted = GaussianPrior.fit(truth.sample(400, Generator().manual_seed(0)), stationary=True)
    assert isinstance(fitted.cov, Stationary) and not fitted.cov.complex
    ratio = fitted.cov.eigenvalues / cov.eigenvalues
    ratio[0, 0, 0] = 1  # the mean of the data was taken out of the first
    assert float((ratio - 1).abs().max()) < 5 * math.sqrt(2 / 400)
    assert float((fitted.mean - 7).abs().max()) < 5 * math.sqrt(float(cov.eigenvalues[0, 0]) / 320 / 400)


def test_float32_prior_answers_in_float32() -> None:
    prior = GaussianPrior(MEAN.float(), dense().float())
    x = prior.sample(2, Generator().manual_seed(0))
    posterior = prior.condition(Mask(torch.ones(SHAPE, dtype=torch.bool)), GaussianNoise(0.5), x[0].flatten())
    assert {t.dtype for t in (x, prior.covariance, prior.log_prob(x), posterior.mean)} == {torch.float32}


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: GaussianPrior(MEAN, dense(5)), ValueError, "24 entries"),
        (lambda: GaussianPrior(MEAN, 0.0), ValueError, "positive, finite variance"),
        (lambda: GaussianPrior(MEAN * math.nan, 1.0), ValueError, "NaN"),
        (lambda: GaussianPrior(torch.ones(3, dtype=torch.int64), 1.0), TypeError, "floating-point"),
        (lambda: PRIORS["dense"]().log_prob(MEAN), ValueError, "stack fields"),
        (lambda: GaussianPrior.fit(MEAN[:1]), ValueError, "two fields"),
        (
            lambda: PRIORS["dense"]().condition(lambda x: x, PoissonNoise(1.0), MEAN),
            TypeError,
            "needs Gaussian noise",
        ),
        (lambda: PRIORS["dense"]().condition(lambda x: x, GaussianNoise(1.0), MEAN[0]), ValueError, "one measurement"),
        (lambda: PRIORS["dense"]().condition(torch.exp, GaussianNoise(1.0), MEAN), ValueError, "not linear"),
    ],
)
def test_wrong_input_is_explained(make, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        make()
