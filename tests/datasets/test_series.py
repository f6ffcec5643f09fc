"""Readers of series: what a file holds comes back, checked; the season, departures from it, splits by time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from scidiff.datasets import (
    anomalies,
    oisst_boxes,
    part_of,
    radar_series,
    read_series,
    seasonal_cycle,
    split_times,
    trajectories,
    with_season,
)
from scidiff.errors import InputError, MissingPackageError


def daily(years: int = 3, height: int = 3, width: int = 4) -> xr.Dataset:
    time = np.arange("2001-01-01", f"{2001 + years}-01-01", dtype="datetime64[D]").astype("datetime64[ns]")
    g = np.random.default_rng(0)
    values = g.standard_normal((len(time), height, width)).astype(np.float32) + 280
    values[:, 1, 2] = np.nan
    coords = {"time": time, "latitude": [50.0, 45.0, 40.0][:height], "longitude": [-10.0, -5.0, 0.0, 5.0][:width]}
    return xr.Dataset({"t": (("time", "latitude", "longitude"), values, {"units": "K"})}, coords)


@pytest.mark.parametrize("kind", ["nc", "zarr", "npz"])
def test_every_format_gives_the_same_dataset(kind: str, tmp_path: Path) -> None:
    raw, path = daily(1), tmp_path / f"t.{kind}"
    if kind == "nc":
        raw.to_netcdf(path, engine="h5netcdf")
    elif kind == "zarr":
        raw.to_zarr(path, consolidated=False)
    else:
        parts = {"t": raw.t.values, "lat": raw.latitude.values, "lon": raw.longitude.values}
        np.savez(path, time=raw.time.values.astype("datetime64[D]"), units="K", **parts)
    data = read_series(path)
    assert data.t.dims == ("time", "lat", "lon") and data.t.attrs["units"] == "K" and data.t.dtype == np.float32
    assert data.lat.values.tolist() == [40.0, 45.0, 50.0]
    np.testing.assert_array_equal(data.t.values, raw.t.values[:, ::-1])
    np.testing.assert_array_equal(data.time.values, raw.time.values)
    assert data.land.values.nonzero() == (np.array([1]), np.array([2]))


def test_says_what_is_wrong(tmp_path: Path) -> None:
    raw = daily(1)

    def refused(change, match: str, **options) -> None:  # noqa: ANN001
        path = tmp_path / "t.nc"
        path.unlink(missing_ok=True)
        change(raw.copy(deep=True)).to_netcdf(path, engine="h5netcdf")
        with pytest.raises(InputError, match=match) as error:
            read_series(path, **options)
        assert "t.nc" in str(error.value)

    def without_units(d: xr.Dataset) -> xr.Dataset:
        d.t.attrs.clear()
        return d

    def gap(d: xr.Dataset) -> xr.Dataset:
        d.t[5, 0, 0] = np.nan
        return d

    refused(without_units, "no units; pass units=")
    refused(gap, "1 values that are missing at some times only")
    refused(lambda d: d, "no variable 'u'", variables="u")
    refused(lambda d: d.isel(time=slice(None, None, -1)), "dates that increase")
    refused(lambda d: d.assign_coords(latitude=[100.0, 45, 40]), "'lat' must hold different degrees")
    refused(lambda d: d.drop_vars("longitude"), "expected a coordinate 'lon'|time, lat and lon")
    with pytest.raises(InputError, match="there is no such file"):
        read_series(tmp_path / "none.nc")
    (tmp_path / "bad.nc").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read"):
        read_series(tmp_path / "bad.nc")


def write_grib(path: Path, raw: xr.Dataset) -> None:
    """2 m temperature as GRIB 2 messages, one a day, north to south as weather centres write them; NaN as missing."""
    eccodes = pytest.importorskip("eccodes", reason="GRIB needs eccodes (extra io)")
    with path.open("wb") as stream:
        for field in raw.t.transpose("time", "latitude", "longitude"):
            handle = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib2")
            lat, lon = field.latitude.values, field.longitude.values
            keys = {"Ni": len(lon), "Nj": len(lat), "shortName": "2t", "bitsPerValue": 24, "missingValue": 9999}
            keys |= {"latitudeOfFirstGridPointInDegrees": lat[0], "latitudeOfLastGridPointInDegrees": lat[-1]}
            keys |= {"longitudeOfFirstGridPointInDegrees": lon[0], "longitudeOfLastGridPointInDegrees": lon[-1]}
            keys |= {"iDirectionIncrementInDegrees": lon[1] - lon[0], "jDirectionIncrementInDegrees": lat[0] - lat[1]}
            keys |= {"dataDate": int(str(field.time.values)[:10].replace("-", "")), "dataTime": 0, "bitmapPresent": 1}
            for key, value in keys.items():
                eccodes.codes_set(handle, key, value)
            eccodes.codes_set_values(handle, np.nan_to_num(field.values, nan=9999).ravel().astype(float))
            eccodes.codes_write(handle, stream)
            eccodes.codes_release(handle)


def test_grib_comes_back_with_dates_units_and_land(tmp_path: Path) -> None:
    pytest.importorskip("cfgrib", reason="GRIB needs cfgrib (extra io)")
    raw = daily(1).isel(time=slice(0, 5))
    raw = raw.assign_coords(longitude=raw.longitude + 10)
    write_grib(tmp_path / "t.grib2", raw)
    data = read_series(tmp_path / "t.grib2")
    assert data.t2m.dims == ("time", "lat", "lon") and data.t2m.attrs["units"] == "K"
    np.testing.assert_allclose(data.t2m.values, raw.t.values[:, ::-1], atol=1e-4)
    np.testing.assert_array_equal(data.time.values, raw.time.values)
    assert data.lat.values.tolist() == [40.0, 45.0, 50.0] and data.lon.values.tolist() == [0.0, 5.0, 10.0, 15.0]
    assert data.land.values.nonzero() == (np.array([1]), np.array([2]))
    from scidiff.forecast.inputs import open_dataset

    xr.testing.assert_identical(open_dataset(tmp_path / "t.grib2").t2m, data.t2m)  # an initial state, or a truth
    with pytest.raises(InputError, match="no variable 'tp'"):
        read_series(tmp_path / "t.grib2", "tp")


def test_grib_asks_for_its_package_or_reads(tmp_path: Path) -> None:
    (tmp_path / "t.grib").write_bytes(b"GRIB")
    with pytest.raises((MissingPackageError, InputError), match=r"cfgrib|cannot be read"):
        read_series(tmp_path / "t.grib")


def test_split_by_time_is_inclusive_and_disjoint() -> None:
    data = split_times(daily(3), ("2002-12", "2002-12-31"), ("2003", "2003"))
    assert {k: part_of(data, k).sizes["time"] for k in ("train", "validation", "test")} == {
        "train": 365 + 334,
        "validation": 31,
        "test": 365,
    }
    with pytest.raises(InputError, match="overlap"):
        split_times(daily(3), ("2003", "2003"), ("2003-06", "2003-07"))
    with pytest.raises(InputError, match="no time lies in test"):
        split_times(daily(1), None, ("2005", "2006"))
    with pytest.raises(InputError, match="no time for training"):
        split_times(daily(1), None, ("2001", "2001"))


def test_a_seasonal_cycle_of_harmonics_is_found_exactly_and_test_years_are_not_asked() -> None:
    data = daily(4)
    day = (data.time.values - data.time.values.astype("datetime64[Y]")) / np.timedelta64(1, "D")
    angle = 2 * np.pi * day / 365.2425
    cycle = 280 + 3 * np.cos(angle) - 2 * np.sin(2 * angle)
    data["t"] = (data.t.dims, np.broadcast_to(cycle[:, None, None], data.t.shape).copy(), data.t.attrs)
    data = split_times(data, None, ("2004", "2004"))
    spoilt = data.copy(deep=True)
    spoilt.t[1096:] += 100.0
    assert float(abs(anomalies(data).t).max()) < 1e-4
    xr.testing.assert_allclose(seasonal_cycle(data), seasonal_cycle(spoilt))
    assert abs(anomalies(spoilt).t.values[-1] - 100).max() < 1e-3
    short = data.isel(time=slice(0, 200))
    with pytest.raises(InputError, match="gap in the year"):
        seasonal_cycle(short)


def test_monthly_cycle_is_the_mean_of_each_month() -> None:
    time = np.arange("2001-01", "2004-01", dtype="datetime64[M]").astype("datetime64[ns]")
    values = (np.arange(36.0) % 12)[:, None, None] + np.repeat([0.0, 1.0, 5.0], 12)[:, None, None]
    data = xr.Dataset({"t": (("time", "lat", "lon"), values, {"units": "degC"})}, {"time": time})
    found = anomalies(split_times(data, None, ("2003", "2003")))
    np.testing.assert_allclose(found.t.values.ravel(), np.repeat([-0.5, 0.5, 4.5], 12), atol=1e-6)
    assert found.t.attrs["units"] == "K"


def test_time_of_year_is_a_place_on_a_circle() -> None:
    data = with_season(daily(1))
    assert data.annual_cos.dims == ("time", "latitude", "longitude")
    np.testing.assert_allclose(data.annual_cos**2 + data.annual_sin**2, 1, atol=1e-6)
    assert float(data.annual_cos[0, 0, 0]) == 1.0 and float(data.annual_sin[91, 0, 0]) > 0.99


def test_oisst_boxes_become_trajectories(tmp_path: Path) -> None:
    for box in (84, 89):
        part = daily(1).rename(t="sst").fillna(281.0)
        part["sst"] = part.sst - 273.15 + box
        part.sst.attrs["units"] = "degC"
        part = part.assign_coords(longitude=part.longitude + box)
        part.to_netcdf(tmp_path / f"sst.day.mean.box{box}.nc", engine="h5netcdf")
    data = oisst_boxes(tmp_path, [84, 89], test=("2001-12", "2001-12"))
    assert data.sst.dims == ("trajectory", "time", "y", "x") and data.trajectory.values.tolist() == [84, 89]
    assert float((data.sst[1] - data.sst[0]).mean()) == pytest.approx(5.0, abs=1e-3)
    assert (data.box_lon[1] - data.box_lon[0] == 5).all() and part_of(data, "test").sizes["time"] == 31
    with pytest.raises(InputError, match=r"box7\.nc"):
        oisst_boxes(tmp_path, [84, 7])


def test_radar_rain_is_averaged_and_masked(tmp_path: Path) -> None:
    time = np.arange("2010-08-26T00:00", "2010-08-26T00:15", 5, dtype="datetime64[m]")
    rain = np.arange(3 * 4 * 6, dtype=np.uint16).reshape(3, 4, 6)
    mask = np.ones((4, 6), bool)
    mask[0, 0] = False
    np.savez(tmp_path / "sums.npz", rain=rain, mask=mask, time=time, scale_mm_per_5min=0.5)
    data = radar_series(tmp_path / "sums.npz", log=False)
    assert float(data.rain[1, 1, 2]) == pytest.approx(rain[1, 2:, 4:].mean() * 0.5 * 12)
    assert bool(data.land[0, 0]) and int(data.land.sum()) == 1 and np.isnan(data.rain.values[:, 0, 0]).all()
    assert float(data.x[1] - data.x[0]) == 4.0
    refl = np.full((3, 4, 6), 64 + 2 * 23, np.uint8)  # 23 dBZ: Z = 200, so 1 mm/h
    refl[:, 0] = 0
    refl[0, 3, 5] = 255
    np.savez(tmp_path / "echo.npz", refl=refl, time=time)
    data = radar_series(tmp_path / "echo.npz", coarsen=1)
    np.testing.assert_allclose(data.log_rain.values[:, 1:3], np.log10(2.0), atol=2e-3)
    assert float(data.log_rain[0, 0, 0]) == 0 and bool(data.land[3, 5])


def test_named_series_have_their_splits(real_data: Path) -> None:
    folder = real_data / "climate"
    slp = trajectories("slp", file=folder / "ncep_slp_natl_daily_2001_2008.npz")
    assert [part_of(slp, p).sizes["time"] for p in ("train", "validation", "test")] == [1826, 365, 730]
    train = part_of(slp, "train")
    # Three harmonics take the mean over the whole stretch out, up to the year's quarter of a day.
    assert abs(train.slp.mean("time")).max() < 0.02 * float(train.slp.std())
    sst = trajectories("sst", file=folder / "sst_anom_pacific_monthly_1970_2003.npz")
    assert int(sst.land.sum()) == 259 and np.isnan(sst.sst_anom.values[:, sst.land.values]).all()
    rain = trajectories("radar", file=folder / "radar_knmi_20100826_5min.npz", coarsen=4)
    assert rain.log_rain.shape == (92, 64, 64) and part_of(rain, "test").sizes["time"] == 29
