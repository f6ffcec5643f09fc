"""Runs that end as they should, runs that are cut, and files that say how they were made.

Runs that are killed happen in `driver.py`, one process that imports once and forks a child for each.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from scidiff import reconstruct
from scidiff.errors import InputError, NumericalError
from scidiff.fields import digest, merge_complex, open_result
from scidiff.placement import fingerprint, place
from scidiff.posterior import DPS, MMPS, EnKG, REDDiff
from scidiff.record import dump_toml
from scidiff.samplers import DPMSolver

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from tiny import Temperature  # noqa: E402

FEW = MMPS(sampler=DPMSolver(steps=4))


@pytest.fixture(scope="module")
def problem():
    return Temperature()


@pytest.fixture(scope="module")
def case(problem):
    return problem.case()


@pytest.fixture(scope="module")
def cut_runs(tmp_path_factory):
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    root = str(HERE.parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    folder = tmp_path_factory.mktemp("cut")
    done = subprocess.run(
        [sys.executable, str(HERE / "driver.py"), str(folder)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_run_killed_before_each_of_its_files_ends_with_the_same_bytes(cut_runs):
    assert cut_runs["kills"]["codes"] == [-9] * 10 + [0]
    assert cut_runs["kills"]["same"]
    assert cut_runs["kills"]["files"] == cut_runs["files"]  # no members, locks or temporary files are left


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGKILL", -9)])
def test_a_run_cut_in_a_step_keeps_the_finished_batch_and_resumes_to_the_same_bytes(cut_runs, name, code):
    run = cut_runs["signals"][name]
    assert run["code"] == code and run["kept"] == ["member_00000.json", "member_00001.json"]
    assert run["refused"] == run["other"] == 1  # without --resume, and with another seed
    assert run["resumed"] == run["again"] == 0 and run["same"]


@pytest.mark.parametrize("limit", ["100", "280", "20000"])
def test_a_full_disk_keeps_what_is_finished_and_resumes_to_the_same_bytes(cut_runs, limit):
    run = cut_runs["full_disk"][limit]
    assert cut_runs["full_disk"]["size"] > 20000  # so that the last limit cuts the result itself
    assert run["code"] == 75 and run["resumed"] == 0 and run["same"]
    assert run["kept"] == (3 if limit == "20000" else 0)


def test_peak_memory_does_not_grow_with_members(cut_runs):
    found = cut_runs["memory"]
    # 56 more members are 73 MB. What is accepted, 8 members or 10 MB, is the noise of the allocator.
    assert found["64"] - found["8"] < 8 * found["field"], found
    assert found["64"] > 2 * found["field"]  # the measurement sees at least one batch of two fields


def test_result_in_memory_and_on_disk_are_the_same(problem, case, tmp_path):
    truth, observation = case
    options = {"sampler": FEW, "members": 4, "batch": 2, "truth": truth}
    memory = reconstruct(problem, observation, **options)
    with reconstruct(problem, observation, output=tmp_path / "run", **options) as disk:
        disk.load()
    for name in memory.variables:
        np.testing.assert_array_equal(memory[name].values, disk[name].values, err_msg=str(name))
        assert memory[name].dims == disk[name].dims
    assert memory["temperature"].dims == ("member", "y", "x") and memory["temperature"].dtype == np.float32
    members = memory["temperature"].astype(float)
    np.testing.assert_allclose(memory["temperature_mean"], members.mean("member"), rtol=1e-6)
    np.testing.assert_allclose(memory["temperature_spread"], members.std("member", ddof=1), rtol=1e-5)
    files = {"result.nc", "config.toml", "metrics.json", "run.json", "log.jsonl", "figures"}
    assert set(os.listdir(tmp_path / "run")) == files
    assert (tmp_path / "run" / "figures" / "result.png").read_bytes()[:4] == b"\x89PNG"


def test_chi2_is_the_misfit_of_each_member(problem, case):
    result = reconstruct(problem, case[1], FEW, members=3)
    x = torch.as_tensor(result["temperature"].values).reshape(3, -1)
    residual = torch.as_tensor(case[1]["radiance"].values) - x @ problem.matrix.T
    np.testing.assert_allclose(result["chi2"], (residual / problem.std).square().mean(1), rtol=1e-3)


def test_batches_change_members_to_rounding_only_and_seeds_change_them(problem, case):
    one, four = (reconstruct(problem, case[1], FEW, members=4, batch=b)["temperature"] for b in (1, 4))
    np.testing.assert_allclose(one, four, atol=2e-3)
    other = reconstruct(problem, case[1], FEW, members=4, seed=1)["temperature"]
    assert float(np.abs(one - other).min("member").max()) > 0.1


def test_the_file_says_how_it_was_made_and_holds_no_time(problem, case, tmp_path):
    case[1].to_netcdf(tmp_path / "in.nc", engine="h5netcdf")
    out = tmp_path / "run"
    result = reconstruct(problem, tmp_path / "in.nc", FEW, members=3, seed=7, output=out, figures=False)
    assert result.attrs["wall_time_seconds"] > 0 and result.attrs["peak_memory_bytes"] > 0
    result.close()
    with open_result(out / "result.nc") as stored:
        attrs, variables = stored.attrs, stored.load()
    assert not any("time" in name or "date" in name or "memory" in name for name in attrs)
    assert attrs["Conventions"] == "CF-1.11" and attrs["seed"] == 7 and "scidiff" in attrs["source"]
    assert "arXiv:2405.13712" in attrs["references"]
    assert attrs["input_sha256"] == digest(tmp_path / "in.nc") and attrs["prior_sha256"] == fingerprint(problem.prior)
    settings = json.loads(attrs["configuration"])
    assert settings["sampler"] == {
        "name": "mmps", "steps": 4, "stochastic": False,
        **{f.name: getattr(FEW, f.name) for f in dataclasses.fields(FEW) if f.name != "sampler"},
    }  # fmt: skip
    assert settings["problem"] == {"name": "temperature", "std": 0.5, "shape": [1, 5, 8]}
    assert json.loads(attrs["cost"])["denoiser"] == 4
    assert variables["temperature"].attrs["units"] == "K"
    assert variables["temperature"].attrs["standard_name"] == "air_temperature"
    assert variables["temperature_mean"].attrs["units"] == variables["temperature_spread"].attrs["units"] == "K"
    assert variables["y"].attrs["units"] == "km" and variables["radiance"].attrs["units"] == "K"
    config = tomllib.loads((out / "config.toml").read_text())
    assert config == {name: value for name, value in settings.items() if value is not None}
    events = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == ["start", "batch", "done"]
    assert json.loads((out / "run.json").read_text())["wall_time_seconds"] > 0


def test_metrics_are_computed_where_the_truth_is_known(problem, case, tmp_path):
    truth, observation = case
    for known in (truth, None):
        reconstruct(problem, observation, FEW, members=3, output=tmp_path, truth=known, figures=False, overwrite=True)
        metrics = json.loads((tmp_path / "metrics.json").read_text())
        assert 0.1 < metrics["chi2"] < 3 and len(metrics["chi2_of_members"]) == 3
        assert ("scores" in metrics) == (known is not None)
    assert "rmse" not in metrics
    carried = observation.assign(reference=truth["temperature"])  # an observation may carry its reference
    assert "truth" in reconstruct(problem, carried, FEW, members=1)


def test_an_output_that_exists_is_refused_or_replaced(problem, case, tmp_path):
    reconstruct(problem, case[1], FEW, members=2, output=tmp_path / "a", figures=False).close()
    with pytest.raises(InputError, match=r"result\.nc exists; choose another --out, or replace it with --overwrite"):
        reconstruct(problem, case[1], FEW, members=2, output=tmp_path / "a")
    with pytest.raises(InputError, match="result of another run: configuration.members was 2 and is now 3"):
        reconstruct(problem, case[1], FEW, members=3, output=tmp_path / "a", resume=True, batch=2)
    replaced = reconstruct(problem, case[1], FEW, members=3, output=tmp_path / "a", overwrite=True, figures=False)
    assert replaced.sizes["member"] == 3
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file; the output must be a folder"):
        reconstruct(problem, case[1], FEW, output=tmp_path / "file")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"members": 0}, "members must be an integer of at least 1, got 0"),
        ({"members": 2.5}, "members must be an integer"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"seed": -1}, "seed must not be negative"),
        ({"device": "abacus"}, "device must be auto, cpu, cuda"),
        ({"device": "cuda:99"}, "sees . GPUs; use cpu"),
        ({"dtype": "float16"}, "dtype must be one of float32, float64"),
        ({"progress": "disco"}, "progress must be one of"),
        ({"sampler": "magic"}, "unknown sampler 'magic'"),
        ({"resume": True}, "need an output folder"),
        ({"resume": True, "overwrite": True, "output": "x"}, "exclude each other"),
    ],
)
def test_wrong_arguments_are_named(problem, case, options, message):
    with pytest.raises(ValueError, match=message):
        reconstruct(problem, case[1], **({"sampler": FEW} | options))


def test_a_missing_file_is_refused_and_leaves_nothing(problem, tmp_path):
    with pytest.raises(InputError, match="nowhere.nc: no such file"):
        reconstruct(problem, tmp_path / "nowhere.nc", output=tmp_path / "out")
    assert os.listdir(tmp_path) == []
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match="no such file"):
        reconstruct(problem, tmp_path / "nowhere.nc", output=tmp_path / "mine")
    assert os.listdir(tmp_path) == ["mine"]  # a folder that stood there before stays


def test_members_that_are_not_finite_are_loud(problem, case):
    class Broken:
        requires = frozenset()

        def __call__(self, posterior, members, generator, batch_size=None, callback=None):
            ensemble = FEW(posterior, members, generator)
            ensemble.samples[1, 0, 0, 2, 3] = float("nan")
            return ensemble

    with pytest.raises(NumericalError, match="member 1 of broken is not finite"):
        reconstruct(problem, case[1], Broken(), members=3)


def test_double_precision_reaches_every_part_and_leaves_the_problem_alone(problem, case):
    posterior = problem.posterior(case[1])
    moved = place(posterior, torch.device("cpu"), torch.float64)
    part = moved.likelihoods[0]
    assert moved.dtype == torch.float64 and part.operator.matrix.dtype == torch.float64
    assert posterior.dtype == torch.float32 and problem.matrix.dtype == torch.float32
    double = reconstruct(problem, case[1], FEW, members=2, dtype="float64")
    assert json.loads(double.attrs["configuration"])["dtype"] == "float64"
    assert double["temperature"].dtype == np.float64


def test_fingerprints_see_every_number_and_every_setting(problem):
    same, other = Temperature(), Temperature()
    assert fingerprint(same.prior) == fingerprint(problem.prior)
    other.prior.loc[0, 2, 3] += 1e-6
    assert fingerprint(other.prior) != fingerprint(problem.prior)
    assert fingerprint(MMPS(iterations=3)) != fingerprint(MMPS()) != fingerprint(DPS())


def test_warnings_of_the_forward_model_are_shown_and_kept(problem, case):
    class Doubtful(Temperature):
        def check(self, observation):
            return {"chi2": 3.8, "warnings": ["the forward model misses the data"]}

    with pytest.warns(UserWarning, match="misses the data"):
        result = reconstruct(Doubtful(), case[1], FEW, members=1)
    assert json.loads(result.attrs["warnings"]) == ["the forward model misses the data"]


def test_complex_fields_are_stored_as_complex64_or_as_pairs(tmp_path):
    from scidiff.inference import Likelihood, Posterior
    from scidiff.noise import GaussianNoise
    from scidiff.operators.identity import Identity
    from scidiff.priors import GaussianPrior

    class Phasor(Temperature):
        name, field = "phasor", "phasor"

        def __init__(self):
            self.prior = GaussianPrior(torch.zeros(1, 3, 4, dtype=torch.complex64), torch.eye(24, dtype=torch.float64))

        def config(self):
            return {}

        def check(self, observation):
            return {}

        def posterior(self, observation):
            y = torch.as_tensor(observation["radiance"].values)[None]
            return Posterior(self.prior, Likelihood(Identity(), GaussianNoise(0.1), y))

        def template(self, observation):
            zeros = np.zeros((1, 3, 4), np.complex64)
            return xr.DataArray(zeros, dims=("map", "y", "x"), attrs={"units": "V"}, name="phasor")

    observation = xr.Dataset({"radiance": (("map", "y", "x"), np.full((1, 3, 4), 1 + 2j, np.complex64))})
    whole = reconstruct(Phasor(), observation, FEW, members=2, output=tmp_path / "a")
    pairs = reconstruct(Phasor(), observation, FEW, members=2, output=tmp_path / "b", portable=True)
    assert whole["phasor"].dtype == np.complex64 and whole["phasor_spread"].dtype == np.float32
    assert {"phasor_real", "phasor_imag", "radiance_real"} <= set(pairs.data_vars) and "phasor" not in pairs
    np.testing.assert_array_equal(merge_complex(pairs)["phasor"], whole["phasor"])


def test_toml_round_trip():
    tables = {"t": {"x": [1, 2.5], "u": {"k k": "é"}}, "e": {}}
    settings = {"a": 1, "b": 1e-5, "c": True, "d": 'say "x"\n', "none": None, **tables}
    found = tomllib.loads(dump_toml(settings))
    assert found == {name: value for name, value in settings.items() if value is not None}


def test_populations_are_drawn_whole(problem, case, tmp_path):
    """Members of one population in one batch, whatever ``batch`` says; ``batch`` limits the particles at once."""
    _, observation = case
    method = EnKG(steps=4, inner=2, particles=6)
    seen = []
    result = reconstruct(problem, observation, method, members=8, seed=1, batch=4, callback=lambda *a: seen.append(a))
    assert len(seen) == 2 * 4  # two populations, four steps each
    kept = reconstruct(problem, observation, method, members=8, seed=1, batch=6, output=tmp_path / "run")
    np.testing.assert_allclose(kept["temperature"], result["temperature"], rtol=1e-5)


def test_a_point_estimate_says_so(problem, case):
    _, observation = case
    result = reconstruct(problem, observation, REDDiff(steps=5), members=2, seed=1)
    assert "not the uncertainty of the field" in result.attrs["warnings"]
