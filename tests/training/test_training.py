"""Training against truth: the exact denoiser, the closed form of the average, resume to the bit, two processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from scidiff.errors import InputError, Interrupted, NumericalError
from scidiff.nn import UNet
from scidiff.priors.diffusion import DiffusionPrior
from scidiff.training import TrainingConfig, train
from scidiff.training.ema import PowerEMA
from scidiff.training.losses import edm_loss, log_normal

ROOT = Path(__file__).resolve().parents[2]
TINY = {"width": (16,), "blocks": 1, "dims": 1, "embedding": 16}


def _network(seed: int = 0, **options) -> UNet:
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(seed)
        return UNet(1, **{**TINY, **options})


def _white(g, crop):
    return torch.randn(1, *crop, generator=g)


def _smooth(g, crop):
    """Moving average of white noise: unit variance, exact Wiener denoiser known."""
    e = torch.randn(1, crop[0] + 2, generator=g)
    return (e[:, :-2] + e[:, 1:-1] + e[:, 2:]) / 3**0.5


def test_loss_of_the_silent_network_is_the_variance_of_the_field(generator):
    """F = 0 on white fields is exact: its loss is the weighted Bayes error, (1+s^2)/s^2 * s^2/(1+s^2) = 1."""
    sigma = log_normal(torch.randn(512, generator=generator))
    u, eps = (torch.randn(512, 1, 64, generator=generator) for _ in range(2))
    losses = edm_loss(_network(), u, sigma, eps)
    assert losses.shape == (512,)
    assert losses.mean().item() == pytest.approx(1, abs=4 * (2 / 64 / 512) ** 0.5)


def test_training_finds_the_exact_denoiser(tmp_path):
    """A correlated Gaussian field: the learned denoiser must come close to the Wiener filter, far closer than F = 0."""
    config = TrainingConfig(steps=300, batch=64, crops=((32,),), warmup=20, decay=200, bf16=False, learning_rate=5e-3)
    network = train(_network(), _smooth, config, tmp_path)
    prior = DiffusionPrior(network, channels=1)
    n = 32
    lag = (torch.arange(n)[:, None] - torch.arange(n)).abs()
    cov = ((3 - lag).clamp_min(0) / 3).double()
    g = torch.Generator().manual_seed(1)
    for sigma in (0.2, 0.5, 1.5):
        u0 = torch.stack([_smooth(g, (n,)) for _ in range(400)]).double()
        u = u0 + sigma * torch.randn(u0.shape, generator=g, dtype=torch.float64)
        exact = u @ torch.linalg.solve(cov + sigma**2 * torch.eye(n), cov)
        bayes = (exact - u0).square().mean()
        excess = (prior.denoise(u, torch.tensor(sigma)) - exact).square().mean() / bayes
        silent = (u / (1 + sigma**2) - exact).square().mean() / bayes
        assert excess < 0.05
        assert excess < 0.25 * silent


def test_average_has_the_closed_form():
    """Weights of a linear drift theta_t = t have the power-function average t (gamma+1)/(gamma+2), up to 1/t."""
    network = torch.nn.Linear(1, 1, bias=False)
    ema = PowerEMA(network, gamma=6.94)
    for t in range(1, 2001):
        network.weight.data.fill_(float(t))
        ema.update(network, t)
    assert ema.network.weight.item() / 2000 == pytest.approx(7.94 / 8.94, rel=2e-3)


def test_rows_of_larger_crops_keep_the_cost():
    config = TrainingConfig(steps=1, batch=16, crops=((64, 64), (96, 96), (256, 256)))
    assert [config.rows(s) for s in range(4)] == [16, 7, 1, 16]


def _config(**options):
    return TrainingConfig(
        **{"steps": 12, "batch": 4, "crops": ((24,), (16,)), "checkpoint_every": 4, "log_every": 2, **options}
    )


def test_resume_is_bit_identical(tmp_path):
    whole = train(_network(), _white, _config(), tmp_path / "whole")
    calls = iter(range(100))
    with pytest.raises(Interrupted, match="--resume"):
        train(_network(), _white, _config(), tmp_path / "cut", stop=lambda: next(calls) == 5)
    cut = train(_network(seed=9), _white, _config(), tmp_path / "cut", resume=True)
    for a, b in zip(whole.state_dict().values(), cut.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert (
        load_file(tmp_path / "whole/checkpoint.safetensors").keys()
        == load_file(tmp_path / "cut/checkpoint.safetensors").keys()
    )


def test_resume_keeps_the_memory_layout_of_moments(tmp_path):
    """A channels-last network is resumed to the bit too: the fused optimiser pairs numbers by address."""

    def make():
        with torch.random.fork_rng():
            torch.default_generator.manual_seed(0)
            return UNet(1, width=(8, 8), blocks=1, embedding=8).to(memory_format=torch.channels_last)

    config = TrainingConfig(steps=6, batch=2, crops=((8, 12),), checkpoint_every=3, bf16=False)
    source = lambda g, crop: torch.randn(1, *crop, generator=g)  # noqa: E731
    whole = train(make(), source, config, tmp_path / "a")
    calls = iter(range(100))
    with pytest.raises(Interrupted):
        train(make(), source, config, tmp_path / "b", stop=lambda: next(calls) == 2)
    cut = train(make(), source, config, tmp_path / "b", resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), cut.parameters(), strict=True))


def test_an_existing_run_is_not_overwritten(tmp_path):
    train(_network(), _white, _config(), tmp_path)
    with pytest.raises(InputError, match="--resume"):
        train(_network(), _white, _config(), tmp_path)
    with pytest.raises(InputError, match="seed=0, this run asks for 1"):
        train(_network(), _white, _config(seed=1), tmp_path, resume=True)
    train(_network(), _white, _config(seed=1), tmp_path, overwrite=True)
    longer = train(_network(), _white, _config(seed=1, steps=14), tmp_path, resume=True)
    fresh = train(_network(), _white, _config(seed=1, steps=14), tmp_path / "fresh")
    assert all(torch.equal(a, b) for a, b in zip(longer.parameters(), fresh.parameters(), strict=True))


def test_divergence_is_loud(tmp_path):
    with pytest.raises(NumericalError, match="smaller learning_rate"):
        train(_network(), lambda g, crop: torch.full((1, *crop), torch.nan), _config(), tmp_path)


def test_gradients_are_clipped(tmp_path):
    network, start = _network(), _network()
    train(network, _white, _config(steps=1, clip=1e-30, warmup=1), tmp_path)
    moved = [(a - b).abs().max() for a, b in zip(network.parameters(), start.parameters(), strict=True)]
    assert max(moved) < 1e-8


CONFIG = """
[data]
kind = "arrays"
files = ["fields.npy"]
units = "K"
channels = true
[network]
width = [8]
blocks = 1
dims = 1
embedding = 8
[training]
steps = 40
batch = 4
crops = [[16]]
checkpoint_every = 5
log_every = 5
bf16 = false
"""


def _command(folder: Path, out: str, *options: str, processes: int = 1) -> list[str]:
    call = "from scidiff.cli.app import main; main()"
    (folder / "call.py").write_text(call)
    run = [sys.executable, str(folder / "call.py")]
    if processes > 1:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        run = [*torchrun, str(folder / "call.py")]
    return [*run, "train", "prior", str(folder / "c.toml"), "--out", str(folder / out), "--no-progress", *options]


@pytest.fixture
def project(tmp_path):
    import numpy as np

    rng = np.random.default_rng(0)
    np.save(tmp_path / "fields.npy", 280 + 5 * rng.standard_normal((32, 1, 24)).astype("float32"))
    (tmp_path / "c.toml").write_text(CONFIG)
    return tmp_path


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def test_command_survives_sigkill(project):
    subprocess.run(_command(project, "whole"), check=True, env=_environment(), timeout=120)
    slow = _command(project, "cut")
    process = subprocess.Popen(slow, env=_environment())
    checkpoint = project / "cut" / "checkpoint.safetensors"
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run([*slow, "--resume"], check=True, env=_environment(), timeout=120)
    assert (project / "whole/prior.safetensors").read_bytes() == (project / "cut/prior.safetensors").read_bytes()
    prior = __import__("scidiff.priors.pretrained", fromlist=["x"]).load_pretrained(project / "cut/prior.safetensors")
    assert prior.card["units"] == "K"
    assert float(prior.loc) == pytest.approx(280, abs=0.7)
    assert float(prior.scale) == pytest.approx(5, abs=0.5)
    assert set(prior.card["files_sha256"]) == {"fields.npy"}


def test_two_processes_are_one(project):
    """torchrun with two gloo processes: the same weights to rounding, because rows are split, not drawn anew."""
    subprocess.run(_command(project, "one"), check=True, env=_environment(), timeout=120)
    subprocess.run(_command(project, "two", processes=2), check=True, env=_environment(), timeout=180)
    one, two = (load_file(project / name / "checkpoint.safetensors") for name in ("one", "two"))
    for key in one:
        if key.startswith("network."):
            torch.testing.assert_close(one[key], two[key], rtol=1e-3, atol=2e-5)


def test_wrong_configuration_is_named(project):
    from scidiff.cli.common import ConfigError
    from scidiff.cli.training import read_tables, strict

    with pytest.raises(ConfigError, match="did you mean 'learning_rate'"):
        strict(TrainingConfig, {"steps": 1, "learnin_rate": 1.0}, "training")
    (project / "c.toml").write_text("[data]\nkind = 'x'\n[model]\n")
    with pytest.raises(ConfigError, match=r"unknown \['model'\], missing \['training'\]"):
        read_tables(project / "c.toml", {"data", "training"}, {"data", "training"})
    with pytest.raises(ConfigError, match=r"missing\.toml does not exist"):
        read_tables(project / "missing.toml", {"data"}, {"data"})
    from scidiff.datasets.sources import training_data

    with pytest.raises(InputError, match="expected one of slices, phantom, arrays, fields"):
        training_data("x")
    with pytest.raises(InputError, match="did you mean 'shape'"):
        training_data("phantom", shap=[64, 64])
    with pytest.raises(InputError, match="no such file"):
        training_data("arrays", project, files=["missing.npy"])
