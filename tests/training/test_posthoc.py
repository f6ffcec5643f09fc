"""Averages after training against averages tracked while training."""

import numpy as np
import pytest
import torch

from scidiff.errors import InputError, Interrupted
from scidiff.nn import UNet
from scidiff.training import TrainingConfig, train
from scidiff.training.ema import PowerEMA
from scidiff.training.posthoc import exponent, profile, reconstruct, save_snapshots, snapshots, solve


def test_profile_is_the_recursion():
    """Weights of an average of unit impulses, one coordinate a step."""
    network = torch.nn.Linear(40, 1, bias=False).double()
    ema = PowerEMA(network, gamma=6.94)
    for step in range(1, 31):
        network.weight.data = torch.eye(40, dtype=torch.float64)[step - 1][None]
        ema.update(network, step)
    np.testing.assert_allclose(ema.network.weight[0].numpy(), profile(30, 6.94, 40), rtol=1e-10, atol=1e-16)


def test_length_and_exponent():
    """Exponents of the paper: 5 % is 16.97, 10 % is 6.94; and the deviation of a fine profile is the length."""
    assert exponent(0.05) == pytest.approx(16.97, abs=0.005)
    assert exponent(0.10) == pytest.approx(6.94, abs=0.005)
    p, k = profile(20000, exponent(0.15), 20000), (np.arange(20000) + 0.5) / 20000
    assert (p @ k**2 - (p @ k) ** 2) ** 0.5 == pytest.approx(0.15, rel=1e-5)
    with pytest.raises(ValueError, match="between 0 and 0.289"):
        exponent(0.3)


def test_reconstruction_is_the_tracked_average(tmp_path):
    """A random walk of weights: the error is the walk weighed by the residual profile, to rounding, and is small."""
    steps, g = 1000, torch.Generator().manual_seed(0)
    walk = torch.randn(steps, 50, generator=g, dtype=torch.float64).cumsum(0)
    network = torch.nn.Linear(50, 1, bias=False).double()
    stored = [PowerEMA(network, 16.97), PowerEMA(network, 6.94)]
    wanted = {gamma: PowerEMA(network, gamma) for gamma in (4.0, 6.94, 11.0, 30.0)}
    for step in range(1, steps + 1):
        network.weight.data = walk[step - 1][None]
        for average in (*stored, *wanted.values()):
            average.update(network, step)
        if step % 50 == 0:
            save_snapshots(tmp_path, step, stored)
    keys = [*snapshots(tmp_path)]
    assert len(keys) == 40
    for gamma, direct in wanted.items():
        state, missed = reconstruct(tmp_path, gamma=gamma)
        x, again = solve(keys, steps, gamma)
        residual = sum(w * profile(*key, steps) for w, key in zip(x, keys, strict=True)) - profile(steps, gamma, steps)
        error = state["weight"][0] - direct.network.weight[0]
        torch.testing.assert_close(error, torch.from_numpy(residual) @ walk, rtol=1e-6, atol=1e-9)
        assert missed == again < (1e-8 if gamma == 6.94 else 0.1)
        assert error.norm() < 1e-2 * direct.network.weight.norm()
    with pytest.raises(InputError, match="snapshots end at step 1000"):
        reconstruct(tmp_path, length=0.1, step=1001)
    with pytest.raises(InputError, match="no snapshots; train with"):
        reconstruct(tmp_path / "empty", length=0.1)
    with pytest.raises(ValueError, match="give length"):
        reconstruct(tmp_path)


def test_snapshots_of_a_resumed_run_are_the_same(tmp_path):
    def run(folder, **options):
        with torch.random.fork_rng():
            torch.default_generator.manual_seed(0)
            network = UNet(1, width=(8,), blocks=1, dims=1, embedding=8)
        config = TrainingConfig(
            steps=10, batch=2, crops=((8,),), bf16=False, checkpoint_every=4, averages=(16.97, 6.94), snapshots=3
        )
        return train(network, lambda g, crop: torch.randn(1, *crop, generator=g), config, tmp_path / folder, **options)

    whole = run("whole")
    calls = iter(range(100))
    with pytest.raises(Interrupted):
        run("cut", stop=lambda: next(calls) == 4)
    run("cut", resume=True)
    one, two = snapshots(tmp_path / "whole"), snapshots(tmp_path / "cut")
    assert one.keys() == two.keys() == {(s, g) for s in (3, 6, 9, 10) for g in (6.94, 16.97)}
    assert all(one[key].read_bytes() == two[key].read_bytes() for key in one)
    state, missed = reconstruct(tmp_path / "whole", gamma=16.97)
    assert missed < 1e-10
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(state[key], value)
