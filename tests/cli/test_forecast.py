"""The commands forecast and verify as they are typed: the whole path, and one message and exit code for each fault."""

import json
import signal

import numpy as np
import pytest
import xarray as xr

from scidiff.forecast.files import CLASSES, save_forecaster
from tests.forecast.toy import AR, fields, spec_of


@pytest.fixture
def run(scidiff, monkeypatch):
    """Runs a command line that knows the toy: (exit code, stdout, stderr)."""
    monkeypatch.setitem(CLASSES, "AR", "tests.forecast.toy")
    return scidiff


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A saved model with and without forcing, initial states, and what happened."""
    monkeypatch.setitem(CLASSES, "AR", "tests.forecast.toy")
    ds = fields(20)
    save_forecaster(AR(), tmp_path / "ar.safetensors", spec=spec_of(ds))
    save_forecaster(AR(b=0.1), tmp_path / "forced.safetensors", spec=spec_of(ds, forcing="sun"))
    save_forecaster(AR(a=1e30), tmp_path / "wild.safetensors", spec=spec_of(ds))
    save_forecaster(AR(), tmp_path / "bare.safetensors")
    ds.to_netcdf(tmp_path / "truth.nc", engine="h5netcdf")
    ds.isel(time=slice(0, 8)).to_netcdf(tmp_path / "start.nc", engine="h5netcdf")
    return tmp_path


def test_forecast_then_verify(run, home):
    model, out = home / "ar.safetensors", home / "run.zarr"
    words = ("forecast", model, home / "start.nc", "--lead", "3d", "--members", "5", "--out", out, "--progress", "none")
    code, stdout, stderr = run(*words)
    assert (code, stdout) == (0, "") and "8 initial times, 5 members, 3 leads" in stderr
    first = xr.open_zarr(out, chunks=None).load()
    assert dict(first.slp.sizes) == {"init_time": 8, "member": 5, "lead_time": 3, "lat": 4, "lon": 5}
    code, _, stderr = run(*words)
    assert code == 3 and "exists; choose another name" in stderr and len(stderr.splitlines()) == 1
    assert run(*words, "--resume")[0] == 0
    code, stdout, _ = run(*words, "--overwrite", "--json")
    assert code == 0 and json.loads(stdout)["sizes"]["member"] == 5
    xr.testing.assert_identical(xr.open_zarr(out, chunks=None).load(), first)

    code, stdout, stderr = run(
        "verify", out, home / "truth.nc", "--baseline", "persistence", "--metrics", "crps,spread_skill,ranks",
        "--out", home / "scores",
    )  # fmt: skip
    assert code == 0 and "slp_crps_skill" in stdout and "| 2 d | 850 |" in stdout
    assert (home / "scores" / "scores.md").read_text() == stdout
    scores = xr.open_dataset(home / "scores" / "scores.nc", engine="h5netcdf")
    assert scores.slp_ranks.sizes["rank"] == 6 and (home / "scores" / "figures" / "scores.png").stat().st_size > 5000
    code, _, stderr = run("verify", out, home / "truth.nc", "--out", home / "scores")
    assert code == 3 and "--overwrite" in stderr
    code, stdout, _ = run("verify", out, home / "truth.nc", "--json", "--by", "none", "--metrics", "rmse")
    assert code == 0 and json.loads(stdout)["scores"]["slp_rmse"] == pytest.approx(900, rel=0.3)


def test_verify_on_a_cluster_prints_the_same_table(run, home):
    distributed = pytest.importorskip("distributed", reason="the extra `dask` is not installed")
    model, out = home / "ar.safetensors", home / "run.zarr"
    words = ("forecast", model, home / "start.nc", "--lead", "3d", "--members", "4", "--out", out, "--progress", "none")
    assert run(*words)[0] == 0
    code, here, _ = run("verify", out, home / "truth.nc")
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        again, there, err = run("verify", out, home / "truth.nc", "--scheduler", cluster.scheduler_address)
    assert (code, again) == (0, 0) and there == here, err
    code, _, err = run("verify", out, home / "truth.nc", "--by", "none", "--scheduler", "local")
    assert code == 2 and "lead_time" in err and len(err.splitlines()) == 1


def test_sigterm_keeps_what_is_done_and_resume_ends_with_the_same(run, home, monkeypatch):
    base = ("forecast", home / "ar.safetensors", home / "start.nc", "--lead", 9, "--members", 2, "--progress", "none")
    monkeypatch.setattr("scidiff.forecast.rollout.CHUNK_NUMBERS", 2 * 60 * 2)  # tiles of one time, written by window
    assert run(*base, "--out", home / "whole.zarr")[0] == 0
    sample, calls = AR.sample, []

    def sample_and_stop(self, *args, **options):
        calls.append(1)
        if len(calls) == 13:
            signal.raise_signal(signal.SIGTERM)
        return sample(self, *args, **options)

    monkeypatch.setattr(AR, "sample", sample_and_stop)
    code, _, stderr = run(*base, "--out", home / "cut.zarr")
    assert code == 75 and "SIGTERM" in stderr and "--resume" in stderr
    with np.load(home / ".cut.zarr.restart" / "tile_00002.npz") as kept:
        assert int(kept["windows"]) == 2
    assert run("verify", home / "cut.zarr", home / "truth.nc")[0] == 3  # not finished
    assert run(*base, "--out", home / "cut.zarr", "--resume")[0] == 0 and len(calls) == 13 + 40 - 12
    whole, cut = (xr.open_zarr(home / f"{n}.zarr", chunks=None).load() for n in ("whole", "cut"))
    xr.testing.assert_identical(whole, cut)


def altered(home, name, change):
    path = home / f"{name}.nc"
    change(fields(20).isel(time=slice(0, 8))).to_netcdf(path, engine="h5netcdf")
    return path


def in_celsius(ds):
    return ds.assign(t=(ds.t - 273.15).assign_attrs(units="degC"))


def test_kelvin_against_celsius_is_converted(run, home):
    words = ("forecast", home / "ar.safetensors", "--lead", 2, "--members", 2, "--progress", "none")
    assert run(*words, home / "start.nc", "--out", home / "k.zarr")[0] == 0
    assert run(*words, altered(home, "celsius", in_celsius), "--out", home / "c.zarr")[0] == 0
    kelvin, celsius = (xr.open_zarr(home / f"{n}.zarr", chunks=None).t.load() for n in "kc")
    assert np.allclose(kelvin, celsius, rtol=1e-6) and celsius.units == "K"


WRONG = {
    "missing variable": (lambda ds: ds.drop_vars("t"), "variable 't' is missing"),
    "units": (lambda ds: ds.assign(t=ds.t.assign_attrs(units="Pa")), "t has units 'Pa', which do not measure"),
    "grid": (lambda ds: ds.assign_coords(lon=ds.lon + 2.5), "lon = 2.5 ... 42.5 (5 points); the model was trained on"),
    "cut": (lambda ds: ds.isel(lat=slice(1, 4)), "lat = 15 ... -45 (3 points)"),
    "land": (lambda ds: ds.assign(slp=ds.slp.where(ds.lat < 40)), "NaN or infinite values"),
    "no time": (lambda ds: ds.drop_vars("time"), "no coordinate time"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_wrong_input_is_one_message_and_exit_3(run, home, fault):
    change, words = WRONG[fault]
    code, stdout, stderr = run(
        "forecast", home / "ar.safetensors", altered(home, "wrong", change), "--lead", 2, "--out", home / "x.zarr"
    )
    assert (code, stdout) == (3, "") and words in stderr and len(stderr.splitlines()) == 1
    assert not (home / "x.zarr").exists() and not (home / ".x.zarr.restart").exists()


def test_times_and_forcings_that_do_not_fit(run, home, monkeypatch):
    forced = ("forecast", home / "forced.safetensors", home / "start.nc", "--lead", 4, "--out", home / "f.zarr")
    code, _, stderr = run(*forced)
    assert code == 3 and "needs the forcing sun" in stderr
    code, _, stderr = run(*forced, "--forcing", home / "start.nc", "--progress", "none")
    assert code == 3 and "ends early" in stderr and "2001-01-12" in stderr
    assert run(*forced, "--forcing", home / "truth.nc", "--progress", "none")[0] == 0
    save_forecaster(AR(window=2), home / "two.safetensors", spec=spec_of(fields()))
    jump = altered(home, "jump", lambda ds: ds.isel(time=[0, 1, 3]))
    code, _, stderr = run("forecast", home / "two.safetensors", jump, "--lead", 2, "--out", home / "j.zarr")
    assert code == 3 and "not equally spaced by 1 D: 2001-01-02" in stderr


def test_usage_and_numbers(run, home):
    base = ("forecast", home / "ar.safetensors", home / "start.nc", "--out", home / "x.zarr", "--progress", "none")
    for words, code, text in [
        ((*base, "--lead", "soon"), 2, "--lead must be"),
        ((*base, "--lead", "36h"), 2, "multiples of the step 1 D"),
        ((*base, "--lead", 2, "--at", "someday"), 2, "--at must be a date"),
        ((*base, "--lead", 2, "--at", "1999-01-01"), 3, "no state at 1999"),
        ((*base, "--lead", 2, "--resume", "--overwrite"), 2, "exclude each other"),
        ((*base, "--lead", 2, "--conserve", "wind"), 3, "predicts slp, t"),
        ((base[0], "nothing", *base[2:], "--lead", 2), 3, "no forecaster 'nothing'"),
        ((base[0], home / "bare.safetensors", *base[2:], "--lead", 2), 3, "without a description of its states"),
        ((base[0], home / "wild.safetensors", *base[2:], "--lead", 4), 5, "is not finite"),
        (("verify", home / "no.zarr", home / "truth.nc"), 3, "no such file"),
        (("verify", home / "truth.nc", home / "truth.nc"), 3, "init_time"),
        (("verify", home / "truth.nc", home / "truth.nc", "--metrics", "luck"), 2, "luck"),
        (("verify", home / "truth.nc", home / "truth.nc", "--by", "month"), 2, "--by"),
    ]:
        found, _, stderr = run(*words)
        assert (found, text in stderr) == (code, True), (words, stderr)


def test_corrections_times_and_seed(run, home):
    base = (
        "forecast",
        home / "ar.safetensors",
        home / "start.nc",
        "--lead",
        "1,2",
        "--members",
        2,
        "--progress",
        "none",
    )
    options = ("--at", "2001-01-03", "--at", "2001-01-05", "--seed", 3, "--conserve", "slp", "--positive", "t")
    assert run(*base, *options, "--out", home / "o.zarr")[0] == 0
    found = xr.open_zarr(home / "o.zarr", chunks=None).load()
    assert found.init_time.dt.day.values.tolist() == [3, 5] and found.attrs["seed"] == 3
    weight = np.cos(np.deg2rad(found.lat))  # equal cells of 30 degrees: proportional to their areas
    mean = found.slp.astype("f8").weighted(weight).mean(("lat", "lon"))
    assert float(np.abs(mean.diff("lead_time")).max()) < 0.1


def test_prescribed_values_from_a_file(run, home):
    ds = fields(20)
    edge = ds.slp.where(ds.lon == 0)  # one meridian is set, the rest is missing and stays free
    edge.to_netcdf(home / "edge.nc", engine="h5netcdf")
    base = ("forecast", home / "ar.safetensors", home / "start.nc", "--lead", 3, "--members", 2, "--progress", "none")
    out = home / "p.zarr"
    assert run(*base, "--out", home / "free.zarr")[0] == 0
    assert run(*base, "--prescribe", f"slp={home / 'edge.nc'}", "--out", out)[0] == 0
    found, free = (xr.open_zarr(home / f"{n}.zarr", chunks=None).load() for n in ("p", "free"))
    for lead in range(3):
        truth = ds.slp.sel(lon=0).values[1 + lead : 9 + lead]
        assert np.allclose(found.slp.isel(lead_time=lead).sel(lon=0), truth[:, None], rtol=1e-6)
    assert np.allclose(found.t, free.t) and np.array_equal(found.slp[:, :, 0, :, 1:], free.slp[:, :, 0, :, 1:])

    (edge + 1.0).assign_attrs(units="Pa").to_netcdf(home / "other.nc", engine="h5netcdf")
    edge.isel(time=slice(0, 5)).to_netcdf(home / "short.nc", engine="h5netcdf")
    edge.where(edge.time != edge.time[3]).to_netcdf(home / "gap.nc", engine="h5netcdf")
    edge.assign_attrs(units="K").to_netcdf(home / "kelvin.nc", engine="h5netcdf")
    edge.isel(lat=slice(1, 4)).to_netcdf(home / "cut.nc", engine="h5netcdf")
    edge.rename("wind").to_netcdf(home / "wind.nc", engine="h5netcdf")
    for words, code, text in [
        (("slp",), 2, "VARIABLE=FILE"),
        ((f"slp={home / 'none.nc'}",), 3, "no such file"),
        ((f"slp={home / 'wind.nc'}",), 3, "no variable 'slp'; found wind"),
        ((f"wind={home / 'wind.nc'}",), 3, "'wind' cannot be prescribed"),
        ((f"slp={home / 'short.nc'}",), 3, "the forecast needs 2001-01-06"),
        ((f"slp={home / 'gap.nc'}",), 3, "missing at some of the points or times"),
        ((f"slp={home / 'kelvin.nc'}",), 3, "units 'K', which do not measure"),
        ((f"slp={home / 'cut.nc'}",), 3, "the model was trained on"),
        ((f"slp={home / 'other.nc'}", "--out", out, "--resume"), 3, "Resume with the settings of the first run"),
    ]:
        found, stdout, stderr = run(*base, "--out", home / "x.zarr", "--prescribe", *words)
        assert (found, stdout, text in stderr) == (code, "", True), (words, stderr)
        assert len(stderr.splitlines()) == 1 and not (home / "x.zarr").exists()


def test_pictures_of_a_forecast(run, home):
    from PIL import Image

    base = ("forecast", home / "ar.safetensors", home / "start.nc", "--lead", 3, "--members", 3, "--progress", "none")
    assert run(*base, "--out", home / "f.zarr")[0] == 0
    words = ("plot", home / "f.zarr", "--truth", home / "truth.nc", "--out", home / "figures")
    point = ("--at", "2001-01-03", "--point", "lat=44,lon=11", "--point", "lat=-40,lon=40")
    code, stdout, _ = run(*words, *point, "--json")
    assert code == 0 and len(json.loads(stdout)["files"]) == 3
    with Image.open(home / "figures" / "forecast.gif") as film:
        assert getattr(film, "n_frames") == 3  # noqa: B009 - of GIF images only
    for name in ("maps", "fan"):
        with Image.open(home / "figures" / f"{name}.png") as picture:
            assert np.asarray(picture.convert("L")).std() > 10  # not an empty page
    assert len(list((home / "figures").iterdir())) == 3  # nothing half-written is left
    for extra, code, text in [
        ((), 3, "exists; choose another --out"),
        (("--overwrite", "--point", "here"), 2, "--point must be coordinates"),
        (("--overwrite", "--point", "x=1"), 3, "a point has lat, lon; there is no 'x'"),
        (("--overwrite", "--at", "someday"), 2, "--at must be a date"),
        (("--overwrite", "--at", "1999-01-01"), 3, "no initial time 1999-01-01"),
        (("--overwrite", "--variable", "wind"), 3, "the forecast holds no 'wind'"),
        (("--overwrite", "--variable", "t", "--level", "700"), 3, "t has no level 700; it has 500, 850"),
    ]:
        found, stdout, stderr = run(*words, *extra)
        assert (found, stdout, text in stderr) == (code, "", True), (extra, stderr)
        assert len(stderr.splitlines()) == 1
    xr.open_dataset(home / "truth.nc", engine="h5netcdf")[["t"]].to_netcdf(home / "t.nc", engine="h5netcdf")
    code, _, stderr = run("plot", home / "f.zarr", "--truth", home / "t.nc", "--out", home / "new")
    assert code == 3 and "the truth holds no 'slp'" in stderr and not (home / "new").exists()


def test_a_line_of_points_has_a_fan_but_no_maps(run, home, tmp_path):
    ds = fields(8)[["slp"]].isel(lat=0, drop=True)
    save_forecaster(AR(), home / "line.safetensors", spec=spec_of(ds, "slp"))
    ds.to_netcdf(home / "line.nc", engine="h5netcdf")
    words = ("forecast", home / "line.safetensors", home / "line.nc", "--lead", 2, "--progress", "none")
    assert run(*words, "--out", home / "line.zarr")[0] == 0
    assert run("plot", home / "line.zarr", "--out", home / "line")[0] == 0
    assert [path.name for path in (home / "line").iterdir()] == ["fan.png"]


def test_land_is_missing_in_the_forecast_of_a_model_with_a_mask(run, home):
    ds = fields(8, land=True)
    save_forecaster(AR(), home / "sea.safetensors", spec=spec_of(ds, "slp", mask="missing"))
    ds.to_netcdf(home / "sea.nc", engine="h5netcdf")
    words = ("forecast", home / "sea.safetensors", "--lead", 2, "--members", 2, "--progress", "none")
    assert run(*words, home / "sea.nc", "--out", home / "sea.zarr")[0] == 0
    found = xr.open_zarr(home / "sea.zarr", chunks=None).slp.load()
    assert (found.isnull() == ds.slp[0].isnull()).all() and int(found[0, 0, 0].isnull().sum()) == 2
    ds.slp[3, 0, 0] = np.nan
    ds.to_netcdf(home / "hole.nc", engine="h5netcdf")
    code, _, stderr = run(*words, home / "hole.nc", "--out", home / "hole.zarr")
    assert code == 3 and "2001-01-04" in stderr and "slp" in stderr and not (home / "hole.zarr").exists()


def test_arrays_of_numpy_are_an_initial_state(run, home):
    ds = fields(8)
    save_forecaster(AR(), home / "one.safetensors", spec=spec_of(ds, "slp"))
    dates = ds.time.values.astype("datetime64[D]")
    np.savez(home / "start.npz", time=dates, units="Pa", slp=ds.slp, lat=ds.lat, lon=ds.lon)
    words = ("forecast", home / "one.safetensors", "--lead", 2, "--members", 2, "--progress", "none")
    for name in ("start.npz", "start.nc"):
        assert run(*words, home / name, "--out", home / f"{name}.zarr")[0] == 0
    one, two = (xr.open_zarr(home / f"{name}.zarr", chunks=None).slp.load() for name in ("start.npz", "start.nc"))
    assert one.shape == two.shape and np.allclose(one, two, rtol=1e-6)
