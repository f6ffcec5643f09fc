"""`scidiff train prior` on an archive: every table of the example at work, and one exit code per fault."""

import json
import tomllib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr

from scidiff.cli.common import ConfigError, exit_code
from scidiff.cli.train import train_prior
from scidiff.errors import InputError
from scidiff.priors import load_pretrained

SMALL = {
    "width = [64, 96, 128]": "width = [8, 8]",
    "blocks = 2": "blocks = 1\nembedding = 8",
    "attention = [2]": "attention = [1]",
    "steps = 20000": "steps = 6\nbf16 = false\ncheckpoint_every = 3",
    "batch = 32": "batch = 4",
    "[[64, 64]]": "[[8, 8]]",
    "snapshots = 1000": "snapshots = 3",
    "members = 8": "members = 2",
    "steps = 16": "steps = 3",
}


@pytest.fixture
def project(tmp_path, root):
    rng = np.random.default_rng(0)
    dims = ("time", "latitude", "longitude")
    data = xr.Dataset(
        {
            "temperature": (dims, (280 + 5 * rng.standard_normal((20, 8, 10))).astype("f4"), {"units": "K"}),
            "humidity": (dims, np.exp(rng.standard_normal((20, 8, 10))).astype("f4"), {"units": "g kg-1"}),
        }
    )
    data.to_zarr(tmp_path / "archive.zarr", consolidated=True)
    text = (root / "examples/priors/stored-fields.toml").read_text()
    for old, new in SMALL.items():
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "c.toml").write_text(text)
    return SimpleNamespace(config=tmp_path / "c.toml", out=tmp_path / "run", text=text, folder=tmp_path)


def train(project, **options):
    train_prior(project.config, **{"out": project.out, "device": "cpu", "progress": False, **options})


def test_an_archive_becomes_a_prior(project):
    tomllib.loads(project.text)
    train(project)
    prior = load_pretrained(project.out / "prior.safetensors")
    assert prior.card["network"]["kind"] == "MPUNet" and not prior.affine and prior.card["affine"] is False
    assert prior.card["variable_units"] == {"temperature": "K", "humidity": "g kg-1"}
    x = prior.decode(torch.zeros(1, 2, 8, 8))
    assert x[0, 0].mean().item() == pytest.approx(280, abs=1)
    assert x[0, 1].mean().item() == pytest.approx(1, abs=0.3)
    assert prior.decode(-9 * torch.ones(1, 2, 8, 8))[:, 1].min() > 0
    assert [p.name for p in sorted((project.out / "samples").iterdir())] == ["00000003.png", "00000006.png"]
    assert len([*(project.out / "snapshots").iterdir()]) == 4
    assert len(prior.card["validation_by_level"]) == 8
    first = (project.out / "prior.safetensors").read_bytes()
    train(project, steps=3, overwrite=True)
    train(project, resume=True)
    assert (project.out / "prior.safetensors").read_bytes() == first
    project.config.write_text(project.text.replace('"velocity"', '"simple"'))
    with pytest.raises(InputError, match="loss_table"):
        train(project, resume=True)


@pytest.mark.parametrize(
    ("old", "new", "kind", "code", "match"),
    [
        ('"velocity"', '"velocty"', ConfigError, 2, "did you mean 'velocity'"),
        ('"MPUNet"', '"MPUnet"', ConfigError, 2, "expected one of UNet, MPUNet"),
        ("members = 2", "member = 2", ConfigError, 2, r"\[samples\] has no 'member'"),
        ("accumulate = 2", "accumulate = 0", ConfigError, 2, "accumulate must be at least 1"),
        ('"humidity"]', '"rain"]', InputError, 3, "which are no variables|no variable 'rain'"),
        ("split = 0.1 ", "split = 0.01", InputError, 3, "no fields for validation"),
    ],
)
def test_faults_have_a_code(project, old, new, kind, code, match):
    assert old in project.text
    project.config.write_text(project.text.replace(old, new))
    with pytest.raises(kind, match=match) as caught:
        train(project)
    assert exit_code(caught.value) == code
    assert not (project.out / "checkpoint.safetensors").exists()


def test_log_has_the_loss_by_level(project):
    train(project)
    rows = [json.loads(line) for line in (project.out / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows if "by_level" in r] == [3, 6]
