"""Stations: what is read is what was written, what is fitted is what was drawn, errors name file and field."""

import numpy as np
import pytest
import torch
import xarray as xr

from scidiff.datasets import StationLaw, read_stations, simulate_stations
from scidiff.datasets.station_law import season_of
from scidiff.errors import InputError

NOAA = "climate/noaa_stations_tmax_daily_1990_1993.npz"


def network(days=730, **options):
    return simulate_stations(torch.Generator().manual_seed(0), 30, days, **options)


@pytest.mark.parametrize("smoothness", [0.5, 1.5])
def test_the_fit_finds_the_law_that_was_drawn_from(smoothness):
    truth = StationLaw.typical(smoothness)
    law = StationLaw.fit(network(1400, law=truth), smoothness, every=1)
    assert np.abs(law.mean[:2, :2] - truth.mean[:2, :2]).max() < 1.0
    for found, known in ((law.std, truth.std), (law.nugget, truth.nugget)):
        assert np.abs(np.log(np.array(found) / known)).max() < 0.15
    # length and variance go together: their ratio is what the data tell (Zhang, 2004)
    ratio = [np.array(one.std) ** 2 / np.array(one.length) ** (2 * smoothness) for one in (law, truth)]
    assert np.abs(np.log(ratio[0] / ratio[1])).max() < 0.25
    other = network(300, law=truth)
    worse = StationLaw(law.mean, law.std, tuple(3 * v for v in law.length), law.nugget, smoothness)
    assert law.log_likelihood(other) > worse.log_likelihood(other)


def test_the_likelihood_is_that_of_scipy():
    from scipy.stats import multivariate_normal

    data, law = network(2), StationLaw.typical()
    lat, lon = data["station_lat"].values, data["station_lon"].values
    total = 0.0
    for y, time in zip(data["temperature"].values, data["time"].values, strict=True):
        k = np.isfinite(y)
        cov = law.covariance(lat[k], lon[k], lat[k], lon[k], season_of(time)) + law.nugget[0] ** 2 * np.eye(k.sum())
        total += multivariate_normal(law.climatology(lat[k], lon[k], time)[0], cov).logpdf(y[k])
    assert law.log_likelihood(data) == pytest.approx(total / np.isfinite(data["temperature"].values).sum(), rel=1e-10)


def test_seasons():
    months = np.arange("1990-01", "1991-01", dtype="datetime64[M]")
    assert [season_of(m) for m in months] == [0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 0]


def test_real_stations(real_data):
    data = read_stations(real_data / NOAA)
    raw = np.load(real_data / NOAA)
    assert dict(data.sizes) == {"time": 1461, "station": 137}
    np.testing.assert_allclose(data["temperature"].values, (raw["tmax"] + 459.67) / 1.8, rtol=1e-6)
    assert data["temperature"].attrs["units"] == "K" and data["station_lon"].values.max() < -80


def test_netcdf_gives_the_same(tmp_path):
    data = network(5)
    celsius = (data["temperature"] - 273.15).assign_attrs(units="degC")
    raw = xr.Dataset({"tmin": celsius.drop_vars(["station_lat", "station_lon"])})
    raw = raw.assign_coords(
        lat=("station", data["station_lat"].values), lon=("station", data["station_lon"].values % 360)
    )
    raw.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    found = read_stations(tmp_path / "a.nc")
    np.testing.assert_allclose(found["temperature"], data["temperature"], rtol=1e-12)
    np.testing.assert_allclose(found["station_lon"], data["station_lon"], rtol=1e-12)


def good():
    time = np.arange("1990-01-01", "1990-01-04", dtype="datetime64[D]")
    return {"tmax": np.full((3, 2), 50.0), "lat": np.array([40.0, 41.0]), "lon": np.array([-90.0, -91.0]), "time": time,
            "units": np.array("degF")}  # fmt: skip


@pytest.mark.parametrize("change, message", [
    ({"tmax": None}, "a.npz: expected one of tmax, tmin"),
    ({"lat": None}, "a.npz: expected 'lat' beside"),
    ({"tmax": np.ones((2, 3))}, r"a.npz: 'tmax' has shape \(2, 3\), expected .* \(3, 2\)"),
    ({"tmax": np.full((3, 2), np.nan)}, "a.npz: 'tmax' holds no number"),
    ({"tmax": np.full((3, 2), -9999.0)}, "a.npz: 'tmax' ranges from .*check its units"),
    ({"lat": np.array([40.0, 95.0])}, "a.npz: 'lat' must hold degrees between -90 and 90"),
    ({"units": np.array("m")}, "units 'm'"),
    ({"time": np.array([0.0, 1.0, 2.0])}, "a.npz: 'time' must hold dates that increase"),
])  # fmt: skip
def test_wrong_files(tmp_path, change, message):
    parts = {name: value for name, value in (good() | change).items() if value is not None}
    np.savez(tmp_path / "a.npz", **parts)
    with pytest.raises(InputError, match=message):
        read_stations(tmp_path / "a.npz")


def test_files_that_are_none(tmp_path):
    with pytest.raises(InputError, match="there is no such file"):
        read_stations(tmp_path / "none.npz")
    (tmp_path / "b.npz").write_text("no archive")
    with pytest.raises(InputError, match="b.npz: cannot be read"):
        read_stations(tmp_path / "b.npz")
    with pytest.raises(InputError, match="days of winter .*too few to estimate"):
        StationLaw.fit(network(40))
    with pytest.raises(ValueError, match="smoothness must be 0.5"):
        StationLaw.typical(2.5)
