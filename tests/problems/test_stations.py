"""Stations to a field: the grid posterior is kriging, samplers agree with it, scores are those of closed forms."""

import math

import numpy as np
import pytest
import torch

import scidiff
from scidiff import problems
from scidiff.datasets.station_law import season_of
from scidiff.errors import InputError
from scidiff.metrics import crps
from scidiff.posterior import MMPS
from scidiff.problems.station_scores import gaussian_crps, gaussian_scores, inverse_distance, mixture_crps, nearest

NOAA = "climate/noaa_stations_tmax_daily_1990_1993.npz"


@pytest.fixture(scope="module")
def simulated():
    problem = problems.get("stations", spacing=2.0)
    return problem, problem.case(2)


def test_the_grid_posterior_is_kriging_without_a_grid(simulated):
    """The grid is an approximation whose error falls with its spacing; and the dense formula is the operator's."""
    gaps = []
    for spacing in (2.0, 1.0):
        problem = problems.get("stations", spacing=spacing, smoothness=1.5)
        observation = problem.case(2).observation
        exact = problem.exact(observation)
        mean, std = problem.kriging(observation, *problem.mesh)
        gaps.append(np.sqrt(((exact.mean.numpy().ravel() - mean) ** 2).mean()) / np.sqrt((std**2).mean()))
        assert float(exact.variance.sum()) == pytest.approx((std**2).sum(), rel=0.05)
    assert gaps[1] < 0.05 and gaps[1] < gaps[0]
    problem, case = simulated
    observation, prior = case.observation, problem.prior_for(case.observation)
    A = problem.operator(observation).dense((1, *prior.shape[1:])).matrix
    R = torch.diag(torch.from_numpy(observation["noise_std"].values[problem._seen(observation)]) ** 2)
    C, m, y = prior.covariance, prior.mean.flatten(), problem.measurement(observation)[0, 0]
    mean = m + C @ A.mT @ torch.linalg.solve(A @ C @ A.mT + R, y - A @ m)
    assert torch.allclose(problem.exact(observation).mean.flatten(), mean, atol=1e-6)


def test_a_sampler_agrees_with_the_exact_posterior(simulated):
    problem, case = simulated
    members = 64
    ensemble = MMPS()(problem.posterior(case.observation), members, torch.Generator().manual_seed(1))
    exact = problem.exact(case.observation)
    z = (ensemble.mean[0] - exact.mean) / exact.variance.sqrt()
    assert z.square().mean().sqrt() < 2 / math.sqrt(members)
    assert float(ensemble.samples.var(0).sum() / exact.variance.sum()) == pytest.approx(1, abs=0.15)


def test_simulated_cases_follow_their_law():
    """Over cases, truth and withheld values scatter about kriging as it says."""
    problem = problems.get("stations", spacing=4.0, smoothness=0.5)
    field, values = [], []
    for index in range(40):
        case = problem.case(index)
        o = case.observation
        mean, std = problem.kriging(o, *problem.mesh)
        field.append((case.truth["temperature"].values.ravel() - mean) / std)
        k = o["held_back_mask"].values
        mean, std = problem.kriging(o, o["station_lat"].values[k], o["station_lon"].values[k])
        values.append((o["held_back_observation"].values[k] - mean) / np.hypot(std, 1.0))
        assert not np.isfinite(o["observation"].values[k]).any()
    for z in (np.array(field), np.concatenate(values)):
        assert np.square(z).mean() == pytest.approx(1, abs=0.12)


def test_reconstruct_scores_withheld_stations(simulated, tmp_path):
    problem, case = simulated
    result = scidiff.reconstruct(problem, case.observation, members=16, truth=case.truth, output=tmp_path / "run")
    scores = problem.evaluate(result, case.truth)
    assert {"rmse", "held_back_rmse", "held_back_crps", "held_back_coverage_90", "held_back_spread_skill"} <= set(
        scores
    )
    assert scores["held_back_rmse"] == pytest.approx(float(scores["held_back_rmse_kriging"]), rel=0.2)
    assert float(scores["held_back_crps"]) < float(scores["held_back_crps_climatology"])
    assert result["temperature"].dims == ("member", "lat", "lon") and result["lat"].attrs["units"] == "degrees_north"
    assert (tmp_path / "run" / "figures" / "result.png").stat().st_size > 5_000
    case.observation.to_netcdf(tmp_path / "day.nc", engine="h5netcdf")
    again = problem.read(tmp_path / "day.nc")
    np.testing.assert_allclose(again["noise_std"], case.observation["noise_std"])


def test_baselines_and_scores_in_closed_form():
    lat, lon, y = np.array([30.0, 40.0]), np.array([0.0, 0.0]), np.array([1.0, 3.0])
    assert nearest(lat, lon, y, np.array([34.0, 36.0]), np.zeros(2)).tolist() == [1.0, 3.0]
    middle = inverse_distance(lat, lon, y, np.array([35.0, 32.0, 30.0]), np.zeros(3))
    np.testing.assert_allclose(middle, [2.0, (1 / 4 + 3 / 64) / (1 / 4 + 1 / 64), 1.0], rtol=1e-6)
    draws = torch.randn(4000, 1, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    truth = np.array([0.3, -2.0, 1.0])
    ours = gaussian_crps(np.zeros(3), np.ones(3), truth)
    np.testing.assert_allclose(ours, crps(draws, torch.from_numpy(truth)[None])[0], atol=0.02)
    narrow = draws[:1000, 0].numpy() * 0.8
    np.testing.assert_allclose(mixture_crps(narrow, truth, np.full(3, 0.6)), ours, atol=0.04)
    one = gaussian_scores(np.zeros(3), np.ones(3), truth)
    assert one["coverage_90"] == pytest.approx(2 / 3) and one["rmse"] == pytest.approx(np.sqrt((truth**2).mean()))
    assert gaussian_scores(np.zeros(3), None, truth)["crps"] == pytest.approx(np.abs(truth).mean())


@pytest.fixture(scope="module")
def observation(simulated):
    return simulated[1].observation.drop_vars("noise_std")


@pytest.mark.parametrize("change, message", [
    (lambda o: o.drop_vars("station_lat"), "expected a variable 'station_lat'"),
    (lambda o: o.assign(station_lon=o["station_lon"] + 40), "'station_lon' of .* stations lies outside the domain"),
    (lambda o: o.drop_vars("time"), "expected a scalar 'time'"),
    (lambda o: o.assign(noise_std=("station", 0.0 * o["station_lat"].values)), "'noise_std' must be positive"),
    (lambda o: o.assign(observation=o["observation"] * np.nan), "holds no number|no units"),
])  # fmt: skip
def test_wrong_observations(simulated, observation, change, message):
    with pytest.raises(InputError, match=message):
        simulated[0].read(change(observation))


@pytest.mark.parametrize("options, message", [
    ({"spacing": 0.0}, "spacing is in degrees"),
    ({"smoothness": 1.0}, "smoothness must be 0.5"),
    ({"test": 1991}, "must not be one of the training years"),
    ({"withheld": 1.0}, "share in"),
])  # fmt: skip
def test_wrong_settings(options, message):
    with pytest.raises(ValueError, match=message):
        problems.get("stations", **options)


def test_real_stations(real_data):
    """Kriging on days of the test year beats the baselines at withheld stations, and knows its error."""
    path = str(real_data / NOAA)
    problem = problems.get("stations", data=path, spacing=2.0)
    errors, inside = [], []
    for index in range(3, 365, 24):
        o = problem.case(index).observation
        k = o["held_back_mask"].values
        place, y = (o["station_lat"].values[k], o["station_lon"].values[k]), o["held_back_observation"].values[k]
        guesses = problem.guesses(o, *place)
        errors.append({name: np.square(v - y).mean() for name, v in guesses.items()})
        std = np.hypot(problem.kriging(o, *place)[1], problem.law.nugget[season_of(o["time"].values)])
        inside.append(gaussian_scores(guesses["kriging"], std, y)["coverage_90"])
    rms = {name: math.sqrt(np.mean([e[name] for e in errors])) for name in errors[0]}
    assert (
        rms["kriging"] < 0.9 * min(rms["nearest"], rms["inverse_distance"])
        and rms["kriging"] < 0.5 * rms["climatology"]
    )
    assert 0.85 < np.mean(inside) < 0.96
    assert problem.read(path)["time"].values == np.datetime64("1993-01-01")
    with pytest.raises(InputError, match="must be fitted before .*problem.data=FILE"):
        problems.get("stations").read(path)
    with pytest.raises(InputError, match="case 400 of 365 days"):
        problem.case(400)
