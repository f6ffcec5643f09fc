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
from scidiff.testing import check_posterior

F64 = torch.float64
POINTS = torch.cartesian_prod(torch.arange(3, dtype=F64), torch.arange(4, dtype=F64))
COV = torch.exp(-torch.cdist(POINTS, POINTS) / 2)
EXACT = {
    "tds": TDS(128, steps=64),
    "tds, likelihood": TDS(1024, steps=64, twist="likelihood"),
    "mcgdiff": MCGDiff(256, steps=100),
    "mcgdiff, independent": MCGDiff(1024, steps=100, potential="independent"),
    "mcgdiff, published": MCGDiff(1024, steps=100, potential="published"),
    "fps": FPS(1024, steps=100),
}


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
    matrix = operator.matrix
    law = torch.distributions.MultivariateNormal(
        matrix @ prior.mean.flatten(), matrix @ (4 * COV) @ matrix.mT + 1.69 * torch.eye(5)
    )
    return Posterior(prior, Likelihood(operator, noise, y)), truths, law.log_prob(y)


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


@pytest.mark.parametrize("name", list(EXACT))
def test_exact_posterior_of_a_gaussian(name):
    posterior, truths, _ = field()
    check_posterior(EXACT[name], posterior, truths, mean_error=0.12, trace_ratio=(0.9, 1.1), coverage=(0.87, 0.93))


@pytest.mark.parametrize("name", list(EXACT))
def test_evidence_is_unbiased(name):
    """64 repetitions of one observation: independent estimates of its evidence, whose mean is the closed form."""
    method = {**vars(EXACT[name]), "particles": 64, "steps": 64}
    posterior, _, log_evidence = field()
    part = posterior.likelihoods[0]
    many = Posterior(posterior.prior, Likelihood(part.operator, part.noise, part.y.repeat(64, 1)))
    ensemble = type(EXACT[name])(**method)(many, 2, Generator().manual_seed(0))
    ratio = (torch.tensor(ensemble.diagnostics["log_evidence"]) - log_evidence).exp()
    error = ratio.std() / 8
    assert error < 0.3
    assert abs(ratio.mean() - 1) < 3.5 * error + 0.02  # the discretised chain is 2 % off


def test_weights_are_constant_under_the_exact_twist():
    """For Gaussians the twists of moments are p(y|u): what unevenness is left is of the order of the step."""
    posterior, _, _ = field()
    uneven = []
    for steps in (40, 160):
        for method in (TDS(256, steps=steps), MCGDiff(256, steps=steps)):
            diagnostics = method(posterior, 2, Generator().manual_seed(0)).diagnostics
            uneven.append(256 / min(diagnostics["ess"]) - 1)
            assert diagnostics["resamplings"] == 0
    assert max(uneven[2:]) < 0.08
    assert uneven[2] < uneven[0] / 3
    assert uneven[3] < uneven[1] / 3


@pytest.mark.parametrize("seed", [1, 2])
def test_mode_weights_a_heuristic_gets_wrong(seed):
    """25 modes seen by one number: several remain, and only the weights of particles tell how probable each is."""
    problem = exact.modes(1, seed)
    truth = problem.exact.sample(1000, Generator().manual_seed(5))
    distance = {}
    for name, method in {"mmps": MMPS(), "tds": TDS(500, steps=64), "mcgdiff": MCGDiff(500, steps=100)}.items():
        samples = method(problem.posterior, 500, Generator().manual_seed(seed)).samples[:, 0]
        distance[name] = sliced_wasserstein(samples, truth, 200)
    assert distance["tds"] < 1 < distance["mmps"]
    assert distance["mcgdiff"] < 1.3 < distance["mmps"]


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
    ensemble = TDS(1024, steps=64)(posterior, 1024, Generator().manual_seed(0))
    samples = ensemble.samples.flatten()
    assert abs(samples.mean() - mean) < 0.1 * sd
    assert abs(samples.std() / sd - 1) < 0.06
    assert ensemble.diagnostics["log_evidence"][0] == pytest.approx(float((mass * 11 / 4000).log()), abs=0.15)


@pytest.mark.parametrize(
    "method",
    [TDS(12, steps=12), TDS(12, steps=12, twist="likelihood"), MCGDiff(12, steps=12), FPS(12, steps=12)],
    ids=repr,
)
def test_pieces_observations_and_populations(method):
    posterior, _, _ = field(2)
    part = posterior.likelihoods[0]

    def draw(y=part.y, members=30, **options):
        p = Posterior(posterior.prior, Likelihood(part.operator, part.noise, y))
        return method(p, members, Generator().manual_seed(7), **options)

    whole = draw()
    assert whole.samples.shape == (30, 2, 1, 3, 4)
    assert 0 < whole.diagnostics["resamplings"] or method.particles == 12
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
        return torch.full_like(z, -torch.inf).sum(1) + 0 * z.sum(1)


def test_no_particle_explains_the_data():
    prior = GaussianPrior(torch.zeros(1, 3, 4), COV)
    posterior = Posterior(prior, Likelihood(Mask(POINTS[:, 1].reshape(3, 4) > 1), Impossible(), torch.zeros(1, 1, 6)))
    with pytest.raises(NumericalError, match=r"TDS: no particle has a positive, finite weight at noise level 80"):
        TDS(8, steps=8)(posterior, 2)


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
    posterior, truths, _ = field()
    samples = FPS(256, steps=100, published=True)(posterior, 512, Generator().manual_seed(0)).samples[:, 0]
    assert samples.var(0).sum() < 0.8 * truths[0].variance.sum()


def test_mixture_prior_is_conditioned():
    """Two modes of different width and weight; one number seen."""
    means = torch.tensor([[-1.0, 2.0], [1.0, -1.0]], dtype=F64)
    covs = torch.stack([0.1 * torch.eye(2, dtype=F64), 0.4 * torch.eye(2, dtype=F64)])
    prior = GaussianMixturePrior(torch.tensor([0.3, 0.7]), means, covs)
    operator, noise = LinearMap(torch.tensor([[1.0, 0.3]], dtype=F64)), GaussianNoise(0.5)
    y = torch.tensor([[0.1]], dtype=F64)
    truth = prior.condition(operator, noise, y)
    for method in (TDS(512, steps=64), MCGDiff(512, steps=100)):
        samples = method(Posterior(prior, Likelihood(operator, noise, y)), 2048, Generator().manual_seed(0)).samples
        share = truth.responsibilities(samples[:, 0]).mean(0)
        assert torch.allclose(share, truth.weights, atol=0.05)
