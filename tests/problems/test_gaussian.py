"""The problem whose answer is known: everything compares with it."""

import numpy as np
import pytest
import torch
import xarray as xr

import scidiff
from scidiff.errors import InputError
from scidiff.inference import Ensemble
from scidiff.problems import GaussianInpainting


@pytest.fixture(scope="module")
def problem() -> GaussianInpainting:
    return GaussianInpainting(shape=(6, 9), observed=0.4)


def test_cases_are_reproducible_and_differ(problem: GaussianInpainting) -> None:
    a, b, c = problem.case(0), problem.case(0), problem.case(1)
    xr.testing.assert_identical(a.truth, b.truth)
    xr.testing.assert_identical(a.observation, b.observation)
    assert abs(a.truth["temperature"] - c.truth["temperature"]).mean() > 1
    observed = a.observation["observation"]
    assert int(observed.notnull().sum()) == round(0.4 * 54)
    error = float((observed - a.truth["temperature"]).std())
    assert 0.5 < error < 1.6


def test_exact_is_the_gaussian_process_formula(problem: GaussianInpainting) -> None:
    case = problem.case(2)
    exact = problem.exact(case.observation)
    cov = problem.prior.covariance.double()
    values = torch.as_tensor(case.observation["observation"].values).flatten().double()
    seen = torch.isfinite(values)
    gain = cov[:, seen] @ torch.linalg.inv(cov[seen][:, seen] + torch.eye(int(seen.sum())))
    torch.testing.assert_close(exact.mean.flatten().double(), 280 + gain @ (values[seen] - 280), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(exact.covariance.double(), cov - gain @ cov[seen], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(problem.posterior(case.observation).likelihood.y[0].double(), values[seen])


def test_exact_samples_score_as_calibrated(problem: GaussianInpainting) -> None:
    scores = []
    for index in range(8):
        case = problem.case(index)
        draws = problem.exact(case.observation).sample(40, torch.Generator().manual_seed(index))
        result = problem.evaluate(Ensemble(draws[:, None]), case.truth)
        scores.append([float(result[k]) for k in ("coverage_90", "spread_skill", "crps", "rmse")])
    coverage, spread, crps, rmse = np.mean(scores, 0)
    assert coverage == pytest.approx(0.9, abs=0.03)
    assert spread == pytest.approx(1.0, abs=0.12)
    assert 0 < crps < rmse < 5


def test_reconstruct_comes_close_to_the_exact_answer(problem: GaussianInpainting) -> None:
    case = problem.case(0)
    result = scidiff.reconstruct(problem, case.observation, members=64, truth=case.truth)
    assert result["temperature"].dims == ("member", "y", "x")
    assert result["temperature"].attrs["units"] == "K"
    scores = problem.evaluate(result, case.truth)
    assert float(scores["mean_error"]) < 3 / np.sqrt(64)
    assert 0.8 < float(scores["trace_ratio"]) < 1.2
    figure = problem.plot(result)
    assert len(figure.axes) >= 4


def test_read_takes_files_arrays_and_other_units(problem: GaussianInpainting, tmp_path) -> None:
    observation = problem.case(0).observation
    observation.to_netcdf(tmp_path / "stations.nc", engine="h5netcdf")
    xr.testing.assert_allclose(problem.read(tmp_path / "stations.nc"), observation)
    xr.testing.assert_allclose(problem.read(observation["observation"].values), observation)
    celsius = observation.copy()
    celsius["observation"] = (observation["observation"] - 273.15).assign_attrs(units="degC")
    xr.testing.assert_allclose(problem.read(celsius)["observation"], observation["observation"], atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda o: o.rename(observation="data"), "expected a variable 'observation'"),
        (lambda o: o.isel(y=0), r"dimensions \('x',\)"),
        (lambda o: o.isel(y=slice(3)), r"shape \(3, 9\)"),
        (lambda o: o * np.nan, "samples nothing|units"),
        (lambda o: o.assign(observation=o["observation"].assign_attrs(units="m")), "units|convert"),
        (lambda o: o.map(lambda v: (v * np.inf).assign_attrs(units="K")), "infinite"),
        (lambda o: np.zeros((2, 3)), r"shape \(2, 3\)"),
        (lambda o: "nowhere.nc", "no such file"),
    ],
)
def test_wrong_observations_are_named(problem: GaussianInpainting, change, message: str) -> None:
    with pytest.raises(InputError, match=message):
        problem.read(change(problem.case(0).observation))


def test_check_warns_of_observations_that_the_prior_cannot_explain(problem: GaussianInpainting) -> None:
    observation = problem.case(0).observation
    assert problem.check(observation)["warnings"] == []
    assert "chi2" in problem.check(observation + 50)["warnings"][0]


def test_baselines(problem: GaussianInpainting) -> None:
    case = problem.case(0)
    found = problem.baselines(case.observation)
    seen = case.observation["observation"].notnull()
    assert float(abs(found["nearest"] - case.observation["observation"]).where(seen).max()) == 0
    error = {k: float(((v - case.truth["temperature"]) ** 2).mean()) for k, v in found.items()}
    assert error["exact"] < error["nearest"]
