"""The loss of an autoencoder against its formulas; `scidiff train autoencoder`: resumed to the bit, card, faults."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from scidiff.cli.common import ConfigError, exit_code
from scidiff.cli.train_autoencoder import train_autoencoder
from scidiff.errors import InputError, Interrupted
from scidiff.nn.autoencoder import ConvAutoencoder
from scidiff.priors import load_autoencoder
from scidiff.training import TrainingConfig, train
from scidiff.training import reconstruction as module
from scidiff.training.reconstruction import ReconstructionLoss

CONFIG = """
[data]
kind = "arrays"
files = ["fields.npy"]
validation = ["others.npy"]
units = "K"

[network]
latent = 2
width = [4, 6]
blocks = 1
padding = "periodic"

[loss]
kl = 1e-3
gradient = 0.5

[training]
steps = 6
batch = 4
crops = [[16, 8], [8, 8]]
bf16 = false
checkpoint_every = 3
log_every = 2
seed = 4

[card]
name = "tiny"
"""


@pytest.fixture
def project(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("fields", "others"):
        white = rng.standard_normal((12, 24, 16))
        np.save(tmp_path / f"{name}.npy", (280 + 3 * (white + np.roll(white, 1, 1))).astype("f4"))
    (tmp_path / "c.toml").write_text(CONFIG)
    return SimpleNamespace(config=tmp_path / "c.toml", out=tmp_path / "run", folder=tmp_path)


def run(project, **options):
    train_autoencoder(project.config, **{"out": project.out, "device": "cpu", "progress": False, **options})


def test_the_divergence_is_that_of_normal_laws(generator):
    m, v = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64).unbind(0)
    standard = Normal(torch.zeros_like(m), torch.ones_like(m))
    truth = kl_divergence(Normal(m, (v / 2).exp()), standard).sum((1, 2))
    torch.testing.assert_close(module.kl_divergence(m, v), truth)
    assert module.kl_divergence(torch.zeros(2, 3), torch.zeros(2, 3)).tolist() == [0, 0]


@pytest.mark.parametrize("power", [1, 2])
def test_the_loss_is_its_formula(power, generator):
    u, estimate, a, b = (torch.randn(s, generator=generator) for s in [(2, 1, 6, 4)] * 2 + [(2, 3, 2, 1)] * 2)
    e = estimate - u

    def size(x):
        return (x.abs() ** power).sum((1, 2, 3)) / x[0].numel()

    pixels = size(e) + 0.7 * (size(e[:, :, 1:] - e[:, :, :-1]) + size(e[..., 1:] - e[..., :-1]))
    normal = ReconstructionLoss(power, gradient=0.7, kl=0.1)(lambda *_: (estimate, a, b), u, None, u)
    kl = 0.5 * (a**2 + b.exp() - 1 - b).sum((1, 2, 3))
    torch.testing.assert_close(normal, pixels + 0.1 * kl / 24)
    loss = ReconstructionLoss(power, gradient=0.7, commitment=0.3, codebook=True)
    torch.testing.assert_close(
        loss(lambda *_: (estimate, a, b), u, None, u), pixels + 1.3 * ((a - b) ** 2).sum((1, 2, 3)) / 6
    )


def test_codebook_and_encoder_are_pulled_by_their_own_terms(generator):
    u = torch.zeros(1, 1, 4, 4)
    z, e = (torch.randn(1, 3, 1, 1, generator=generator).requires_grad_() for _ in range(2))
    ReconstructionLoss(commitment=0.25, codebook=True)(lambda *_: (u, z, e), u, None, u).sum().backward()
    torch.testing.assert_close(e.grad, 2 * (e - z).detach() / 3)
    torch.testing.assert_close(z.grad, 0.25 * 2 * (z - e).detach() / 3)


@pytest.mark.parametrize("codebook", [0, 8])
def test_training_learns_and_resumes_to_the_bit(codebook, tmp_path):
    def source(g, crop):
        coarse = torch.randn(1, crop[0] // 4, crop[1] // 4, generator=g)
        return coarse.repeat_interleave(4, 1).repeat_interleave(4, 2)

    def start():
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(3)
            return ConvAutoencoder(1, latent=1, width=(8, 8), blocks=1, codebook=codebook)

    config = TrainingConfig(
        steps=60, batch=8, crops=[[16, 16]], warmup=5, bf16=False, checkpoint_every=20, log_every=20, seed=1
    )
    loss = ReconstructionLoss(codebook=bool(codebook), kl=1e-4)
    whole = train(start(), source, config, tmp_path / "whole", source, loss=loss)
    lines = [json.loads(line) for line in (tmp_path / "whole/log.jsonl").read_text().splitlines()]
    assert lines[-1]["fidelity"]["rmse"] < (0.7 if codebook else 0.6)  # 1 for a decoder that knows nothing
    assert not any("by_level" in line for line in lines)
    asked = iter(range(100))
    with pytest.raises(Interrupted):
        train(start(), source, config, tmp_path / "cut", loss=loss, stop=lambda: next(asked) == 29)
    resumed = train(start(), source, config, tmp_path / "cut", loss=loss, resume=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_the_command_writes_weights_card_and_picture_and_resumes(project):
    run(project)
    made = load_autoencoder(project.out / "autoencoder.safetensors")
    card = made.card
    assert card["name"] == "tiny" and card["stride"] == 4 and card["compression"] == 8 and card["units"] == "K"
    assert card["network"]["kind"] == "ConvAutoencoder" and card["network"]["padding"] == "periodic"
    assert card["reconstruction"]["fields"] == "held out" and len(card["reconstruction"]["codes"]["std"]) == 2
    assert [row[:2] for row in card["reconstruction"]["bands"]][-1] == [1.0, None]
    assert (project.out / "reconstructions.png").read_bytes()[:4] == b"\x89PNG"
    x = 280 + torch.randn(2, 1, 16, 8, generator=torch.Generator().manual_seed(0))
    assert made.decode(made.encode(x)).mean() == pytest.approx(280, abs=5)
    first = (project.out / "autoencoder.safetensors").read_bytes()
    run(project, steps=3, overwrite=True)
    run(project, resume=True)
    assert (project.out / "autoencoder.safetensors").read_bytes() == first
    project.config.write_text(CONFIG.replace("kl = 1e-3", "kl = 1e-2"))
    with pytest.raises(InputError, match="loss_table"):
        run(project, resume=True)
    with pytest.raises(InputError, match="exists; continue it with --resume"):
        run(project)


@pytest.mark.parametrize(
    ("old", "new", "kind", "code", "match"),
    [
        ("latent = 2", "latnt = 2", ConfigError, 2, "did you mean 'latent'"),
        ("latent = 2", "latent = 17", ConfigError, 2, "a cell of the field has 16 numbers only"),
        ("gradient = 0.5", "gradent = 0.5", ConfigError, 2, "did you mean 'gradient'"),
        ("gradient = 0.5", "power = 3", ConfigError, 2, "power is 1 .* or 2"),
        ("[16, 8]", "[16, 10]", ConfigError, 2, "multiples of the stride 4"),
        ("[16, 8]", "[16, 8, 8]", ConfigError, 2, "do not fit network.dims = 2"),
        ('"periodic"', '"circular"', ConfigError, 2, "padding must be one of"),
        ("[card]", "[samples]", ConfigError, 2, r"unknown \['samples'\]"),
        ("[16, 8]", "[32, 8]", InputError, 3, "choose a smaller crop"),
        ("fields.npy", "missing.npy", InputError, 3, "no such file"),
    ],
)
def test_faults_have_a_code(project, old, new, kind, code, match):
    assert old in CONFIG
    project.config.write_text(CONFIG.replace(old, new))
    with pytest.raises(kind, match=match) as caught:
        run(project)
    assert exit_code(caught.value) == code
    assert not (project.out / "checkpoint.safetensors").exists()
