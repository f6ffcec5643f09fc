r"""A certificate as a table, a dataset and a picture.

Numbers are means over seeds. An interval is 1.96 standard errors, the larger of two estimates: the jackknife over
members, averaged over seeds; and the scatter between seeds, where there are at least three. The first takes members as
independent, which those of a population are not; the second also holds what differs between the problems' draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from scidiff.benchmark.catalogue import PROBLEMS
from scidiff.benchmark.certify import EXACT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["dataset", "figure", "summary", "table"]

SCORES = ("mean_error", "trace_ratio", "coverage", "gap", "distance", "floor")
COSTS = ("denoiser", "denoiser_vjp", "operator", "operator_vjp")
LONG = {
    "mean_error": "root mean square error of the ensemble mean in exact standard deviations",
    "trace_ratio": "total variance of the ensemble over the exact one",
    "coverage": "fraction inside the exact central 90 % interval",
    "gap": "expected error of the ensemble mean over that of the exact mean",
    "distance": "distance to the exact posterior, see the problem",
    "floor": "the same distance for exact draws",
    "denoiser": "denoiser calls per member",
    "denoiser_vjp": "vector-Jacobian products of the denoiser per member",
    "operator": "operator calls per member",
    "operator_vjp": "vector-Jacobian products of the operator per member",
    "seconds": "wall time of all members",
}
DISTANCE = {"blur": "rel. W2", "modes": "sliced W1", "poisson": "rel. L2", "helmholtz": "rel. L2"}


def distance_of(problem: str) -> str:
    """What the column ``distance`` holds for a problem; empty for nothing."""
    if problem.startswith(("inpainting", "blurred")):
        return ""
    return next((text for name, text in DISTANCE.items() if problem.startswith(name)), "sliced W1")


def summary(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per problem and sampler: means over seeds with intervals, cost, or the reason why there are none."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault((record["problem"], record["sampler"]), []).append(record)
    rows = []
    for (problem, sampler), group in groups.items():
        done = [r for r in group if r["status"] == "done"]
        bad = [r for r in group if r["status"] != "done"]
        row = {
            "problem": problem,
            "sampler": sampler,
            "settings": group[0]["settings"],
            "members": group[0]["members"],
            "seeds": len(done),
            "status": bad[0]["status"] if bad else "done",
            "reason": bad[0]["reason"] if bad else "",
        }
        for name in SCORES if done else ():
            row[name], row[f"{name}_interval"] = _mean([r["scores"][name] for r in done])
        for name in COSTS if done else ():
            row[name] = max(r["cost"][name] for r in done)
        if done:
            row["seconds"] = sum(r["seconds"] for r in done) / len(done)
        rows.append(row)
    return rows


def _mean(pairs: Sequence[Sequence[float | None]]) -> tuple[float | None, float | None]:
    values = [v for v, _ in pairs if v is not None]
    errors = [e for _, e in pairs if e is not None]
    if not values:
        return None, None
    n, estimates = len(values), []
    if len(errors) == n:
        estimates.append(math.sqrt(sum(e**2 for e in errors)) / n)
    if n > 2:
        estimates.append(float(np.std(values, ddof=1)) / math.sqrt(n))
    return sum(values) / n, 1.96 * max(estimates) if estimates else None


def table(rows: Sequence[dict[str, Any]], attributes: dict[str, str] | None = None) -> str:
    """The certificate in Markdown: one table per problem, the cells that were skipped at the end."""
    lines = [f"{name}: `{value}`  " for name, value in (attributes or {}).items()]
    skipped: dict[str, list[str]] = {}
    for problem in dict.fromkeys(row["problem"] for row in rows):
        distance = distance_of(problem)
        heads = ["sampler", "members", "runs", "mean error", "trace ratio", "coverage", "gap to Bayes"]
        heads += [distance, "floor"] * bool(distance) + ["denoiser", "vjp", "operator", "op. vjp", "seconds"]
        lines += [
            "",
            f"### {problem}",
            "",
            f"{PROBLEMS[problem].summary[0].upper()}{PROBLEMS[problem].summary[1:]}.",
            "",
        ]
        lines += [f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}"]
        for row in (row for row in rows if row["problem"] == problem):
            if row["status"] != "done":
                reason = " ".join(row["reason"].split()).partition(" Samplers that")[0]
                reason = f"{row['sampler']}, {row['status']}: {reason}"
                skipped.setdefault(reason, []).append(problem)
            if row["seeds"]:
                lines.append(f"| {' | '.join(_cells(row, bool(distance)))} |")
    if skipped:
        lines += ["", "### Skipped and failed", ""]
        lines += [f"- {reason} ({', '.join(problems)})" for reason, problems in skipped.items()]
    return "\n".join(lines).strip() + "\n"


def _cells(row: dict[str, Any], distance: bool) -> list[str]:
    name = row["sampler"].partition(":")[0] + (f" ({row['settings']})" if row["settings"] else "")
    cells = [name, f"{row['members']}", f"{row['seeds']}"]
    for score in ("mean_error", "trace_ratio", "coverage", "gap", *(("distance", "floor") if distance else ())):
        value, interval = row[score], row[f"{score}_interval"]
        shown = interval if score != "floor" else None
        cells.append(" ± ".join(["-" if value is None else _short(value), *([] if shown is None else [_short(shown)])]))
    if row["sampler"] == EXACT:
        return cells + ["-"] * 5
    return [*cells, *(f"{row[cost]}" for cost in COSTS), f"{row['seconds']:.1f}"]


def dataset(records: Sequence[dict[str, Any]], attributes: dict[str, str] | None = None) -> xr.Dataset:
    """All cells: numbers with dimensions (problem, sampler, seed), and their standard errors as ``*_error``."""
    axes = {name: list(dict.fromkeys(r[name] for r in records)) for name in ("problem", "sampler", "seed")}
    shape = tuple(len(axis) for axis in axes.values())
    place = {name: {value: i for i, value in enumerate(axis)} for name, axis in axes.items()}
    numbers = {name: np.full(shape, np.nan) for name in (*SCORES, *COSTS, "members", "seconds")}
    numbers |= {f"{name}_error": np.full(shape, np.nan) for name in SCORES if name != "floor"}
    words = {name: np.full(shape, "", dtype=object) for name in ("status", "reason", "settings")}
    for r in records:
        at = tuple(place[name][r[name]] for name in axes)
        for name, array in words.items():
            array[at] = r[name]
        numbers["members"][at] = r["members"]
        for name, (value, error) in r.get("scores", {}).items():
            numbers[name][at] = np.nan if value is None else value
            if f"{name}_error" in numbers:
                numbers[f"{name}_error"][at] = np.nan if error is None else error
        for name, calls in r.get("cost", {}).items():
            numbers[name][at] = calls
        numbers["seconds"][at] = r.get("seconds", np.nan)
    units = {"seconds": "s"}
    variables: dict[str, Any] = {
        name: (tuple(axes), array, {"units": units.get(name, "1"), "long_name": LONG.get(name, name.replace("_", " "))})
        for name, array in numbers.items()
    }
    variables |= {name: (tuple(axes), array.astype(str)) for name, array in words.items()}
    return xr.Dataset(
        variables, coords=axes, attrs={"title": "samplers against exact posteriors", **(attributes or {})}
    )


def figure(rows: Sequence[dict[str, Any]]) -> Figure:
    """Trace ratio against mean error, a panel for each problem; exact draws are the cross, the aim."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    problems = list(dict.fromkeys(row["problem"] for row in rows))
    samplers = [name for name in dict.fromkeys(row["sampler"] for row in rows) if name != EXACT]
    columns = min(4, len(problems))
    count = -(-len(problems) // columns)
    drawing = Figure(figsize=(3.4 * columns + 1.6, 3.0 * count + 0.4), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(drawing)
    axes = drawing.subplots(count, columns, squeeze=False).ravel()
    colours = ["#3b6ea5", "#c0392b", "#2e8b57", "#d68910", "#7d3c98", "#17a2b8", "#8d6e63", "#546e7a"]
    style = {name: (colours[i % 8], "osD^vP*X"[(i // 8 + i) % 8]) for i, name in enumerate(samplers)}
    for ax, problem in zip(axes, problems, strict=False):
        for row in rows:
            if row["problem"] != problem or not row["seeds"] or not row["trace_ratio"]:
                continue
            if row["sampler"] == EXACT:
                ax.axvline(row["mean_error"], color="#999999", lw=0.8)
                continue
            colour, marker = style[row["sampler"]]
            x, y = max(row["mean_error"], 1e-3), max(row["trace_ratio"], 1e-3)
            xe, ye = (min(row[f"{n}_interval"] or 0, 0.9 * v) for n, v in (("mean_error", x), ("trace_ratio", y)))
            ax.errorbar(x, y, yerr=ye, xerr=xe, color=colour, marker=marker, ms=5, lw=0.8, alpha=0.9)
        ax.axhline(1.0, color="#999999", lw=0.8)
        ax.set(xscale="log", yscale="log", title=problem)
        ax.title.set_fontsize(9)
        ax.tick_params(labelsize=7)
        # The least that every panel spans, so that chance does not fill it.
        (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
        ax.set(xlim=(min(left, 0.02), max(right, 2)), ylim=(min(low, 0.4), max(high, 2.5)))
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
    for ax in axes[len(problems) :]:
        ax.set_visible(False)
    drawing.supxlabel("mean error (exact standard deviations); the line is that of exact draws", fontsize=9)
    drawing.supylabel("trace ratio; the line is exact", fontsize=9)
    handles = [Line2D([], [], color=c, marker=m, ls="", label=name) for name, (c, m) in style.items()]
    drawing.legend(handles=handles, loc="outside right upper", fontsize=7, frameon=False, ncols=1 + len(handles) // 16)
    return drawing


def _short(number: float) -> str:
    """Three decimals; of a method that diverged, its order of magnitude."""
    return f"{number:.3f}" if abs(number) < 1000 else f"{number:.1e}"
