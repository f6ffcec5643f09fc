"""`scidiff certify` as it is typed: two quick samplers on one problem, wrong input, interrupted and resumed."""

import json
import signal

import pytest

from scidiff.benchmark import certify as module
from scidiff.fields import open_result

QUICK = ["mmps:steps=6,iterations=2", "dps:steps=20", "--problems", "inpainting", "--members", "12", "--seeds", "1"]


def test_table_files_and_nothing_overwritten(scidiff, tmp_path):
    folder = tmp_path / "run"
    code, out, err = scidiff("certify", *QUICK, "--out", folder)
    assert code == 0, err
    assert out == (folder / "table.md").read_text() and "### inpainting" in out and "| dps (steps=20) | 12 | 1 |" in out
    assert "[3/3] dps:steps=20 on inpainting, seed 0: mean error" in err
    with open_result(folder / "certificate.nc") as data:
        assert data.attrs["seeds"] == "0" and data.attrs["command"].startswith("scidiff certify mmps")
    assert (folder / "certificate.png").stat().st_size > 10_000

    before = (folder / "table.md").read_text()
    code, out, err = scidiff("certify", *QUICK, "--out", folder)
    assert code == 3 and "--resume" in err and "--overwrite" in err and out == ""
    assert (folder / "table.md").read_text() == before
    code, out, err = scidiff("certify", *QUICK, "--out", folder, "--resume", "--json")
    assert code == 0 and err.count(": kept") == 3
    record = json.loads(out)
    assert [row["sampler"] for row in record["rows"]] == ["exact draws", "mmps:steps=6,iterations=2", "dps:steps=20"]
    code, _, err = scidiff("certify", *QUICK, "--out", folder, "--overwrite")
    assert code == 0 and "kept" not in err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["mmsp"], "did you mean 'mmps'"),
        (["mmps", "--problems", "impainting"], "did you mean 'inpainting'"),
        (["mmps:iterations=x"], "whole number"),
        (["--resume", "--overwrite"], "give one of them"),
        (["--members", "1"], "--members"),
    ],
)
def test_wrong_input(scidiff, tmp_path, words, text):
    code, out, err = scidiff("certify", *words, "--out", tmp_path / "run")
    assert code == 2 and text in err and out == "" and not (tmp_path / "run").exists()


def test_gate(scidiff, tmp_path, monkeypatch):
    words = ["certify", "dps:steps=20", "dps", "--problems", "inpainting", "--members", "12", "--seeds", "1"]
    monkeypatch.setitem(module.SETTINGS, "dps", {"*": {"steps": 2}})
    code, _, err = scidiff(*words, "--out", tmp_path / "a", "--gate")
    assert code == 6 and err.count("outside its range: dps on inpainting") >= 1
    code, _, _ = scidiff(*words, "--out", tmp_path / "b")
    assert code == 0


def test_interrupted_run_resumes(scidiff, tmp_path, monkeypatch):
    real = module.run_cell

    def stop(cell, problem):
        if cell.sampler.startswith("dps"):
            signal.raise_signal(signal.SIGTERM)
        return real(cell, problem)

    monkeypatch.setattr(module, "run_cell", stop)
    code, out, err = scidiff("certify", *QUICK, "--out", tmp_path)
    assert code == 75 and out == "" and not (tmp_path / "table.md").exists()
    monkeypatch.setattr(module, "run_cell", real)
    code, out, err = scidiff("certify", *QUICK, "--out", tmp_path, "--resume")
    assert code == 0 and err.count(": kept") == 2 and "dps" in out


def test_a_failed_sampler_is_reported(scidiff, tmp_path, monkeypatch):
    def fail(cell, problem):
        return {**module.asdict(cell), "settings": "", "status": "failed", "reason": "NumericalError: NaN at sigma 3"}

    monkeypatch.setattr(module, "run_cell", fail)
    code, out, err = scidiff("certify", "mmps", "--problems", "inpainting", "--seeds", "1", "--out", tmp_path)
    assert code == 5 and "failed: mmps on inpainting: NumericalError: NaN at sigma 3" in err and "failed" in out


def test_list(scidiff):
    code, out, _ = scidiff("certify", "--list")
    assert code == 0 and "poisson-inverse" in out and len(out.splitlines()) == 18
    code, out, _ = scidiff("certify", "--list", "--json")
    assert json.loads(out)["problems"][0]["name"] == "inpainting"
