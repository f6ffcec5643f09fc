"""The contract of the public names: called literally as users, benchmarks and acceptance checks call them.

Every test states a promise of the interface in the words of an outsider, from the public names alone, and compares
with a closed form or with another way to the same number.
"""

import dataclasses
import math

import pytest
import torch

import scidiff
from scidiff import Ensemble, Likelihood, Posterior
from scidiff.linalg import Dense, Diagonal, Isotropic, LowRank, Stationary
from scidiff.noise import GaussianNoise, PoissonNoise
from scidiff.operators import LinearMap, Mask
from scidiff.posterior import DDRM, DPS, MMPS
from scidiff.priors import DiffusionPrior, GaussianMixturePrior, GaussianPrior
from scidiff.samplers import DDIM, DDPM, DPMSolver, Euler, Heun

H, W = 3, 4
D = H * W


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def dense(d=D, seed=1, dtype=torch.float64):
    root = torch.randn(d, d, generator=rng(seed), dtype=dtype) / d**0.5
    return 4 * (root @ root.T) + 0.5 * torch.eye(d, dtype=dtype)


def gaussian(shape=(H, W), dtype=torch.float64):
    mean = 280 + torch.arange(math.prod(shape), dtype=dtype).reshape(shape) / 7
    return GaussianPrior(mean, dense(math.prod(shape), dtype=dtype))


def mixture(shape=(H, W)):
    d = math.prod(shape)
    means = torch.stack([torch.full(shape, 278.0), torch.full(shape, 283.0)]).double()
    return GaussianMixturePrior(torch.tensor([0.3, 0.7]), means, torch.stack([dense(d, 2), dense(d, 3)]))


def mask(shape=(H, W)):
    return (torch.arange(math.prod(shape)) % 3 != 1).reshape(shape)


def by_hand(m, C, A, s, y):
    """The textbook formula: mean and covariance of x given y = A x + n."""
    gain = C @ A.T @ torch.linalg.inv(A @ C @ A.T + s**2 * torch.eye(len(A), dtype=C.dtype))
    return m + gain @ (y - A @ m), C - gain @ A @ C


# Exact priors


@pytest.mark.parametrize("shape", [(D,), (H, W), (1, H, W)])
@pytest.mark.parametrize("batched", [False, True])
def test_condition_takes_y_with_and_without_batch(shape, batched):
    prior, matrix = gaussian(shape), torch.randn(5, D, generator=rng(4), dtype=torch.float64)
    y = torch.randn(5, generator=rng(5), dtype=torch.float64) + 280 * matrix.sum(1)
    given = y[None] if batched else y
    exact = prior.condition(LinearMap(matrix, shape), GaussianNoise(0.3), given)
    mean, cov = by_hand(prior.mean.flatten(), dense(), matrix, 0.3, y)
    assert exact.mean.shape == shape and exact.covariance.shape == (D, D)
    torch.testing.assert_close(exact.mean.flatten(), mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(exact.covariance, cov, rtol=1e-8, atol=1e-10)
    assert isinstance(exact, GaussianPrior)


@pytest.mark.parametrize(
    "cov",
    [Isotropic(4.0, (H, W)), Diagonal(torch.linspace(1, 3, D).double().reshape(H, W)), dense()],
    ids=["isotropic", "diagonal", "dense"],
)
def test_gaussian_prior_takes_matrices_and_covariances(cov):
    matrix = cov if isinstance(cov, torch.Tensor) else cov.dense()
    mean = torch.linspace(270, 290, D).double().reshape(H, W)
    prior = GaussianPrior(mean, cov)
    x = prior.sample(3, rng())
    law = torch.distributions.MultivariateNormal(mean.flatten(), matrix.double())
    torch.testing.assert_close(prior.log_prob(x), law.log_prob(x.flatten(1)))
    torch.testing.assert_close(prior.covariance, matrix.double())
    assert x.shape == (3, H, W)


def test_gaussian_prior_takes_stationary_and_low_rank_covariances():
    spectrum = 1 + torch.rand(H, W, generator=rng(), dtype=torch.float64)
    spectrum = spectrum + torch.roll(spectrum.flip(0, 1), (1, 1), (0, 1))  # of a real field: even
    low = LowRank(torch.randn(2, H, W, generator=rng(), dtype=torch.float64), 0.5)
    for cov in (Stationary(spectrum, (H, W), 2), low):
        prior = GaussianPrior(torch.zeros(H, W).double(), cov)
        law = torch.distributions.MultivariateNormal(torch.zeros(D).double(), cov.dense())
        x = prior.sample(2, rng(1))
        torch.testing.assert_close(prior.log_prob(x), law.log_prob(x.flatten(1)))


def test_mixture_density_and_posterior_are_those_of_the_components():
    prior, keep = mixture(), mask()
    A = torch.eye(D, dtype=torch.float64)[keep.flatten()]
    y = torch.full((int(keep.sum()),), 281.0, dtype=torch.float64) + torch.randn(len(A), generator=rng(7)).double()
    means, covs, logs = [], [], []
    for w, m, C in zip((0.3, 0.7), (278.0, 283.0), (dense(D, 2), dense(D, 3)), strict=True):
        m = torch.full((D,), m, dtype=torch.float64)
        mean, cov = by_hand(m, C, A, 0.8, y)
        evidence = torch.distributions.MultivariateNormal(A @ m, A @ C @ A.T + 0.64 * torch.eye(len(A)).double())
        means.append(mean), covs.append(cov), logs.append(math.log(w) + evidence.log_prob(y))
    w = torch.softmax(torch.stack(logs), 0)
    mean = sum(a * m for a, m in zip(w, means, strict=True))
    cov = sum(a * (C + torch.outer(m - mean, m - mean)) for a, m, C in zip(w, means, covs, strict=True))
    for given in (y, y[None]):
        exact = prior.condition(Mask(keep), GaussianNoise(0.8), given)
        assert isinstance(exact, GaussianMixturePrior)
        torch.testing.assert_close(exact.weights, w, rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(exact.mean.flatten(), mean)
        torch.testing.assert_close(exact.covariance, cov)
    x = prior.sample(2000, rng(8))
    assert x.shape == (2000, H, W)
    error = (x.mean(0) - prior.mean).flatten() / prior.covariance.diagonal().sqrt()
    assert error.abs().max() < 4 / 2000**0.5


def test_fit_recovers_what_it_is_given():
    data = gaussian().sample(4000, rng())
    fitted = GaussianPrior.fit(data)
    torch.testing.assert_close(fitted.mean, data.mean(0))
    assert (fitted.covariance - dense()).norm() < 0.1 * dense().norm()
    apart = GaussianMixturePrior(
        torch.tensor([0.3, 0.7]), torch.tensor([[0.0] * 4, [20.0] * 4]).double(), torch.eye(4).double()
    )
    mixed = GaussianMixturePrior.fit(apart.sample(2000, rng(1)), components=2)
    torch.testing.assert_close(mixed.weights.sort().values, torch.tensor([0.3, 0.7]).double(), rtol=0, atol=0.04)
    torch.testing.assert_close(mixed.mean, torch.full((4,), 14.0).double(), rtol=0, atol=0.9)


@pytest.mark.parametrize("make", [gaussian, mixture])
def test_a_prior_is_its_denoiser_in_coordinates_without_units(make):
    """u is about standard, decode undoes encode, and Tweedie's formula links denoiser and density of noised states."""
    prior = make()
    x = prior.sample(4000, rng())
    u = prior.encode(x)
    assert abs(float(u.mean())) < 0.05 and abs(float(u.std()) - 1) < 0.1
    torch.testing.assert_close(prior.decode(u), x)
    assert prior.affine is True and prior.shape == tuple(u.shape[1:])
    u = u[:3].clone().requires_grad_()
    for sigma in (torch.tensor(0.7).double(), torch.tensor([0.2, 0.7, 5.0]).double()):
        (score,) = torch.autograd.grad(prior.noised_log_prob(u, sigma).sum(), u)
        level = sigma.reshape(-1, 1, 1)
        torch.testing.assert_close((prior.denoise(u, sigma) - u) / level**2, score)


# Noise, operators, likelihoods


def test_noises_take_numbers_tensors_and_covariances():
    y, z = torch.randn(2, 3, D, generator=rng()).double().unbind(0)
    stds = torch.linspace(0.5, 2, D).double()
    normal = torch.distributions.Normal
    torch.testing.assert_close(GaussianNoise(0.5).log_prob(y, z), normal(z, 0.5).log_prob(y).sum(1))
    torch.testing.assert_close(GaussianNoise(stds).log_prob(y, z), normal(z, stds).log_prob(y).sum(1))
    law = torch.distributions.MultivariateNormal(z, dense())
    torch.testing.assert_close(GaussianNoise(Dense(dense())).log_prob(y, z), law.log_prob(y))
    c = torch.complex(y, z)
    assert torch.allclose(GaussianNoise(0.5).log_prob(c, 0 * c), normal(0.0, 0.5).log_prob(torch.cat([y, z], 1)).sum(1))
    counts = torch.tensor([[0.0, 4.0, 10.0]]).double()
    rate = torch.tensor([[1.0, 3.0, 12.0]]).double()
    expected = torch.distributions.Poisson(rate / 2).log_prob(counts / 2).sum(1)
    torch.testing.assert_close(PoissonNoise(2.0).log_prob(counts, rate), expected)
    draws = PoissonNoise(2.0).sample(rate.expand(20000, 3), rng())
    torch.testing.assert_close(draws.mean(0), rate[0], rtol=0.03, atol=0)
    torch.testing.assert_close(draws.var(0), 2 * rate[0], rtol=0.06, atol=0)


def test_mask_with_and_without_channels():
    keep = mask()
    for x in (torch.randn(2, H, W, generator=rng()), torch.randn(2, 3, H, W, generator=rng())):
        y = Mask(keep)(x)
        torch.testing.assert_close(y, x[..., keep], rtol=0, atol=0)
        back = Mask(keep).adjoint(y)
        torch.testing.assert_close(back, torch.where(keep, x, 0), rtol=0, atol=0)


def test_linear_map_is_its_matrix():
    matrix, x = torch.randn(5, D, generator=rng()), torch.randn(2, H, W, generator=rng(1))
    A = LinearMap(matrix, (H, W))
    torch.testing.assert_close(A(x), x.flatten(1) @ matrix.T)
    y = torch.randn(2, 5, generator=rng(2))
    torch.testing.assert_close(A.adjoint(y), (y @ matrix).reshape(2, H, W))


def test_likelihood_of_a_plain_function():
    y = torch.randn(2, D, generator=rng())
    likelihood = Likelihood(lambda x: x.flatten(1) ** 3, GaussianNoise(0.5), y)
    x = torch.randn(2, H, W, generator=rng(1))
    r = (y - x.flatten(1) ** 3) / 0.5
    torch.testing.assert_close(likelihood.residual(x), r)
    torch.testing.assert_close(
        likelihood.log_prob(x), -0.5 * r.square().sum(1) - D * math.log(0.5 * (2 * math.pi) ** 0.5)
    )


@pytest.mark.parametrize("sampler", [DPS(steps=2), MMPS(sampler=DPMSolver(2))], ids=["dps", "mmps"])
def test_a_measurement_without_batch_is_refused_and_not_broadcast(sampler):
    """``y`` (D,) means D fields with one number measured of each; minus the operator's (D, D) it would broadcast."""
    likelihood = Likelihood(Mask(torch.ones(H, W, dtype=torch.bool)), GaussianNoise(0.5), torch.full((D,), 280.0))
    with pytest.raises(ValueError, match="y has shape"):
        likelihood.residual(torch.zeros(D, H, W))
    with pytest.raises(ValueError, match="y has shape"):
        likelihood.log_prob(torch.zeros(D, H, W))
    with pytest.raises(ValueError, match="y has shape"):
        sampler(Posterior(gaussian(dtype=torch.float32), likelihood), members=2)


# Samplers


def posterior(prior=None, b=1, dtype=torch.float64):
    prior = prior or gaussian()
    x = prior.sample(b, rng(11)).to(dtype)
    noise = GaussianNoise(0.5)
    return Posterior(prior, Likelihood(Mask(mask()), noise, noise.sample(Mask(mask())(x), rng(12))))


POSTERIOR_SAMPLERS = [DPS(steps=20), MMPS(sampler=DPMSolver(8))]
PRIOR_SAMPLERS = [Euler(steps=8), Heun(steps=9), DDIM(steps=8), DDPM(steps=8), DPMSolver(steps=8)]
ids = [type(s).__name__ for s in POSTERIOR_SAMPLERS]


@pytest.mark.parametrize("sampler", [*POSTERIOR_SAMPLERS, *PRIOR_SAMPLERS], ids=lambda s: type(s).__name__)
def test_samplers_are_frozen_dataclasses_with_defaults(sampler):
    assert dataclasses.is_dataclass(sampler)
    name = dataclasses.fields(sampler)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(sampler, name, getattr(sampler, name))
    assert type(sampler)() == type(sampler)() and "References:" in type(sampler).__doc__


@pytest.mark.parametrize("sampler", POSTERIOR_SAMPLERS, ids=ids)
def test_a_posterior_sampler_returns_an_ensemble(sampler):
    calls = []
    p = posterior(b=2)
    ensemble = sampler(
        p, members=3, generator=rng(), batch_size=2, callback=lambda step, steps, sigma, u: calls.append((step, steps))
    )
    assert isinstance(ensemble, Ensemble) and ensemble.samples.shape == (3, 2, H, W)
    torch.testing.assert_close(ensemble.mean, ensemble.samples.mean(0))
    torch.testing.assert_close(ensemble.spread, ensemble.samples.std(0))
    steps = calls[0][1]
    assert [step for step, _ in calls] == 2 * list(range(1, steps + 1)), "each of the two batches reports every step"
    cost = ensemble.cost
    assert cost.denoiser == steps and min(cost.denoiser_vjp, cost.operator, cost.operator_vjp) >= steps
    assert isinstance(ensemble.diagnostics, dict)
    assert isinstance(sampler.requires, frozenset) and "gradient" in sampler.requires


@pytest.mark.parametrize("sampler", POSTERIOR_SAMPLERS, ids=ids)
def test_members_and_rows_do_not_depend_on_company(sampler):
    p = posterior(b=2)
    all_together = sampler(p, members=4, generator=rng(3)).samples
    assert torch.equal(all_together, sampler(p, members=4, generator=rng(3)).samples), "the same twice, to the bit"
    assert not torch.allclose(all_together, sampler(p, members=4, generator=rng(4)).samples)
    split = sampler(p, members=4, generator=rng(3), batch_size=1).samples
    torch.testing.assert_close(split, all_together, rtol=1e-9, atol=1e-7)
    alone = sampler(p, members=[3], generator=rng(3)).samples
    torch.testing.assert_close(alone[0], all_together[3], rtol=1e-9, atol=1e-7)
    part = p.likelihood
    first = Posterior(p.prior, Likelihood(part.operator, part.noise, part.y[:1]))
    torch.testing.assert_close(sampler(first, members=4, generator=rng(3)).samples, all_together[:, :1])
    state = torch.random.get_rng_state()
    sampler(p, members=1)
    assert torch.equal(state, torch.random.get_rng_state()), "the global generator is left alone"


def test_mmps_draws_from_the_exact_posterior_of_two_instruments():
    """A tuple of likelihoods: the same ensemble law as conditioning on one instrument and then on the other."""
    prior, keep = gaussian(), mask()
    matrix = torch.randn(3, D, generator=rng(13), dtype=torch.float64)
    x = prior.sample(1, rng(14))
    first, second = Mask(keep), LinearMap(matrix, (H, W))
    y1 = first(x) + 0.5 * torch.randn(1, int(keep.sum()), generator=rng(15)).double()
    y2 = second(x) + 0.2 * torch.randn(1, 3, generator=rng(16)).double()
    exact = prior.condition(first, GaussianNoise(0.5), y1).condition(second, GaussianNoise(0.2), y2)
    parts = (Likelihood(first, GaussianNoise(0.5), y1), Likelihood(second, GaussianNoise(0.2), y2))
    posterior = Posterior(prior, parts)
    both = parts[0].log_prob(x) + parts[1].log_prob(x)
    torch.testing.assert_close(posterior.log_likelihood(prior.encode(x)), both)
    ensemble = MMPS()(posterior, members=512, generator=rng())
    assert ensemble.cost.denoiser <= 64
    report = scidiff.testing.compare_with_exact(ensemble.samples[:, 0], exact)
    assert report.mean_error < 0.08 and 0.94 < report.trace_ratio < 1.06


def test_dps_takes_a_plain_function_and_obeys_the_data():
    prior = gaussian()
    x = prior.sample(1, rng(5))
    p = Posterior(prior, Likelihood(lambda x: (x[:, 0] / 280) ** 2, GaussianNoise(1e-3), (x[:, 0] / 280) ** 2))
    ensemble = DPS(steps=200)(p, members=8, generator=rng())
    seen, unseen = ensemble.mean[0, 0] - x[0, 0], prior.covariance.diagonal().sqrt()[:W]
    assert float(seen.abs().max()) < 0.5 * float(unseen.min())
    with pytest.raises(TypeError, match="DDRM needs svd.*Samplers that would work: .*dps"):
        DDRM()(p, members=1)


def test_asking_for_more_than_the_posterior_offers_names_what_would_work():
    class BlackBox:
        differentiable = False

        def __call__(self, x):
            return x.flatten(1).detach().numpy()

    y = torch.zeros(1, D)
    for sampler in POSTERIOR_SAMPLERS:
        with pytest.raises(TypeError, match="gradient.*Samplers that would work"):
            sampler(Posterior(gaussian(), Likelihood(BlackBox(), GaussianNoise(1.0), y)), members=1)


@pytest.mark.parametrize("sampler", PRIOR_SAMPLERS, ids=lambda s: type(s).__name__)
def test_prior_samplers_are_called_with_shape_members_generator(sampler):
    class AnySize:
        """Standard normal states of any size, fields in kelvin; its denoiser is u / (1 + sigma^2)."""

        affine, shape = True, None

        def denoise(self, u, sigma):
            return u / (1 + sigma.reshape(-1, *[1] * (u.ndim - 1)) ** 2) if sigma.ndim else u / (1 + sigma**2)

        def decode(self, u):
            return 280 + 5 * u

        def encode(self, x):
            return (x - 280) / 5

    ensemble = sampler(AnySize(), shape=(1, 5, 8), members=64, generator=rng())
    assert ensemble.samples.shape == (64, 1, 1, 5, 8) and ensemble.cost.denoiser == sampler.calls
    assert abs(float(ensemble.samples.mean()) - 280) < 0.6
    again = sampler(AnySize(), shape=(1, 5, 8), members=[63], generator=rng()).samples[0]
    torch.testing.assert_close(again, ensemble.samples[63])
    with pytest.raises(ValueError, match="shape="):
        sampler(AnySize(), members=1)


def test_posterior_needs_a_shape_where_the_prior_takes_any_size():
    network = torch.nn.Identity()
    network.forward = lambda u, label: u
    prior = DiffusionPrior(network, channels=2, complex=True)
    likelihood = Likelihood(lambda x: x.flatten(1), GaussianNoise(1.0), torch.zeros(1, D, dtype=torch.complex64))
    with pytest.raises(ValueError, match="shape="):
        Posterior(prior, likelihood)
    p = Posterior(prior, likelihood, shape=(2, H, W))
    assert p.shape == (2, H, W)
    assert DPS(steps=3)(p, members=2, generator=rng()).samples.shape == (2, 1, 1, H, W)


@pytest.mark.parametrize("sampler", POSTERIOR_SAMPLERS, ids=ids)
def test_units_do_not_matter(sampler):
    p = posterior()
    part, a = p.likelihood, 1000.0
    other = GaussianPrior(a * p.prior.mean, a**2 * p.prior.covariance)
    q = Posterior(other, Likelihood(part.operator, GaussianNoise(0.5 * a), a * part.y))
    one, two = (sampler(x, members=2, generator=rng()).samples for x in (p, q))
    torch.testing.assert_close(two / a, one, rtol=1e-8, atol=1e-5)
