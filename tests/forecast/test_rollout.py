"""`scidiff.forecast`: against the formula of the model, in any batch, killed and resumed, and every refusal."""

import inspect
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import scidiff
from scidiff.errors import InputError, NumericalError
from scidiff.forecast import Conserve, Positive, Prescribe
from scidiff.forecast.store import ZarrStore
from tests.forecast.toy import AR, DAY, fields, spec_of


def run(model=None, initial=None, leads=5, *, spec=None, **options):
    ds = fields()
    spec = spec or spec_of(ds)
    initial = ds.isel(time=[0, 3]) if initial is None else initial
    options = {"members": 3, "output": None, **options}
    return scidiff.forecast(model or AR(), initial, leads, spec=spec, **options)


def test_deterministic_forecast_is_the_formula():
    ds = fields()
    spec = spec_of(ds)
    out = run(AR(q=0.0, horizon=3), ds, 7, spec=spec, members=1)
    assert out.slp.dims == ("init_time", "member", "lead_time", "lat", "lon")
    assert out.t.dims == ("init_time", "member", "lead_time", "level", "lat", "lon")
    loc = float(spec.loc[0])
    expected = loc + (ds.slp.values[:, None] - loc) * 0.8 ** np.arange(1, 8)[:, None, None]
    assert np.allclose(out.slp.isel(member=0), expected, rtol=2e-7)
    assert (out.valid_time == out.init_time + out.lead_time).all() and out.lead_time.values[2] == 3 * DAY
    assert out.slp.units == "Pa" and out.lat.units == "degrees_north"


def test_law_of_the_ensemble_is_that_of_the_model():
    """Variance q^2 (1 - a^2n) / (1 - a^2) after n steps; members, initial times and windows are independent."""
    ds = fields()
    spec = spec_of(ds)
    out = run(AR(horizon=2), ds.isel(time=[0, 1]), 6, spec=spec, members=400)
    u = spec.normalise(torch.tensor(np.concatenate([out.slp.values[:, :, :, None], out.t.values], 3))).numpy()
    n = np.arange(1, 7)
    wanted = 0.25 * (1 - 0.64**n) / (1 - 0.64)
    found = u.var(1, ddof=1).mean((0, 2, 3, 4))  # of 400 members, 120 points: 0.65 % standard error
    assert np.allclose(found, wanted, rtol=0.03)
    noise = u[:, :, 1:] - 0.8 * u[:, :, :-1]
    flat = noise.transpose(0, 2, 1, 3, 4, 5).reshape(10, -1)
    assert np.abs(np.corrcoef(flat) - np.eye(10)).max() < 0.03


def test_a_member_is_the_same_in_any_company(tmp_path):
    ds = fields()
    whole = run(initial=ds.isel(time=[0, 3, 7]), members=5)
    alone = run(initial=ds.isel(time=[3]), members=5, batch_size=1)
    assert np.array_equal(whole.slp.isel(init_time=[1]), alone.slp)
    few = run(initial=ds, init_times=[ds.time.values[7]], members=2, batch_size=2, output=tmp_path / "a.zarr")
    assert np.array_equal(whole.slp.isel(init_time=[2], member=[0, 1]), few.slp)
    some = run(initial=ds.isel(time=[3]), leads=[2, 5], members=5)
    assert np.array_equal(some.t, alone.t.isel(lead_time=[1, 4])) and (some.lead_time == [2 * DAY, 5 * DAY]).all()
    assert not np.allclose(run(initial=ds.isel(time=[3]), members=5, seed=1).t, alone.t)


def test_the_store_holds_what_memory_holds(tmp_path, monkeypatch):
    monkeypatch.setattr("scidiff.forecast.rollout.CHUNK_NUMBERS", 3 * 4 * 5 * 2 * 2)  # tiles of one time, two members
    kept = run(members=3, leads=[1, 2, 4, 7])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(members=3, leads=[1, 2, 4, 7], output=tmp_path / "run.zarr")
        stored = xr.open_zarr(tmp_path / "run.zarr", chunks=None)
    xr.testing.assert_identical(stored.load(), kept)
    assert stored.slp.encoding["chunks"] == (1, 2, 2, 4, 5)
    assert stored.attrs["complete"] == 1 and json.loads(stored.attrs["identity"])["members"] == 3
    assert [p.name for p in tmp_path.iterdir()] == ["run.zarr"]


def test_store_that_exists(tmp_path):
    path = tmp_path / "run.zarr"
    first = run(output=path)
    with pytest.raises(InputError, match="exists.*--overwrite"):
        run(output=path)
    assert np.array_equal(run(output=path, resume=True).slp, first.slp)
    with pytest.raises(InputError, match="seed was 0 and is now 1"):
        run(output=path, resume=True, seed=1)
    for other in (AR(a=0.7), AR(q=0.4)):
        with pytest.raises(InputError, match="model_sha256"):
            run(other, output=path, resume=True)
    assert not np.array_equal(run(output=path, overwrite=True, seed=1).slp, first.slp)
    (tmp_path / "papers").mkdir()
    with pytest.raises(InputError, match="no Zarr store"):
        run(output=tmp_path / "papers", overwrite=True)


class Cut(AR):
    """Stops after so many calls."""

    left = 4

    def sample(self, *args, **options):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return super().sample(*args, **options)


def test_interrupted_and_resumed_is_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("scidiff.forecast.rollout.CHUNK_NUMBERS", 3 * 4 * 5 * 2 * 2)
    monkeypatch.setattr("scidiff.forecast.rollout.fingerprint", lambda model: "")
    options = {"members": 4, "leads": 9, "batch_size": 2, "corrections": [Conserve("slp"), Positive("t", 240.0)]}
    whole = run(**options)
    path = tmp_path / "run.zarr"
    AR.__name__, name = "Cut", AR.__name__
    try:
        with pytest.raises(KeyboardInterrupt, match="--resume"):
            run(Cut(), output=path, **options)
        part = xr.open_zarr(path, chunks=None).load()
        assert part.attrs["complete"] == 0 and np.isnan(part.slp).any() and not np.isnan(part.slp).all()
        with pytest.raises(InputError, match="unfinished"):
            run(output=path, **options)
        again = run(output=path, resume=True, **(options | {"batch_size": None}))
    finally:
        AR.__name__ = name
    assert np.array_equal(again.slp, whole.slp) and np.array_equal(again.t, whole.t)
    assert [p.name for p in tmp_path.iterdir()] == ["run.zarr"]


KILLED = """
import sys
sys.path[:0] = [{here!r}]
import toy
import scidiff
import scidiff.forecast.rollout as rollout
rollout.CHUNK_NUMBERS = {chunk}
toy.PAUSE = 0.02
ds = toy.fields()
model, spec = toy.AR(horizon=20), toy.spec_of(ds)
scidiff.forecast(model, ds.isel(time=[0]), 10_000, members=2, spec=spec, output={path!r})
"""


def test_ten_thousand_steps_killed_and_resumed(tmp_path, monkeypatch):
    """SIGKILL after some windows; another process goes on and ends with the numbers of an unbroken run."""
    here, path, chunk = str(Path(__file__).parent), tmp_path / "run.zarr", 2 * 3 * 20 * 200
    program = KILLED.format(here=here, path=str(path), chunk=chunk)
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not any((tmp_path / ".run.zarr.restart").glob("tile_*.npz")):
        assert process.poll() is None and time.monotonic() < deadline, process.stderr
        time.sleep(0.02)
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with np.load(tmp_path / ".run.zarr.restart" / "tile_00000.npz") as kept:
        assert 0 < int(kept["windows"]) < 500
    monkeypatch.setattr("scidiff.forecast.rollout.CHUNK_NUMBERS", chunk)
    ds = fields()
    first, options = ds.isel(time=[0]), {"members": 2, "spec": spec_of(ds)}
    found = scidiff.forecast(AR(horizon=20), first, 10_000, output=path, resume=True, **options).load()
    whole = scidiff.forecast(AR(horizon=20), first, 10_000, output=None, **options)
    assert np.array_equal(found.t, whole.t) and np.array_equal(found.slp, whole.slp)
    assert found.t.sizes["lead_time"] == 10_000 and found.t.encoding["chunks"][2] == 200


def test_memory_does_not_grow_with_the_lead(tmp_path, monkeypatch):
    """Bytes held by arrays of this process while it runs, 100 and 1000 steps: the window's buffer alone."""
    import tracemalloc

    monkeypatch.setattr("scidiff.forecast.rollout.CHUNK_NUMBERS", 10000)
    peaks = []
    for leads in (100, 1000):
        tracemalloc.start()
        run(AR(horizon=20), fields().isel(time=[0]), leads, members=4, output=tmp_path / f"{leads}.zarr")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    whole = 1000 * 4 * 3 * 20 * 4
    assert peaks[1] - peaks[0] < whole / 4


def test_nothing_is_left_behind_by_a_write(tmp_path, monkeypatch):
    """Objects and numbers alive early and late in a roll-out of 40 chunks; the buffer of a tile is used again."""
    import gc

    monkeypatch.setattr("scidiff.forecast.rollout.CHUNK_NUMBERS", 1200)
    kept, places, write = [], [], ZarrStore.write

    def watched(store, region, fields):
        write(store, region, fields)
        places.append(fields["t"].__array_interface__["data"][0])
        if len(places) in (5, 39):
            gc.collect()
            alive = gc.get_objects()
            kept.append((len(alive), sum(o.numel() for o in alive if type(o) is torch.Tensor)))

    monkeypatch.setattr(ZarrStore, "write", watched)
    run(AR(horizon=5), fields().isel(time=[0]), 400, members=2, output=tmp_path / "long.zarr")
    (objects, numbers), (later_objects, later_numbers) = kept
    assert len(places) == 40 and len(set(places)) == 1
    assert abs(later_objects - objects) <= 20 and later_numbers == numbers  # one object a window would be 34


# Windows, members, months, masks


def test_window_of_two_and_forcing():
    ds = fields()
    spec = spec_of(ds, forcing="sun", static="height")
    u, f = spec.to_tensor(ds, torch.float64), spec.forcing_tensor(ds, torch.float64)
    out = run(AR(q=0.0, window=2, horizon=2, b=0.1), ds.isel(time=slice(0, 3)), 4, spec=spec, members=1, forcing=ds)
    assert (out.init_time.values == ds.time.values[1:3]).all()
    a = 0.8
    for start in (1, 2):
        states = [u[start - 1], u[start]]
        for _ in range(2):
            x = (states[-2] + states[-1]) / 2
            for _ in range(2):
                x = a * x + 0.1 * f[start + len(states) - 1].sum(0)
                states.append(x)
        expected = spec.denormalise(torch.stack(states[2:])).numpy()
        assert np.allclose(out.slp.values[start - 1, 0], expected[:, 0], rtol=1e-6)
        assert np.allclose(out.t.values[start - 1, 0], expected[:, 1:], rtol=1e-6)


def test_forcing_that_ends_early():
    ds = fields()
    spec = spec_of(ds, forcing="sun")
    with pytest.raises(InputError, match="ends early.*2001-01-06"):
        run(initial=ds.isel(time=[0]), spec=spec, forcing=ds.isel(time=slice(0, 5)), leads=5)
    run(initial=ds.isel(time=[0]), spec=spec, forcing=ds.isel(time=slice(0, 7)), leads=5)
    with pytest.raises(InputError, match="has a gap.*2001-01-03"):
        run(initial=ds.isel(time=[0]), spec=spec, forcing=ds.isel(time=[0, 1, 3, 4, 5, 6, 7]))
    with pytest.raises(InputError, match="needs the forcing sun; none"):
        run(initial=ds.isel(time=[0]), spec=spec)
    with pytest.raises(InputError, match="takes no forcing"):
        run(forcing=ds)
    with pytest.raises(InputError, match="has a gap"):  # nearest is not taken
        run(initial=ds.isel(time=[0]), spec=spec, forcing=ds.assign_coords(time=ds.time - np.timedelta64(1, "h")))


def test_members_that_start_apart():
    ds = fields()
    many = ds.isel(time=[0, 3, 5]).rename(time="member").drop_vars("member").expand_dims(time=[ds.time.values[0]])
    out = run(AR(q=0.0), many, 2, members=3, spec=spec_of(ds))
    alone = run(AR(q=0.0), ds.isel(time=[5]), 2, members=1, spec=spec_of(ds))
    assert np.array_equal(out.slp[:, 2], alone.slp[:, 0])
    with pytest.raises(InputError, match="hold 3 members and 2"):
        run(AR(), many, 2, members=2, spec=spec_of(ds))


def test_monthly_states():
    months = np.arange("2000-01", "2002-01", dtype="datetime64[M]").astype("datetime64[ns]")
    ds = fields(24).assign_coords(time=months)
    out = run(AR(q=0.0), ds.isel(time=[1]), 3, spec=spec_of(ds), members=1)
    assert out.lead_time.values.tolist() == [1, 2, 3] and out.lead_time.units == "months"
    assert (out.valid_time.values[0] == months[2:5]).all()


def test_plain_numbers_as_times():
    ds = fields().assign_coords(time=np.arange(12) * 0.05)
    out = run(AR(q=0.0), ds.isel(time=[2]), 3, spec=spec_of(ds), members=1)
    assert np.allclose(out.valid_time, [[0.15, 0.2, 0.25]]) and np.allclose(out.lead_time, [0.05, 0.1, 0.15])


def test_land_stays_missing():
    ds = fields(land=True)
    out = run(initial=ds.isel(time=[0]), spec=spec_of(ds, mask="missing"))
    assert np.isnan(out.slp[..., 1, 2:4]).all() and np.isnan(out.slp).sum() == 3 * 5 * 2
    assert np.isfinite(out.t).all()
    with pytest.raises(InputError, match="2001-01-01.*knows no mask"):
        run(initial=ds.isel(time=[0]), spec=spec_of(fields()))


# Corrections


@pytest.mark.parametrize("how", ["add", "scale"])
def test_conserved_means(how):
    ds = fields(land=True)
    spec = spec_of(ds, mask="missing")
    out = run(initial=ds.isel(time=[0]), spec=spec, corrections=[Conserve("slp", how=how), Conserve("t", 260.0, how)])
    weights = xr.DataArray(spec.grid.area, dims=("lat", "lon"))
    mean = out.slp.astype("f8").weighted(weights).mean(("lat", "lon"))
    start = ds.slp.isel(time=0).astype("f8").weighted(weights).mean(("lat", "lon"))
    assert np.allclose(mean, start, rtol=3e-7)
    assert np.allclose(out.t.astype("f8").weighted(weights).mean(("lat", "lon")), 260, rtol=1e-6)


def test_positive_with_and_without_mass():
    ds = fields().assign(rain=lambda d: ((d.slp - 101300).clip(0) / 800).assign_attrs(units="mm"))
    spec = spec_of(ds, "rain")
    free = run(initial=ds.isel(time=[0]), spec=spec)
    floor = run(AR(horizon=5), ds.isel(time=[0]), spec=spec, corrections=[Positive("rain")])
    kept = run(initial=ds.isel(time=[0]), spec=spec, corrections=[Positive("rain", keep_mean=True)], leads=1)
    assert float(free.rain.min()) < -0.1 and float(floor.rain.min()) > -1e-6 and float(kept.rain.min()) > -1e-6
    weights = xr.DataArray(spec.grid.area, dims=("lat", "lon"))
    mean = [x.rain.isel(lead_time=0).weighted(weights).mean(("lat", "lon")) for x in (free, kept)]
    assert np.allclose(*mean, rtol=1e-5, atol=1e-6)


def test_prescribed_boundary_and_custom_function():
    ds = fields()
    where = xr.zeros_like(ds.slp[0], bool)
    where[:, 0] = True
    hectopascal = (ds.slp / 100).assign_attrs(units="hPa")
    seen = []

    def watch(state, at):
        seen.append((at.lead, tuple(at.init_times)))
        return {**state, "t": state["t"].clamp(max=270.0)}

    out = run(corrections=[Prescribe("slp", hectopascal, where), watch], leads=4)
    for i, start in enumerate((0, 3)):
        assert np.allclose(out.slp[i, :, :, :, 0], ds.slp[start + 1 : start + 5, :, 0], rtol=1e-6)
    assert float(out.t.max()) <= 270.001 and {lead for lead, _ in seen} == {1.0, 2.0, 3.0, 4.0}
    with pytest.raises(InputError, match="prescribed values of 'slp'.*2001-01-04"):
        run(corrections=[Prescribe("slp", ds.slp[:3])], leads=2)
    with pytest.raises(InputError, match="'wind' cannot be prescribed"):
        run(corrections=[Prescribe("wind", ds.slp)])
    with pytest.raises(InputError, match="Conserve.*predicts slp, t"):
        run(corrections=[Conserve("wind")])


def test_prescribed_values_between_states_are_interpolated():
    from scidiff.forecast.corrections import StepContext

    ds = fields()
    spec = spec_of(ds)
    at = StepContext(1.25, ds.time.values[[0, 4]], DAY, {}, spec)
    found = Prescribe("slp", ds.slp)({"slp": torch.zeros(2, 4, 5)}, at)["slp"]
    expected = 0.75 * ds.slp.values[[1, 5]] + 0.25 * ds.slp.values[[2, 6]]
    assert np.allclose(found, expected, rtol=1e-6)


# Refusals


def test_a_model_that_blows_up_is_told():
    with pytest.raises(NumericalError, match="member 0 from 2001-01-01.*steps 13 to 14"):
        run(AR(a=1e3, q=0.0, horizon=2), leads=40, initial=fields().isel(time=[0]))


def test_wrong_arguments():
    ds = fields()
    for options, kind, words in [
        ({"members": 0}, ValueError, "members"),
        ({"seed": -1}, ValueError, "seed"),
        ({"resume": True}, ValueError, "need an output"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"leads": [3, 1]}, ValueError, "ascend"),
        ({"observations": ds}, TypeError, "observe"),
        ({"initial": ds.drop_vars("time")}, InputError, "no coordinate time"),
        ({"initial": "absent.nc"}, InputError, "no such file"),
        ({"initial": ds.isel(time=[0, 0])}, InputError, "repeat"),
        ({"initial": ds.isel(time=[0, 2]), "model": AR(window=2)}, InputError, "followed by"),
        ({"init_times": [np.datetime64("1999-01-01")]}, InputError, "no state at 1999"),
        ({"initial": ds.expand_dims(run=2)}, InputError, r"\['run'\]; select one"),
    ]:
        with pytest.raises(kind, match=words):
            run(**options)
    with pytest.raises(TypeError, match="has no spec"):
        scidiff.forecast(AR(), ds, 2, output=None)


def test_the_package_is_the_function_in_every_order():
    """Whatever is imported first, ``scidiff.forecast`` is one object: package and function."""
    orders = [
        "import scidiff; f = scidiff.forecast; from scidiff.forecast import times",
        "from scidiff.forecast.times import advance; import scidiff; f = scidiff.forecast",
        "from scidiff import forecast as f; import scidiff.forecast.grid",
    ]
    check = "import sys, scidiff; assert f is scidiff.forecast is sys.modules['scidiff.forecast'] and callable(f)"
    check += "; assert 'torch' not in sys.modules and 'Forecaster' in dir(f)"
    for program in orders:
        subprocess.run([sys.executable, "-c", f"{program}; {check}"], check=True, timeout=60)
    assert list(inspect.signature(scidiff.forecast).parameters)[:3] == ["model", "initial", "lead_times"]
    assert scidiff.forecast.forecast.__name__ == "forecast" and scidiff.forecast.Forecaster.__name__ == "Forecaster"
