r"""A benchmark as a dataset, as rows of tables and as CSV.

Tables average over cases. Methods are ordered by their mean rank in CRPS (a single estimate: by its absolute error,
which is the CRPS of a law without spread). ``vs best`` is the difference of CRPS to the best method, with the 95 %
bootstrap interval of the mean over cases drawn in pairs; where the interval holds zero, the order is chance. The last
table ranks methods over all problems and cases, with Holm-corrected Wilcoxon tests against the first.

``ranks`` is how uneven the ranks of the truth among the members are, point by point: the share of points that would
have to change their tenth for equal tenths. Points of one field are not independent, so that chance alone has some: see
the row of exact draws. ``rank p`` and ``TARP p`` are tests over cases with one rank each (of mean and misfit; of the
distance to a point that knows the data); with fewer than 10 cases they are not made.

A method has *diverged* where a member lies more than 30 standard deviations of the prior from its centre.
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
from scidiff.benchmark.statistics import against_best, holm, mean_ranks, paired_interval, rank_test, unevenness

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["dataset", "diverged", "own_scores", "ranking", "rows", "stated", "to_csv", "write"]

SCORES = ("crps", "spread_skill", "coverage", "relative_l2", "rmse", "psnr", "chi2", "farthest")
RANKS = ("rank", "rank_mean", "rank_misfit")
COSTS = ("denoiser", "denoiser_vjp", "operator", "operator_vjp")
BINS = 10
FAR = 30.0
"""Standard deviations of the prior. Errors relative to the truth stand in where a prior is not affine."""
STATED = ("unfinished", "source", "versions", "threads", "members", "budget", "tuning")
LONG = {
    "crps": "fair continuous ranked probability score",
    "spread_skill": "predicted over actual error of the ensemble mean",
    "coverage": "share of the field inside its 90 % interval",
    "relative_l2": "L2 error of the mean over the norm of the truth",
    "rmse": "root mean square error of the mean",
    "psnr": "peak signal-to-noise ratio of the mean",
    "chi2": "mean squared whitened residual, median over members",
    "rank": "rank of the truth in distance to a point that knows the data",
    "rank_mean": "rank of the truth in the mean of the field",
    "rank_misfit": "rank of the truth in the mean squared residual",
    "farthest": "root mean square of the state of the member where it is largest",
    "diverged": "whether a member left the range of the prior",
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
    names = [*SCORES, *RANKS, "diverged", *(f"own_{n}" for n in own), *COSTS, "seconds", "peak_memory_bytes", "drawn"]
    numbers = {name: np.full(shape, np.nan) for name in names}
    words = {name: np.full(shape, "", dtype=object) for name in ("status", "reason", "settings", "observation")}
    ranks = np.full((*shape, BINS), np.nan)
    for r in records:
        at = tuple(place[name][r[name]] for name in axes)
        for name, array in words.items():
            array[at] = r.get(name, "")
        found = {**r.get("scores", {}), **{f"own_{k}": v for k, v in r.get("own", {}).items()}, **r.get("cost", {})}
        far = diverged(r)
        if far:
            words["reason"][at] = far
        if r["status"] == "done":
            found["diverged"] = float(bool(far))
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
    held = [r["versions"] for r in records if "versions" in r]
    every = {
        name: list(dict.fromkeys(v[name] for v in held if name in v))
        for name in dict.fromkeys(n for v in held for n in v)
    }
    described["versions"] = ", ".join(f"{name} {' and '.join(values)}" for name, values in every.items())
    described["threads"] = ", ".join(map(str, sorted({r["threads"] for r in records if "threads" in r})))
    return xr.Dataset(variables, coords={**axes, "tenth": np.arange(BINS) / BINS + 0.5 / BINS}, attrs=described)


def diverged(record: Mapping[str, Any]) -> str:
    """Says how far the farthest member is where that is out of all proportion; empty otherwise."""
    scores = record.get("scores", {})
    for name, words in (("farthest", "standard deviations of the prior"), ("relative_l2", "times the truth")):
        if name in scores:
            return f"diverged: up to {scores[name]:.1e} {words} away" if scores[name] > FAR else ""
    return ""


def stated(data: xr.Dataset) -> dict[str, str]:
    """What holds for all cells, by name: source, versions, threads, members, budget, tuning."""
    return {name: str(data.attrs[name]) for name in STATED if str(data.attrs.get(name, ""))}


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
            "diverged": int(mine["diverged"].sum()),
            "settings": " or ".join(dict.fromkeys(str(s) for s in mine["settings"].values if str(s))),
            "status": "done" if "done" in status else status[0],
            "reason": next((str(r) for r in mine["reason"].values if str(r)), ""),
            "mean_rank": float(place[i]) if i in judged else math.nan,
        }
        for name, values in mine.data_vars.items():
            if values.dims == ("seed",) and name not in row and np.issubdtype(values.dtype, np.floating):
                row[str(name)] = float(values.mean(skipna=True)) if bool(values.notnull().any()) else math.nan
        row |= _calibration(mine)
        if top is not None and i in contenders:
            row["difference"], row["low"], row["high"] = _paired(scores[:, i], scores[:, top])
            for name in own_scores(data, problem):
                value = torch.as_tensor(part[f"own_{name}"].transpose("seed", "sampler").values.copy())
                row[f"own_{name}_difference"] = _paired(value[:, i], value[:, top])
        found.append(row)
    return sorted(found, key=lambda row: (row["sampler"] != EXACT, math.isnan(row["mean_rank"]), row["mean_rank"]))


def _paired(a: Tensor, b: Tensor) -> tuple[float, float, float]:
    both = ~(a.isnan() | b.isnan())
    if not bool(both.any()):
        return math.nan, math.nan, math.nan
    return paired_interval(a[both].tolist(), b[both].tolist())


def _calibration(cells: xr.Dataset) -> dict[str, float]:
    """How even the ranks of some cells of one method are: point by point, and two tests over cases."""
    known = cells["rank_histogram"].values.reshape(-1, BINS)
    known = known[~np.isnan(known).any(1)]
    found = {"ranks": unevenness(known.mean(0).tolist()) if len(known) else math.nan}
    p = {}
    for name in RANKS:
        values, members = cells[name].values.ravel(), cells["drawn"].values.ravel()
        kept = ~np.isnan(values)
        p[name] = rank_test(values[kept].tolist(), members[kept].tolist())
    tested = [v for name, v in p.items() if name != "rank" and not math.isnan(v)]
    return {**found, "rank_p": min(holm(tested), default=math.nan), "tarp_p": p["rank"]}


def own_scores(data: xr.Dataset, problem: str) -> list[str]:
    """The problem's own scores that say something beside the columns for all problems.

    Left out are copies of these (``rmse``, ``coverage_90``), the gap to Bayes, which has its column, and what is the
    same for every method: scores of classical methods and of the exact answer (``rmse_kriging``).
    """
    part = data.sel(problem=problem)
    names = [str(n).removeprefix("own_") for n in part.data_vars if str(n).startswith("own_")]
    names = [n for n in names if bool(part[f"own_{n}"].notnull().any())]

    def same(name: str, other: str) -> bool:
        a, b = part[name].values, part[other].values
        both = ~(np.isnan(a) | np.isnan(b))
        return bool(both.any()) and np.allclose(a[both], b[both], rtol=1e-3)

    def constant(name: str) -> bool:
        spread = part[f"own_{name}"].max("sampler") - part[f"own_{name}"].min("sampler")
        return part.sizes["sampler"] > 1 and bool((spread.fillna(0) == 0).all())

    reference = {n for n in names if any(n.startswith(f"{o}_") for o in names if o != n) and constant(n)}
    return [n for n in names if n not in {"gap", *reference} and not any(same(f"own_{n}", s) for s in SCORES)]


def ranking(data: xr.Dataset) -> list[dict[str, Any]]:
    """Methods over all problems and cases: mean rank in CRPS, p-value against the first, cases answered."""
    methods = [str(s) for s in data["sampler"].values if str(s) != EXACT]
    part = data.sel(sampler=methods)
    blocks = torch.cat([_score(part, str(problem)) for problem in part["problem"].values])
    blocks = blocks[~blocks.isnan().all(1)]
    if not len(blocks):
        return []
    # CRPS has the units of each problem. The fair estimate of a few members may be zero or negative: no divisor.
    scaled = blocks / blocks.abs().nanmedian(1, keepdim=True).values
    place, p = mean_ranks(blocks), against_best(scaled)
    found = [
        {"sampler": m, "mean_rank": float(place[i]), "p": p[i], "cases": int((~blocks[:, i].isnan()).sum())}
        | _calibration(data.sel(sampler=m))
        for i, m in enumerate(methods)
    ]
    return sorted(found, key=lambda row: row["mean_rank"])


def to_csv(records: Iterable[Mapping[str, Any]]) -> str:
    """One line per cell, everything known about it."""
    flat = [
        {
            **{k: r.get(k, "") for k in ("problem", "sampler", "seed", "status", "reason", "settings", "observation")},
            **({"reason": far} if (far := diverged(r)) else {}),
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


def write(
    folder: Path, data: xr.Dataset, records: Sequence[Mapping[str, Any]], cells: Sequence[Path] | None = None
) -> None:
    """``results.nc``, ``results.csv``, ``table.md`` and the page with its pictures, each whole or not at all.

    Arguments:
        folder: Where they go.
        data: What `dataset` made of the records.
        records: Of all cells.
        cells: Their folders, in the same order; None leaves out the page.
    """
    from scidiff.benchmark.markdown import table
    from scidiff.fields import atomic, write_dataset

    write_dataset(data, folder / "results.nc")
    texts = {"results.csv": to_csv(records), "table.md": table(data)}
    if cells is not None:
        from scidiff.benchmark.page import page

        texts["index.html"] = page(folder, data, records, cells)
    for name, text in texts.items():
        with atomic(folder / name) as path:
            path.write_text(text, encoding="utf-8")
