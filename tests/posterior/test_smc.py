"""TDS, MCGDiff and FPS against exact posteriors and evidences; the core against its identities."""

import pytest
import torch
from torch import Generator

from scidiff.benchmark import exact
from scidiff.errors import NumericalError
from scidiff.inference import Likelihood, Posterior
from scidiff.metrics import sliced_wasserstein
from scidiff.noise import GaussianNoise, PoissonNoise
from scidiff.operators import LinearMap, Mask
from scidiff.posterior import FPS, MMPS, TDS, MCGDiff
from scidiff.posterior.smc import systematic
from scidiff.priors import GaussianMixturePrior, GaussianPrior
from scidiff.testing import check_posterior, compare_with_exact

F64 = torch.float64
POINTS = torch.cartesian_prod(torch.arange(3, dtype=F64), torch.arange(4, dtype=F64))
COV = torch.exp(-torch.cdist(POINTS, POINTS) / 2)
NEAR = {"tds": TDS(64, steps=64), "mcgdiff": MCGDiff(256, steps=100)}
FAR = {
    "tds, likelihood": TDS(512, steps=48, twist="likelihood"),
    "mcgdiff, independent": MCGDiff(128, steps=64, potential="independent"),
    "mcgdiff, published": MCGDiff(512, steps=48, potential="published"),
    "fps": FPS(256, steps=64, kappa=10.0),
}


def pair(copies=1):
    """Two correlated pixels, two numbers seen, one observation repeated; its exact posterior and log evidence."""
    cov = 4 * torch.tensor([[1, 0.7], [0.7, 1]], dtype=F64)
    prior, noise = GaussianPrior(torch.full((1, 1, 2), 2.0, dtype=F64), cov), GaussianNoise(1.3)
    operator = LinearMap(torch.tensor([[1.2, 1.6], [-0.4, 0.3]], dtype=F64), (1, 1, 2))
    g = Generator().manual_seed(0)
    y = noise.sample(operator(prior.sample(1, g)), g)
    spread = operator.matrix @ cov @ operator.matrix.mT + 1.69 * torch.eye(2, dtype=F64)
    law = torch.distributions.MultivariateNormal(operator(prior.mean[None])[0], spread)
    posterior = Posterior(prior, Likelihood(operator, noise, y.repeat(copies, 1)))
    return posterior, prior.condition(operator, noise, y), law.log_prob(y)


def field(fields=1, seed=0):
    """Twelve pixels seen by a matrix of singular values from 0.001 (matched above the first level) to 5."""
    g = Generator().manual_seed(seed)
    prior = GaussianPrior(torch.full((1, 3, 4), 2.0, dtype=F64), 4 * COV)
    U = torch.linalg.qr(torch.randn(5, 5, generator=g, dtype=F64)).Q
    V = torch.linalg.qr(torch.randn(12, 5, generator=g, dtype=F64)).Q
    operator = LinearMap(U * torch.tensor([5, 2, 1, 0.5, 0.001], dtype=F64) @ V.mT, (1, 3, 4))
    noise = GaussianNoise(1.3)
    y = noise.sample(operator(prior.sample(fields, g)), g)
    truths = [prior.condition(operator, noise, row[None]) for row in y]
    return Posterior(prior, Likelihood(operator, noise, y)), truths


@pytest.mark.parametrize("seed", range(3))
def test_systematic_resampling(seed):
    """Counts are K W rounded up or down, and K W on average over the uniform number."""
    g = Generator().manual_seed(seed)
    log_w = 2 * torch.randn(20, 3, generator=g, dtype=F64)
    log_w[4, 1] = -torch.inf
    expected = 20 * torch.softmax(log_w, 0)
    grid = (torch.arange(2000, dtype=F64) + 0.5) / 2000
    mean = torch.zeros_like(expected)
    for x in grid:
        ancestors = systematic(log_w, x.expand(3))
        counts = torch.stack([torch.bincount(column, minlength=20) for column in ancestors.mT], 1)
        assert ((counts - expected).abs() < 1 + 1e-9).all()
        assert counts[4, 1] == 0
        mean += counts / len(grid)
    assert torch.allclose(mean, expected, atol=2e-3)


@pytest.mark.parametrize("name", list(NEAR))
def test_exact_posterior_of_a_gaussian(name):
    posterior, truths = field()
    check_posterior(NEAR[name], posterior, truths, mean_error=0.08, trace_ratio=(0.92, 1.08), coverage=(0.88, 0.92))


@pytest.mark.parametrize("name", [*NEAR, *FAR])
def test_evidence_and_posterior_of_repeated_data(name):
    """Independent estimates of one evidence: their mean is the closed form. All their members are one ensemble."""
    method, copies = {**NEAR, **FAR}[name], 16
    posterior, truth, log_evidence = pair(copies)
    ensemble = method(posterior, 64, Generator().manual_seed(0))
    ratio = (torch.tensor(ensemble.diagnostics["log_evidence"]) - log_evidence).exp()
    error = ratio.std() / copies**0.5
    assert error < (0.02 if name in NEAR else 0.25)
    assert abs(ratio.mean() - 1) < 3 * error + 0.02  # the discretised chain is 2 % off
    report = compare_with_exact(ensemble.samples.flatten(0, 1), truth)
    assert report.mean_error < (0.07 if name in NEAR else 0.12)  # 0.031 of 1024 independent draws
    assert abs(report.trace_ratio - 1) < 0.1


def test_weights_are_constant_under_the_exact_twist():
    """For Gaussians the twists of moments are p(y|u): what unevenness is left is of the order of the step."""
    posterior, _ = field()
    uneven = []
    for steps in (30, 120):
        for method in (TDS(128, steps=steps), MCGDiff(128, steps=steps)):
            diagnostics = method(posterior, 2, Generator().manual_seed(0)).diagnostics
            uneven.append(128 / min(diagnostics["ess"]) - 1)
            assert diagnostics["resamplings"] == 0
    assert max(uneven[2:]) < 0.08
    assert uneven[2] < uneven[0] / 3
    assert uneven[3] < uneven[1] / 3


def test_mode_weights_a_heuristic_gets_wrong(seed=1):
    """25 modes seen by one number: several remain, and only the weights of particles tell how probable each is."""
    problem = exact.modes(1, seed)
    truth = problem.exact.sample(1000, Generator().manual_seed(5))
    distance = {}
    for name, method in {"mmps": MMPS(), "tds": TDS(250, steps=48), "mcgdiff": MCGDiff(2000, steps=64)}.items():
        samples = method(problem.posterior, 500, Generator().manual_seed(seed)).samples[:, 0]
        distance[name] = sliced_wasserstein(samples, truth, 200)
    assert distance["tds"] < 1 < distance["mmps"]
    assert distance["mcgdiff"] < 1 < distance["mmps"]


def test_counts_of_a_nonlinear_model():
    """Photon counts of exp(x), one unknown: mean, variance and evidence by quadrature."""
    prior, noise = GaussianPrior(torch.full((1, 1), 0.5, dtype=F64), 0.5 * torch.eye(1, dtype=F64)), PoissonNoise(0.5)
    y = torch.tensor([[1.5, 4.0]], dtype=F64)

    def operator(x):
        return torch.cat([x, 0.5 * x], -1).flatten(1).exp()

    x = torch.linspace(-5, 6, 4001, dtype=F64)[:, None, None]
    density = (prior.log_prob(x) + noise.log_prob(y.expand(4001, 2), operator(x))).exp()
    mass = density.sum()
    mean = (density * x.flatten()).sum() / mass
    sd = ((density * (x.flatten() - mean).square()).sum() / mass).sqrt()
    posterior = Posterior(prior, Likelihood(operator, noise, y))
    ensemble = TDS(2048, steps=100)(posterior, 2048, Generator().manual_seed(0))
    samples = ensemble.samples.flatten()
    assert abs(samples.mean() - mean) < 0.1 * sd
    assert abs(samples.std() / sd - 1) < 0.06
    assert ensemble.diagnostics["log_evidence"][0] == pytest.approx(float((mass * 11 / 4000).log()), abs=0.15)


@pytest.mark.parametrize(
    "method",
    [
        TDS(12, steps=12, threshold=0.99),
        TDS(12, steps=12, threshold=0.99, twist="likelihood"),
        MCGDiff(12, steps=12, threshold=0.99),
        FPS(12, steps=12, threshold=0.99),
    ],
    ids=repr,
)
def test_pieces_observations_and_populations(method):
    posterior, _ = field(2)
    part = posterior.likelihoods[0]

    def draw(y=part.y, members=30, **options):
        p = Posterior(posterior.prior, Likelihood(part.operator, part.noise, y))
        return method(p, members, Generator().manual_seed(7), **options)

    whole = draw()
    assert whole.samples.shape == (30, 2, 1, 3, 4)
    assert whole.diagnostics["resamplings"] > 3
    pieces = draw(batch_size=5)
    assert torch.allclose(pieces.samples, whole.samples, atol=1e-9)
    assert pieces.cost == whole.cost
    assert torch.allclose(draw(members=[13, 2]).samples, whole.samples[[13, 2]], atol=1e-9)
    assert torch.allclose(draw(part.y[:1]).samples, whole.samples[:, :1], atol=1e-9)
    loud = torch.cat([part.y[:1], 30 * part.y[1:]])
    assert torch.allclose(draw(loud).samples[:, 0], whole.samples[:, 0], atol=1e-9)


class Impossible:
    """A law under which nothing could have been measured."""

    def log_prob(self, y, z):
        return 0 * z.flatten(1).sum(1) - torch.inf


def test_no_particle_explains_the_data():
    prior = GaussianPrior(torch.zeros(1, 3, 4), COV)
    posterior = Posterior(prior, Likelihood(Mask(POINTS[:, 1].reshape(3, 4) > 1), Impossible(), torch.zeros(1, 1, 6)))
    with pytest.raises(NumericalError, match=r"TDS: no particle has a positive, finite weight at noise level 80"):
        TDS(8, steps=8)(posterior, 2)


@pytest.mark.parametrize("method", [TDS(8, steps=8), MCGDiff(8, steps=8)], ids=repr)
def test_a_denoiser_that_breaks_is_named_with_its_level(method):
    class Broken(GaussianPrior):
        def denoise(self, u, sigma):
            return super().denoise(u, sigma) * torch.where(torch.as_tensor(sigma) < 10, torch.nan, 1.0)

    prior = Broken(torch.zeros(1, 3, 4, dtype=F64), COV)
    with pytest.raises(NumericalError, match=r"noise level (17\.6|3\.87)"):
        method(Posterior(prior, field()[0].likelihoods), 2)


def test_bad_use():
    for build, message in [
        (lambda: TDS(twist="mmps"), "twist must be"),
        (lambda: MCGDiff(potential="mmps"), "potential must be"),
        (lambda: FPS(kappa=0), "published=True"),
        (lambda: FPS(threshold=2), "threshold"),
        (lambda: TDS(steps=0), "steps"),
        (lambda: TDS(particles=1), "particles"),
    ]:
        with pytest.raises(ValueError, match=message):
            build()
    prior = GaussianPrior(torch.zeros(1, 3, 4), COV)
    nonlinear = Posterior(prior, Likelihood(torch.exp, GaussianNoise(1.0), torch.ones(1, 1, 3, 4)))
    with pytest.raises(TypeError, match="take twist='likelihood'"):
        TDS(8, steps=8, twist="moments")(nonlinear, 2)


def test_published_filter_is_overconfident():
    """It uses the data once per level: the spread stays too small."""
    posterior, truth, _ = pair(16)
    samples = FPS(64, steps=64, published=True)(posterior, 64, Generator().manual_seed(0)).samples
    assert compare_with_exact(samples.flatten(0, 1), truth).trace_ratio < 0.3


def test_mixture_prior_is_conditioned():
    """Two modes of different width and weight; one number seen."""
    means = torch.tensor([[-1.0, 2.0], [1.0, -1.0]], dtype=F64)
    covs = torch.stack([0.1 * torch.eye(2, dtype=F64), 0.4 * torch.eye(2, dtype=F64)])
    prior = GaussianMixturePrior(torch.tensor([0.3, 0.7]), means, covs)
    operator, noise = LinearMap(torch.tensor([[1.0, 0.3]], dtype=F64)), GaussianNoise(0.5)
    y = torch.tensor([[0.1]], dtype=F64)
    truth = prior.condition(operator, noise, y)
    for method in (TDS(256, steps=48), MCGDiff(256, steps=64)):
        samples = method(Posterior(prior, Likelihood(operator, noise, y)), 1024, Generator().manual_seed(0)).samples
        share = truth.responsibilities(samples[:, 0]).mean(0)
        assert torch.allclose(share, truth.weights, atol=0.06)
