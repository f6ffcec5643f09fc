"""Two processes share the members of one ensemble: the same file as one process, resumed or not."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from scidiff import problems
from scidiff.fields import open_result, write_dataset
from scidiff.team import barrier, joined, place


def reconstruct(folder, source, processes, *more):
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--master-port", "29731"]
    command = [sys.executable, *(launch if processes > 1 else []), "-m", "scidiff", "reconstruct", "gaussian"]
    options = [str(source), "--members", "7", "--batch", "2", "--seed", "3", "--steps", "8", "--progress", "none"]
    done = subprocess.run(
        [*command, *options, "--out", str(folder), *more],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=280,
    )
    return done


@pytest.mark.timeout(600)
def test_two_processes_write_the_file_of_one(tmp_path):
    case = problems.get("gaussian").case(0)
    write_dataset(case.observation, tmp_path / "seen.nc")
    one = reconstruct(tmp_path / "one", tmp_path / "seen.nc", 1)
    assert one.returncode == 0, one.stderr
    two = reconstruct(tmp_path / "two", tmp_path / "seen.nc", 2)
    assert two.returncode == 0, two.stderr[-2000:]
    assert two.stderr.count("7 members, data misfit") == 1  # one of them reports
    with open_result(tmp_path / "one" / "result.nc") as a, open_result(tmp_path / "two" / "result.nc") as b:
        np.testing.assert_array_equal(a["temperature"].values, b["temperature"].values)
        np.testing.assert_array_equal(a["chi2"].values, b["chi2"].values)
    assert not (tmp_path / "two" / ".members").exists()
    again = reconstruct(tmp_path / "two", tmp_path / "seen.nc", 2)
    assert again.returncode != 0 and "exists" in again.stderr  # nothing is overwritten


def test_alone_everything_is_as_without_a_team(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("RANK", raising=False)
    with joined() as who:
        assert who == place() == (0, 1)
        barrier()


def test_a_team_needs_a_folder(monkeypatch):
    import scidiff

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    problem = problems.get("gaussian")
    with pytest.raises(ValueError, match="output folder"):
        scidiff.reconstruct(problem, problem.case(0).observation, members=2)
