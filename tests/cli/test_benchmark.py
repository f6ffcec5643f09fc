"""`scidiff benchmark` and `scidiff calibrate` as they are typed: tables, wrong input, what is kept."""

import json

import pytest

from scidiff.benchmark import engines
from scidiff.fields import open_result

QUICK = ["exact-inpainting", "-s", "ddrm:steps=6", "-s", "mmps:steps=6", "--members", "4", "--seeds", "1"]


def test_table_files_resume_and_overwrite(scidiff, tmp_path):
    folder = tmp_path / "run"
    code, out, err = scidiff("benchmark", *QUICK, "--out", folder, "--budget", "denoiser=20")
    assert code == 0, err
    assert out == (folder / "table.md").read_text(encoding="utf-8") and "| ddrm:steps=6 | 1 |" in out
    assert "[3/3, 0:00:00 left]" in err
    code, out, err = scidiff("benchmark", *QUICK, "--out", folder, "--budget", "denoiser=20")
    assert code == 3 and "holds a benchmark (3 cells)" in err
    code, out, err = scidiff("benchmark", *QUICK, "--out", folder, "--budget", "denoiser=20", "--resume")
    assert code == 0 and "3 of 3 cells kept" in err
    code, out, err = scidiff("benchmark", *QUICK, "--out", folder, "--overwrite", "--json")
    assert code == 0 and json.loads(out)["problems"] == ["exact-inpainting"]


def test_ctrl_c_keeps_cells(scidiff, tmp_path, monkeypatch):
    def stop(work, cells):
        yield 0, work(cells[0])
        raise KeyboardInterrupt

    monkeypatch.setattr("scidiff.benchmark.grid.serial", stop)
    assert scidiff("benchmark", *QUICK, "--out", tmp_path)[0] == 130
    monkeypatch.setattr("scidiff.benchmark.grid.serial", engines.serial)
    code, _, err = scidiff("benchmark", *QUICK, "--out", tmp_path, "--resume")
    assert code == 0 and "1 of 3 cells kept" in err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["exact-inpaintin"], "did you mean 'exact-inpainting'"),
        (["ct:veiws=3"], "did you mean 'views'"),
        (["ct", "-s", "mmsp"], "did you mean 'mmps'"),
        (["ct", "--budget", "denoisers=3"], "Write denoiser=256"),
        (["ct", "--budget", "denoiser=3,denoiser=4"], "limited twice"),
        (["ct", "--limit", "5", "--scheduler", "local"], "--limit needs processes"),
        (["ct", "--seed", "10000"], "for tuning"),
        ([], "at least one problem"),
    ],
)
def test_wrong_requests_end_with_2(scidiff, tmp_path, words, text):
    code, _, err = scidiff("benchmark", *words, "--out", tmp_path)
    assert code == 2 and text in err


def test_a_grid_without_a_result_ends_with_5(scidiff, tmp_path):
    code, out, err = scidiff("benchmark", "gaussian", "-s", "baseline-fbp", "--seeds", "1", "--out", tmp_path)
    assert code == 5 and "no cell has a result" in err and "has no baseline 'fbp'" in out


def test_list(scidiff):
    code, out, _ = scidiff("benchmark", "--list", "--json")
    listed = json.loads(out)
    assert code == 0 and "exact-blur" in listed["problems"] and "deepinv-dps" in listed["samplers"]


def test_calibrate_flags_dps_and_passes_mmps(scidiff, tmp_path):
    code, out, err = scidiff("calibrate", "mmps", "--simulations", "60", "--gate", "--out", tmp_path / "ranks.nc")
    assert code == 0 and "| log likelihood |" in out, err
    with open_result(tmp_path / "ranks.nc") as data:
        assert data["rank"].sizes == {"simulation": 60, "quantity": 8} and data.attrs["sampler"] == "mmps"
    assert scidiff("calibrate", "mmps", "--out", tmp_path / "ranks.nc")[0] == 3
    code, _, err = scidiff("calibrate", "dps:steps=50", "--simulations", "60", "--gate")
    assert code == 6 and "not uniform" in err and "log likelihood" in err
    assert scidiff("calibrate", "mmsp")[0] == 2
    assert scidiff("calibrate", "mmps", "--problem", "nothing")[0] == 2
