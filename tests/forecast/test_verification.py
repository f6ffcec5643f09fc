"""Scores of forecasts as Datasets: against xarray formulas, closed forms, and every refusal."""

import numpy as np
import pytest
import torch
import xarray as xr

import scidiff
from scidiff.errors import InputError
from scidiff.forecast import verify
from scidiff.forecast.grid import Grid
from scidiff.forecast.score_table import markdown
from scidiff.metrics import crps
from tests.forecast.toy import AR, DAY, fields, spec_of


def truth_and_forecast(members=5, times=40, leads=3, land=False):
    """A truth that obeys the model of the forecaster: an exact ensemble from every state."""
    spec = spec_of(fields(land=land), "slp", mask="missing" if land else None)
    first = fields(land=land)[["slp"]].isel(time=[0])
    truth = scidiff.forecast(AR(horizon=4), first, times, members=1, spec=spec, seed=9, output=None)
    truth = truth.isel(init_time=0, member=0).swap_dims(lead_time="valid_time")
    truth = truth.drop_vars(["init_time", "member", "lead_time"]).rename(valid_time="time")
    starts = truth.isel(time=slice(0, times - leads))
    return truth, scidiff.forecast(AR(horizon=1), starts, leads, members=members, spec=spec, output=None)


def test_scores_are_the_formulas_in_xarray():
    truth, forecast = truth_and_forecast()
    hecto = truth.assign(slp=(truth.slp / 100).assign_attrs(units="hPa"))
    names = ("crps", "rmse", "bias", "spread", "spread_skill", "brier")
    scores = verify(forecast, hecto, names, thresholds=[101800])
    y = truth.slp.sel(time=forecast.valid_time).astype("f8")
    x = forecast.slp.astype("f8")
    weight = xr.DataArray(Grid.of(truth.slp, ("lat", "lon")).area, dims=("lat", "lon"))

    def mean(a):
        return a.weighted(weight).mean(("init_time", "lat", "lon"))

    error = mean((x.mean("member") - y) ** 2)
    points = crps(torch.tensor(x.transpose("member", ...).values), torch.tensor(y.values))
    expected = {
        "crps": mean(xr.DataArray(points.numpy(), dims=("init_time", "lead_time", "lat", "lon"))),
        "rmse": np.sqrt(error),
        "bias": mean(x.mean("member") - y),
        "spread": np.sqrt(mean(x.var("member", ddof=1))),
        "spread_skill": np.sqrt(mean(x.var("member", ddof=1)) * 6 / 5 / error),
    }
    for name, value in expected.items():
        assert np.allclose(scores[f"slp_{name}"], value, rtol=1e-4, atol=0.02), name
    assert (scores.slp_cases == 37).all() and scores.slp_rmse.units == "Pa" and scores.lead_time[1] == 2 * DAY
    assert (scores.slp_crps_low < scores.slp_crps).all() and (scores.slp_crps < scores.slp_crps_high).all()
    assert (scores.slp_spread_skill > 0.85).all() and (scores.slp_spread_skill < 1.15).all()


def test_blocks_of_reading_change_nothing(monkeypatch):
    truth, forecast = truth_and_forecast()
    options = {"metrics": ("crps", "ranks", "spectrum", "reliability"), "thresholds": [101300]}
    whole = verify(forecast, truth, **options)
    monkeypatch.setattr("scidiff.forecast.scorer.BLOCK_NUMBERS", 5 * 20 * 2 * 3)
    parts = verify(forecast, truth, **options)
    xr.testing.assert_allclose(parts.drop_vars("slp_ranks"), whole.drop_vars("slp_ranks"), rtol=1e-9)
    assert whole.slp_ranks.dims == ("lead_time", "rank") and np.allclose(whole.slp_ranks.sum("rank"), 1)
    assert np.abs(whole.slp_ranks - 1 / 6).max() < 0.08
    assert whole.slp_spectrum.dims == ("lead_time", "spectrum_of", "wavenumber")
    ratio = whole.slp_spectrum.sel(spectrum_of="members") / whole.slp_spectrum.sel(spectrum_of="truth")
    assert np.abs(ratio.isel(wavenumber=slice(1, 3)) - 1).max() < 0.5


def test_baselines():
    truth, forecast = truth_and_forecast()
    scores = verify(forecast, truth, ("crps", "rmse"), baseline="persistence")
    start = truth.slp.sel(time=forecast.init_time)
    error = np.abs(start - truth.slp.sel(time=forecast.valid_time)).astype("f8")
    weight = xr.DataArray(Grid.of(truth.slp, ("lat", "lon")).area, dims=("lat", "lon"))
    expected = error.weighted(weight).mean(("init_time", "lat", "lon"))
    assert np.allclose(scores.slp_crps_baseline, expected, rtol=1e-4)
    assert np.allclose(scores.slp_crps_skill, 1 - scores.slp_crps / scores.slp_crps_baseline)
    assert (scores.slp_crps_skill_low > 0).all() and (scores.slp_crps_skill_low < scores.slp_crps_skill).all()
    same = verify(forecast, truth, ("crps",), baseline=forecast.isel(init_time=slice(None, None, -1)))
    assert np.allclose(same.slp_crps_skill, 0) and np.allclose(same.slp_crps_skill_high, 0)
    part = verify(forecast, truth, ("crps",), baseline=forecast.isel(init_time=slice(3, 20), lead_time=[0, 2]))
    assert part.slp_cases.values.tolist() == [17, 0, 17] and np.isnan(part.slp_crps[1])
    flat = truth.mean("time", keep_attrs=True)
    clim = verify(forecast, truth, ("crps", "acc"), baseline="climatology", climatology=flat)
    anomaly = np.abs(truth.slp.sel(time=forecast.valid_time) - flat.slp).astype("f8")
    assert np.allclose(clim.slp_crps_baseline, anomaly.weighted(weight).mean(("init_time", "lat", "lon")), rtol=1e-4)
    assert (clim.slp_acc[:1] > 0.6).all() and (clim.slp_acc[0] > clim.slp_acc[2])


def test_climatology_by_day_of_year():
    truth, forecast = truth_and_forecast()
    daily = truth.groupby("time.dayofyear").mean(keep_attrs=True)
    exact = verify(forecast, truth, ("acc",), climatology=truth)
    assert np.isnan(exact.slp_acc).all()  # no anomaly at all: 0 / 0
    same = verify(forecast, truth, ("rmse",), baseline="climatology", climatology=daily)
    assert np.allclose(same.slp_rmse_baseline, 0, atol=0.01)
    with pytest.raises(InputError, match="no dayofyear 11"):
        verify(forecast, truth, ("acc",), climatology=daily.sel(dayofyear=slice(1, 10)))


def test_names_of_others_levels_and_all_leads_together():
    ds = fields(20)
    out = scidiff.forecast(AR(), ds.isel(time=slice(0, 10)), 3, members=4, spec=spec_of(ds), output=None)
    scores = verify(out.rename(member="number", lead_time="prediction_timedelta"), ds)
    assert scores.t_crps.dims == ("lead_time", "level") and scores.slp_crps.dims == ("lead_time",)
    pooled = verify(out, ds, by=())
    assert np.allclose(pooled.t_crps, scores.t_crps.mean("lead_time")) and pooled.t_crps.dims == ("level",)
    assert not np.allclose(pooled.t_rmse, scores.t_rmse.mean("lead_time"), rtol=1e-6)
    one = verify(out.isel(member=0, drop=True), ds, ("crps", "spread_skill", "rmse"))
    assert "slp_spread_skill" not in one and (one.slp_crps < one.slp_rmse).all()
    text = markdown(scores)
    assert text.startswith("| lead_time | level | ") and "| 2 d | 850 |" in text and len(text.splitlines()) == 2 + 6


def test_land_is_left_out():
    truth, forecast = truth_and_forecast(land=True)
    scores = verify(forecast, truth, ("crps", "energy", "ranks"))
    assert np.isfinite(scores.slp_crps).all() and np.isfinite(scores.slp_energy).all()
    truth.slp[5] = np.nan
    assert verify(forecast, truth).slp_cases.values.tolist() == [36, 36, 36]


def test_refusals(tmp_path):
    truth, forecast = truth_and_forecast(times=8)
    for call, kind, words in [
        (lambda: verify(forecast, truth, ("crpss",)), ValueError, "crpss"),
        (lambda: verify(forecast, truth, ("brier",)), ValueError, "thresholds"),
        (lambda: verify(forecast, truth, ("acc",)), ValueError, "climatology"),
        (lambda: verify(forecast, truth, by=("month",)), ValueError, "by must"),
        (lambda: verify(forecast, truth, variables=["wind"]), InputError, "no 'wind'"),
        (lambda: verify(forecast, truth.rename(slp="p")), InputError, "share no variable"),
        (lambda: verify(forecast, truth.assign(slp=truth.slp.assign_attrs(units="K"))), InputError, "'K'"),
        (lambda: verify(forecast, truth.isel(lon=slice(1, 5))), InputError, "forecast lies on lon"),
        (lambda: verify(forecast, truth.assign_coords(time=truth.time + 900 * DAY)), InputError, "no valid time"),
        (lambda: verify(forecast.assign_attrs(complete=0), truth), InputError, "--resume"),
        (lambda: verify(truth, truth), InputError, "init_time"),
        (lambda: verify(tmp_path / "no.zarr", truth), InputError, "no such file"),
    ]:
        with pytest.raises(kind, match=words):
            call()
