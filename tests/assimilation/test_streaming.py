"""Long records block by block: law, memory, and going on after a stop."""

import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from scidiff.assimilation import (
    AtTimes,
    LinearGaussianChain,
    Observations,
    StreamingAssimilation,
    TrajectoryPrior,
)
from scidiff.errors import InputError
from scidiff.noise import GaussianNoise
from scidiff.operators import Mask
from scidiff.posterior import MMPS
from scidiff.samplers import DPMSolver

SPRING = LinearGaussianChain.damped_spring()


def record(length: int, generator: torch.Generator) -> Observations:
    operator, noise, steps = Mask(torch.tensor([True, False])), GaussianNoise(0.1), tuple(range(1, length, 3))
    y = noise.sample(AtTimes(operator, steps, length)(SPRING.sample(1, length, generator)), generator)
    return Observations(steps, operator, noise, y)


def stream(k: int = 1, steps: int = 4, **settings) -> StreamingAssimilation:
    prior = TrajectoryPrior(SPRING.window(2 * k + 1), k, 2 * k + 1)
    return StreamingAssimilation(prior, MMPS(DPMSolver(steps, stochastic=True)), **settings)


def seed(n: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(n)


def test_blocks_join_into_the_smoother(generator, tmp_path) -> None:
    length, members = 26, 250
    obs = record(length, generator)
    exact = SPRING.posterior(obs, length)
    found = stream(6, 64, block=13, overlap=2, lookahead=10)(obs, length, tmp_path / "run", members, seed())
    x = torch.from_numpy(np.asarray(found[:]))
    variance = exact.cov[0].diagonal(dim1=-2, dim2=-1)
    error = ((x.mean(0) - exact.mean[0]).square() / variance).mean().sqrt()
    assert float(error) < 0.15 and abs(float(x.var(0).sum() / variance.sum()) - 1) < 0.1
    r = x - x.mean(0)
    across = torch.einsum("ni,nj->ij", r[:, 12], r[:, 13]) / members  # the covariance across the border of two blocks
    size = variance[12].sqrt()[:, None] * variance[13].sqrt()
    assert float(((across - exact.cross[0, 12]) / size).abs().max()) < 0.25


class Stopped(RuntimeError):
    pass


def test_a_stopped_run_goes_on_to_the_bit(generator, tmp_path) -> None:
    obs, work = record(50, generator), stream(block=12, lookahead=4)
    whole = work(obs, 50, tmp_path / "whole", 3, seed())[:]

    def stop(done: int, blocks: int) -> None:
        if done == 2:
            raise Stopped

    with pytest.raises(Stopped):
        work(obs, 50, tmp_path / "cut", 3, seed(), callback=stop)
    with pytest.raises(InputError, match="resume=True"):
        work(obs, 50, tmp_path / "cut", 3, seed())
    with pytest.raises(InputError, match="another run: members"):
        work(obs, 50, tmp_path / "cut", 4, resume=True)
    done: list[int] = []
    found = work(obs, 50, tmp_path / "cut", 3, seed(), resume=True, callback=lambda n, blocks: done.append(n))
    assert done == [3, 4, 5] and np.array_equal(whole, found[:]) and np.isfinite(whole).all()
    fewer = work(obs, 50, tmp_path / "fewer", 2, seed())[:]
    assert np.allclose(fewer, whole[:2], atol=1e-9)  # a member does not depend on the others


KILLED = """
import os, signal, sys, torch
sys.path.insert(0, sys.argv[1])
torch.set_num_threads(1)
from test_streaming import record, seed, stream

def killed(done, blocks):  # in the middle of the record, and at once: nothing is closed or flushed
    if done == 3:
        os.kill(os.getpid(), signal.SIGKILL)

stream(block=12, lookahead=4)(record(62, seed(7)), 62, sys.argv[2], 3, seed(), callback=killed)
"""


def test_a_killed_process_goes_on_to_the_same_values(tmp_path) -> None:
    """Another process, killed by the system after some blocks; what it left is gone on with here."""
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path / "cut")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr
    work, obs = stream(block=12, lookahead=4), record(62, seed(7))
    left = zarr.open_group(tmp_path / "cut" / "trajectory.zarr", mode="r")["state"][:]
    assert np.isfinite(left[:, :24]).all() and np.isnan(left[:, 36:]).all()
    whole = work(obs, 62, tmp_path / "whole", 3, seed())[:]
    blocks: list[int] = []
    found = work(obs, 62, tmp_path / "cut", 3, seed(), resume=True, callback=lambda n, _: blocks.append(n))[:]
    assert blocks[-1] == 6 and 3 <= blocks[0] <= 4
    assert np.array_equal(found, whole) and np.array_equal(left[:, :24], whole[:, :24])


def test_memory_does_not_grow_with_the_record(generator, tmp_path) -> None:
    work, members = stream(steps=2, block=100, lookahead=10), 128
    sizes = [len for *_, len in work.segments(3600)]
    assert len(sizes) == 36 and all(end - begin <= 112 for begin, _, _, end in work.segments(3600))
    for name in ("first", "short"):  # the first run also loads what every run needs
        work(record(900, generator), 900, tmp_path / name, members, seed())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    array = work(record(3600, generator), 3600, tmp_path / "long", members, seed())
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert array.nbytes == 128 * 3600 * 2 * 8 and grown < array.nbytes  # a copy of the record would be 7 MB
    assert bool(np.isfinite(array[:, ::97]).all())


def test_files_open_with_xarray_and_short_ends_are_drawn(generator, tmp_path) -> None:
    import xarray as xr

    work = stream(2, block=8, lookahead=0)
    assert work.segments(17)[-1] == (12, 16, 17, 17)  # one state is too short for a window of five
    work(record(17, generator), 17, tmp_path / "run", 2, seed())
    data = xr.open_zarr(tmp_path / "run" / "trajectory.zarr", consolidated=False)
    assert data["state"].dims == ("member", "time", "channel") and bool(np.isfinite(data["state"]).all())


def test_bad_settings_are_refused(generator, tmp_path) -> None:
    with pytest.raises(ValueError, match="overlap 9 reaches beyond"):
        stream(block=8, overlap=9)
    with pytest.raises(ValueError, match="fewer than the window's"):
        stream(4, block=6, overlap=2)
    with pytest.raises(InputError, match="record has 2 states"):
        stream().segments(2)
    obs = record(30, generator)
    with pytest.raises(InputError, match="step 28 is observed, but the record has 20"):
        stream()(obs, 20, tmp_path / "run", 1, seed())
