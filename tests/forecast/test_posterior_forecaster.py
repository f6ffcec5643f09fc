"""Forecasts from a prior of windows: with the exact prior, the exact predictive law, with and without observations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import xarray as xr

import scidiff
from scidiff.assimilation import Observations
from scidiff.errors import InputError
from scidiff.forecast import ExactForecaster, PosteriorForecaster, StateSpec
from scidiff.forecast.exact import window_prior
from scidiff.noise import GaussianNoise
from scidiff.operators.mask import Mask
from scidiff.posterior import MMPS
from scidiff.priors import GaussianPrior
from scidiff.rng import Streams
from scidiff.samplers import Heun
from tests.forecast.exact_block import GRID, LAW, block_covariance, block_mean

ROWS = 2000
SAMPLER = MMPS(Heun(39), solver="direct")
SEEN = torch.rand(1, *GRID, generator=torch.Generator().manual_seed(5)) < 0.5


def field(rows: int = 1, seed: int = 0) -> torch.Tensor:
    return LAW.stationary.sample(torch.Generator().manual_seed(seed), rows)


def within_error(x: torch.Tensor, mean: torch.Tensor, cov: torch.Tensor, bias: float = 0.0) -> None:
    """Mean and all covariances of draws (rows, d) within Monte-Carlo error of the truth."""
    std, rows = cov.diagonal().sqrt(), len(x)
    assert ((x.double().mean(0) - mean) / std).abs().max() < 4.5 / math.sqrt(rows) + bias
    error = (torch.cov(x.double().mT) - cov) / torch.outer(std, std)
    assert error.abs().max() < 5 * math.sqrt(2 / rows) + bias


def test_the_window_prior_is_the_law_of_trajectories() -> None:
    x = LAW.trajectories(torch.Generator().manual_seed(0), 20_000, 2).flatten(1)
    prior = window_prior(LAW, 3)
    assert prior.shape == (1, 3, *GRID)
    assert (torch.cov(x.mT) - prior.covariance).abs().max() < 5 * math.sqrt(2 / 20_000)


def test_the_exact_prior_forecasts_the_exact_law() -> None:
    x = field()
    state = x[:, None, None].float().expand(ROWS, 1, 1, *GRID)
    model = PosteriorForecaster(window_prior(LAW, 4), 3, sampler=SAMPLER)
    drawn = model.sample(state, generator=Streams(0, range(ROWS)))
    assert drawn.shape == (ROWS, 3, 1, *GRID) and drawn.dtype == torch.float32
    within_error(drawn.flatten(1), block_mean(x, 3).flatten(), block_covariance(3))
    other = ExactForecaster(LAW, 3).sample(state, generator=Streams(1, range(ROWS))).double()
    assert ((drawn.mean(0) - other.mean(0)) / other.std(0)).abs().max() < 4.5 * math.sqrt(2 / ROWS)
    assert (drawn.var(0) / other.var(0)).log().abs().max() < 4.5 * 2 / math.sqrt(ROWS)


def test_the_default_sampler_comes_near() -> None:
    x, rows = field(), 200
    state = x[:, None, None].float().expand(rows, 1, 1, *GRID)
    model = PosteriorForecaster(window_prior(LAW, 3), 2)
    drawn = model.sample(state, generator=Streams(0, range(rows))).flatten(1).double()
    within_error(drawn, block_mean(x, 2).flatten(), block_covariance(2), bias=0.1)


def test_rows_are_their_own() -> None:
    state = field(3).reshape(3, 1, 1, *GRID).float()
    model = PosteriorForecaster(window_prior(LAW, 3), 2, sampler=SAMPLER)
    together = model.sample(state, generator=Streams(5, [1, 2, 6]))
    torch.testing.assert_close(together[1:2], model.sample(state[1:2], generator=Streams(5, [2])), atol=1e-4, rtol=1e-4)
    named = model.sample(state[:1], generator=Streams.named(["a"]))
    assert torch.equal(named, model.sample(state[:1], generator=Streams.named(["a"])))
    assert model.network_calls == 39 and PosteriorForecaster(window_prior(LAW, 3), 2).network_calls == 64


def partly_seen(window: int) -> tuple[Observations, torch.Tensor]:
    """Half of the points at the first state of the window, with noise."""
    y = torch.linspace(-1, 1, int(SEEN.sum()))[None, None]
    return Observations((0,), Mask(SEEN), GaussianNoise(0.3), y), y


@pytest.mark.parametrize("background", [None, 0.5])
def test_observations_of_the_past_give_the_exact_posterior(background: float | None) -> None:
    """Two past states, one of them measured at some points; the truth is the Gaussian prior, conditioned."""
    part, y = partly_seen(2)
    prior = window_prior(LAW, 4)
    model = PosteriorForecaster(prior, 2, 2, SAMPLER, background_std=background, observations=[part])
    given = field(2).reshape(1, 2, 1, *GRID).float()
    drawn = model.sample(given.expand(ROWS, -1, -1, -1, -1), generator=Streams(2, range(ROWS)))
    truth: GaussianPrior = prior.condition(lambda x: Mask(SEEN)(x[:, :, 0]), part.noise, y[:, 0])
    if background is not None:
        past = given.movedim(2, 1)
        truth = truth.condition(lambda x: x[:, :, :2], GaussianNoise(background), past)
    n = 2 * math.prod(GRID)
    mean, cov = truth.mean.flatten()[n:].double(), truth.covariance.double()[n:, n:]
    within_error(drawn.flatten(1), mean, cov)
    assert (cov.diagonal() / block_covariance(2).diagonal()).min() > 1.05  # it matters what was not seen


def dataset() -> tuple[xr.Dataset, StateSpec]:
    x = 10 + 3 * LAW.trajectories(torch.Generator().manual_seed(3), 1, 7)[0].numpy()
    coords = {"time": np.datetime64("2001-01-01", "ns") + np.arange(8) * np.timedelta64(1, "D")}
    coords |= {"y": np.arange(3.0), "x": np.arange(4.0)}
    ds = xr.Dataset({"t": (("time", "y", "x"), x.astype("f4"), {"units": "K"})}, coords)
    return ds, StateSpec.fit(ds, "t")


def test_a_forecast_with_observations_of_a_dataset() -> None:
    """Two initial times, observations of one of them; both members and times keep their own past."""
    ds, spec = dataset()
    model = PosteriorForecaster(window_prior(LAW, 4), 2, 2, SAMPLER, background_std=0.5)
    measured = ds.isel(time=[2]).where(xr.DataArray(SEEN[0].numpy(), dims=("y", "x")))
    measured["t"].attrs = {"units": "degC", "error_std": 0.3 * float(spec.scale)}
    measured["t"].values[:] -= 273.15
    times = ds.time.values[[2, 5]]
    options = {"members": 400, "spec": spec, "init_times": times, "output": None, "seed": 4}
    out = scidiff.forecast(model, ds, 3, observations=measured, **options)  # type: ignore[arg-type]
    u = spec.to_tensor(ds)
    drawn = spec.to_tensor(out.isel(init_time=0).rename(lead_time="time").drop_vars(["time", "valid_time"])).double()

    prior = window_prior(LAW, 4)
    y = u[2][SEEN]
    truth = prior.condition(lambda x: x[:, :, :2], GaussianNoise(0.5), u[None, 1:3].movedim(2, 1))
    truth = truth.condition(lambda x: Mask(SEEN)(x[:, :, 1]), GaussianNoise(0.3), y[None])
    n = 2 * math.prod(GRID)
    within_error(drawn[:, :2].flatten(1), truth.mean.flatten()[n:].double(), truth.covariance.double()[n:, n:], 0.02)

    alone = scidiff.forecast(model, ds, 3, observations=measured, **{**options, "init_times": times[1:]})  # type: ignore[arg-type]
    np.testing.assert_allclose(out["t"].values[1], alone["t"].values[0], rtol=1e-4, atol=1e-3)
    without = scidiff.forecast(model, ds, 3, **options)  # type: ignore[arg-type]
    assert abs(out["t"] - without["t"]).isel(init_time=0).max() > 0.1


def test_observations_that_cannot_be_used() -> None:
    ds, spec = dataset()
    model = PosteriorForecaster(window_prior(LAW, 4), 2, 2, SAMPLER)
    good = ds.isel(time=[2])
    good["t"].attrs["error_std"] = 1.0
    times = ds.time.values[[2]]
    assert model.observe(good, times, spec).observed
    for bad, match in (
        (ds.isel(time=[2]).assign(t=ds.t.isel(time=[2]).assign_attrs(error_std=0)), "error_std"),
        (good.rename(t="s"), "none of the variables t"),
        (good.isel(x=slice(3)), "lies on"),
        (good.isel(time=0), "dimension time"),
        (good.assign_coords(time=ds.time.values[[6]]), "no observation lies"),
    ):
        with pytest.raises(InputError, match=match):
            model.observe(bad, times, spec)
    assert PosteriorForecaster(window_prior(LAW, 4), 2, 2, background_std=1.0).observe(
        good.assign_coords(time=ds.time.values[[6]]), times, spec
    )


def test_bad_arguments() -> None:
    prior = window_prior(LAW, 3)
    with pytest.raises(ValueError, match="horizon and window"):
        PosteriorForecaster(prior, 0)
    with pytest.raises(ValueError, match=r"\(channels, 4, \*grid\)"):
        PosteriorForecaster(prior, 3)
    with pytest.raises(ValueError, match="given_std"):
        PosteriorForecaster(prior, 2, given_std=0)
    late = Observations((1,), Mask(SEEN), GaussianNoise(0.3), partly_seen(1)[1])
    with pytest.raises(ValueError, match="lie in the past"):
        PosteriorForecaster(prior, 2, observations=[late])
    with pytest.raises(ValueError, match="knows no forcings"):
        PosteriorForecaster(prior, 2).sample(torch.zeros(1, 1, 1, *GRID), torch.zeros(1, 3, 1, *GRID))
    with pytest.raises(ValueError, match="at least 1 state"):
        window_prior(LAW, 0)
