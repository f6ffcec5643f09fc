"""A flow seen at few points: its law and forcing, cases, the exact posterior of the forward problem, scores."""

import math

import numpy as np
import pytest
import torch

import scidiff
from scidiff import problems
from scidiff.inference import Ensemble
from scidiff.linalg import Stationary
from scidiff.noise import GaussianNoise
from scidiff.operators import LinearMap
from scidiff.posterior import MMPS
from scidiff.priors import GaussianPrior
from scidiff.problems.flow_baselines import randomised
from scidiff.problems.imaging import tensor
from scidiff.samplers import DPMSolver

NAMES = ["navier-stokes-forward", "navier-stokes-inverse"]
SMALL = {"size": 16, "points": 20}


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_law_is_the_stated_one_on_every_grid() -> None:
    problem = problems.get("navier-stokes-inverse", **SMALL)
    k = torch.arange(-40, 41, dtype=torch.float64)
    density = 2 * 7.0**3 * (4 * math.pi**2 * (k[:, None].square() + k.square()) + 49) ** -2.5
    density[40, 40] = 0
    assert float(problem.law((80, 80)).variance.mean()) == pytest.approx(float(density.sum()), rel=1e-3)
    wave = torch.cos(2 * math.pi * 2 * torch.arange(16, dtype=torch.float64) / 16).expand(1, 1, 16, 16)
    power = float((wave * problem.law((16, 16)).cov.matmul(wave)).sum()) / 256**2
    assert power == pytest.approx(float(density[40, 42]) / 2, rel=1e-10)
    assert problem.std == pytest.approx(0.26, abs=0.01)


def test_a_fluid_at_rest_is_stirred_exactly() -> None:
    """The forcing is one plane wave, which does not carry itself: f (1 - e^(-nu k^2 T)) / (nu k^2), k^2 = 8 pi^2."""
    problem = problems.get("navier-stokes-inverse", **SMALL, viscosity=0.02, time=0.7)
    found = problem.flow((16, 20), steps=30)(torch.zeros(1, 1, 16, 20, dtype=torch.float64))[0, 0]
    y, x = (torch.arange(n, dtype=torch.float64) / n for n in (16, 20))
    phase = 2 * math.pi * (y[:, None] + x * 16 / 16)
    rate = 0.02 * (2 * math.pi) ** 2 * (1 + (16 / 20) ** 2)  # cells are square: the box is 20/16 wide
    expected = 0.1 * (phase.sin() + phase.cos()) * (1 - math.exp(-0.7 * rate)) / rate
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_cases_are_seen_at_the_sensors_and_fit_their_posterior(name: str) -> None:
    problem = problems.get(name, **SMALL, noise=0.02)
    case = problem.case(1)
    observation = problem.read(case.observation)
    seen = problem.seen(observation)
    assert int(seen.sum()) == 20 and torch.equal(seen, problem.seen(problem.case(2).observation))
    assert not torch.equal(seen, problem.seen(problems.get(name, **SMALL, seed=1).case(1).observation))
    source = case.truth["vorticity" if "forward" in name else "end_vorticity"]
    misfit = (problem.measurement(observation)[0, 0] - tensor(source)[seen]) / float(observation["noise_std"])
    assert 0.4 < float(misfit.square().mean()) < 2.2
    x = tensor(case.truth["vorticity"])[None, None]
    assert 0.4 < float(problem.posterior(observation).likelihood.residual(x).square().mean()) < 2.2
    assert case.truth.identical(problem.case(1).truth) and not case.truth.equals(problem.case(2).truth)
    own = problem.observe(case.truth, rng())
    assert int(np.isfinite(own[problem.measured].values).sum()) == 20
    assert problem.check(observation)["observations"] == 20 and problem.config()["size"] == 16
    assert float(observation["noise_std"]) >= 0.02 * problem.std


def test_the_images_of_exact_draws_have_the_scores_they_should() -> None:
    problem = problems.get("navier-stokes-forward", size=16, points=40, noise=0.05)
    case = problem.case(0)
    observation = problem.read(case.observation)
    exact = problem.exact(observation)
    part = problem.likelihood(observation)
    dense = problem.prior.condition(part.operator, GaussianNoise(float(observation["noise_std"])), part.y.double())
    torch.testing.assert_close(exact.mean, dense.mean.double(), rtol=0, atol=1e-6)
    later = problem.later(tensor(case.truth["vorticity"])[None, None, None])[0, 0, 0]
    error = (later - tensor(case.truth["end_vorticity"])).norm() / later.norm()
    assert 1e-6 < float(error) < 0.03, "the truth comes from a finer grid, so it differs a little"
    result = observation.assign(vorticity=(("member", "y", "x"), exact.sample(100, rng())[:, 0].float().numpy()))
    scores = {k: float(v) for k, v in problem.evaluate(result, case.truth).items()}
    assert scores["relative_l2"] == pytest.approx(scores["relative_l2_bayes"], rel=0.05)
    assert scores["relative_l2"] < scores["relative_l2_initial"], "viscosity smooths the error away"
    assert scores["relative_l2_initial"] == pytest.approx(scores["relative_l2_kriging_initial"], rel=0.05)
    wrong = problem.evaluate(Ensemble(torch.zeros(2, 1, 1, 16, 16)), case.truth)
    assert float(wrong["relative_l2"]) > 2 * scores["relative_l2"] and "relative_l2_bayes" not in wrong


@pytest.mark.parametrize("name", NAMES)
def test_reconstruct_beats_taking_the_data_for_the_answer(name: str) -> None:
    problem = problems.get(name, **SMALL, noise=0.05, iterations=10, model_error=0.002)
    case = problem.case(0)
    sampler = MMPS(DPMSolver(6, stochastic=True), iterations=4, linearisations=1)
    result = scidiff.reconstruct(problem, case.observation, sampler, members=2, truth=case.truth)
    scores = {k: float(v) for k, v in problem.evaluate(result, case.truth).items()}
    if "forward" in name:
        assert scores["relative_l2"] < 1.7 * scores["relative_l2_bayes"]
    else:
        assert scores["relative_l2"] < scores["relative_l2_no_dynamics"]
        assert scores["relative_l2_4dvar"] < scores["relative_l2_no_dynamics"]
    assert result["vorticity"].dims == ("member", "y", "x") and problem.plot(result) is not None


def test_an_ensemble_of_4d_vars_draws_the_posterior_of_a_linear_operator() -> None:
    cov = Stationary.power_law((3, 4), channels=1)
    matrix = torch.randn(5, 12, generator=rng(1), dtype=torch.float64)
    operator, noise = LinearMap(matrix, (1, 3, 4)), GaussianNoise(0.4)
    law = GaussianPrior(torch.zeros(1, 3, 4, dtype=torch.float64), cov)
    y = torch.randn(1, 5, generator=rng(2), dtype=torch.float64)
    exact = law.condition(operator, noise, y)
    members = 60
    x = randomised(cov, operator, noise, y, members, rng(3), 40)[:, 0].flatten(1)
    white = torch.linalg.solve(torch.linalg.cholesky(exact.cov.dense().double()), (x - exact.mean.flatten()).mT)
    assert float(white.square().mean()) == pytest.approx(1, abs=3.5 * (2 / (12 * members)) ** 0.5)
    assert float(white.mean(1).square().mean() * members) == pytest.approx(1, abs=3.5 * (2 / 12) ** 0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 8}, "at least 16"),
        ({"points": 0}, "points must lie between"),
        ({"points": 300}, "points must lie between"),
        ({"viscosity": 0.0}, "viscosity must be positive"),
        ({"noise": -1.0}, "must not be negative"),
        ({"time": 0.0}, "times must be positive"),
    ],
)
def test_wrong_parameters_are_refused(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        problems.get("navier-stokes-inverse", **{**SMALL, **arguments})
