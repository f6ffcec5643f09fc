"""Forecasters as files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from scidiff.errors import InputError
from scidiff.forecast import (
    Deterministic,
    Interpolator,
    NoiseEnsemble,
    PerturbedEnsemble,
    PosteriorForecaster,
    Predictor,
)
from scidiff.forecast.exact import window_prior
from scidiff.forecast.files import (
    bundled_forecasters,
    load_forecaster,
    load_model,
    read_forecaster_card,
    save_forecaster,
)
from scidiff.nn import FNO, TimeUNet
from scidiff.rng import Streams
from scidiff.solvers.stochastic_transport import StochasticTransport
from tests.forecast.doubles import GRID, dyffusion, network

MODELS = {
    "dyffusion": lambda: dyffusion(conditioning="data", auxiliary_steps=2, sampling_schedule="every2"),
    "perturbed": lambda: PerturbedEnsemble(Predictor(network(2, 2)), 3, scale=0.3),
    "unet": lambda: NoiseEnsemble(Predictor(TimeUNet(2, 6, (8,), embedding=8, noise=1, latent=2)), 3),
    "fno": lambda: Deterministic(Predictor(FNO(2, 2, 4, 2, 1), residual=False), 2),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_forecaster_comes_back_as_it_was(name: str, tmp_path: Path) -> None:
    model = MODELS[name]().float().eval()
    save_forecaster(model, tmp_path / "f.safetensors", {"title": "t"})
    again = load_forecaster(tmp_path / "f.safetensors")
    state = torch.randn(2, 1, 2, *GRID, generator=torch.Generator().manual_seed(0))
    one, two = (m.sample(state, generator=Streams(1, range(2))) for m in (model, again))
    assert torch.equal(one, two)
    assert again.card["title"] == "t" and again.spec is None and len(again.card["sha256"]) == 64
    assert again.config == model.config


def test_an_interpolator_is_no_forecaster(tmp_path: Path) -> None:
    save_forecaster(Interpolator(network(4, 2), 4), tmp_path / "i.safetensors")
    assert isinstance(load_model(tmp_path / "i.safetensors"), Interpolator)
    with pytest.raises(InputError, match="stage 1"):
        load_forecaster(tmp_path / "i.safetensors")


def test_normalisation_travels_with_the_weights(tmp_path: Path) -> None:
    import numpy as np
    import xarray as xr

    from scidiff.forecast import StateSpec

    values = 280 + np.random.default_rng(0).standard_normal((9, *GRID)).astype("f4")
    times = np.datetime64("2001-01-01", "ns") + np.arange(9) * np.timedelta64(1, "D")
    ds = xr.Dataset({"t": (("time", "y", "x"), values, {"units": "K"})}, {"time": times, "y": range(5), "x": range(8)})
    spec = StateSpec.fit(ds, "t", per="pixel")
    save_forecaster(MODELS["perturbed"](), tmp_path / "f.safetensors", spec=spec)
    again = load_forecaster(tmp_path / "f.safetensors").spec
    torch.testing.assert_close(again.to_tensor(ds), spec.to_tensor(ds))
    assert again.units == {"t": "K"} and again.step == np.timedelta64(1, "D")


def test_files_that_are_not_forecasters(tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    with pytest.raises(InputError, match="no forecaster"):
        load_forecaster("nothing")
    path.write_bytes(b"PK\x03\x04 pickled")
    with pytest.raises(InputError, match="pickles are never opened"):
        load_forecaster(path)
    save_forecaster(MODELS["fno"](), path)
    card = path.with_suffix(".json")
    good = json.loads(card.read_text())
    for bad, match in (
        ({"model": {"class": "os.system"}}, "names the class"),
        ({"model": good["model"] | {"horizon": 0}}, "do not fit"),
        ({}, "lacks 'model'"),
    ):
        card.write_text(json.dumps(bad))
        with pytest.raises(InputError, match=match):
            load_forecaster(path)
    card.unlink()
    with pytest.raises(InputError, match="found none"):
        load_forecaster(path)
    with pytest.raises(TypeError, match="CLASSES"):
        save_forecaster(torch.nn.Linear(1, 1), path)
    sampled = PosteriorForecaster(window_prior(StochasticTransport((3, 4)), 3), 2)
    with pytest.raises(TypeError, match="Save its prior"):
        save_forecaster(sampled, path)


@pytest.mark.parametrize("name", bundled_forecasters() or ["none"])
def test_bundled_forecasters_run_and_are_small(name: str) -> None:
    if name == "none":
        pytest.skip("no forecaster is bundled")
    model = load_forecaster(name)
    assert model.spec is not None
    assert bundled_forecasters()[name].stat().st_size <= 8 * 2**20
    card = read_forecaster_card(name)
    assert {"title", "license", "data", "periods", "training", "command"} <= card.keys()
    c, *grid = model.spec.shape
    k = model.spec.forcing_channels
    forcing = torch.zeros(2, model.window + model.horizon, k, *grid) if k else None
    drawn = model.sample(torch.zeros(2, model.window, c, *grid), forcing, generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (2, model.horizon, c, *grid) and bool(drawn.isfinite().all())
    assert (drawn[0] - drawn[1]).abs().mean() > 1e-3


def test_the_time_of_year_need_not_be_given() -> None:
    import numpy as np
    import xarray as xr

    import scidiff
    from scidiff.datasets import with_season

    spec = load_forecaster("slp-north-atlantic").spec
    times = np.datetime64("2009-12-30", "ns") + np.arange(7) * np.timedelta64(1, "D")
    values = np.full((7, *spec.grid.shape), 101_300.0, "f4")
    ds = xr.Dataset({"slp": (("time", "lat", "lon"), values, {"units": "Pa"})}, {**spec.grid.coords(), "time": times})
    run = lambda forcing: scidiff.forecast(  # noqa: E731
        "slp-north-atlantic", ds.isel(time=[0, 1]), 5, 2, forcing=forcing, output=None
    )["slp"]
    own, given = run(None), run(with_season(ds))
    np.testing.assert_array_equal(own, given)
    assert own.dims == ("init_time", "member", "lead_time", "lat", "lon") and own.attrs["units"] == "Pa"
    assert 95_000 < float(own.min()) < float(own.max()) < 107_000
    later = run(with_season(ds.assign_coords(time=times + np.timedelta64(180, "D"))).assign_coords(time=times))
    assert float(abs(later - own).max()) > 10
