r"""A benchmark as a dataset, as CSV and as Markdown.

Tables average over cases. Methods are ordered by their mean rank in CRPS (a single estimate: by its absolute error,
which is the CRPS of a law without spread). ``vs best`` is the difference of CRPS to the best method, with the 95 %
bootstrap interval of the mean over cases drawn in pairs; where the interval holds zero, the order is chance. The last
table ranks methods over all problems and cases, with Holm-corrected Wilcoxon tests against the first.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr

from scidiff.benchmark.contestants import EXACT
from scidiff.benchmark.statistics import against_best, mean_ranks, paired_interval

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["dataset", "ranking", "rows", "table", "to_csv", "write"]

SCORES = ("crps", "spread_skill", "coverage", "relative_l2", "rmse", "psnr", "chi2", "rank")
COSTS = ("denoiser", "denoiser_vjp", "operator", "operator_vjp")
BINS = 10
LONG = {
    "crps": "fair continuous ranked probability score",
    "spread_skill": "predicted over actual error of the ensemble mean",
    "coverage": "share of the field inside its 90 % interval",
    "relative_l2": "L2 error of the mean over the norm of the truth",
    "rmse": "root mean square error of the mean",
    "psnr": "peak signal-to-noise ratio of the mean",
    "chi2": "mean squared whitened residual, median over members",
    "rank": "rank of the truth in distance to a point that knows the data",
    "denoiser": "denoiser calls per member",
    "denoiser_vjp": "vector-Jacobian products of the denoiser per member",
    "operator": "operator calls per member",
    "operator_vjp": "vector-Jacobian products of the operator per member",
    "seconds": "wall time of all members",
    "peak_memory_bytes": "largest memory while sampling",
    "drawn": "members drawn",
}


def dataset(
    records: Sequence[Mapping[str, Any]],
    attributes: Mapping[str, Any] | None = None,
    tried: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Numbers (problem, sampler, seed); the problem's own scores are called ``own_...``; ranks in tenths."""
    axes = {name: list(dict.fromkeys(r[name] for r in records)) for name in ("problem", "sampler", "seed")}
    place = {name: {value: i for i, value in enumerate(axis)} for name, axis in axes.items()}
    shape = tuple(len(axis) for axis in axes.values())
    own = sorted({name for r in records for name in r.get("own", {})})
    names = [*SCORES, *(f"own_{n}" for n in own), *COSTS, "seconds", "peak_memory_bytes", "drawn"]
    numbers = {name: np.full(shape, np.nan) for name in names}
    words = {name: np.full(shape, "", dtype=object) for name in ("status", "reason", "settings", "observation")}
    ranks = np.full((*shape, BINS), np.nan)
    for r in records:
        at = tuple(place[name][r[name]] for name in axes)
        for name, array in words.items():
            array[at] = r.get(name, "")
        found = {**r.get("scores", {}), **{f"own_{k}": v for k, v in r.get("own", {}).items()}, **r.get("cost", {})}
        found |= {name: r[name] for name in ("seconds", "peak_memory_bytes", "drawn") if name in r}
        for name, value in found.items():
            if name in numbers:
                numbers[name][at] = value
        if r.get("ranks"):
            ranks[at] = _tenths(r["ranks"])
    units = {"seconds": "s", "peak_memory_bytes": "byte", "psnr": "dB"}
    variables: dict[str, Any] = {
        name: (tuple(axes), array, {"units": units.get(name, "1"), "long_name": LONG.get(name, name)})
        for name, array in numbers.items()
    }
    variables |= {name: (tuple(axes), array.astype(str)) for name, array in words.items()}
    long = "share of points whose truth has a rank in this tenth"
    variables["rank_histogram"] = ((*axes, "tenth"), ranks, {"units": "1", "long_name": long})
    described = {"title": "samplers on problems", **{k: str(v) for k, v in (attributes or {}).items()}}
    if tried:
        described["tried"] = json.dumps(tried, default=str)
    described["source"] = "; ".join(dict.fromkeys(r["source"] for r in records))
    return xr.Dataset(variables, coords={**axes, "tenth": np.arange(BINS) / BINS + 0.5 / BINS}, attrs=described)


def _tenths(counts: Sequence[int]) -> np.ndarray:
    """Counts of M + 1 ranks as shares of ten equal bins; a rank on a border is divided between its bins."""
    total = np.concatenate([[0.0], np.cumsum(counts)]) / max(1, sum(counts))
    return np.diff(np.interp(np.linspace(0, 1, BINS + 1), np.linspace(0, 1, len(total)), total))


def _score(data: xr.Dataset, problem: str) -> Tensor:
    """CRPS of every method on every case, (cases, methods); of single estimates their absolute error."""
    part = data["crps"].sel(problem=problem)
    return torch.as_tensor(part.transpose("seed", "sampler").values.copy())


def rows(data: xr.Dataset, problem: str) -> list[dict[str, Any]]:
    """One row per method of a problem, best mean rank first; methods without a result come last."""
    part, scores = data.sel(problem=problem), _score(data, problem)
    place = mean_ranks(scores)
    judged = [i for i in range(scores.shape[1]) if not bool(scores[:, i].isnan().all())]
    contenders = [i for i in judged if str(data["sampler"].values[i]) != EXACT]
    top = min(contenders, key=lambda i: float(place[i])) if contenders else None
    found = []
    for i, sampler in enumerate(map(str, data["sampler"].values)):
        mine = part.sel(sampler=sampler)
        status = [str(s) for s in mine["status"].values if str(s)]
        if not status:
            continue
        row: dict[str, Any] = {
            "sampler": sampler,
            "cases": status.count("done"),
            "failed": status.count("failed"),
            "status": "done" if "done" in status else status[0],
            "reason": next((str(r) for r in mine["reason"].values if str(r)), ""),
            "mean_rank": float(place[i]) if i in judged else math.nan,
        }
        for name, values in mine.data_vars.items():
            if values.dims == ("seed",) and np.issubdtype(values.dtype, np.floating):
                row[str(name)] = float(values.mean(skipna=True)) if bool(values.notnull().any()) else math.nan
        if top is not None and i in contenders:
            both = ~(scores[:, i].isnan() | scores[:, top].isnan())
            a, b = scores[both, i].tolist(), scores[both, top].tolist()
            row["difference"], row["low"], row["high"] = paired_interval(a, b) if a else (math.nan,) * 3
        found.append(row)
    return sorted(found, key=lambda row: (row["sampler"] != EXACT, math.isnan(row["mean_rank"]), row["mean_rank"]))


def ranking(data: xr.Dataset) -> list[dict[str, Any]]:
    """Methods over all problems and cases: mean rank in CRPS, p-value against the first, cases answered."""
    methods = [str(s) for s in data["sampler"].values if str(s) != EXACT]
    part = data.sel(sampler=methods)
    blocks = torch.cat([_score(part, str(problem)) for problem in part["problem"].values])
    blocks = blocks[~blocks.isnan().all(1)]
    if not len(blocks):
        return []
    scaled = blocks / blocks.nan_to_num(torch.inf).min(1, keepdim=True).values  # CRPS has the units of each problem
    place, p = mean_ranks(blocks), against_best(scaled)
    found = [
        {"sampler": m, "mean_rank": float(place[i]), "p": p[i], "cases": int((~blocks[:, i].isnan()).sum())}
        for i, m in enumerate(methods)
    ]
    return sorted(found, key=lambda row: row["mean_rank"])


def table(data: xr.Dataset) -> str:
    """The benchmark in Markdown."""
    said = [name for name in ("source", "members", "budget", "tuning") if name in data.attrs]
    lines = [f"{name}: {data.attrs[name]}  " for name in said]
    refused: dict[str, list[str]] = {}
    for problem in map(str, data["problem"].values):
        found = rows(data, problem)
        gap = "own_gap" in data and bool(data["own_gap"].sel(problem=problem).notnull().any())
        heads = ["sampler", "cases", "CRPS", "vs best", "spread/skill", "coverage", "rel. L2", "PSNR"]
        heads += ["gap to Bayes"] * gap + ["chi2", "denoiser + vjp", "operator + vjp", "seconds", "MB", "failed"]
        lines += ["", f"### {problem}", "", f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}"]
        for row in found:
            if row["cases"]:
                lines.append(f"| {' | '.join(_cells(row, gap))} |")
            if row["reason"]:
                refused.setdefault(f"{row['sampler']}: {row['reason']}", []).append(problem)
    order = ranking(data)
    if order:
        lines += ["", "### All problems", "", "| sampler | mean rank | p against the first | cases |"]
        lines += ["|---|---:|---:|---:|"]
        for row in order:
            lines.append(f"| {row['sampler']} | {row['mean_rank']:.2f} | {_short(row['p'])} | {row['cases']} |")
    if refused:
        lines += ["", "### Skipped and failed", ""]
        lines += [f"- {reason} ({', '.join(problems)})" for reason, problems in refused.items()]
    return "\n".join(lines).strip() + "\n"


def _cells(row: Mapping[str, Any], gap: bool) -> list[str]:
    calls = [row["denoiser"] + row["denoiser_vjp"], row["operator"] + row["operator_vjp"]]
    versus = "-"
    if not math.isnan(row.get("difference", math.nan)):
        limits = "" if math.isnan(row["low"]) else f" [{_short(row['low'])}, {_short(row['high'])}]"
        best = row["difference"] == 0 and (row["low"] == 0 or math.isnan(row["low"]))
        versus = "best" if best else _short(row["difference"]) + limits
    return [
        row["sampler"],
        str(row["cases"]),
        *(_short(row["crps"]), versus),
        *(_short(row[name]) for name in ("spread_skill", "coverage", "relative_l2", "psnr")),
        *([_short(row["own_gap"])] if gap else []),
        _short(row["chi2"]),
        *("-" if math.isnan(c) else f"{c:.0f}" for c in calls),
        *(_short(row["seconds"]), _short(row["peak_memory_bytes"] / 1e6), str(row["failed"])),
    ]


def _short(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}" if abs(value) < 1e4 else f"{value:.1e}"


def to_csv(records: Iterable[Mapping[str, Any]]) -> str:
    """One line per cell, everything known about it."""
    flat = [
        {
            **{k: r.get(k, "") for k in ("problem", "sampler", "seed", "status", "reason", "settings", "observation")},
            **r.get("scores", {}),
            **{f"own_{k}": v for k, v in r.get("own", {}).items()},
            **r.get("cost", {}),
            **{k: r.get(k, "") for k in ("drawn", "seconds", "peak_memory_bytes", "source")},
        }
        for r in records
    ]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(k for row in flat for k in row)), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return out.getvalue()


def write(folder: Path, data: xr.Dataset, records: Sequence[Mapping[str, Any]], cells: Sequence[Path]) -> None:
    """``results.nc``, ``results.csv``, ``table.md`` and the page with its pictures, each whole or not at all."""
    from scidiff.benchmark.page import page
    from scidiff.fields import atomic, write_dataset

    write_dataset(data, folder / "results.nc")
    texts = {"results.csv": to_csv(records), "table.md": table(data), "index.html": page(folder, data, records, cells)}
    for name, text in texts.items():
        with atomic(folder / name) as path:
            path.write_text(text, encoding="utf-8")
