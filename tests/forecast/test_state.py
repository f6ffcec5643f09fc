"""Datasets to channels and back: exact inverses, statistics by hand, and every refusal."""

import json

import numpy as np
import pytest
import torch
import xarray as xr

from scidiff.errors import InputError
from scidiff.forecast import StateSpec
from scidiff.forecast.grid import Grid
from scidiff.forecast.times import advance, lead_count, lead_values, same_time, step_of, step_text, text_step

LAT, LON = np.array([60.0, 30.0, 0.0, -30.0]), np.array([0.0, 10.0, 20.0, 30.0, 40.0])


def weather(times=9, land=False, start="2001-02-26"):
    rng = np.random.default_rng(3)
    time = np.datetime64(start, "ns") + np.arange(times) * np.timedelta64(1, "D")
    slp = 101300 + 800 * rng.standard_normal((times, 4, 5)) + 50 * np.arange(20).reshape(4, 5)
    temperature = 250 + 5 * rng.standard_normal((times, 2, 4, 5)) + np.array([0.0, 30.0])[:, None, None]
    if land:
        slp[:, 1, 2:4] = np.nan
    sun = rng.uniform(0, 400, (times, 4, 5))
    coords = {
        "time": time,
        "lat": ("lat", LAT, {"units": "degrees_north"}),
        "lon": ("lon", LON, {"units": "degrees_east"}),
        "level": ("level", [500.0, 850.0]),
    }
    return xr.Dataset(
        {
            "slp": (("time", "lat", "lon"), slp, {"units": "Pa", "long_name": "pressure"}),
            "t": (("time", "level", "lat", "lon"), temperature, {"units": "K"}),
            "sun": (("time", "lat", "lon"), sun, {"units": "W m-2"}),
            "height": (("lat", "lon"), rng.uniform(0, 3000, (4, 5)), {"units": "m"}),
        },
        coords,
    )


@pytest.mark.parametrize("per", ["channel", "pixel"])
def test_there_and_back(per):
    ds = weather()
    spec = StateSpec.fit(ds, ("slp", "t"), "sun", "height", per=per)
    u = spec.to_tensor(ds, torch.float64)
    assert u.shape == (9, 3, 4, 5) and spec.channels == ("slp", "t@500", "t@850")
    assert spec.step == np.timedelta64(1, "D") and spec.shape == (3, 4, 5)
    back = spec.to_dataset(u, ds.time.values)
    xr.testing.assert_allclose(back[["slp", "t"]], ds[["slp", "t"]], rtol=1e-12)
    assert back.slp.attrs == ds.slp.attrs and back.lat.attrs == ds.lat.attrs
    forcing = spec.forcing_tensor(ds, torch.float64)
    assert forcing.shape == (9, 2, 4, 5) and spec.forcing_channels == 2
    assert torch.equal(forcing[0, 1], forcing[5, 1])


def test_statistics_are_those_of_the_data():
    ds = weather()
    weight = xr.DataArray(Grid.of(ds.slp, ("lat", "lon")).area, dims=("lat", "lon"))
    spec = StateSpec.fit(ds, "slp")
    assert np.isclose(spec.loc.item(), ds.slp.weighted(weight).mean().item(), rtol=1e-13)
    assert np.isclose(spec.scale.item(), ds.slp.weighted(weight).std().item(), rtol=1e-12)
    spec = StateSpec.fit(ds, "slp", per="pixel")
    assert np.allclose(spec.loc[0], ds.slp.mean("time"), rtol=1e-13)
    assert np.allclose(spec.scale[0], ds.slp.std("time"), rtol=1e-12)


def test_area_of_cells_is_exact():
    """The cells of a global grid cover the sphere: sin of the edges telescopes to 2; a plane counts widths."""
    lat, lon = np.linspace(-90, 90, 19), np.arange(0, 360, 20.0)
    grid = Grid.of(xr.DataArray(np.zeros((19, 18)), {"lat": lat, "lon": lon}, ("lat", "lon")), ("lat", "lon"))
    edges = np.deg2rad(np.r_[-90, (lat[1:] + lat[:-1]) / 2, 90])
    share = (np.sin(edges[1:]) - np.sin(edges[:-1])) / 2
    assert np.allclose(grid.area.sum(1) / grid.area.sum(), share, rtol=1e-13) and grid.spherical
    plane = Grid.of(xr.DataArray(np.zeros((3, 2)), {"y": [0.0, 1.0, 4.0]}, ("y", "x")), ("y", "x"))
    assert np.allclose(plane.area[:, 0] / plane.area[0, 0], [1, 2, 3]) and not plane.spherical


def test_card_keeps_everything():
    ds = weather(land=True)
    spec = StateSpec.fit(ds, ("slp", "t"), "sun", "height", per="pixel", mask="missing")
    card = json.loads(json.dumps(spec.to_card()))
    other = StateSpec.from_card(card, spec.tensors())
    assert torch.equal(other.to_tensor(ds), spec.to_tensor(ds))
    assert other.to_dataset(other.to_tensor(ds), ds.time.values).identical(
        spec.to_dataset(spec.to_tensor(ds), ds.time.values)
    )
    with pytest.raises(InputError, match="no complete description"):
        StateSpec.from_card({}, {})


def test_land_is_zero_inside_and_missing_outside():
    ds = weather(land=True)
    spec = StateSpec.fit(ds, ("slp", "t"), mask="missing", per="pixel")
    u = spec.to_tensor(ds)
    assert spec.mask is not None and (~spec.mask).sum() == 2
    assert torch.isfinite(u).all() and (u[:, 0, 1, 2:4] == 0).all()
    back = spec.to_dataset(u, ds.time.values)
    assert np.array_equal(np.isnan(back.slp), np.isnan(ds.slp)) and not np.isnan(back.t).any()
    with pytest.raises(InputError, match="slp holds 18 NaN.*mask='missing'"):
        StateSpec.fit(ds, "slp")
    with pytest.raises(InputError, match="knows no mask"):
        StateSpec.fit(weather(), "slp").to_tensor(ds)
    ds.slp[3, 0, 0] = np.nan
    with pytest.raises(InputError, match="1 NaN.*where the mask"):
        spec.to_tensor(ds)


def test_units_are_converted_or_refused():
    ds = weather()
    spec = StateSpec.fit(ds, ("slp", "t"))
    celsius = ds.assign(t=(ds.t - 273.15).assign_attrs(units="degC"), slp=(ds.slp / 100).assign_attrs(units="hPa"))
    assert torch.allclose(spec.to_tensor(celsius, torch.float64), spec.to_tensor(ds, torch.float64), atol=1e-10)
    with pytest.raises(InputError, match="slp has units 'K'.*'Pa'"):
        spec.to_tensor(ds.assign(slp=ds.slp.assign_attrs(units="K")))
    with pytest.raises(InputError, match="no units attribute"):
        spec.to_tensor(ds.assign(t=ds.t.drop_attrs()))


def test_another_grid_is_refused_a_turned_one_is_not():
    ds = weather()
    spec = StateSpec.fit(ds, "slp")
    assert torch.equal(spec.to_tensor(ds.isel(lat=slice(None, None, -1))), spec.to_tensor(ds))
    assert torch.equal(spec.to_tensor(ds.transpose("lon", "lat", ...)), spec.to_tensor(ds))
    for other in (ds.assign_coords(lon=LON + 5), ds.isel(lat=slice(0, 3)), ds.rename(lat="latitude")):
        with pytest.raises(InputError, match="trained on"):
            spec.to_tensor(other)
    with pytest.raises(InputError, match=r"\[850.0\] of the model are missing"):
        StateSpec.fit(ds, "t").to_tensor(ds.isel(level=[0]))
    with pytest.raises(InputError, match="'wind' is missing.*slp"):
        StateSpec.fit(ds, "wind")


def test_further_dimensions_come_first():
    ds = weather()
    many = xr.concat([ds, ds + 1], "case").transpose("time", "case", ...)[["slp", "t"]]
    many = many.map(lambda a: a.assign_attrs(units=ds[a.name].units))
    spec = StateSpec.fit(many, ("slp", "t"))
    assert spec.to_tensor(many).shape == (2, 9, 3, 4, 5)
    assert spec.to_tensor(ds.isel(time=0)).shape == (1, 3, 4, 5)


def test_times_that_jump_are_refused():
    ds = weather().isel(time=[0, 1, 2, 4, 5])
    with pytest.raises(InputError, match="2001-02-28.*followed by 2001-03-02"):
        StateSpec.fit(ds, "slp")
    spec = StateSpec.fit(ds, "slp", step=np.timedelta64(1, "D"))
    assert spec.to_tensor(ds, gaps=True).shape[0] == 5
    with pytest.raises(InputError, match="not equally spaced"):
        spec.to_tensor(ds)


def test_steps_of_days_months_and_numbers():
    months = np.arange("2000-01", "2001-03", dtype="datetime64[M]").astype("datetime64[ns]") + np.timedelta64(14, "D")
    step = step_of(months)
    assert step == np.timedelta64(1, "M") and step_text(step) == "1 month"
    assert (advance(months[0], np.arange(14), step) == months).all()
    with pytest.raises(InputError, match="followed by 2000-05"):
        step_of(months[[0, 1, 2, 4, 5]])
    assert (same_time(months[:3] + np.timedelta64(3, "D"), months, step) == [0, 1, 2]).all()
    values, attrs = lead_values(np.arange(1, 4), step)
    assert values.tolist() == [1, 2, 3] and attrs["units"] == "months"
    assert step_of(np.arange(5) * 0.05) == 0.05 and advance(1.0, 3, 0.5) == 2.5
    with pytest.raises(InputError, match="not equally spaced"):
        step_of(np.array([0.0, 0.05, 0.11]))
    for each in (np.timedelta64(6, "h"), np.timedelta64(5, "m"), np.timedelta64(3, "D"), step, 0.05):
        assert text_step(step_text(each)) == each


def test_leads():
    day = np.timedelta64(1, "D")
    assert lead_count(3, day).tolist() == [1, 2, 3] and lead_count([2, 5], day).tolist() == [2, 5]
    assert lead_count([np.timedelta64(48, "h")], day).tolist() == [2]
    for wrong in (0, [2, 1], [np.timedelta64(36, "h")], [0.5], []):
        with pytest.raises(ValueError, match="lead_times must"):
            lead_count(wrong, day)
    assert same_time(np.array([0.1 * 3, 7.0]), np.arange(5) * 0.1, 0.1).tolist() == [3, -1]
