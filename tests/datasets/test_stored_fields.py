"""Archives as training data: statistics against numpy, windows of the right fields, one clear error per fault."""

import shutil

import numpy as np
import pytest
import torch
import xarray as xr

from scidiff.datasets.sources import training_data
from scidiff.datasets.stored_fields import Statistics, StoredFields
from scidiff.errors import InputError
from scidiff.training import TrainingConfig, train


def dataset(times=20, seed=0, **changes):
    rng = np.random.default_rng(seed)
    t = 280 + 5 * rng.standard_normal((times, 3, 6, 8))
    q = np.exp(rng.standard_normal((times, 3, 6, 8)) - 4)
    dims = ("time", "level", "y", "x")
    data = xr.Dataset({"t": (dims, t.astype("f4"), {"units": "K"}), "q": (dims, q.astype("f4"), {"units": "kg kg-1"})})
    for name, value in changes.items():
        data[name].attrs.update(value)
    return data


def write(data, path):
    if path.suffix == ".zarr":
        data.to_zarr(path, consolidated=False, encoding={n: {"chunks": (7, 2, 6, 8)} for n in data.data_vars})
    else:
        encoding = {n: {"chunksizes": (min(7, len(data.time)), 2, 6, 8)} for n in data.data_vars}
        data.to_netcdf(path, engine="h5netcdf", encoding=encoding)
    return path


TABLE = {"variables": ["t", "q"], "dims": ["y", "x"], "transforms": {"q": {"kind": "log"}}}


@pytest.mark.parametrize("name", ["a.nc", "a.h5", "a.zarr"])
def test_windows_and_statistics(tmp_path, name):
    """Of 20 times the last 5 are held out; statistics are those of the first 15, of ln q for q."""
    data = dataset()
    write(data, tmp_path / name)
    source = training_data("fields", tmp_path, files=[name], split=0.25, **TABLE)
    t, q = data.t.values[:15].astype("f8"), np.log(data.q.values[:15].astype("f8"))
    np.testing.assert_allclose(source.loc, [t.mean(), q.mean()], rtol=1e-6)
    np.testing.assert_allclose(source.scale, [t.std(), q.std()], rtol=1e-6)
    assert source.extra["variable_units"] == {"t": "K", "q": "kg kg-1"} and source.units == "mixed"
    assert source.extra["transforms"] == [None, {"kind": "log", "scale": 1.0}]
    whole = np.stack([(data.t.values - t.mean()) / t.std(), (np.log(data.q.values) - q.mean()) / q.std()], axis=2)
    g = torch.Generator().manual_seed(0)
    for draw, times in ((source.source, range(15)), (source.validation, range(15, 20))):
        seen = set()
        for _ in range(60):
            u = draw(g, (6, 8)).numpy()
            found = [i for i in range(20) for j in range(3) if np.abs(whole[i, j] - u).max() < 1e-4]
            assert len(found) == 1
            seen.add(found[0])
        assert seen <= set(times) and len(seen) > 0.6 * len(times)
    assert source.source(g, (4, 3)).shape == (2, 4, 3)
    again = training_data("fields", tmp_path, files=[name], split=0.25, **TABLE)
    one, two = (torch.Generator().manual_seed(4) for _ in range(2))
    assert torch.equal(source.source(one, (4, 4)), again.source(two, (4, 4)))


def test_statistics_do_not_depend_on_blocks():
    values = 1e4 + np.random.default_rng(0).standard_normal(1000)
    for cuts in ([1000], [1, 10, 989], [333, 333, 334]):
        s = Statistics()
        for part in np.split(values, np.cumsum(cuts)[:-1]):
            s.update(part)
        assert s.mean == pytest.approx(values.mean(), rel=1e-14)
        assert s.std == pytest.approx(values.std(), rel=1e-10)


def test_several_files_and_a_condition(tmp_path):
    write(dataset(6, 0), tmp_path / "a.nc")
    write(dataset(9, 1), tmp_path / "b.zarr")
    options = {"variables": ["q"], "dims": ["y", "x"], "condition": ["t"], "split": 0.34}
    source = training_data("fields", tmp_path, files=["a.nc", "b.zarr"], **options)
    u, c = source.source(torch.Generator().manual_seed(0), (4, 4))
    assert u.shape == c.shape == (1, 4, 4)
    assert len(source.source) == 3 * (4 + 6) and len(source.validation) == 3 * (2 + 3)
    assert source.extra["condition"]["variables"] == ["t"]
    assert source.extra["condition"]["loc"][0] == pytest.approx(280, abs=0.5)


def test_faults_have_one_clear_error(tmp_path):
    write(dataset(), tmp_path / "a.nc")
    write(dataset(t={"units": "degC"}), tmp_path / "celsius.nc")
    broken = dataset()
    broken.t.values[8, 1, 2, 3] = np.nan
    write(broken, tmp_path / "nan.zarr")
    (tmp_path / "text.nc").write_text("no archive")

    def read(*files, **options):
        return training_data("fields", tmp_path, files=list(files), **{**TABLE, **options})

    for match, files, options in [
        (r"nan\.zarr: 't', positions 7 to 13: 1 of 1008 values are NaN", ["nan.zarr"], {}),
        (r"a\.nc: no variable 'z'; it holds t, q", ["a.nc"], {"variables": ["z"], "transforms": {}}),
        (r"celsius\.nc: 't' is in 'degC', the files before it .* in 'K'", ["a.nc", "celsius.nc"], {}),
        ("'t' is in 'K', the files before it .* in 'degC'", ["a.nc"], {"units": {"t": "degC"}}),
        ("split = 0.01 leaves no fields for validation", ["a.nc"], {"split": 0.01}),
        ("split = 0.99 leaves no fields for training", ["a.nc"], {"split": 0.99}),
        (r"missing\.nc: no such file", ["missing.nc"], {}),
        (r"text\.nc: expected NetCDF-4, HDF5 or Zarr", ["text.nc"], {}),
        (r"asks for \['lat'\]", ["a.nc"], {"dims": ["lat", "x"]}),
        ("which are no variables", ["a.nc"], {"transforms": {"w": {"kind": "log"}}}),
        ("for the transform 'logit'", ["a.nc"], {"transforms": {"t": {"kind": "logit"}}}),
    ]:
        with pytest.raises(InputError, match=match):
            read(*files, **options)


@pytest.mark.parametrize("name", ["a.zarr", "a.nc"])
def test_a_store_that_vanishes_leaves_the_state(tmp_path, name, monkeypatch):
    """The error names the store, the steps before it are kept, and with the store back the run ends as unbroken."""
    monkeypatch.setattr("scidiff.datasets.stored_fields._CACHE", 1)  # every draw reads
    path = write(dataset(), tmp_path / name)
    config = TrainingConfig(steps=8, batch=2, crops=((4, 4),), bf16=False)

    def network():
        from scidiff.nn import UNet

        with torch.random.fork_rng():
            torch.default_generator.manual_seed(0)
            return UNet(2, width=(8,), blocks=1, embedding=8)

    def source(vanish_at=None):
        stored = training_data("fields", tmp_path, files=[name], split=0, **TABLE).source
        drawn = [0]

        def read(g, crop):
            drawn[0] += 1
            if drawn[0] == vanish_at:
                shutil.move(path, tmp_path / "elsewhere")
            return stored(g, crop)

        return read

    whole = train(network(), source(), config, tmp_path / "whole")
    with pytest.raises(InputError, match=r"vanished.*state after step 5 is kept.*--resume|cannot be read.*step 5"):
        train(network(), source(vanish_at=11), config, tmp_path / "cut")
    shutil.move(tmp_path / "elsewhere", path)
    cut = train(network(), source(), config, tmp_path / "cut", resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), cut.parameters(), strict=True))


def test_grid_smaller_than_the_crop_is_named(tmp_path):
    stored = StoredFields([write(dataset(), tmp_path / "a.nc")], ["t"], ["y", "x"])
    stored.measure()
    with pytest.raises(InputError, match=r"grid \(6, 8\), training.crops asks for \(7, 8\)"):
        stored(torch.Generator().manual_seed(0), (7, 8))
