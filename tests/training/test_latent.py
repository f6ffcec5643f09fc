"""`scidiff train latent`: normalised codes, cached, a prior of them resumed to the bit, and pairs that do not fit."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import safe_open

from scidiff.cli.common import ConfigError, exit_code
from scidiff.cli.train_latent import train_latent
from scidiff.errors import InputError
from scidiff.nn.autoencoder import ConvAutoencoder
from scidiff.priors import LatentPrior, load_autoencoder, load_pretrained
from scidiff.priors.pretrained import save_pretrained
from scidiff.training.batches import stream
from scidiff.training.codes import CodeWindows

CONFIG = """
[data]
kind = "arrays"
files = ["fields.npy"]
validation = ["others.npy"]
units = "K"

[codes]
autoencoder = "pair.safetensors"
fields = 20
held_out = 6
grid = [24, 16]

[network]
width = [6, 8]
blocks = 1
embedding = 8

[training]
steps = 4
batch = 4
crops = [[4, 4], [6, 4]]
bf16 = false
checkpoint_every = 2
seed = 2

[samples]
members = 2
steps = 3

[card]
name = "tiny-latent"
"""


def autoencoder(path, seed=0, **options):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = ConvAutoencoder(**{"channels": 1, "latent": 3, "width": (4, 6), "blocks": 1, **options})
    card = {"channels": 1, "loc": 270.0, "scale": 4.0, "complex": False, "units": "K", "stride": 4}
    save_pretrained(network, path, card, dtype=torch.float16)


@pytest.fixture
def project(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("fields", "others"):
        np.save(tmp_path / f"{name}.npy", (280 + 3 * rng.standard_normal((12, 32, 20))).astype("f4"))
    autoencoder(tmp_path / "pair.safetensors")
    (tmp_path / "c.toml").write_text(CONFIG)
    return SimpleNamespace(config=tmp_path / "c.toml", out=tmp_path / "run", folder=tmp_path)


def run(project, **options):
    train_latent(project.config, **{"out": project.out, "device": "cpu", "progress": False, **options})


def test_codes_become_a_prior_of_fields(project):
    run(project)
    prior = load_pretrained(project.out / "prior.safetensors")
    assert isinstance(prior, LatentPrior) and not prior.affine
    card, pair = prior.card, load_autoencoder(project.folder / "pair.safetensors")
    assert card["autoencoder"] == pair.identity and card["autoencoder_file"] == "autoencoder.safetensors"
    assert card["channels"] == 3 and card["field"] == {"channels": 1, "units": "K", "complex": False}
    assert prior.state_shape((1, 24, 16)) == (3, 6, 4)

    # The codes are those of fields in kelvin, whatever normalisation the data have, and normalised per channel.
    with safe_open(project.out / "codes.safetensors", framework="pt") as file:
        z, held_out = file.get_tensor("train"), file.get_tensor("held_out")
    assert z.shape == (20, 3, 6, 4) and held_out.shape == (6, 3, 6, 4)
    fields = np.load(project.folder / "fields.npy")
    g = stream(2, -3, 7)
    _, item = torch.multinomial(torch.ones(1), 1, generator=g), int(torch.randint(12, (), generator=g))
    y, x = int(torch.randint(9, (), generator=g)), int(torch.randint(5, (), generator=g))
    kelvin = torch.from_numpy(fields[item, y : y + 24, x : x + 16].copy())[None, None]
    torch.testing.assert_close(pair.encode(kelvin)[0], z[7], rtol=1e-4, atol=1e-4)
    flat = z.transpose(0, 1).flatten(1)
    torch.testing.assert_close(torch.tensor(card["loc"]), flat.mean(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.tensor(card["scale"]), flat.std(1), rtol=1e-4, atol=1e-5)
    u = prior.encode(pair.decode(z))
    assert u.shape == z.shape
    windows = CodeWindows(prior.prior.encode(z))
    drawn = torch.stack([windows(stream(0, 0, row), (6, 4)) for row in range(400)]).transpose(0, 1).flatten(1)
    assert drawn.mean(1).abs().max() < 0.1 and (drawn.std(1) - 1).abs().max() < 0.1
    assert len([*(project.out / "samples").iterdir()]) == 2

    first = (project.out / "prior.safetensors").read_bytes()
    run(project, steps=2, overwrite=True)
    run(project, resume=True)
    assert (project.out / "prior.safetensors").read_bytes() == first
    (project.out / "codes.safetensors").unlink()  # a cache: the run draws and encodes the same again
    run(project, overwrite=True)
    assert (project.out / "prior.safetensors").read_bytes() == first


def test_the_cache_is_used_and_belongs_to_its_autoencoder(project, monkeypatch):
    run(project, steps=2)
    before = (project.out / "codes.safetensors").read_bytes()
    from scidiff.priors.autoencoder import FieldAutoencoder

    with monkeypatch.context() as patch:
        patch.setattr(FieldAutoencoder, "encode", lambda *_: pytest.fail("encoded again"))
        run(project, resume=True)
    autoencoder(project.folder / "pair.safetensors", seed=1)
    with pytest.raises(InputError, match="autoencoder="):
        run(project, resume=True)
    run(project, overwrite=True)
    assert (project.out / "codes.safetensors").read_bytes() != before


def test_a_pair_that_was_separated_is_refused(project):
    run(project, steps=2)
    autoencoder(project.out / "autoencoder.safetensors", seed=1)
    with pytest.raises(InputError, match="codes of another autoencoder mean something else"):
        load_pretrained(project.out / "prior.safetensors")
    with pytest.raises(InputError, match="this is an autoencoder, not a prior"):
        load_pretrained(project.out / "autoencoder.safetensors")
    with pytest.raises(InputError, match="this is a prior, not an autoencoder"):
        load_autoencoder(project.out / "prior.safetensors")
    (project.out / "autoencoder.safetensors").unlink()
    with pytest.raises(InputError, match="no autoencoder 'autoencoder.safetensors'"):
        load_pretrained(project.out / "prior.safetensors")


@pytest.mark.parametrize(
    ("old", "new", "kind", "code", "match"),
    [
        ("fields = 20", "feilds = 20", ConfigError, 2, "did you mean 'fields'"),
        ("fields = 20", "fields = 1", ConfigError, 2, "whole numbers above 1"),
        ('autoencoder = "pair.safetensors"', "", ConfigError, 2, "lacks 'autoencoder'"),
        ("grid = [24, 16]", "grid = [24, 2]", ConfigError, 2, "expected sides of at least 4 points"),
        ("grid = [24, 16]", "grid = [24, 18]", ConfigError, 2, "multiples of the stride 4"),
        ("[6, 4]", "[8, 4]", ConfigError, 2, "exceed the codes"),
        ("width = [6, 8]", "inputs = 2", ConfigError, 2, "the codes have 3 channels"),
        ('units = "K"', 'units = "m"', InputError, 3, "does not belong to these data"),
        ("pair.safetensors", "pear.safetensors", InputError, 3, "no autoencoder 'pear.safetensors'"),
        ("pair.safetensors", "ct-slices", InputError, 3, "this is a prior, not an autoencoder"),
    ],
)
def test_faults_have_a_code(project, old, new, kind, code, match):
    assert old in CONFIG
    project.config.write_text(CONFIG.replace(old, new))
    with pytest.raises(kind, match=match) as caught:
        run(project)
    assert exit_code(caught.value) == code
    assert not (project.out / "checkpoint.safetensors").exists()
