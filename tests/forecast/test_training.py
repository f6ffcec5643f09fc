"""`scidiff train forecaster`: windows, data split by time, two stages, exact resume, one exit code per fault."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scidiff.cli.common import exit_code
from scidiff.cli.train_forecaster import train_forecaster
from scidiff.datasets import read_series
from scidiff.errors import InputError
from scidiff.forecast import DYffusion, NoiseEnsemble
from scidiff.forecast.files import load_forecaster, load_model
from scidiff.forecast.training_data import forecast_data
from scidiff.forecast.windows import WindowSource

TEXT = """
[forecaster]
kind = "{kind}"
horizon = 3
{more}

[data]
file = "series.npz"
variables = ["slp"]
annual = true
train = ["2001-01-01", "2001-02-15"]
validation = ["2001-02-16", "2001-03-05"]
test = ["2001-03-06", "2001-03-21"]

[network]
kind = "MeshCNN"
width = 6
kernels = [3]
embedding = 8
{network}

[training]
steps = 6
batch = 4
bf16 = false
checkpoint_every = 3
log_every = 1
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    times = np.datetime64("2001-01-01") + np.arange(80)
    np.savez(
        tmp_path / "series.npz",
        slp=(101_000 + 500 * rng.standard_normal((80, 5, 8))).astype("f4"),
        lat=np.arange(30.0, 42.5, 2.5, "f4"),
        lon=np.arange(8.0, dtype="f4"),
        time=times,
        units="Pa",
    )
    return tmp_path


def run(folder: Path, kind: str, more: str = "", network: str = "", **options: Any) -> Path:
    config = folder / f"{kind}.toml"
    config.write_text(TEXT.format(kind=kind, more=more, network=network))
    out = options.pop("out", folder / kind)
    train_forecaster(config, out=out, device="cpu", progress=False, **options)
    return out / "forecaster.safetensors"


def test_windows_stay_inside_their_stretch_and_all_are_drawn() -> None:
    stretches = [torch.arange(5.0)[:, None], torch.arange(10.0, 14.0)[:, None], torch.zeros(2, 1)]
    source = WindowSource(stretches, 3)
    assert len(source) == 5
    g = torch.Generator().manual_seed(0)
    drawn = {tuple(source(g, ())[:, 0].tolist()) for _ in range(100)}
    assert drawn == {(0, 1, 2), (1, 2, 3), (2, 3, 4), (10, 11, 12), (11, 12, 13)}
    with pytest.raises(InputError, match="longest stretch of the data has 5"):
        WindowSource(stretches, 6)


def test_both_stages_of_dyffusion_and_exact_resume(folder: Path) -> None:
    one = run(folder, "interpolator", network="dropout = 0.3")
    assert load_model(one).horizon == 3
    more = 'interpolator = "interpolator/forecaster.safetensors"\nconditioning = "data"\nauxiliary_steps = 1'
    whole = run(folder, "dyffusion", more)
    model = load_forecaster(whole)
    assert isinstance(model, DYffusion) and model.network_calls == 9 and model.interpolator.frozen
    inside = load_model(one).state_dict()
    assert all(torch.equal(v, inside[k]) for k, v in model.interpolator.state_dict().items())

    card = model.card
    assert card["periods"]["test"] == ["2001-03-06", "2001-03-21"] and "series.npz" in card["files_sha256"]
    assert card["training"]["validation"] == min(v for _, v in [(0, card["training"]["validation"])])
    part = read_series(folder / "series.npz").sel(time=slice("2001-01-01", "2001-02-15"))
    assert model.spec.loc.flatten()[0].item() == pytest.approx(float(part["slp"].mean()), rel=1e-3)

    out = folder / "again"
    run(folder, "dyffusion", more, steps=3, out=out)
    again = run(folder, "dyffusion", more, resume=True, out=out)
    assert again.read_bytes() == whole.read_bytes()
    with pytest.raises(InputError, match="network"):
        run(folder, "dyffusion", more, network="dropout = 0.1", resume=True, out=out)


@pytest.mark.parametrize("kind", ["deterministic", "dropout", "perturbed", "noise"])
def test_the_other_kinds(kind: str, folder: Path) -> None:
    model = load_forecaster(run(folder, kind, network="noise = 1" if kind == "noise" else ""))
    assert type(model).__name__.lower().startswith(kind) and model.horizon == 3
    assert model.spec.forcing == ("annual_cos", "annual_sin")
    drawn = model.sample(torch.zeros(2, 1, 1, 5, 8), torch.zeros(2, 4, 2, 5, 8))
    assert drawn.shape == (2, 3, 1, 5, 8) and (isinstance(model, NoiseEnsemble) == (kind == "noise"))


def test_fine_tuning_on_several_blocks_goes_on_from_given_weights(folder: Path) -> None:
    first = run(folder, "noise", network="noise = 2")
    begun = dict(load_forecaster(first).named_parameters())
    rate = "\nlearning_rate = 1e-12"
    text = TEXT.replace("bf16 = false", "bf16 = false" + rate)
    config = folder / "tuned.toml"
    config.write_text(text.format(kind="noise", more=f'blocks = 2\nstart = "{first}"', network="noise = 2"))
    train_forecaster(config, out=folder / "tuned", device="cpu", progress=False)
    tuned = load_forecaster(folder / "tuned" / "forecaster.safetensors")
    for name, value in tuned.named_parameters():
        torch.testing.assert_close(value, begun[name], rtol=1e-4, atol=1e-6)
    assert tuned.card["forecaster"]["blocks"] == 2
    config.write_text(text.format(kind="noise", more=f'start = "{first}"', network="noise = 1"))
    with pytest.raises(InputError, match="same network"):
        train_forecaster(config, out=folder / "other", device="cpu", progress=False)


def test_the_best_of_the_checkpoints_is_kept(folder: Path) -> None:
    path = run(folder, "deterministic", steps=9)
    lines = [json.loads(line) for line in (path.parent / "log.jsonl").read_text().splitlines()]
    assert sum("validation" in line for line in lines) == 3
    card = load_forecaster(path).card
    assert card["training"]["steps_done"] in (3, 6, 9) and card["training"]["validation"] > 0


@pytest.mark.parametrize(
    ("old", "new", "code", "match"),
    [
        ('kind = "noise"', 'kind = "noisy"', 2, "expected one of deterministic"),
        ("horizon = 3", "horizon = 3\nspread = 1", 2, "has no 'spread'"),
        ("horizon = 3", "", 2, "needs kind and horizon"),
        ('kind = "noise"', 'kind = "dyffusion"', 2, "path of stage 1"),
        ("[network]", "[networks]", 2, "unknown \\['networks'\\]"),
        ('kind = "MeshCNN"', 'kind = "CNN"', 2, "expected one of FNO"),
        ("kernels", "kernel", 2, "network"),
        ("batch = 4", "batches = 4", 2, "did you mean 'batch'"),
        ('file = "series.npz"', 'file = "none.nc"', 3, "no such file"),
        ("2001-02-16", "2001-02-10", 3, "overlap"),
        ('"2001-02-15"', '"2001-01-03"', 3, "longest stretch"),
        ('["slp"]', '["t2m"]', 3, "t2m"),
    ],
)
def test_faults(old: str, new: str, code: int, match: str, folder: Path) -> None:
    text = TEXT.format(kind="noise", more="", network="")
    assert old in text
    (folder / "bad.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(Exception, match=match) as caught:
        train_forecaster(folder / "bad.toml", out=folder / "bad", device="cpu", progress=False)
    assert exit_code(caught.value) == code


def test_a_simulator_by_name(tmp_path: Path) -> None:
    options = {"grid": [6, 8], "times": 6, "train": 3, "validation": 2, "test": 1}
    found = forecast_data(5, tmp_path, trajectories="stochastic-transport", variables="tracer", options=options)
    assert found.spec.shape == (1, 6, 8) and found.validation is not None
    assert (len(found.train), len(found.validation)) == (3 * 2, 2 * 2)
    assert found.periods["trajectories"]["simulator"] == "stochastic-transport"
    with pytest.raises(InputError, match="either 'trajectories'"):
        forecast_data(5, tmp_path, variables="tracer")


def test_a_named_series_is_trained_on_as_departures_of_its_training_part(tmp_path: Path) -> None:
    time = np.arange("2001-01-01", "2004-01-01", dtype="datetime64[D]")
    season = 280 + 9 * np.cos(2 * np.pi * np.arange(len(time)) / 365.25)
    noise = np.random.default_rng(0).standard_normal((len(time), 3, 4)).astype("f4")
    (tmp_path / "climate").mkdir()
    file = tmp_path / "climate" / "t.npz"
    np.savez(file, time=time, lat=np.arange(3.0), lon=np.arange(4.0), units="K", t=season[:, None, None] + noise)
    options: dict[str, Any] = {"file": "climate/t.npz", "departures": True, "season": True}
    options |= {"validation": ["2003-01", "2003-06"], "test": ["2003-07", "2003"]}
    more: dict[str, Any] = {"trajectories": "series", "variables": "t", "forcing": ["annual_cos", "annual_sin"]}
    found = forecast_data(5, tmp_path, options=options, **more)
    assert abs(float(found.spec.loc)) < 0.05 and float(found.spec.scale) == pytest.approx(1, abs=0.05)  # no season left
    assert found.validation is not None and (len(found.train), len(found.validation)) == (730 - 4, 181 - 4)
    assert found.periods == {
        "train": ["2001-01-01", "2002-12-31"],
        "validation": ["2003-01-01", "2003-06-30"],
        "test": ["2003-07-01", "2003-12-31"],
    }
    assert found.files == {"t.npz": hashlib.sha256(file.read_bytes()).hexdigest()}
    whole = forecast_data(5, tmp_path, trajectories="series", variables="t", options={"file": "climate/t.npz"})
    assert whole.validation is None and len(whole.train) == 1095 - 4 and list(whole.periods) == ["train"]
