"""MMPS and DPS against exact posteriors: 64 pixels, 512 members, at most 64 guided calls."""

import pytest
import torch
from torch import Generator

from scidiff.inference import Likelihood, Posterior
from scidiff.noise import GaussianNoise
from scidiff.operators.mask import Mask
from scidiff.posterior import DPS, MMPS
from scidiff.priors import GaussianMixturePrior, GaussianPrior
from scidiff.samplers import DPMSolver
from scidiff.testing import check_posterior, check_unit_independence, compare_with_exact

AXIS = torch.arange(8, dtype=torch.float64)
POINTS = torch.cartesian_prod(AXIS, AXIS)
DISTANCE = torch.cdist(POINTS, POINTS)
ROUGH = torch.exp(-DISTANCE / 2)
SMOOTH = torch.exp(-DISTANCE.square() / 8) + 1e-3 * torch.eye(64)
UNITS = [(0.0, 1.0), (280.0, 5.0)]


def half(generator):
    return Mask(torch.rand(8, 8, generator=generator) < 0.5)


def problem(prior, std, seed=0):
    """One field of the prior, half of it seen; and its exact posterior."""
    generator = Generator().manual_seed(seed)
    operator, noise = half(generator), GaussianNoise(std)
    y = noise.sample(operator(prior.sample(1, generator)), generator)
    return Posterior(prior, Likelihood(operator, noise, y)), prior.condition(operator, noise, y)


def gaussian(loc=0.0, scale=1.0, cov=ROUGH, std=0.1):
    return problem(GaussianPrior(torch.full((1, 8, 8), loc), scale**2 * cov), std * scale)


def mixture(loc=0.0, scale=1.0):
    """Three components of different mean and covariance; the data tell which, the early noise levels do not."""
    white = torch.randn(3, 64, generator=Generator().manual_seed(0), dtype=torch.float64)
    means = (white @ torch.linalg.cholesky(torch.exp(-DISTANCE / 8)).mT).reshape(3, 1, 8, 8)
    covs = torch.stack([ROUGH, 0.5 * torch.exp(-DISTANCE / 4), 0.3 * torch.exp(-DISTANCE)])
    prior = GaussianMixturePrior(torch.tensor([0.5, 0.3, 0.2]), (loc + scale * means).float(), scale**2 * covs)
    return problem(prior, 0.3 * scale)


@pytest.mark.parametrize("loc, scale", UNITS)
@pytest.mark.parametrize("build", [gaussian, mixture])
def test_mmps_draws_the_exact_posterior(build, loc, scale):
    posterior, exact = build(loc, scale)
    method = MMPS()
    report = check_posterior(method, posterior, exact, members=512)  # the limits are its defaults
    assert method.sampler.calls <= 64
    assert report.members == 512


def test_warm_start_solves_what_cold_starts_cannot():
    """A smooth field with 1 % noise: the system's condition number is about 1e5."""
    posterior, exact = gaussian(cov=SMOOTH, std=0.01)
    generator = Generator().manual_seed(1)
    reports, residuals = [], []
    for warm in (True, False):
        ensemble = MMPS(iterations=3, warm=warm)(posterior, 256, generator)
        reports.append(compare_with_exact(ensemble.samples[:, 0], exact))
        residuals.append(ensemble.diagnostics["residual"])
    assert reports[0].mean_error < 0.09 < 0.12 < reports[1].mean_error  # floor 0.0625
    assert residuals[0] < 0.6 * residuals[1]


def test_more_steps_converge():
    """The posterior variance of the ODE approaches the exact one as steps grow (solver converged)."""
    posterior, exact = gaussian()
    errors = []
    for steps in (8, 64):
        method = MMPS(DPMSolver(steps), iterations=20, tolerance=1e-4)
        report = compare_with_exact(method(posterior, 256, Generator().manual_seed(0)).samples[:, 0], exact)
        errors.append(abs(report.trace_ratio - 1))
    assert errors[1] < 0.03 < errors[0]


def test_several_instruments():
    """Two instruments with different noise are one instrument with the noise of each."""
    prior = GaussianPrior(torch.zeros(1, 8, 8), ROUGH)
    generator = Generator().manual_seed(0)
    x = prior.sample(1, generator)
    masks, stds, parts = [half(generator), half(generator)], [0.1, 0.5], []
    exact = prior
    for mask, std in zip(masks, stds, strict=True):
        noise = GaussianNoise(std)
        y = noise.sample(mask(x), generator)
        parts.append(Likelihood(mask, noise, y))
        exact = exact.condition(mask, noise, y)
    check_posterior(MMPS(), Posterior(prior, tuple(parts)), exact, members=512)


def test_several_fields():
    prior = GaussianPrior(torch.zeros(1, 8, 8), ROUGH)
    generator = Generator().manual_seed(0)
    mask, noise = half(generator), GaussianNoise(0.1)
    y = noise.sample(mask(prior.sample(2, generator)), generator)
    exact = [prior.condition(mask, noise, row[None]) for row in y]
    check_posterior(MMPS(), Posterior(prior, Likelihood(mask, noise, y)), exact, members=512)


def test_dps_is_what_the_docs_say():
    """A heuristic: fits the data and stays bounded, but its mean is off by more than Monte Carlo explains."""
    posterior, exact = gaussian()
    ensemble = DPS(steps=500, zeta=0.5)(posterior, 128, Generator().manual_seed(0))
    report = compare_with_exact(ensemble.samples[:, 0], exact)
    assert 2 * report.mean_floor < report.mean_error < 0.6
    assert 0.7 < report.trace_ratio < 1.4
    part = posterior.likelihoods[0]
    chi2 = part.tile(128).chi2(ensemble.samples[:, 0])
    prior_chi2 = part.tile(128).chi2(posterior.prior.sample(128, Generator().manual_seed(0)))
    assert chi2.mean() < 0.05 * prior_chi2.mean()


def build_scaled(factor):
    posterior, _ = gaussian(0.0, factor)
    return posterior


def build_measured_in_other_units(factor):
    """Field unchanged; measurement, operator and noise multiplied by the factor."""
    posterior, _ = gaussian()
    part = posterior.likelihoods[0]

    class Gain:
        def __call__(self, x):
            return factor * part.operator(x)

        def adjoint(self, y):
            return factor * part.operator.adjoint(y)

    return Posterior(posterior.prior, Likelihood(Gain(), GaussianNoise(0.1 * factor), factor * part.y))


METHODS = [MMPS(DPMSolver(16)), MMPS(DPMSolver(8), solver="gmres"), DPS(steps=50)]


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_units_do_not_matter(method):
    check_unit_independence(method, build_scaled)
    check_unit_independence(method, build_measured_in_other_units, convert=lambda samples, factor: samples)


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_kelvin_is_the_same_ensemble(method):
    ours = method(gaussian()[0], 4, Generator().manual_seed(0)).samples
    kelvin = method(gaussian(280.0, 5.0)[0], 4, Generator().manual_seed(0)).samples
    assert torch.allclose((kelvin - 280) / 5, ours, atol=0.02)


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_members_and_fields_do_not_influence_each_other(method):
    prior = GaussianPrior(torch.zeros(1, 8, 8), ROUGH)
    generator = Generator().manual_seed(3)
    mask, noise = half(generator), GaussianNoise(0.1)
    y = noise.sample(mask(prior.sample(2, generator)), generator)

    def draw(y, members, **options):
        posterior = Posterior(prior, Likelihood(mask, noise, y))
        return method(posterior, members, Generator().manual_seed(7), **options).samples

    four = draw(y, 4)
    assert four.shape == (4, 2, 1, 8, 8)
    assert torch.equal(draw(y, 4), four)
    assert torch.allclose(draw(y, [3]), four[3:], atol=1e-4)
    assert torch.allclose(draw(y, 4, batch_size=3), four, atol=1e-4)
    assert torch.allclose(draw(y[:1], 4), four[:, :1], atol=1e-4)
    loud = torch.cat([y[:1], 100 * y[1:]])
    assert torch.allclose(draw(loud, 4)[:, 0], four[:, 0], atol=1e-4)
