"""The grid: equal questions for all, budgets, tuning, cells that are kept, failures that are lines."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from multiprocessing import active_children

import numpy as np
import pytest
import torch
from torch import Generator

from scidiff.benchmark.budget import Budget, affordable
from scidiff.benchmark.cells import Cell, run_cell
from scidiff.benchmark.contestants import contestant
from scidiff.benchmark.engines import processes
from scidiff.benchmark.grid import benchmark, plan
from scidiff.benchmark.limit import within
from scidiff.benchmark.questions import question
from scidiff.benchmark.tuning import FIRST_CASE, RANGES, Tuning, best, trials
from scidiff.errors import InputError
from scidiff.fields import open_result
from scidiff.posterior import get

NAME = "exact-inpainting"
LIMITS = ("denoiser=100", "operator=100", "denoiser=100,operator=100", "denoiser=100,operator=5000")


def prior_draws(posterior, members, generator):
    return posterior.prior.sample(members, generator)[:, None]


def explodes(posterior, members, generator):
    raise RuntimeError("the solver died")


def confused(posterior, members, generator):
    return torch.zeros("three")  # type: ignore[call-overload]


def far_away(posterior, members, generator):
    x = posterior.prior.sample(members, generator)[:, None]
    x[-1] = x[-1] * 1e6
    return x


def exact(posterior, members, generator):
    part = posterior.likelihoods[0]
    return posterior.prior.condition(part.operator, part.noise, part.y).sample(members, generator)[:, None]


def halved(posterior, members, generator):
    x = exact(posterior, members, generator)
    return x.mean(0) + 0.3 * (x - x.mean(0))


def test_equal_names_and_seeds_are_equal_questions():
    a, b, c = question(NAME, 3), question(NAME, 3), question(NAME, 4)
    assert a.fingerprint == b.fingerprint != c.fingerprint
    assert question("gaussian", 1).truth is not None
    assert set(question("gaussian", 1).estimates()) == {"nearest", "exact"}


def test_a_problem_with_an_exact_answer_reports_it():
    asked = question("gaussian", 0)
    ensemble = contestant("mmps").draw(asked, 64, Generator().manual_seed(0))
    assert asked.own(ensemble)["mean_error"] < 0.3


@pytest.mark.parametrize("text", ["denoiser=120", "operator=300"])
@pytest.mark.parametrize("name", ["dps", "mmps", "ddrm", "daps", "deepinv-pigdm", "red_diff"])
def test_budgets_are_met(name, text):
    budget, asked = Budget.parse(text), question(NAME, 0)
    method = affordable(contestant(name), asked, 4, budget)
    spent = budget.spent(method.draw(asked, 2, Generator().manual_seed(1)).cost, 0.0)
    if name == "ddrm" and budget.kind == "operator":
        assert spent == 0 and method.parameters == {}  # its steps cost no calls of the operator
    else:
        assert 0.6 * budget.amount <= spent <= 1.15 * budget.amount


def test_of_two_budgets_the_one_spent_first_decides():
    asked, method = question(NAME, 0), contestant("mmps")
    steps = {text: affordable(method, asked, 4, Budget.parse(text)).parameters["steps"] for text in LIMITS}
    network, physics, tight, loose = (steps[text] for text in LIMITS)
    assert physics < network  # a call of the network comes with several of the operator
    assert tight == physics and loose == network
    assert str(Budget.parse(LIMITS[2])) == LIMITS[2]


def test_a_nested_method_saves_iterations_before_it_saves_steps():
    asked, whole = question(NAME, 0), contestant("pnpdm")
    small = affordable(whole, asked, 4, Budget("denoiser", 100))
    assert small.parameters == {"steps": 4, "iterations": 25}
    assert small.draw(asked, 2, Generator().manual_seed(0)).cost.denoiser == 100
    assert affordable(whole, asked, 4, Budget("denoiser", 1000)).parameters == {"steps": 6}  # 150 iterations of 6
    assert affordable(whole, asked, 4, Budget("operator", 120)).parameters["iterations"] < 50
    with pytest.raises(TypeError, match="more than denoiser=8"):
        affordable(whole, asked, 4, Budget("denoiser", 8))
    with pytest.raises(TypeError, match="more than denoiser=100"):  # iterations that were given are kept
        affordable(contestant("pnpdm:iterations=100"), asked, 4, Budget("denoiser", 100))


def test_a_method_that_diverges_is_marked_and_one_that_errs_is_not_skipped():
    from scidiff.benchmark.markdown import overview, table

    lines: list[str] = []
    samplers = ["mmps:steps=8", ("far", far_away), ("confused", confused)]
    data = benchmark([NAME], samplers, seeds=[0, 1], members=4, tell=lines.append)
    shown = data["diverged"].sel(problem=NAME).sum("seed").to_series().to_dict()
    assert shown == {"exact draws": 0, "mmps:steps=8": 0, "far": 2, "confused": 0}
    assert set(data["status"].sel(sampler="confused").values.ravel()) == {"failed"}  # a TypeError of its own
    far = [line for line in table(data).splitlines() if line.startswith("| far |")][1]  # after the overview
    assert far.endswith("| 2 diverged |")
    heads, cells = overview(data)
    shown = {sampler: cell for sampler, cell in cells}
    best = float(data["crps"].sel(sampler="mmps:steps=8").mean())
    exact = float(data["crps"].sel(sampler="exact draws").mean())
    assert heads == ["sampler", NAME] and shown["far"] == "diverged" and shown["confused"] == "failed"
    assert shown["mmps:steps=8"].startswith("1.00 (0.") and shown["exact draws"].startswith(f"{exact / best:.2f} (0.")
    assert "- far: diverged: up to" in table(data) and any("diverged" in line for line in lines)


def test_tests_of_ranks_need_cases_and_find_an_ensemble_that_is_too_narrow():
    from scidiff.benchmark.markdown import table
    from scidiff.benchmark.results import rows

    samplers = [("halved", halved), ("prior", prior_draws)]
    data = benchmark([NAME], samplers, seeds=range(24), members=9)
    found = {row["sampler"]: row for row in rows(data, NAME)}
    assert found["exact draws"]["rank_p"] > 0.05 and found["exact draws"]["tarp_p"] > 0.05
    assert found["halved"]["rank_p"] < 0.01  # too narrow
    assert found["prior"]["rank_p"] < 1e-6 and found["prior"]["tarp_p"] < 1e-6  # the data ignored
    assert found["exact draws"]["ranks"] < 0.1 < found["halved"]["ranks"]
    assert "| rank p | TARP p |" in table(data) and "need 10 cases" not in table(data)
    few = data.isel(seed=slice(0, 9))
    assert "need 10 cases" in table(few) and np.isnan(rows(few, NAME)[0]["tarp_p"])


def test_own_scores_stand_beside_the_difference_to_the_best():
    from scidiff.benchmark.markdown import table
    from scidiff.benchmark.results import own_scores, rows

    data = benchmark(["inpainting:shape=[16,20]"], ["ddnm:steps=4", "baseline-tv"], seeds=[0, 1], members=3)
    problem = str(data["problem"].values[0])
    assert own_scores(data, problem) == ["psnr", "ssim"]  # its PSNR has another peak; rmse, crps, ... have columns
    ssim = data["own_ssim"].sel(problem=problem)
    best, *others = rows(data, problem)
    difference, low, high = others[0]["own_ssim_difference"]
    gap = (ssim.sel(sampler=others[0]["sampler"]) - ssim.sel(sampler=best["sampler"])).values
    assert difference == pytest.approx(gap.mean()) and gap.min() - 1e-9 <= low <= high <= gap.max() + 1e-9
    assert "| sampler | psnr | ssim |" in table(data)


def test_the_tables_state_what_holds_for_all_cells():
    from scidiff.benchmark.markdown import table

    data = benchmark([NAME], ["ddrm"], seeds=[0], members=3, budget="denoiser=20", tuning=Tuning(3, 1))
    text = table(data)
    for said in ("budget: denoiser=20", "trials=3, cases=1", f"torch {torch.__version__.partition('+')[0]}", "threads"):
        assert said in text, said
    chosen = text.split("Settings: ")[1]
    assert "eta=" in chosen and "steps=20" in chosen


def test_a_fair_score_that_is_not_positive_does_not_turn_the_order():
    """Of few members the fair CRPS of a good method may be negative; it is still the best of all."""
    from scidiff.benchmark.markdown import overview
    from scidiff.benchmark.results import dataset, ranking

    crps = {"good": -0.02, "middle": 0.5, "bad": 1.0}
    found = {"problem": "p", "status": "done", "reason": "", "source": "s"}
    records = [
        {**found, "sampler": name, "seed": seed, "scores": {"crps": value + 0.01 * seed / 8}}
        for seed in range(8)
        for name, value in crps.items()
    ]
    order = ranking(dataset(records))
    assert [row["sampler"] for row in order] == list(crps)
    assert order[0]["p"] == 1 and order[1]["p"] == order[2]["p"] == pytest.approx(2 / 2**8)  # all pairs one way, Holm
    assert [cells[1] for cells in overview(dataset(records))[1]] == ["-0.0156", "0.504", "1"]


def test_budgets_that_pay_for_nothing_and_wrong_ones():
    with pytest.raises(TypeError, match="more than denoiser=3"):
        affordable(contestant("dps"), question(NAME, 0), 4, Budget("denoiser", 3))
    for text in ("denoisers=3", "denoiser=-1", "seconds"):
        with pytest.raises(ValueError, match="Write denoiser=256"):
            Budget.parse(text)


def test_tuning_takes_the_best_of_its_trials_on_other_cases():
    cell, tuning = Cell(NAME, contestant("dps:steps=30"), 0, 8), Tuning(trials=4, cases=2)
    seen = []

    def run(cells):
        seen.extend(cells)
        return [run_cell(c) for c in cells]

    winner, tried = best(cell, tuning, run)
    assert {c.seed for c in seen} == {FIRST_CASE, FIRST_CASE + 1} and len(seen) == 8
    assert tried[0]["parameters"] == {"steps": 30}
    assert winner.parameters == min(tried, key=lambda t: t["crps"])["parameters"]
    assert all(RANGES["dps"]["zeta"][0] <= t["parameters"]["zeta"] <= RANGES["dps"]["zeta"][1] for t in tried[1:])
    assert trials(contestant("dps:zeta=1"), NAME, tuning) == [contestant("dps:zeta=1")]  # given, not tuned
    again = trials(contestant("dps:steps=30"), NAME, tuning)
    assert again == trials(contestant("dps:steps=30"), NAME, tuning) != trials(contestant("dps:steps=30"), "x", tuning)


def test_every_tuned_parameter_exists():
    for name, ranges in RANGES.items():
        get(name, **{key: round(low) if kind == "whole" else low for key, (low, _, kind) in ranges.items()})


def test_a_failure_is_a_line_and_a_retry_computes_it_again(tmp_path):
    arguments = {"seeds": [0], "members": 4, "output": tmp_path}
    data = benchmark([NAME], ["mmps:steps=8", ("broken", explodes), "baseline-tv"], **arguments)
    status = data["status"].sel(problem=NAME, seed=0)
    assert status.to_series().to_dict() == {
        "exact draws": "done",
        "mmps:steps=8": "done",
        "broken": "failed",
        "baseline-tv": "skipped",
    }
    assert "the solver died" in str(data["reason"].sel(sampler="broken").values)
    with pytest.raises(InputError, match="holds a benchmark"):
        benchmark([NAME], ["mmps:steps=8"], **arguments)
    lines: list[str] = []
    benchmark([NAME], ["mmps:steps=8", ("broken", explodes)], resume=True, tell=lines.append, **arguments)
    assert lines == ["3 of 3 cells kept"]
    benchmark([NAME], [("broken", explodes)], resume=True, retry=True, tell=lines.append, **arguments)
    assert "1 of 2 cells kept" in lines[1] and "failed" in lines[2]


def endless(posterior, members, generator):
    while True:
        torch.zeros(10)


def test_a_cell_that_takes_too_long_has_failed_and_the_grid_goes_on(tmp_path):
    data = benchmark([NAME], [("endless", endless), "mmps:steps=4"], range(1), members=2, limit=1.5, output=tmp_path)
    found = dict(zip(data["sampler"].values, data.isel(problem=0, seed=0)["status"].values, strict=True))
    assert found == {"exact draws": "done", "endless": "failed", "mmps:steps=4": "done"}
    assert "stopped after 1.5 s" in (tmp_path / "table.md").read_text()
    time.sleep(1.6)  # the timer of a finished cell is off


def test_time_limits_that_cannot_be_kept_are_refused():
    with pytest.raises(ValueError, match="positive"), within(0):
        pass
    caught = []

    def elsewhere():
        try:
            with within(1):
                pass
        except ValueError as error:
            caught.append(str(error))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "main thread" in caught[0]


def test_ctrl_c_keeps_what_is_done_and_a_resumed_grid_is_the_same(tmp_path):
    samplers, whole = ["mmps:steps=8", "ddrm:steps=8"], tmp_path / "whole"
    full = benchmark([NAME], samplers, seeds=[0, 1], members=4, output=whole)

    def stop(line):
        if line.startswith("[3/"):
            raise KeyboardInterrupt

    part = tmp_path / "part"
    with pytest.raises(KeyboardInterrupt):
        benchmark([NAME], samplers, seeds=[0, 1], members=4, output=part, tell=stop)
    assert len(list(part.glob("cells/*/cell.json"))) == 3
    assert "unfinished: 3 of 6 cells" in (part / "table.md").read_text(encoding="utf-8")
    with open_result(part / "results.nc") as held:
        assert int((held["status"] == "done").sum()) == 3
    again = benchmark([NAME], samplers, seeds=[0, 1], members=4, output=part, resume=True)
    for name in ("crps", "rank", "own_mean_error", "denoiser"):
        np.testing.assert_array_equal(again[name], full[name])


def naps(seconds):
    time.sleep(seconds)
    return {}


def test_a_grid_that_ends_early_does_not_wait_for_its_workers():
    before = set(active_children())
    found = processes(2)(naps, [0.0, 60.0, 60.0])
    assert next(found) == (0, {})
    assert len(set(active_children()) - before) == 2
    begin = time.monotonic()
    found.close()
    assert time.monotonic() - begin < 30 and set(active_children()) == before


def test_two_processes_give_the_same_members(tmp_path):
    arguments = {"seeds": [0, 1], "members": 4}
    here = benchmark([NAME], ["mmps:steps=8", ("prior", prior_draws)], **arguments)
    there = benchmark(
        [NAME], ["mmps:steps=8", ("prior", prior_draws)], output=tmp_path, engine=processes(2), **arguments
    )
    for name in ("crps", "rank", "own_mean_error", "chi2", "observation"):
        np.testing.assert_array_equal(here[name], there[name])


def test_all_samplers_see_the_same_observation():
    data = benchmark([NAME, "gaussian"], ["mmps:steps=8", "ddrm:steps=8"], seeds=[0, 1], members=3)
    for problem in data["problem"].values:
        for seed in (0, 1):
            held = {str(v) for v in data["observation"].sel(problem=problem, seed=seed).values} - {""}
            assert len(held) == 1


def test_files_of_a_benchmark(tmp_path):
    import csv

    samplers = ["dps:steps=8", ("prior", prior_draws)]
    data = benchmark([NAME], samplers, seeds=[0], members=6, output=tmp_path, tuning=Tuning(2, 1))
    assert len(json.loads(data.attrs["tried"])["dps:steps=8 on exact-inpainting"]) == 2
    with open_result(tmp_path / "results.nc") as held:
        np.testing.assert_array_equal(held["crps"], data["crps"])
    with open(tmp_path / "results.csv", newline="", encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    assert len(lines) == 3 and float(lines[1]["crps"]) == pytest.approx(float(data["crps"].values[0, 1, 0]))
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    pictures = list((tmp_path / "pictures").glob("*.png"))
    assert len(pictures) == 4  # one of each method, and the curves
    assert all(f"pictures/{path.name}" in text for path in pictures)
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "### exact-inpainting" in text and text.count("| best |") == 1  # one case: no interval, still a best one


def test_the_rank_of_the_truth_is_central_for_exact_draws_and_extreme_for_the_prior():
    data = benchmark([NAME], [("prior", prior_draws)], seeds=range(12), members=19)
    rank = data["rank"].sel(problem=NAME)
    assert 0.3 < float(rank.sel(sampler="exact draws").mean()) < 0.7
    assert float(rank.sel(sampler="prior").mean()) < 0.1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"problems": ["exact-inpaintin"]}, "did you mean 'exact-inpainting'"),
        ({"problems": ["ct:veiws=3"]}, "did you mean 'views'"),
        ({"problems": ["ct:views=abc"]}, "views must be a whole number, got 'abc'"),
        ({"problems": ["exact-blur:size=3"]}, "takes no parameters"),
        ({"samplers": ["mmsp"]}, "did you mean 'mmps'"),
        ({"samplers": ["mmps:stepz=3"]}, "did you mean 'steps'"),
        ({"samplers": ["deepinv-dp"]}, "did you mean 'dps'"),
        ({"samplers": ["mmps", "mmps"]}, "two samplers are called mmps"),
        ({"seeds": [FIRST_CASE]}, "for tuning"),
        ({"seeds": []}, "at least one"),
        ({"members": 1}, "at least 2"),
    ],
)
def test_wrong_requests(arguments, text):
    with pytest.raises(ValueError, match=text):
        plan(**({"problems": [NAME], "samplers": ["mmps"]} | arguments))


def test_functions_must_return_members():
    def flat(posterior, members, generator):
        return torch.zeros(members, 64)

    record = run_cell(Cell(NAME, contestant(("flat", flat)), 0, 4))
    assert record["status"] == "failed" and "expected (members, 1, *field)" in record["reason"]


def test_the_package_is_the_function():
    import scidiff
    from scidiff.benchmark import Tuning as same

    assert same is Tuning
    data = scidiff.benchmark([NAME], ["ddrm:steps=5"], seeds=[0], members=3)
    assert data.sizes == {"problem": 1, "sampler": 2, "seed": 1, "tenth": 10}


def test_the_best_classical_answer_is_the_nearest_to_the_truth():
    asked = question("gaussian:shape=[8,8]", 0)
    truth = asked.truth
    assert truth is not None
    asked = replace(asked, estimates=lambda: {"far": truth + 2, "near": truth + 1, "other": truth - 3})
    drawn = contestant("baseline-best").draw(asked, 4, Generator())
    assert torch.equal(drawn.samples, (truth + 1)[None])
    with pytest.raises(TypeError, match="no baseline 'best'; it has none"):
        contestant("baseline-best").draw(replace(asked, estimates=dict), 4, Generator())
