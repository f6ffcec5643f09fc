"""The mixture prior against torch.distributions, brute force, Monte Carlo, and EM against its theory."""

import math

import pytest
import torch
from torch import Generator, Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from scidiff.linalg import LowRank
from scidiff.noise import GaussianNoise
from scidiff.operators.linear_map import LinearMap
from scidiff.operators.mask import Mask
from scidiff.priors import GaussianMixturePrior, GaussianPrior, patches
from scidiff.protocols import Prior
from scidiff.rng import Streams
from scidiff.testing import check_batch_independence

F64, C128 = torch.float64, torch.complex128
SHAPE = (2, 3)
WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=F64)


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=dtype)


def full(offset: float = 280.0) -> GaussianMixturePrior:
    a = randn(3, 6, 6)
    return GaussianMixturePrior(
        WEIGHTS, offset + 5 * randn(3, *SHAPE, seed=1), a @ a.mT / 3 + 0.1 * torch.eye(6, dtype=F64)
    )


def low_rank() -> GaussianMixturePrior:
    covs = [LowRank(randn(2, *SHAPE, seed=k), 0.2 + 0.1 * k) for k in range(3)]
    return GaussianMixturePrior(WEIGHTS, 5 * randn(3, *SHAPE, seed=1), covs)


@pytest.fixture(params=[full, low_rank])
def prior(request: pytest.FixtureRequest) -> GaussianMixturePrior:
    return request.param()


def law(prior: GaussianMixturePrior) -> MixtureSameFamily:
    covs = torch.stack([c.dense() for c in prior.covs])
    return MixtureSameFamily(Categorical(prior.weights), MultivariateNormal(prior.means.flatten(1), covs))


def test_density_is_that_of_torch(prior: GaussianMixturePrior) -> None:
    x = prior.sample(6, Generator().manual_seed(0))
    assert torch.allclose(prior.log_prob(x), law(prior).log_prob(x.flatten(1)), atol=1e-9)
    assert isinstance(prior, Prior) and prior.shape == SHAPE


def test_denoiser_is_tweedie(prior: GaussianMixturePrior) -> None:
    sigma = torch.tensor([1e-2, 0.3, 1.0, 80.0], dtype=F64)
    u = prior.encode(prior.sample(4, Generator().manual_seed(1)))
    u = (u + sigma.reshape(-1, 1, 1) * randn(4, *SHAPE, seed=2)).requires_grad_()
    (score,) = torch.autograd.grad(prior.noised_log_prob(u, sigma).sum(), u)
    assert torch.allclose(prior.denoise(u, sigma), u + sigma.reshape(-1, 1, 1).square() * score, atol=1e-8)
    check_batch_independence(prior.denoise, u.detach(), sigma, contrast=3.0)


def test_denoiser_is_the_weighted_mean_of_prior_draws() -> None:
    """E[u0 | u] by self-normalised importance sampling from the prior."""
    prior = low_rank()
    n, sigma = 200_000, torch.tensor(0.6, dtype=F64)
    clean = prior.encode(prior.sample(n, Generator().manual_seed(3))).flatten(1)
    u = clean[:1] + sigma * randn(1, 6, seed=4)
    w = torch.softmax(-0.5 * (clean - u).square().sum(1) / sigma**2, 0)
    mean = (w[:, None] * clean).sum(0)
    error = (w[:, None] * (clean - mean)).square().sum(0).sqrt()
    got = prior.denoise(u.reshape(1, *SHAPE), sigma).flatten()
    assert float(((got - mean) / error).abs().max()) < 4.5


def test_gradients_of_the_denoiser(prior: GaussianMixturePrior) -> None:
    u = randn(2, *SHAPE, seed=2).requires_grad_()
    sigma = torch.tensor([0.4, 2.0], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(prior.denoise, (u, sigma))


def test_far_away_states_do_not_overflow(prior: GaussianMixturePrior) -> None:
    u = 1e4 * torch.ones(1, *SHAPE)
    for sigma in (2e-3, 80.0):
        assert torch.isfinite(prior.denoise(u, torch.tensor(sigma))).all()


def test_moments_marginals_and_streams(prior: GaussianMixturePrior) -> None:
    n = 40_000
    x = prior.sample(n, Generator().manual_seed(5))
    r = x.flatten(1) - prior.mean.flatten()
    d = prior.covariance.diagonal()
    assert float((r.mean(0) / (d / n).sqrt()).abs().max()) < 4.5
    products = r[:, :, None] * r[:, None, :]
    z = (products.mean(0) - prior.covariance) / (products.std(0) / math.sqrt(n))
    assert float(z.abs().max()) < 5
    assert torch.allclose(prior.variance.flatten(), d, rtol=1e-10)
    cdf = prior.marginal_cdf(x).flatten(1)
    for level in (0.05, 0.5, 0.95):
        assert float(((cdf < level).to(F64).mean(0) - level).abs().max()) < 5 * math.sqrt(level * (1 - level) / n)
    assert torch.allclose(prior.sample(3, Streams(2, [0, 1, 2]))[1:2], prior.sample(1, Streams(2, [1])), rtol=1e-13)
    u = prior.encode(x)
    assert abs(float(u.square().mean()) - 1) < 0.05 and torch.allclose(prior.decode(u), x)


def test_one_component_is_the_gaussian_prior() -> None:
    cov = full().covs[0].dense()
    mixture = GaussianMixturePrior(torch.ones(1), full().means[:1], cov)
    gaussian = GaussianPrior(full().means[0], cov)
    x, u, s = gaussian.sample(3, Generator().manual_seed(0)), randn(3, *SHAPE), torch.tensor(0.7, dtype=F64)
    assert torch.allclose(mixture.log_prob(x), gaussian.log_prob(x), atol=1e-9)
    assert torch.allclose(mixture.denoise(u, s), gaussian.denoise(u, s), atol=1e-11)
    y = x[:1, 0, :2]
    operator = Mask(torch.tensor([[True, True, False], [False] * 3]))
    a, b = (p.condition(operator, GaussianNoise(0.2), y) for p in (mixture, gaussian))
    assert torch.allclose(a.mean, b.mean, atol=1e-9) and torch.allclose(a.covariance, b.covariance, atol=1e-9)


def test_conditioning_is_bayes_rule(prior: GaussianMixturePrior) -> None:
    """log p(x|y) = log p(x) + log p(y|x) - log p(y), with p(y) a mixture on the measurements."""
    a, noise = randn(4, 6, seed=3), GaussianNoise(torch.tensor([0.5, 1.0, 0.7, 2.0], dtype=F64))
    operator = LinearMap(a, SHAPE)
    y = noise.sample(operator(prior.sample(1, Generator().manual_seed(6))), Generator().manual_seed(7))
    posterior = prior.condition(operator, noise, y)
    covs = torch.stack([a @ c.dense() @ a.mT for c in prior.covs]) + torch.diag(noise.std.square())
    evidence = MixtureSameFamily(
        Categorical(prior.weights), MultivariateNormal(prior.means.flatten(1) @ a.mT, covs)
    ).log_prob(y)
    x = prior.sample(8, Generator().manual_seed(8))
    truth = prior.log_prob(x) + noise.log_prob(y.expand(8, 4), operator(x)) - evidence
    near = truth > -500  # components of weight below 1e-300 are dropped
    assert torch.allclose(posterior.log_prob(x)[near], truth[near], rtol=1e-6, atol=1e-6) and near.any()
    assert isinstance(posterior, GaussianMixturePrior)


def test_conditioning_against_importance_weighted_draws() -> None:
    """The weights of the modes, from draws of the prior weighted by the likelihood."""
    means = torch.tensor([[[-2.0, 1.0]], [[2.0, -1.0]]], dtype=F64)
    prior = GaussianMixturePrior(torch.tensor([0.3, 0.7]), means, 0.5 * torch.eye(2, dtype=F64))
    operator, noise = Mask(torch.tensor([False, True])), GaussianNoise(1.5)
    y = torch.tensor([[0.4]], dtype=F64)
    posterior = prior.condition(operator, noise, y)
    n = 400_000
    x = prior.sample(n, Generator().manual_seed(1))
    w = torch.softmax(noise.log_prob(y[None].expand(n, 1, 1), operator(x)), 0)
    left = (x[:, 0, 0] < 0).to(F64)
    mass = float((w * left).sum())
    error = float((w * (left - mass)).square().sum().sqrt())
    tail = float(posterior.marginal_cdf(torch.zeros(1, 1, 2, dtype=F64))[0, 0, 0])
    assert abs(mass - tail) < 4.5 * error
    mean = (w[:, None] * x[:, 0]).sum(0)
    spread = (w[:, None] * (x[:, 0] - mean)).square().sum(0).sqrt()
    assert float(((mean - posterior.mean[0]) / spread).abs().max()) < 4.5


def test_impossible_components_are_dropped() -> None:
    means = torch.tensor([[-1e3], [1e3]], dtype=F64)
    prior = GaussianMixturePrior(torch.ones(2), means, torch.eye(1, dtype=F64))
    posterior = prior.condition(lambda x: x, GaussianNoise(1.0), torch.tensor([1e3], dtype=F64))
    assert len(posterior.weights) == 1 and posterior.mean.item() == pytest.approx(1e3)


def test_kelvin_and_its_fractions() -> None:
    u, s = randn(3, *SHAPE), torch.tensor(0.3, dtype=F64)
    small, large = full(), full()
    large = GaussianMixturePrior(WEIGHTS, small.means * 1e8, torch.stack([c.dense() for c in small.covs]) * 1e16)
    assert torch.allclose(small.denoise(u, s), large.denoise(u, s), rtol=1e-8)
    x = small.sample(2, Generator().manual_seed(0))
    assert torch.allclose(large.log_prob(x * 1e8), small.log_prob(x) - 6 * math.log(1e8), atol=1e-7)


def test_complex_fields_have_a_real_state() -> None:
    means = randn(2, 1, 2, 3, dtype=C128)
    prior = GaussianMixturePrior(torch.ones(2), means, 0.1 * torch.eye(12, dtype=F64))
    x = prior.sample(3, Generator().manual_seed(0))
    assert x.dtype == C128 and x.shape == (3, 1, 2, 3) and prior.shape == (2, 2, 3)
    assert torch.allclose(prior.decode(prior.encode(x)), x)
    assert prior.mean.dtype == C128 and torch.allclose(prior.mean, means.mean(0))


def test_em_never_lowers_the_likelihood() -> None:
    data = full().sample(400, Generator().manual_seed(2))
    history: list[float] = []
    fitted = GaussianMixturePrior.fit(
        data, 3, rank=2, iterations=40, tolerance=0.0, generator=Generator().manual_seed(1), history=history
    )
    steps = torch.tensor(history).diff()
    assert len(history) > 5 and float(steps.min()) >= -1e-9
    assert float(fitted.log_prob(data).mean()) >= history[-1] - 1e-9
    assert history[0] == pytest.approx(history[-1], rel=1.0) and history[-1] > history[0]


def test_em_reports_the_likelihood_of_its_model() -> None:
    data = 1e4 * full().sample(200, Generator().manual_seed(2))
    history: list[float] = []
    fitted = GaussianMixturePrior.fit(data, 2, rank=3, iterations=400, tolerance=1e-12, history=history)
    assert float(fitted.log_prob(data).mean()) == pytest.approx(history[-1], abs=1e-5)


def test_em_recovers_a_known_mixture() -> None:
    truth = GaussianMixturePrior(
        WEIGHTS,
        280 + 8 * randn(3, *SHAPE, seed=1),
        [LowRank(randn(2, *SHAPE, seed=k), 0.2 + 0.1 * k) for k in range(3)],
    )
    data = truth.sample(8000, Generator().manual_seed(4))
    fitted = GaussianMixturePrior.fit(data, 3, rank=2, generator=Generator().manual_seed(0))
    order = torch.cdist(truth.means.flatten(1), fitted.means.flatten(1)).argmin(1)
    assert sorted(order.tolist()) == [0, 1, 2]
    for k, j in enumerate(order.tolist()):
        n = 8000 * float(WEIGHTS[k])
        assert abs(float(fitted.weights[j] - WEIGHTS[k])) < 0.025
        c, d = truth.covs[k].dense(), fitted.covs[j].dense()
        sd = c.diagonal().sqrt()
        assert float(((fitted.means[j] - truth.means[k]).flatten() / sd).abs().max()) < 5 / math.sqrt(n)
        assert float(((d - c) / (sd[:, None] * sd)).abs().max()) < 5 * math.sqrt(2 / n)
    held_out = truth.sample(4000, Generator().manual_seed(5))
    gap = (truth.log_prob(held_out) - fitted.log_prob(held_out)).mean()  # Kullback-Leibler divergence
    assert -0.01 < float(gap) < 0.02


def test_full_rank_single_component_is_the_sample_covariance() -> None:
    data = full().sample(300, Generator().manual_seed(2))
    fitted = GaussianMixturePrior.fit(data, 1)
    r = (data - data.mean(0)).flatten(1)
    assert torch.allclose(fitted.covariance, r.mT @ r / 300, rtol=1e-6, atol=1e-8)


def test_fit_with_fewer_fields_than_entries_and_in_float32() -> None:
    data = randn(12, 1, 8, 9).float()
    fitted = GaussianMixturePrior.fit(data, 2, rank=3)
    assert torch.isfinite(fitted.log_prob(data)).all() and fitted.sample(2).dtype == torch.float32


def test_equal_generators_give_equal_fits_and_patches() -> None:
    fields = randn(5, 2, 9, 11)
    a, b = (patches(fields, (3, 4), 50, Generator().manual_seed(1)) for _ in range(2))
    assert a.shape == (50, 2, 3, 4) and torch.equal(a, b)
    windows = fields.unfold(-2, 3, 1).unfold(-2, 4, 1).movedim((-2, -1), (2, 3))  # (5, 2, 3, 4, rows, columns)
    windows = windows.permute(0, 4, 5, 1, 2, 3).reshape(-1, 24)
    assert float(torch.cdist(a.flatten(1), windows).min(1).values.max()) < 1e-6  # each is a window of a field
    p, q = (GaussianMixturePrior.fit(a, 2, 3, generator=Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(p.means, q.means)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianMixturePrior(torch.ones(2), torch.zeros(3, 4), torch.eye(4)), "3 positive numbers"),
        (lambda: GaussianMixturePrior(torch.tensor([1.0, 0.0]), torch.zeros(2, 4), torch.eye(4)), "positive"),
        (lambda: GaussianMixturePrior(torch.ones(2), torch.zeros(2, 4), torch.ones(3, 4, 4)), "3 covariances"),
        (lambda: GaussianMixturePrior(torch.ones(2), torch.zeros(2, 5), torch.eye(4)), "5 entries"),
        (lambda: GaussianMixturePrior.fit(torch.zeros(3, 4), 4), "8 fields"),
        (lambda: GaussianMixturePrior.fit(torch.ones(9, 4), 2), "equal"),
        (lambda: GaussianMixturePrior.fit(randn(9, 4), 2, rank=4), "rank"),
        (lambda: patches(randn(2, 3, 4), 5, 1), "do not fit"),
    ],
)
def test_wrong_input_is_explained(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
