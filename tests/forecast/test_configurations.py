"""Every configuration in examples/forecasters: valid tables, a network that can be bundled, years kept for test."""

from __future__ import annotations

import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from scidiff.cli.train_forecaster import TABLES, _network
from scidiff.forecast import DYffusion, Interpolator, Predictor
from scidiff.forecast.kinds import KINDS
from scidiff.forecast.scores import make_score
from scidiff.training import TrainingConfig

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "forecasters"


@pytest.mark.parametrize("name", sorted(p.stem for p in FOLDER.glob("*.toml")))
def test_a_configuration_is_valid(name: str) -> None:
    tables = tomllib.loads((FOLDER / f"{name}.toml").read_text())
    assert tables.keys() <= TABLES and {"title", "license"} <= tables["card"].keys()
    chosen, data = dict(tables["forecaster"]), tables["data"]
    kind, h = chosen.pop("kind"), chosen.pop("horizon")
    assert kind in KINDS
    make_score(**tables.get("loss", {}))
    assert tables["training"].keys() <= {f.name for f in fields(TrainingConfig)}
    TrainingConfig(**tables["training"])
    if "file" in data:
        assert data["train"][1] < data["validation"][0] < data["validation"][1] < data["test"][0]
    network = _network(tables["network"], 2, h if kind == "noise" else 1, h)
    assert 4 * sum(p.numel() for p in network.parameters()) < 8 * 2**20
    if kind == "dyffusion":
        stage_one = tomllib.loads((FOLDER / f"{Path(chosen.pop('interpolator')).parent.name}.toml").read_text())
        assert stage_one["forecaster"]["kind"] == "interpolator" and stage_one["forecaster"]["horizon"] == h
        assert stage_one["data"] == data
        chosen.pop("residual", None)
        inside = torch.nn.Identity()
        DYffusion(Predictor(network), Interpolator(inside, h), **chosen)
