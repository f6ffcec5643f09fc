"""Pictures of forecasts: what is drawn is what the Dataset holds."""

import numpy as np
import pytest
import xarray as xr

import scidiff
from scidiff.errors import InputError
from scidiff.forecast import verify
from scidiff.forecast.plots import animate, fan_figure, map_figure, score_figure
from tests.forecast.toy import AR, fields, spec_of


@pytest.fixture(scope="module")
def made():
    ds = fields(16)
    return ds, scidiff.forecast(AR(), ds.isel(time=slice(0, 10)), 4, members=6, spec=spec_of(ds), output=None)


def test_maps_show_truth_mean_spread_and_members(made):
    ds, forecast = made
    figure = map_figure(forecast, ds, "t", leads=[0, 3], level=850.0, init=2)
    images = [axis.images[0] for axis in figure.axes if axis.images]
    assert len(images) == 5 * 2  # truth, mean, spread, two members
    expected = forecast.t.isel(init_time=2, lead_time=3).sel(level=850.0)
    assert np.allclose(images[1].get_array(), ds.t.sel(level=850.0).isel(time=6))
    assert np.allclose(images[3].get_array(), expected.mean("member"))
    assert np.allclose(images[5].get_array(), expected.std("member", ddof=1))
    assert images[0].get_clim() == images[2].get_clim() != images[4].get_clim()
    with pytest.raises(InputError, match="no 'wind'"):
        map_figure(forecast, variable="wind")


def test_fans_hold_the_quantiles_of_the_members(made):
    ds, forecast = made
    figure = fan_figure(forecast, [{"lat": 44, "lon": 21}, {"lat": -40, "lon": 0}], ds, "slp")
    axis = figure.axes[0]
    here = forecast.slp.isel(init_time=0).sel(lat=45, lon=20)
    median, truth = (line.get_ydata() for line in axis.lines)
    assert np.allclose(median, here.median("member")) and np.allclose(truth, ds.slp.sel(lat=45, lon=20)[1:5])
    band = axis.collections[0].get_paths()[0].vertices[:, 1]
    assert np.isclose(band.min(), np.quantile(here, 0.05, axis=0).min())
    assert axis.get_xlabel() == "lead (days)" and axis.get_title() == "lat 45, lon 20"


def test_scores_are_drawn_by_lead(made):
    ds, forecast = made
    names = ("crps", "spread_skill", "ranks", "spectrum", "reliability")
    scores = verify(forecast, ds, names, thresholds=[101300], variables=["slp"], baseline="persistence")
    figure = score_figure(scores)
    titles = [axis.get_title(loc="left") for axis in figure.axes if axis.get_visible()]
    assert titles == ["crps", "crps skill", "spread skill", "ranks", "spectrum", "reliability 101300"]
    assert np.allclose(figure.axes[0].lines[0].get_ydata(), scores.slp_crps)
    assert np.allclose(figure.axes[0].lines[1].get_ydata(), scores.slp_crps_baseline)
    assert score_figure(verify(forecast, ds, ("crps",), by=()), "t", level=1).axes[0].lines[0].get_ydata().shape == (1,)


def test_the_animation_has_a_frame_for_every_lead(made, tmp_path):
    from PIL import Image

    ds, forecast = made
    animate(forecast, tmp_path / "slp.gif", ds, "slp")
    with Image.open(tmp_path / "slp.gif") as picture:
        assert picture.n_frames == 4 and picture.width > 600
    with pytest.raises(ValueError, match=r"\.gif"):
        animate(forecast, tmp_path / "slp.mp4")


@pytest.mark.parametrize(
    ("seconds", "number", "unit", "label"),
    [
        (3, 3, "seconds", "3 s"),
        (300, 5, "minutes", "5 min"),
        (7200, 2, "hours", "2 h"),
        (172800, 2, "days", "2 d"),
    ],
)
def test_leads_have_a_unit_of_their_length(seconds, number, unit, label):
    from scidiff.forecast.plots import _leads
    from scidiff.forecast.score_table import _label

    lead = np.array([seconds]) * np.timedelta64(1, "s").astype("timedelta64[ns]")
    values, found = _leads(xr.DataArray([0.0], {"lead_time": lead}, "lead_time"))
    assert (float(values[0]), found) == (number, unit) and _label(lead[0]) == label
