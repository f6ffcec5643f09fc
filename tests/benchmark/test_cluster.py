"""A Dask cluster gives the records of a serial run, also when a worker is killed in the middle."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

from scidiff.benchmark.cluster import dask
from scidiff.benchmark.grid import benchmark
from scidiff.errors import InputError

distributed = pytest.importorskip("distributed", reason="the extra `dask` is not installed")

NAME = "exact-inpainting"


def slow_prior(posterior, members, generator):
    time.sleep(1.0)
    return posterior.prior.sample(members, generator)[:, None]


def _own_pid():
    return os.getpid()


def test_a_worker_is_killed_and_the_grid_is_that_of_a_serial_run(tmp_path):
    samplers, arguments = ["ddrm:steps=8", ("slow", slow_prior)], {"seeds": [0, 1, 2], "members": 4}
    serial = benchmark([NAME], samplers, **arguments)
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        victim, killed = next(iter(client.run(_own_pid).values())), []

        def kill(line):
            if not killed and line.startswith("[1/"):
                os.kill(victim, signal.SIGKILL)
                killed.append(line)

        found = benchmark([NAME], samplers, output=tmp_path, engine=dask(client), tell=kill, **arguments)
    assert killed
    assert set(found["status"].values.ravel()) == {"done"}
    for name in ("crps", "rank", "chi2", "own_mean_error", "observation"):
        np.testing.assert_array_equal(found[name], serial[name])


def test_no_scheduler_is_one_clear_error(monkeypatch):
    monkeypatch.setattr(distributed, "Client", _refuse)
    with pytest.raises(InputError, match="no Dask scheduler answers at tcp://127.0.0.1:1"):
        benchmark([NAME], ["ddrm"], seeds=[0], engine=dask("tcp://127.0.0.1:1"))


def _refuse(address, timeout):
    raise OSError("refused")
