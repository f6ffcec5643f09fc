"""A Dask cluster gives what a serial run gives, also when a worker is killed: cells, fields of a solver, scores."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest
import torch
import xarray as xr

from scidiff.benchmark.cluster import dask
from scidiff.benchmark.grid import benchmark
from scidiff.errors import InputError
from scidiff.forecast import verify
from scidiff.operators import BlackBox

distributed = pytest.importorskip("distributed", reason="the extra `dask` is not installed")

NAME = "exact-inpainting"


def slow_prior(posterior, members, generator):
    time.sleep(1.0)
    return posterior.prior.sample(members, generator)[:, None]


def _own_pid():
    return os.getpid()


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as found,
    ):
        yield found


def test_a_worker_is_killed_and_the_grid_is_that_of_a_serial_run(client, tmp_path):
    samplers, arguments = ["ddrm:steps=8", ("slow", slow_prior)], {"seeds": [0, 1, 2], "members": 4}
    serial = benchmark([NAME], samplers, **arguments)
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


class Killing:
    """Cumulative sums by a solver that kills its own process at the third field, once."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, x):
        mark = self.folder / "killed"
        if x.flat[0] == 2 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if x.flat[0] == 4:
            raise RuntimeError("no solution")
        return np.cumsum(x)


def test_fields_of_a_solver_go_to_the_workers_and_survive_one_that_dies(client, tmp_path):
    x = torch.arange(6.0).reshape(6, 1, 1) * torch.ones(6, 2, 3)
    far = BlackBox(Killing(tmp_path), batched=False, on_failure="drop", executor=client.get_executor(pure=False))
    with pytest.warns(UserWarning, match="field 4 of 6 has no measurement.*no solution"):
        z = far(x)
    assert (tmp_path / "killed").exists()
    expected = x.flatten(1).cumsum(1)
    expected[4] = torch.nan
    torch.testing.assert_close(z, expected, rtol=0, atol=0, equal_nan=True)


def _forecast_and_truth(folder):
    rng = np.random.default_rng(0)
    days = np.arange(12).astype("datetime64[D]").astype("datetime64[ns]")
    truth = xr.Dataset({"t": (("time", "y", "x"), rng.normal(size=(12, 3, 4)))}, {"time": days})
    leads = np.arange(1, 6) * np.timedelta64(1, "D").astype("timedelta64[ns]")
    shape = (10, 5, 5, 3, 4)
    forecast = xr.Dataset(
        {"t": (("init_time", "member", "lead_time", "y", "x"), rng.normal(size=shape))},
        {"init_time": days[:10], "lead_time": leads},
    )
    forecast.chunk(lead_time=2, init_time=4).to_zarr(folder / "run.zarr", zarr_format=2)
    truth.to_netcdf(folder / "truth.nc", engine="h5netcdf")
    return folder / "run.zarr", folder / "truth.nc"


def test_a_store_is_scored_lead_by_lead_where_the_workers_are(client, tmp_path):
    paths = _forecast_and_truth(tmp_path)
    options = {"metrics": ("crps", "spread_skill", "ranks"), "baseline": "persistence", "seed": 3}
    here = verify(*paths, **options)
    there = verify(*paths, executor=client.get_executor(), **options)
    xr.testing.assert_allclose(there, here, rtol=1e-12)
    assert here["t_cases"].values.tolist() == [10, 10, 9, 8, 7] and bool(here["t_crps"].notnull().all())
    lazy = xr.open_zarr(paths[0]) + 0.0  # dask arrays: blocks are read, and computed, by the workers
    xr.testing.assert_allclose(verify(lazy, xr.open_dataset(paths[1]), **options), here, rtol=1e-12)
    with pytest.raises(ValueError, match="an executor divides the leads"):
        verify(*paths, by=(), executor=client.get_executor())


def test_no_scheduler_is_one_clear_error(monkeypatch):
    monkeypatch.setattr(distributed, "Client", _refuse)
    with pytest.raises(InputError, match="no Dask scheduler answers at tcp://127.0.0.1:1"):
        benchmark([NAME], ["ddrm"], seeds=[0], engine=dask("tcp://127.0.0.1:1"))


def _refuse(address, timeout):
    raise OSError("refused")
