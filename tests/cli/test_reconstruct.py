"""The commands reconstruct, check and demo as they are typed: right ones, wrong ones, and interrupted ones."""

import json
import os
import signal

import numpy as np
import pytest
import torch

from scidiff import problems
from scidiff.datasets.phantom import simulate_kspace
from scidiff.fields import digest, open_result
from scidiff.nn.unet import UNet
from scidiff.plan import Plan
from scidiff.priors.pretrained import save_pretrained


def save_prior(folder, channels=2):
    network = UNet(inputs=channels, outputs=channels, width=(8, 8), blocks=1, dims=2)
    card = {"name": "tiny", "channels": channels, "loc": 0.0, "scale": 1.0, "complex": channels % 2 == 0, "units": "1"}
    folder.mkdir(exist_ok=True)
    save_pretrained(network, folder / "prior.safetensors", card)
    return folder / "prior.safetensors"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a small scan, an untrained prior, and observations of the Gaussian problem."""
    folder = tmp_path_factory.mktemp("home")
    kspace, _ = simulate_kspace((48, 40), 4, 0.01, torch.Generator().manual_seed(3))
    np.save(folder / "scan.npy", kspace.numpy())
    save_prior(folder / "prior")
    problems.get("gaussian").case().observation.to_netcdf(folder / "stations.nc", engine="h5netcdf")
    return folder


def mri(home, scan="scan.npy", **options):
    prior = home / "prior" / "prior.safetensors"
    options = {"prior": prior, "acceleration": 2, "members": 2, "steps": 2} | options | {"progress": "none"}
    flags = [word for name, value in options.items() for word in (f"--{name}", value)]
    return ["reconstruct", "mri", home / scan, "-s", "problem.calibration=0.3", *flags]


def test_a_scan_becomes_an_ensemble_in_a_file_and_json_is_one_object(scidiff, home, tmp_path):
    code, out, err = scidiff(*mri(home, out=tmp_path / "run"), "--json")
    assert code == 0, err
    record = json.loads(out)  # fails if stdout held anything else
    assert record["sizes"]["member"] == 2 and record["metrics"]["chi2"] > 0
    with open_result(record["result"]) as result:
        assert result["image"].dtype == np.complex64 and result["image"].dims[0] == "member"
        assert "units" in result["image"].attrs and "truth" in result  # the scan was full: its image is the reference
        assert json.loads(result.attrs["configuration"])["problem"]["name"] == "mri"
    scores = record["metrics"]["scores"]
    assert {"psnr", "coverage_90", "psnr_zero_filled", "psnr_tv"} <= set(scores)
    assert (tmp_path / "run" / "figures" / "result.png").stat().st_size > 10_000

    code, out, err = scidiff(*mri(home, out=tmp_path / "run"))
    assert code == 3 and out == "" and "result.nc exists; choose another --out" in err


def test_a_result_runs_again_from_its_own_attributes_to_the_same_bytes(scidiff, home, tmp_path):
    first, second, third = (tmp_path / name for name in "abc")
    common, noise = ["--members", 3, "--steps", 3, "--progress", "none"], "problem.noise=2.0"
    code, _, err = scidiff("reconstruct", "gaussian", home / "stations.nc", *common, "--out", first, "-s", noise)
    assert code == 0, err
    assert scidiff("reconstruct", "--from", first / "result.nc", "--out", second, "--progress", "none")[0] == 0
    assert scidiff("reconstruct", "-c", first / "config.toml", "--out", third, "--progress", "none")[0] == 0
    assert len({digest(folder / "result.nc") for folder in (first, second, third)}) == 1
    with open_result(first / "result.nc") as result:
        assert json.loads(result.attrs["configuration"])["problem"]["noise"] == 2.0


def test_wrong_scans_are_refused_with_code_3_and_leave_no_result(scidiff, home, tmp_path):
    kspace = np.load(home / "scan.npy")
    bad = {
        "nan.npy": np.where(np.arange(40) == 7, np.nan, kspace).astype(np.complex64),
        "dims.npy": kspace[None, None],
        "real.npy": np.abs(kspace),
        "empty.npy": np.zeros_like(kspace),
    }
    for name, array in bad.items():
        np.save(tmp_path / name, array)
    (tmp_path / "text.npy").write_text("not k-space")
    with open(tmp_path / "objects.npy", "wb") as stream:
        np.save(stream, np.array([{}, 1], dtype=object), allow_pickle=True)
    words = {
        "missing.npy": ("missing.npy",),
        "nan.npy": ("nan.npy", "NaN"),
        "dims.npy": ("dims.npy", "dimension"),
        "real.npy": ("real.npy",),
        "empty.npy": ("empty.npy", "zero"),
        "text.npy": ("text.npy",),
        "objects.npy": ("objects.npy",),
    }
    seen = set()
    for name, expected in words.items():
        code, out, err = scidiff(*mri(tmp_path, name, out=tmp_path / "out", prior=home / "prior" / "prior.safetensors"))
        assert code == 3 and out == "", (name, code, err)
        for word in expected:
            assert word.lower() in err.lower(), (name, word, err)
        assert not (tmp_path / "out").exists() and "Traceback" not in err
        assert "allow_pickle" not in err  # no advice to open it unsafely
        seen.add(err.replace(name, ""))
    assert len(seen) == len(words)  # each has its own message


def test_wrong_weights_are_refused_with_code_3(scidiff, home, tmp_path):
    card = (home / "prior" / "prior.json").read_text()
    cut, archive, wide = tmp_path / "cut.safetensors", tmp_path / "w.pt", save_prior(tmp_path / "wide", channels=3)
    cut.write_bytes((home / "prior" / "prior.safetensors").read_bytes()[:500])
    cut.with_suffix(".json").write_text(card)
    archive.write_bytes(b"\x80\x04N.")  # what Python writes for None
    archive.with_suffix(".json").write_text(card)
    missing, folder = tmp_path / "no.safetensors", tmp_path / "wide"
    for prior, words in (
        (cut, "cannot be read"),
        (archive, "pickle"),
        (wide, "channels"),
        (missing, "no prior"),
        (folder, "cannot be read (Is a directory)"),
    ):
        code, out, err = scidiff(*mri(home, out=tmp_path / "out", prior=prior))
        assert code == 3 and out == "" and words in err, (prior, code, err)
        assert not (tmp_path / "out").exists()
    np.save(tmp_path / "slow.npy", np.zeros((4, 48, 40), np.complex64))
    _, _, err = scidiff(*mri(tmp_path, "slow.npy", out=tmp_path / "out", prior=archive))
    assert "pickle" in err  # the prior is looked at before the scan, which may take minutes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mri", "{scan}", "--acceleration", "0.5"], "acceleration must be at least 1"),
        (["mri", "{scan}", "--zeros", "maybe"], "zeros must be 'missing' or 'measured'"),
        (["mry", "{scan}"], "did you mean 'mri'"),
        (["gaussian", "{scan}", "--acceleration", "4"], "no parameter 'acceleration'"),
        (["mri", "{scan}", "--sampler", "magic"], "unknown sampler 'magic'"),
        (["mri", "{scan}", "-s", "sampler.stps=3"], "mmps has no parameter stps; did you mean 'steps'?"),
        (["mri", "{scan}", "-s", "sampler.steps=many"], "mmps: steps must be a whole number, got 'many'"),
        (["mri", "{scan}", "-s", "problem.acceleration=fast"], "acceleration must be a number, got 'fast'"),
        (["mri", "{scan}", "-s", "membrs=3"], "did you mean 'members'"),
        (["mri", "{scan}", "--dtype", "float16"], "dtype"),
        (["mri", "{scan}", "--device", "abacus"], "device must be auto"),
        (["mri", "{scan}", "--resume", "--overwrite"], "exclude each other"),
        (["mri", "{scan}", "--members", "0"], "members"),
        (["mri"], "'observation' is required: give FILE"),
        ([], "'problem' is required: give PROBLEM"),
    ],
)
def test_wrong_options_are_usage_errors(scidiff, home, words, message):
    code, out, err = scidiff("reconstruct", *(word.format(scan=home / "scan.npy") for word in words))
    assert code == 2 and out == "" and message in err, (code, err)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_signal_keeps_what_is_finished_and_resume_gives_the_same_bytes(
    scidiff, home, tmp_path, monkeypatch, number, code
):
    words = ["reconstruct", "gaussian", home / "stations.nc", "--members", 4, "--batch", 2, "--steps", 3]
    words += ["--progress", "none", "--out"]
    draw = Plan.draw

    def cut(plan, members, callback=None):
        if members[0] == 2:
            os.kill(os.getpid(), number)
        return draw(plan, members, callback)

    monkeypatch.setattr(Plan, "draw", cut)
    found, _, err = scidiff(*words, tmp_path / "a")
    assert found == code and "2 of 4 members are kept" in err and "--resume" in err
    monkeypatch.setattr(Plan, "draw", draw)
    found, _, err = scidiff(*words, tmp_path / "a")
    assert found == 3 and "holds an unfinished run with 2 finished members" in err
    assert scidiff(*words, tmp_path / "a", "--resume")[0] == 0
    assert scidiff(*words, tmp_path / "b")[0] == 0
    assert digest(tmp_path / "a" / "result.nc") == digest(tmp_path / "b" / "result.nc")


def test_check_reports_units_operator_forward_model_and_cost(scidiff, home):
    words = ["check", *mri(home, steps=8)[1:-2]]  # without --progress, which it does not know
    code, out, err = scidiff(*words, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["operator"][0]["adjoint_error"] < 1e-12 and found["operator"][0]["gradient_error"] < 1e-6
    assert found["forward_model"]["noise_std"] > 0 and "forward_chi2" in found["forward_model"]
    assert found["field"]["dtype"] == "complex64" and found["observation"]["kspace"]["dims"]["coil"] == 4
    cost = found["estimate"]
    assert cost["steps"] == 8 and cost["seconds"] > 0 and cost["peak_memory_bytes"] > 0
    code, out, err = scidiff(*words)
    assert code == 0 and out == "" and "estimate: 2 members" in err


def test_check_fails_with_code_6_where_the_adjoint_is_wrong(scidiff, home, monkeypatch):
    from scidiff.operators.mask import Mask

    adjoint = Mask.adjoint
    monkeypatch.setattr(Mask, "adjoint", lambda self, y: 1.01 * adjoint(self, y))
    code, _, err = scidiff("check", "gaussian", home / "stations.nc", "--steps", 3)
    assert code == 6 and "adjoint is not the adjoint" in err


def test_demo_prints_a_table_beside_two_classical_methods(scidiff, home, tmp_path):
    words = ["--prior", home / "prior" / "prior.safetensors", "--members", 2, "--steps", 1, "--progress", "none"]
    code, out, err = scidiff("demo", *words, "--out", tmp_path)
    assert code == 0, err
    lines = out.splitlines()
    assert [line.split("  ")[0] for line in lines[2:]] == ["mean of 2 members", "zero filled", "tv"]
    assert "PSNR dB" in lines[0] and "90 % covers" in lines[0]
    assert (tmp_path / "table.txt").read_text() == out
    code, _, err = scidiff("demo", *words, "--out", tmp_path)
    assert code == 3 and "exists" in err
