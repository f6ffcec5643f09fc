"""Cells, their files, gates, and what becomes of them: table, dataset, picture."""

import json

import numpy as np
import pytest

from scidiff.benchmark import certify as module
from scidiff.benchmark.certify import EXACT, Cell, broken, certify, parse, plan
from scidiff.benchmark.report import dataset, figure, summary, table
from scidiff.errors import Interrupted, NumericalError
from scidiff.fields import open_result, write_dataset


def small(**more):
    return plan(["ddrm:steps=6"], ["inpainting", "product"], **({"members": 20, "seeds": range(2)} | more))


@pytest.fixture(scope="module")
def records():
    return list(certify(small(seeds=range(3))))


def test_plan_takes_defaults_settings_and_caps():
    cells = plan(["mmps"], ["poisson-inverse", "inpainting"], seeds=[3])
    assert [(c.sampler, c.members, c.settings) for c in cells] == [
        (EXACT, 64, ""),
        ("mmps", 64, "iterations=16"),
        (EXACT, 512, ""),
        ("mmps", 512, ""),
    ]
    assert plan(["mmps:"], ["poisson-inverse"], seeds=[3])[1].parameters == {}  # the defaults, wanted or not
    assert [c.members for c in plan(["dps", "mmps"], ["blur"], seeds=[0])] == [64, 16, 64]
    assert [c.members for c in plan(["dps", "mmps"], ["blur"], seeds=[0], quick=True)] == [8, 8, 8]
    assert [c.members for c in plan(["dps"], ["inpainting"], seeds=[0])] == [512, 512]
    assert [c.members for c in plan(["dps"], ["blur"], 300, [0])] == [300, 300]
    assert sorted({c.seed for c in plan(["mmps"], ["modes-1"], seeds=[5, 6])}) == list(range(5, 11))
    assert len({c.file for c in plan()}) == len(plan())


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"samplers": ["mmsp"]}, "did you mean 'mmps'"),
        ({"problems": ["inpaintings"]}, "did you mean 'inpainting'"),
        ({"samplers": ["mmps:iteration=2"]}, "did you mean 'iterations'"),
        ({"samplers": ["mmps:iterations=0"]}, "at least 1"),
        ({"samplers": ["mmps:iterations"]}, "name:key=value"),
        ({"members": 1}, "at least 2"),
        ({"seeds": []}, "at least one seed"),
    ],
)
def test_wrong_requests_are_named(arguments, text):
    with pytest.raises(ValueError, match=text):
        plan(**arguments)


def test_parameters_in_words():
    assert parse("mmps") == ("mmps", None)
    assert parse("mmps:") == ("mmps", {})
    assert parse("mri:shape=[64,48],coils=4") == ("mri", {"shape": [64, 48], "coils": 4})
    assert parse("mmps:tolerance=1e-3,warm=false,solver=cg") == (
        "mmps",
        {"tolerance": 1e-3, "warm": False, "solver": "cg"},
    )


def test_a_cell_depends_on_nothing_but_itself(records):
    alone = list(certify([c for c in small(seeds=range(3)) if c.sampler != EXACT and c.seed == 2][:1]))
    (same,) = [r for r in records if r["sampler"] != EXACT and r["seed"] == 2 and r["problem"] == "inpainting"]
    assert alone[0]["scores"] == same["scores"] and alone[0]["cost"] == same["cost"]
    assert same["cost"]["denoiser"] == 6


def test_stopped_runs_go_on(tmp_path, monkeypatch, records):
    real, count = module.run_cell, 0

    def stop(cell, problem):
        nonlocal count
        count += 1
        if count == 3:
            raise Interrupted("received SIGTERM")
        return real(cell, problem)

    monkeypatch.setattr(module, "run_cell", stop)
    with pytest.raises(Interrupted):
        list(certify(small(), tmp_path))
    assert len(list(tmp_path.iterdir())) == 2
    monkeypatch.setattr(module, "run_cell", real)
    lines: list[str] = []
    found = list(certify(small(), tmp_path, lines.append))
    assert [line.endswith(": kept") for line in lines] == [True, True] + [False] * 6
    wanted = {(r["problem"], r["sampler"], r["seed"]): r for r in records}
    for r in found:
        assert r.get("scores") == wanted[r["problem"], r["sampler"], r["seed"]].get("scores")
    other = plan(["mmps:steps=7"], ["inpainting"], 20, [0])
    list(certify(other, tmp_path))
    assert len(list(tmp_path.iterdir())) == 9  # other settings stand beside, exact draws are shared


def test_refusals_and_failures_are_lines_of_the_table(records, monkeypatch):
    (row,) = [r for r in summary(records) if r["problem"] == "product" and r["sampler"] != EXACT]
    assert row["status"] == "skipped" and "needs svd" in row["reason"]
    assert "ddrm:steps=6, skipped: DDRM needs svd" in table(summary(records))

    class Broken:
        def __call__(self, *_):
            raise NumericalError("NaN at sigma 3")

    monkeypatch.setattr(Cell, "method", lambda self: Broken())
    (record,) = certify([Cell("mmps", "inpainting", 0, 8)])
    assert record["status"] == "failed" and "sigma 3" in record["reason"]
    assert broken(summary([record])) == ["mmps on inpainting: NumericalError: NaN at sigma 3"]


def test_summary_averages_and_bounds(records):
    (row,) = [r for r in summary(records) if r["problem"] == "inpainting" and r["sampler"] != EXACT]
    runs = [r for r in records if r["problem"] == "inpainting" and r["sampler"] != EXACT]
    errors = np.array([r["scores"]["mean_error"] for r in runs])
    assert row["mean_error"] == pytest.approx(errors[:, 0].mean()) and row["seeds"] == 3
    within = np.sqrt((errors[:, 1] ** 2).sum()) / 3
    between = errors[:, 0].std(ddof=1) / 3**0.5
    assert row["mean_error_interval"] == pytest.approx(1.96 * max(within, between))


def test_table_dataset_and_picture(records, tmp_path):
    rows = summary(records)
    text = table(rows, {"command": "scidiff certify"})
    assert text.startswith("command: `scidiff certify`")
    assert "| ddrm (steps=6) | 20 | 3 |" in text and "| exact draws | 20 | 3 |" in text
    for line in text.splitlines():
        if line.startswith("| "):
            assert line.count("|") in (13, 15)
    write_dataset(dataset(records, {"seeds": "0, 1, 2"}), tmp_path / "certificate.nc")
    with open_result(tmp_path / "certificate.nc") as data:
        assert dict(data.sizes) == {"problem": 2, "sampler": 2, "seed": 3}
        cell = data.sel(problem="inpainting", sampler="ddrm:steps=6", seed=1)
        (record,) = [r for r in records if (r["problem"], r["seed"]) == ("inpainting", 1) and r["sampler"] != EXACT]
        assert float(cell["trace_ratio"]) == record["scores"]["trace_ratio"][0]
        assert float(cell["trace_ratio_error"]) == record["scores"]["trace_ratio"][1]
        assert int(cell["denoiser"]) == 6 and cell["seconds"].attrs["units"] == "s"
        assert str(data["status"].sel(problem="product", sampler=cell["sampler"].item(), seed=0).item()) == "skipped"
    drawing = figure(rows)
    drawing.savefig(tmp_path / "picture.png")
    assert len(drawing.axes) == 2 and (tmp_path / "picture.png").stat().st_size > 10_000
    json.dumps(rows)


@pytest.mark.parametrize(
    ("sampler", "numbers", "text"),
    [
        ("mmps", {}, None),
        ("mmps", {"mean_error": 0.07}, "mean error 0.070 > 0.060"),
        ("mmps", {"trace_ratio": 0.96}, r"trace ratio 0.960 is not in \[0.97, 1.03\]"),
        ("mmps", {"coverage": 0.92}, "coverage"),
        ("mmps", {"members": 64, "mean_error": 0.13}, None),  # exact draws have 0.125
        ("mmps", {"members": 64, "mean_error": 0.2}, "mean error"),
        ("dps", {"mean_error": 0.39, "trace_ratio": 2.0}, None),
        ("dps", {"mean_error": 0.41}, "mean error"),
        ("mmps:steps=6", {"mean_error": 1.0}, None),
    ],
)
def test_gates(sampler, numbers, text):
    row = {"sampler": sampler, "problem": "inpainting", "status": "done", "members": 512, "mean_error": 0.05}
    row |= {"trace_ratio": 1.0, "coverage": 0.9, **{f"{n}_interval": 0.01 for n in GATE_NUMBERS}, **numbers}
    found = broken([row, {**row, "problem": "blur", "mean_error": 9.0}])
    if text is None:
        assert found == []
    else:
        assert len(found) == 1
        with pytest.raises(AssertionError, match=text):
            raise AssertionError(found[0])


GATE_NUMBERS = ("mean_error", "trace_ratio", "coverage")
