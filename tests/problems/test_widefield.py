"""Widefield deconvolution: baselines by their definitions, the exact linear posterior, cases, the real beads."""

import numpy as np
import pytest
import torch

import scidiff
from scidiff import Likelihood, Posterior
from scidiff.errors import InputError
from scidiff.noise import GaussianNoise, PoissonNoise
from scidiff.operators import Background, WidefieldBlur
from scidiff.posterior import MMPS
from scidiff.priors import GaussianPrior, TransformedPrior
from scidiff.problems.imaging import tensor
from scidiff.problems.widefield import WidefieldDeconvolution
from scidiff.problems.widefield_baselines import correlation_length, richardson_lucy, spectrum, wiener
from scidiff.samplers import DPMSolver
from scidiff.transforms import Softplus

SHAPE = (4, 5, 6)


def blur(generator, **arguments) -> WidefieldBlur:
    kernel = torch.rand(3, 3, 5, generator=generator, dtype=torch.float64)
    return WidefieldBlur(kernel / kernel.sum(), SHAPE, **arguments)


def test_richardson_lucy_never_lowers_the_likelihood_and_keeps_the_light(generator) -> None:
    operator = blur(generator, periodic=True)
    x = 50 * torch.rand(1, 1, *SHAPE, generator=generator, dtype=torch.float64) ** 4
    y = PoissonNoise().sample(operator(x) + 2, generator)
    values, field = [], None
    for _ in range(6):
        field = richardson_lucy(operator, y, 2.0, 3, field)
        values.append(float(PoissonNoise().log_prob(y, operator(field) + 2)))
        assert float(field.min()) >= 0
    assert all(b > a for a, b in zip(values, values[1:], strict=False))
    without = richardson_lucy(operator, y, 0.0, 2)
    assert float(without.sum()) == pytest.approx(float(y.sum()), rel=1e-9)
    with pytest.raises(ValueError, match="negative"):
        richardson_lucy(operator, y - 100)


@pytest.mark.parametrize("margin", [0, 1])
def test_wiener_is_the_mean_of_the_exact_posterior(margin, generator) -> None:
    operator = blur(generator, margin=margin)
    cov = spectrum(operator.grid, (0.4, 0.2, 0.2), 0.3, 2.0)
    law = GaussianPrior(torch.full((1, *operator.grid), 7.0).double(), cov)
    assert float(law.variance.mean()) == pytest.approx(2.0)
    noise = GaussianNoise(0.3)
    y = noise.sample(operator(law.sample(1, generator)) + 1.5, generator)
    exact = law.condition(operator, noise, y - 1.5)
    found = wiener(operator, y, 7.0, cov, 0.3, 1.5, iterations=400, tolerance=1e-12)
    torch.testing.assert_close(found[0], exact.mean, rtol=0, atol=1e-7)


def test_mmps_draws_from_the_exact_three_dimensional_posterior(generator) -> None:
    operator = blur(generator, margin=1)
    law = GaussianPrior(torch.zeros(1, *operator.grid).double(), spectrum(operator.grid, (0.4, 0.2, 0.2), 0.3, 2.0))
    noise = GaussianNoise(0.3)
    y = noise.sample(operator(law.sample(1, generator)), generator)
    posterior = Posterior(law, Likelihood(operator, noise, y))
    exact = law.condition(operator, noise, y)
    sampler = MMPS(sampler=DPMSolver(24, stochastic=True), iterations=8)
    report = scidiff.testing.compare_with_exact(sampler(posterior, 96, generator).samples[:, 0], exact)
    assert report.mean_error < 0.16 and 0.9 < report.trace_ratio < 1.1 and 0.87 < report.coverage < 0.93


def test_a_length_is_recovered_from_blurred_noisy_fields(generator) -> None:
    shape, voxel = (12, 24, 24), (0.4, 0.2, 0.2)
    kernel = torch.tensor([0.25, 0.5, 0.25]).double()
    kernel = kernel[:, None, None] * kernel[:, None] * kernel
    operator = WidefieldBlur(kernel, shape, periodic=True)
    for length in (0.2, 0.6):
        x = GaussianPrior(torch.zeros(1, *shape).double(), spectrum(shape, voxel, length)).sample(1, generator)
        y = operator(x) + 0.1 * torch.randn(x.shape, generator=generator, dtype=torch.float64)
        assert correlation_length(y[0, 0], kernel, voxel, 0.01) == pytest.approx(length, rel=0.45)


def test_transformed_priors_decode_the_same_state(generator) -> None:
    law = GaussianPrior(torch.full((1, 4, 5), 0.3).double(), 1.7)
    prior = TransformedPrior(law, Softplus(2.0))
    x = prior.sample(500, generator)
    assert float(x.min()) > 0 and prior.affine is False and prior.shape == (1, 4, 5)
    u = prior.encode(x)
    torch.testing.assert_close(prior.decode(u), x)
    assert abs(float(u.mean())) < 0.05 and abs(float(u.std()) - 1) < 0.05
    sigma = torch.tensor(0.5).double()
    torch.testing.assert_close(prior.denoise(u, sigma), law.denoise(u, sigma))
    torch.testing.assert_close(prior.rescaled(3.0).decode(u), 3 * x)
    with pytest.raises(TypeError, match="transform"):
        TransformedPrior(law, torch.exp)  # type: ignore[arg-type]


# The problem

SMALL = {"shape": (6, 10, 12), "margin": (2, 3, 3), "gain": 2.0, "offset": 100.0, "iterations": 80}


@pytest.fixture(scope="module")
def case():
    return WidefieldDeconvolution(**SMALL).case(0)


def test_cases_fit_the_model_of_the_inversion(case) -> None:
    problem = WidefieldDeconvolution(**SMALL)
    observation = problem.read(case.observation)
    x = tensor(case.truth["fluorescence"])[None, None]
    operator, y = problem.operator(observation), problem.measurement(observation)
    assert isinstance(operator, Background)
    z = operator(x)
    assert 0.8 < float(((y - z).square() / (2 * z)).mean()) < 1.5  # photon noise, and little else
    assert float(observation["misfit"]) < 1.5 and problem.check(observation)["warnings"] == []
    assert problem.read(observation).identical(observation)
    assert case.truth["z"].attrs["units"] == "um" and float(case.truth["z"][0]) == pytest.approx(-0.8)


def test_a_case_can_be_asked_as_it_is(case) -> None:
    from scidiff.benchmark.questions import question

    problem = WidefieldDeconvolution(**SMALL)
    asked = question("widefield", 0, problem)
    read = problem.posterior(problem.read(case.observation))
    torch.testing.assert_close(asked.posterior.likelihoods[0].y, read.likelihoods[0].y)
    assert {"richardson_lucy", "wiener"} <= set(asked.estimates()) and asked.truth is not None


def test_reconstruction_is_positive_and_scored_inside_the_stack(case) -> None:
    problem = WidefieldDeconvolution(**SMALL)
    sampler = MMPS(sampler=DPMSolver(8, stochastic=True), iterations=3)
    result = scidiff.reconstruct(problem, case.observation, sampler=sampler, members=2, truth=case.truth)
    assert result["fluorescence"].dims == ("member", "z", "y", "x") and float(result["fluorescence"].min()) > 0
    scores = problem.evaluate(result, case.truth)
    assert {"psnr", "psnr_richardson_lucy", "psnr_wiener", "crps"} <= set(scores.data_vars)
    x = tensor(case.truth["fluorescence"])[2:-2, 3:-3, 3:-3]
    mean = torch.as_tensor(result["fluorescence_mean"].values)[2:-2, 3:-3, 3:-3]
    assert float(scores["rmse"]) == pytest.approx(float((mean - x).square().mean().sqrt()), rel=1e-4)
    gaussian = WidefieldDeconvolution(**SMALL, prior="gaussian", noise="gaussian")
    posterior = gaussian.posterior(gaussian.read(case.observation))
    assert posterior.linear and posterior.likelihood.whitens


def test_a_wrong_pattern_is_noticed(case) -> None:
    problem = WidefieldDeconvolution(**{**SMALL, "na": 0.3})
    observation = problem.read(case.observation)
    assert float(observation["misfit"]) > 1.5
    assert "point-spread function" in problem.check(observation)["warnings"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda o: -o, "units|negative"),
        (lambda o: o.isel(plane=slice(2)), "at least 4"),
        (lambda o: o.drop_vars(["plane", "row", "column"]), "states no voxel size"),
        (lambda o: np.zeros((3, 3)), "expected dimensions"),
        (lambda o: "nowhere.tif", "no such file"),
    ],
)
def test_wrong_stacks_are_named(case, change, message) -> None:
    with pytest.raises(InputError, match=message):
        WidefieldDeconvolution(**SMALL).read(change(case.observation))


def test_real_beads(real_data) -> None:
    """The hollow bead is bright at its rim; pattern and photon noise do not agree, and the check says so."""
    folder = real_data / "imaging"
    if not (folder / "bead_widefield_data.tif").is_file():
        pytest.skip(f"no bead stack in {folder}")
    from scidiff.datasets.tiff_stack import read_stack
    from scidiff.operators import photon_transfer

    stack = tensor(read_stack(folder / "bead_widefield_data.tif"))
    camera = photon_transfer(stack)
    assert 0.02 < camera.gain < 0.035 and 180 < camera.offset < 203 and camera.deviation < 0.1
    kernel = tensor(read_stack(folder / "bead_widefield_kernel.tif"))[16:48, 16:48, 16:48]
    operator = WidefieldBlur(kernel / kernel.sum(), (32, 32, 32))
    y = (stack[10:42, 16:48, 16:48] - camera.offset)[None, None]
    x = richardson_lucy(operator, y, 0.0, 30)[0, 0]
    line = x[15, 16]  # across the bead, below its middle
    rims, centre = torch.stack([line[8:13].max(), line[17:23].max()]), line[15]
    assert bool((rims > 1.1 * centre).all()) and float(centre) > 5 * float(line[0])
