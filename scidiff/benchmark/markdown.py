r"""A benchmark in Markdown: an overview, two tables per problem, a ranking, and what was skipped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from scidiff.benchmark.contestants import EXACT
from scidiff.benchmark.results import own_scores, ranking, rows, stated
from scidiff.benchmark.statistics import FEWEST_RANKS

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["overview", "short", "table", "versus"]


SAID = "CRPS over that of the best method of each problem; in brackets the share of the field inside the 90 % interval."


def table(data: xr.Dataset) -> str:
    """The benchmark in Markdown."""
    lines = [f"{name}: {value}  " for name, value in stated(data).items()]
    heads, cells = overview(data)
    lines += ["", "### Overview", "", SAID, "", *_heads(heads), *(f"| {' | '.join(row)} |" for row in cells)]
    refused: dict[str, list[str]] = {}
    for problem in map(str, data["problem"].values):
        found = rows(data, problem)
        answered = [row for row in found if row["cases"]]
        gap = any(not math.isnan(row.get("own_gap", math.nan)) for row in answered)
        tests = any(not math.isnan(row["tarp_p"]) for row in answered)
        heads = ["sampler", "cases", "CRPS", "vs best", "spread/skill", "coverage", "ranks"]
        heads += ["rank p", "TARP p"] * tests + ["rel. L2", "PSNR"] + ["gap to Bayes"] * gap
        heads += ["chi2", "denoiser + vjp", "operator + vjp", "seconds", "MB", "failed"]
        lines += ["", f"### {problem}", "", *_heads(heads)]
        lines += [f"| {' | '.join(_cells(row, gap, tests))} |" for row in answered]
        if not tests:
            lines += ["", f"Tests of ranks (`rank p`, `TARP p`) need {FEWEST_RANKS} cases of a method."]
        own = own_scores(data, problem)
        if own and answered:
            said = (
                "Scores of the problem itself; in brackets the difference to the best in CRPS with its 95 % interval."
            )
            lines += ["", said, "", *_heads(["sampler", *own])]
            lines += [f"| {' | '.join([row['sampler'], *(versus(row, name) for name in own)])} |" for row in answered]
        chosen = [f"{row['sampler']}: {row['settings']}" for row in answered if row["settings"]]
        if chosen:
            lines += ["", f"Settings: {'; '.join(chosen)}."]
        for row in found:
            if row["reason"]:
                refused.setdefault(f"{row['sampler']}: {row['reason']}", []).append(problem)
    order = ranking(data)
    if order:
        lines += ["", "### All problems", ""]
        lines += _heads(["sampler", "mean rank", "p against the first", "cases", "ranks", "rank p", "TARP p"])
        for row in order:
            numbers = (row["p"], row["cases"], row["ranks"], row["rank_p"], row["tarp_p"])
            lines.append(f"| {row['sampler']} | {row['mean_rank']:.2f} | {' | '.join(map(short, numbers))} |")
    if refused:
        lines += ["", "### Skipped, failed and diverged", ""]
        lines += [f"- {reason} ({', '.join(problems)})" for reason, problems in refused.items()]
    return "\n".join(lines).strip() + "\n"


def overview(data: xr.Dataset) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of one table of everything: samplers by mean rank, a column per problem.

    A cell is the CRPS over that of the best method of the problem (1 is the best; the CRPS itself where the fair
    estimate of the best is not positive), and the share of the field inside the 90 % interval; a method that diverged
    or failed in some case says so, one that cannot work has a dash.
    """
    problems = [str(p) for p in data["problem"].values]
    columns: list[dict[str, str]] = []
    for problem in problems:
        found = rows(data, problem)
        lowest = min((row["crps"] for row in found if row["cases"] and row["sampler"] != EXACT), default=math.nan)
        columns.append({row["sampler"]: _overviewed(row, lowest) for row in found})
    order = [EXACT] * (EXACT in data["sampler"].values) + [row["sampler"] for row in ranking(data)]
    plain = [problem.partition(":")[0] for problem in problems]
    heads = ["sampler", *(a if plain.count(a) == 1 else b for a, b in zip(plain, problems, strict=True))]
    return heads, [[sampler, *(column.get(sampler, "") for column in columns)] for sampler in order]


def _overviewed(row: Mapping[str, Any], lowest: float) -> str:
    for kind in ("diverged", "failed"):
        if row[kind]:
            return kind
    if not row["cases"]:
        return "-"
    inside = "" if math.isnan(row["coverage"]) else f" ({row['coverage']:.2f})"
    return (f"{row['crps'] / lowest:.2f}" if lowest > 0 else short(row["crps"])) + inside


def _heads(names: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(names)} |", f"|---|{'---:|' * (len(names) - 1)}"]


def _cells(row: Mapping[str, Any], gap: bool, tests: bool) -> list[str]:
    calls = [row["denoiser"] + row["denoiser_vjp"], row["operator"] + row["operator_vjp"]]
    versus = "-"
    if not math.isnan(row.get("difference", math.nan)):
        best = row["difference"] == 0 and (row["low"] == 0 or math.isnan(row["low"]))
        versus = "best" if best else _interval(row["difference"], row["low"], row["high"])
    bad = [f"{row[kind]} {kind}" for kind in ("failed", "diverged") if row[kind]]
    return [
        row["sampler"],
        str(row["cases"]),
        *(short(row["crps"]), versus),
        *(short(row[name]) for name in ("spread_skill", "coverage", "ranks")),
        *(short(row[name]) for name in ("rank_p", "tarp_p") if tests),
        *(short(row[name]) for name in ("relative_l2", "psnr")),
        *([short(row["own_gap"])] if gap else []),
        short(row["chi2"]),
        *("-" if math.isnan(c) else f"{c:.0f}" for c in calls),
        *(short(row["seconds"]), short(row["peak_memory_bytes"] / 1e6), " + ".join(bad) or "0"),
    ]


def versus(row: Mapping[str, Any], name: str) -> str:
    """A score of the problem, with its difference to the best method and the interval of that."""
    difference, low, high = row.get(f"own_{name}_difference", (math.nan,) * 3)
    value = short(row[f"own_{name}"])
    plain = math.isnan(difference) or (difference == 0 and (low == 0 or math.isnan(low)))
    return value if plain else f"{value} ({_interval(difference, low, high)})"


def _interval(difference: float, low: float, high: float) -> str:
    return short(difference) + ("" if math.isnan(low) else f" [{short(low)}, {short(high)}]")


def short(value: float) -> str:
    """Three digits; a dash for what is not known."""
    return "-" if math.isnan(value) else f"{value:.3g}" if abs(value) < 1e4 else f"{value:.1e}"
