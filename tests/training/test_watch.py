"""What a step shares and what stops a run: accumulation, processes, conditions, jumps of the loss, levels, pictures."""

import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from scidiff.errors import NumericalError
from scidiff.nn import UNet
from scidiff.priors.diffusion import DiffusionPrior
from scidiff.training import TrainingConfig, train
from scidiff.training.elbo import ELBOLoss, MonotoneSchedule
from scidiff.training.pictures import sheet
from scidiff.training.validation import validation_by_level

ROOT = Path(__file__).resolve().parents[2]


def network(inputs=1, outputs=1, seed=0):
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(seed)
        return UNet(inputs, outputs, width=(8,), blocks=1, dims=1, embedding=8)


def white(g, crop):
    return torch.randn(1, *crop, generator=g)


def config(**options):
    return TrainingConfig(**{"steps": 1, "batch": 7, "crops": ((16,),), "bf16": False, "clip": 1e9, **options})


def moments(folder):
    """First moments after one step: a tenth of the gradient."""
    return {k: v for k, v in load_file(folder / "checkpoint.safetensors").items() if k.endswith("exp_avg")}


def test_accumulated_gradients_are_those_of_all_rows(tmp_path):
    for parts in (1, 3, 20):
        train(network(), white, config(accumulate=parts), tmp_path / str(parts))
    whole = moments(tmp_path / "1")
    assert max(v.abs().max() for v in whole.values()) > 1e-4
    for parts in ("3", "20"):
        for key, value in moments(tmp_path / parts).items():
            torch.testing.assert_close(value, whole[key], rtol=1e-5, atol=1e-8)


SCRIPT = """
import sys, torch
sys.path.insert(0, {tests!r})
from test_watch import config, network, white
from scidiff.training import train
train(network(), white, config(accumulate=2), {out!r})
"""


def test_two_processes_give_the_gradients_of_one(tmp_path):
    """Seven rows over two processes: 4 and 3; the sum of their gradients is the gradient of one process."""
    train(network(), white, config(), tmp_path / "one")
    script = tmp_path / "two.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent), out=str(tmp_path / "two")))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=environment, timeout=180)
    one, two = moments(tmp_path / "one"), moments(tmp_path / "two")
    assert one.keys() == two.keys()
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-5, atol=1e-8)


def test_a_jump_of_the_loss_keeps_the_last_good_state(tmp_path):
    drawn = [0]

    def source(g, crop):
        drawn[0] += 1
        return white(g, crop) * (100 if drawn[0] > 2 * 17 else 1)

    with pytest.raises(
        NumericalError, match=r"between steps 16 and 18: the loss is .* last good state is .*resume with"
    ):
        train(network(), source, config(steps=30, batch=2, log_every=2, checkpoint_every=1, clip=1.0), tmp_path)
    assert all(v.isfinite().all() for v in load_file(tmp_path / "checkpoint.safetensors").values())
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 16


def test_values_that_are_not_finite_never_reach_a_checkpoint(tmp_path):
    """Found before the checkpoint is written, also between two lines of the log."""
    drawn = [0]

    def source(g, crop):
        drawn[0] += 1
        return white(g, crop) * (float("nan") if drawn[0] > 2 * 5 else 1)

    with pytest.raises(NumericalError, match="diverged between steps 0 and 6.*last good state"):
        train(network(), source, config(steps=30, batch=2, log_every=20, checkpoint_every=3), tmp_path)
    assert all(v.isfinite().all() for v in load_file(tmp_path / "checkpoint.safetensors").values())


def test_conditions_are_learned_and_dropped(tmp_path):
    """u = c exactly: given c the denoiser knows the field; without it, it knows the variance only."""

    def source(g, crop):
        u = white(g, crop)
        return u, u.clone()

    options = {"steps": 200, "batch": 32, "condition_dropout": 0.3, "learning_rate": 1e-2, "warmup": 10, "clip": 1.0}
    net = train(network(3, 1), source, config(**options), tmp_path)
    prior, g = DiffusionPrior(net, 1), torch.Generator().manual_seed(3)
    u0 = torch.randn(64, 1, 16, generator=g)
    u = u0 + torch.randn(u0.shape, generator=g)
    sigma = torch.tensor(1.0)
    assert (prior.given(u0).denoise(u, sigma) - u0).square().mean() < 0.05
    without = (prior.given(u0, guidance=0.0).denoise(u, sigma) - u0).square().mean()
    assert without.item() == pytest.approx(0.5, abs=0.08)  # Bayes: 1 / (1 + 1)


def test_rows_drop_their_condition_by_their_own_stream():
    from scidiff.training.batches import draw
    from scidiff.training.losses import DenoisingLoss

    source = lambda g, crop: (white(g, crop), white(g, crop))  # noqa: E731
    c = config(condition_dropout=0.25)
    whole = draw(source, 5, range(400), (4,), c, DenoisingLoss())
    part = draw(source, 5, range(100, 103), (4,), c, DenoisingLoss())
    assert torch.equal(whole.present[100:103], part.present) and torch.equal(whole.condition[100:103], part.condition)
    assert whole.present.mean().item() == pytest.approx(0.75, abs=4 * (0.75 * 0.25 / 400) ** 0.5)


def test_a_learned_schedule_is_resumed_to_the_bit(tmp_path):
    c = config(steps=6, batch=3, checkpoint_every=3)
    loss = lambda: ELBOLoss(MonotoneSchedule(0.05, 20.0, 8))  # noqa: E731
    whole, cut = loss(), loss()
    one = train(network(), white, c, tmp_path / "a", loss=whole)
    train(network(), white, config(steps=3, batch=3, checkpoint_every=3), tmp_path / "b", loss=loss())
    two = train(network(seed=5), white, c, tmp_path / "b", loss=cut, resume=True)
    for a, b in [*zip(one.parameters(), two.parameters(), strict=True), *zip(whole.parameters(), cut.parameters())]:  # noqa: B905
        assert torch.equal(a, b)
    assert not torch.equal(whole.schedule.height, loss().schedule.height)


def test_levels_of_white_fields_are_one():
    """The silent network is exact on white fields: its weighted error is 1 at every level."""
    found = validation_by_level(
        network(), lambda g, crop: torch.randn(1, *crop, generator=g), config(crops=((256,),)), 32
    )
    for sigma, error in found:
        assert error == pytest.approx(1, abs=0.09), sigma


def test_a_sheet_is_a_png(generator):
    fields = torch.randn(3, 2, 5, 7, generator=generator)
    data = sheet(fields)
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = (int.from_bytes(data[i : i + 4], "big") for i in (16, 20))
    assert (width, height) == (3 * 9, 2 * 7)
    start = data.index(b"IDAT")
    pixels = zlib.decompress(data[start + 4 :])
    assert len(pixels) == height * (width + 1)
    assert pixels[(width + 1) + 2] == round(
        255 * float((fields[0, 0, 0, 0] - fields[:, 0].min()) / (fields[:, 0].max() - fields[:, 0].min()))
    )
