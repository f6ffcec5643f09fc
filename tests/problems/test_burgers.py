"""Burgers from sensors: the law, exact data, samplers beside importance sampling, messages."""

import math

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Generator

import scidiff
from scidiff.errors import InputError
from scidiff.inference import Ensemble, Likelihood, Posterior
from scidiff.operators import BlackBox
from scidiff.posterior import DAPS, MMPS, EnKG
from scidiff.problems import BurgersSensors
from scidiff.problems.burgers import BurgersAtSensors, initial_law
from scidiff.samplers import DPMSolver
from scidiff.testing import check_vjp

F64 = torch.float64


@pytest.fixture(scope="module")
def tiny() -> BurgersSensors:
    """Strong nonlinearity for the size: fields as wide as the viscosity can steepen, little data, much noise."""
    return BurgersSensors(16, 3, 3, noise=0.08, viscosity=0.02, duration=0.6, scale=70.0, courant=1.2)


@pytest.fixture(scope="module")
def truth(tiny):
    """Mean and standard deviation of the posterior by importance sampling from the prior."""
    observation = tiny.case(1).observation
    posterior = tiny.posterior(observation)
    part = posterior.likelihood
    x = tiny.prior.sample(20_000, Generator().manual_seed(0)).double()
    w = torch.softmax(part.noise.log_prob(part.y.double().expand(len(x), -1), part.operator(x)), 0)
    mean = (w[:, None, None] * x).sum(0)
    sd = (w[:, None, None] * (x - mean).square()).sum(0).sqrt()
    assert float(1 / w.square().sum()) > 300, "too few draws count"
    return observation, mean, sd


def test_the_law_is_that_of_the_series():
    """Variance, covariance and the missing constant, against the sum over waves."""
    n = 32
    law = initial_law(n)
    k = torch.arange(1, 400, dtype=F64)
    S = 49.0**2 * ((2 * math.pi * k).square() + 49) ** -2.5
    for lag in (0, 3):
        expected = float((2 * S * torch.cos(2 * math.pi * k * lag / n)).sum())
        assert float(law.dense()[0, lag]) == pytest.approx(expected, rel=1e-4)
    assert float(law.dense().sum(1).abs().max()) < 1e-12
    assert math.sqrt(law.trace / n) == pytest.approx(0.274, abs=1e-3)


def test_data_are_exact_and_owe_nothing_to_the_solver():
    problem = BurgersSensors(points=48, frames=6)
    case = problem.case(3)
    xr.testing.assert_identical(case.observation, problem.case(3).observation)
    assert "Cole and Hopf" in case.observation.attrs["simulated"]
    operator = problem.posterior(case.observation).likelihood.operator
    x = torch.as_tensor(case.truth["velocity"].values)[None, None]
    r = (torch.as_tensor(case.observation["observation"].values).flatten() - operator(x)[0]) / problem.noise
    assert 0.7 < float(r.square().mean()) < 1.4
    plane = problem.plane(x.double(), case.truth["t"].values)[0]
    assert float((plane - torch.as_tensor(case.truth["plane"].values)).abs().max()) < 2e-3
    again = problem.observe(case.truth, Generator().manual_seed(0))
    assert float(abs(again["observation"] - case.observation["observation"]).max()) < 6 * problem.noise
    strong = BurgersSensors(points=32, viscosity=0.002, frames=2).case(0).observation
    assert "exponential time differences" in strong.attrs["simulated"] and bool(
        np.isfinite(strong["observation"]).all()
    )


def test_sensors_read_between_the_points():
    problem = BurgersSensors(points=24, frames=2)
    flow = problem._flow([0.01])
    positions, seen = torch.tensor([0.111, 0.625, 0.9]), torch.tensor([[True, False, True]])
    operator = BurgersAtSensors(flow, positions, seen)
    at = torch.stack(
        [torch.cos(2 * math.pi * 3 * torch.tensor([0.111, 0.9])), torch.sin(2 * math.pi * torch.tensor([0.111, 0.9]))]
    )
    x = torch.arange(24, dtype=F64) / 24
    fields = torch.stack([torch.cos(2 * math.pi * 3 * x), torch.sin(2 * math.pi * x)])
    assert torch.allclose((fields @ operator.weights.mT)[:, [0, 2]], at.double(), atol=1e-6)
    assert operator(fields[:, None]).shape == (2, 2)
    assert check_vjp(operator, 0.3 * fields[:, None]) < 1e-5


@pytest.mark.parametrize(
    ("sampler", "off", "wide"),
    [
        (MMPS(sampler=DPMSolver(12, stochastic=True), iterations=4, linearisations=1), 0.35, 1.5),
        (DAPS(steps=12, moves=2), 0.5, 1.55),
        (EnKG(particles=48, steps=10, inner=4), 0.4, 1.25),
    ],
    ids=["mmps", "daps", "enkg"],
)
def test_samplers_beside_importance_sampling(tiny, truth, sampler, off, wide):
    """Few levels and 48 members (chance alone is 0.14 off): MMPS and DAPS are too wide by a third, and known to be."""
    observation, mean, sd = truth
    posterior = tiny.posterior(observation)
    if isinstance(sampler, EnKG):  # through a black box: no gradients
        part = posterior.likelihood
        box = BlackBox(lambda x: part.operator(torch.as_tensor(x)).numpy())
        posterior = Posterior(tiny.prior, Likelihood(box, part.noise, part.y), (1, tiny.points))
    draws = sampler(posterior, 48, Generator().manual_seed(1)).samples.double().reshape(48, 1, -1)
    error = ((draws.mean(0) - mean) / sd).square().mean().sqrt()
    ratio = draws.var(0).sum() / sd.square().sum()
    print(type(sampler).__name__, float(error), float(ratio))
    assert float(error) < off and 0.75 < float(ratio) < wide
    prior_error = (mean / sd).square().mean().sqrt()
    assert float(prior_error) > 2 * float(error), "the data must say something"


def test_reconstruct_evaluate_and_plot(tiny):
    case = tiny.case(2)
    sampler = MMPS(sampler=DPMSolver(6, stochastic=True), iterations=2, linearisations=1)
    result = scidiff.reconstruct(tiny, case.observation, sampler, members=6, truth=case.truth)
    assert result["velocity"].dims == ("member", "x")
    scores = tiny.evaluate(result, case.truth)
    assert (
        0 < float(scores["relative_l2"]) < 1
        and 0 < float(scores["plane_relative_l2"]) < float(scores["relative_l2"]) + 0.2
    )
    assert len(tiny.plot(result).axes) == 5
    exact = tiny.evaluate(Ensemble(torch.as_tensor(case.truth["velocity"].values)[None, None, None]), case.truth)
    assert float(exact["relative_l2"]) == 0 and float(exact["plane_relative_l2"]) < 0.1


def test_the_most_probable_field_beats_the_first_frame(tiny):
    case = BurgersSensors(points=32, frames=8).case(0)
    problem = BurgersSensors(points=32, frames=8)
    found = problem.baselines(case.observation)
    error = {k: float(((v - case.truth["velocity"]) ** 2).mean()) for k, v in found.items()}
    assert error["most_probable"] < error["first_frame"] < float((case.truth["velocity"] ** 2).mean()) * 1.5
    assert problem.check(case.observation)["warnings"] == []
    assert "check the units" in problem.check(case.observation + 5)["warnings"][0]


def test_read_takes_files_arrays_and_gaps(tiny, tmp_path):
    observation = tiny.case(0).observation
    observation.to_netcdf(tmp_path / "series.nc", engine="h5netcdf")
    xr.testing.assert_allclose(tiny.read(tmp_path / "series.nc"), observation)
    xr.testing.assert_allclose(tiny.read(observation["observation"].values)["observation"], observation["observation"])
    gaps = observation.copy(deep=True)
    gaps["observation"][1, 2] = np.nan
    part, full = tiny.posterior(tiny.read(gaps)).likelihood, tiny.posterior(observation).likelihood
    keep = np.arange(9) != 5
    x = tiny.prior.sample(2, Generator().manual_seed(0))
    assert torch.equal(part.operator(x), full.operator(x)[:, keep]) and torch.equal(part.y, full.y[:, keep])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda o: o.rename(observation="data"), "expected a variable 'observation'"),
        (lambda o: o.assign_coords(position=o["position"] + 1), "outside the line"),
        (lambda o: o.assign_coords(t=o["t"] * 2), "at most 0.6, found"),
        (lambda o: o.isel(t=slice(None, None, -1)), "must increase"),
        (lambda o: o.map(lambda v: v * np.nan), "nothing was observed"),
        (lambda o: o.map(lambda v: v * np.inf), "infinite"),
        (lambda o: o.drop_vars("position"), "'position'"),
        (lambda o: np.zeros((2, 2)), r"shape \(2, 2\)"),
        (lambda o: "nowhere.nc", "no such file"),
    ],
)
def test_wrong_observations_are_named(tiny, change, message):
    with pytest.raises(InputError, match=message):
        tiny.read(change(tiny.case(0).observation))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": 8}, "at least 16 points"),
        ({"noise": 0.0}, "noise must be positive"),
        ({"courant": 5.0}, "courant must lie in"),
    ],
)
def test_bad_parameters_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        BurgersSensors(**options)
