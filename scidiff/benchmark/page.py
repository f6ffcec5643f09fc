"""The benchmark as a static page: sortable tables, calibration curves, pictures of every cell."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scidiff.benchmark.markdown import SAID, overview, versus
from scidiff.benchmark.results import own_scores, ranking, rows, stated
from scidiff.benchmark.statistics import FEWEST_RANKS

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["page"]

COLUMNS = {
    "sampler": "sampler",
    "mean_rank": "mean rank",
    "crps": "CRPS",
    "difference": "CRPS - best",
    "low": "low",
    "high": "high",
    "spread_skill": "spread/skill",
    "coverage": "coverage",
    "ranks": "ranks",
    "rank_p": "rank p",
    "tarp_p": "TARP p",
    "relative_l2": "rel. L2",
    "psnr": "PSNR",
    "own_gap": "gap to Bayes",
    "chi2": "chi2",
    "denoiser": "denoiser",
    "denoiser_vjp": "vjp",
    "operator": "operator",
    "operator_vjp": "op. vjp",
    "seconds": "seconds",
    "peak_memory_bytes": "bytes",
    "failed": "failed",
    "diverged": "diverged",
    "settings": "settings",
}

HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>scidiff benchmark</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; display: block; overflow-x: auto; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
th { cursor: pointer; background: #f4f4f4; }
th[aria-sort=ascending]::after { content: " \\2191"; } th[aria-sort=descending]::after { content: " \\2193"; }
figure { display: inline-block; margin: .5rem 0; max-width: 100%; }
figcaption { font-size: .85em; } img { max-width: 100%; }
.why { color: #777; font-size: .9em; }
</style></head><body>
"""

SORT = """<script>
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach(h => h.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const order = (a, b) => {
      const x = parseFloat(value(a)), y = parseFloat(value(b));
      if (isNaN(x) && isNaN(y)) return value(a).localeCompare(value(b)) * (up ? 1 : -1);
      if (isNaN(x)) return 1;
      if (isNaN(y)) return -1;
      return up ? x - y : y - x;
    };
    [...body.rows].sort(order).forEach(row => body.append(row));
  }));
}
</script></body></html>
"""


def page(folder: Path, data: xr.Dataset, records: Sequence[Mapping[str, Any]], cells: Sequence[Path]) -> str:
    """The page; its pictures are written into ``folder / "pictures"``."""
    pictures = folder / "pictures"
    pictures.mkdir(exist_ok=True)
    parts = [HEAD, "<h1>Samplers on problems</h1>"]
    parts.append("<p>" + "; ".join(f"{k}: {html.escape(v)}" for k, v in stated(data).items()) + "</p>")
    names, lines = overview(data)
    shown = [dict(zip(names, line, strict=True)) for line in lines]
    parts += ["<h2>Overview</h2>", f"<p>{SAID}</p>", _table({name: name for name in names}, shown)]
    order = ranking(data)
    if order:
        heads = {"sampler": "sampler", "mean_rank": "mean rank", "p": "p against the first", "cases": "cases"}
        heads |= {"ranks": "ranks", "rank_p": "rank p", "tarp_p": "TARP p"}
        parts += ["<h2>All problems</h2>", _table(heads, order)]
    for number, problem in enumerate(map(str, data["problem"].values)):
        found = rows(data, problem)
        answered = [row for row in found if row["cases"]]
        heads = {k: v for k, v in COLUMNS.items() if any(_known(row.get(k)) for row in answered)}
        parts += [f"<h2>{html.escape(problem)}</h2>", _table(heads, answered)]
        if "tarp_p" not in heads:
            parts.append(f'<p class="why">Tests of ranks need {FEWEST_RANKS} cases of a method.</p>')
        own = own_scores(data, problem)
        if own and answered:
            said = "The problem's own scores; in brackets the difference to the best in CRPS with its 95 % interval."
            heads = {"sampler": "sampler", **{f"own_{name}": name for name in own}}
            parts += [f"<p>{said}</p>", _table(heads, answered, {f"own_{name}": name for name in own})]
        why = [f"{row['sampler']}: {row['reason']}" for row in found if row["reason"]]
        parts += [f'<p class="why">{html.escape(line)}</p>' for line in why]
        curve = _curves(data, problem, pictures / f"calibration-{number}.png")
        if curve is not None:
            parts.append(_figure(curve, folder, "Ranks of the truth, cumulative; the diagonal is calibrated."))
        drawn = _drawn(problem, records, cells, pictures)
        for place, (seed, shown) in enumerate(drawn.items()):
            figures = [_figure(path, folder, words) for words, path in shown]
            open_ = ["<details><summary>", f"case {seed}", "</summary>"] if place else []
            parts += [*open_, *figures, *(["</details>"] if place else [])]
    if "tried" in data.attrs:
        tried = json.dumps(json.loads(data.attrs["tried"]), indent=1)
        parts.append(f"<details><summary>Settings that were tried</summary><pre>{html.escape(tried)}</pre></details>")
    return "\n".join([*parts, SORT])


def _drawn(
    problem: str, records: Sequence[Mapping[str, Any]], cells: Sequence[Path], pictures: Path
) -> dict[int, list[tuple[str, Path]]]:
    """Pictures of the cells of a problem with their captions, by case."""
    found: dict[int, list[tuple[str, Path]]] = {}
    for record, cell in zip(records, cells, strict=False):
        source, path = cell / "fields.npz", pictures / f"{cell.name}.png"
        if record["problem"] == problem and source.is_file():
            held = path.is_file() and path.stat().st_mtime >= source.stat().st_mtime
            made = path if held else _picture(source, path)
            if made is not None:
                found.setdefault(record["seed"], []).append((str(record["sampler"]), made))
    return found


def _known(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def _table(
    heads: Mapping[str, str], found: Sequence[Mapping[str, Any]], compared: Mapping[str, str] | None = None
) -> str:
    """A table that can be sorted; scores in ``compared`` stand beside their difference to the best method."""
    lines = ["<table><thead><tr>", *(f"<th>{html.escape(h)}</th>" for h in heads.values()), "</tr></thead><tbody>"]
    for row in found:
        cells = []
        for name in heads:
            value = row.get(name)
            if isinstance(value, str):
                cells.append(f"<td>{html.escape(value)}</td>")
            elif compared and name in compared and _known(value):
                cells.append(f'<td data-value="{value!r}">{html.escape(versus(row, compared[name]))}</td>')
            elif _known(value):
                cells.append(f'<td data-value="{value!r}">{value:.4g}</td>')
            else:
                cells.append("<td>-</td>")
        lines.append("<tr>" + "".join(cells) + "</tr>")
    return "\n".join([*lines, "</tbody></table>"])


def _figure(path: Path, folder: Path, caption: str) -> str:
    where, words = html.escape(path.relative_to(folder).as_posix()), html.escape(caption)
    return f'<figure><img src="{where}" alt="{words}" loading="lazy"><figcaption>{words}</figcaption></figure>'


def _curves(data: xr.Dataset, problem: str, path: Path) -> Path | None:
    """Cumulative ranks of the truth among the members, by method."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    part = data["rank_histogram"].sel(problem=problem).mean("seed", skipna=True)
    part = part.dropna("sampler", how="any")
    if not part.sizes["sampler"]:
        return None
    figure = Figure(figsize=(5.5, 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    grid = np.linspace(0, 1, part.sizes["tenth"] + 1)
    for i, sampler in enumerate(part["sampler"].values):
        share = np.concatenate([[0.0], np.cumsum(part.sel(sampler=sampler).values)])
        axis.plot(grid, share - grid, label=str(sampler), lw=1.2, ls=("-", "--", ":")[i // 10 % 3])
    axis.axhline(0, color="black", lw=0.8)
    axis.set(xlabel="rank of the truth among the members", ylabel="share below - calibrated", xlim=(0, 1))
    figure.legend(loc="outside right upper", fontsize=7, frameon=False)
    figure.savefig(path, format="png")
    return path


def _picture(source: Path, path: Path) -> Path | None:
    """Truth, mean, spread and one member side by side; lines for fields of one dimension."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with np.load(source, allow_pickle=False) as held:
        flat = {name: _flat(held[name]) for name in ("truth", "mean", "spread", "member") if name in held}
    fields = {name: values for name, values in flat.items() if values is not None}
    if len(fields) < len(flat):
        return None
    figure = Figure(figsize=(1.8 * len(fields), 2.0), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    shown = fields.get("truth", fields["mean"])
    low, high = float(np.min(shown)), float(np.max(shown))
    for axis, (name, values) in zip(figure.subplots(1, len(fields), squeeze=False)[0], fields.items(), strict=True):
        if values.ndim == 1:
            axis.plot(values, lw=1)
        elif name == "spread":
            axis.imshow(values, cmap="magma", vmin=0)
        else:
            axis.imshow(values, cmap="viridis", vmin=low, vmax=high)
        axis.set_title(name, fontsize=8)
        axis.tick_params(labelbottom=False, labelleft=False, length=0)
    figure.savefig(path, format="png")
    return path


def _flat(values: np.ndarray) -> np.ndarray | None:
    """The first channel as an image or a line; the modulus of complex fields."""
    values = np.abs(values) if np.iscomplexobj(values) else values
    while values.ndim > 2:
        values = values[0]
    return np.squeeze(values) if values.size > 1 and np.squeeze(values).ndim in (1, 2) else None
