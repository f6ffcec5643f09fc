"""Names of scores, and scores as a Dataset and as a Markdown table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from torch import Generator, Tensor

from scidiff.forecast.grid import Grid
from scidiff.metrics import (
    ACC,
    CRPS,
    RMSE,
    Accumulator,
    Bias,
    Brier,
    Energy,
    Metric,
    Ranks,
    Reliability,
    Spectrum,
    Spread,
    SpreadSkill,
    block_bootstrap,
    power_spectrum,
)

if TYPE_CHECKING:
    from scidiff.forecast.scorer import Scorer

__all__ = ["METRICS", "choose", "markdown", "score_table"]

METRICS = (
    "crps",
    "rmse",
    "bias",
    "spread",
    "spread_skill",
    "acc",
    "energy",
    "ranks",
    "spectrum",
    "brier",
    "reliability",
)
WORDS = {
    "crps": "continuous ranked probability score",
    "rmse": "root mean square error of the ensemble mean",
    "bias": "mean error of the ensemble mean",
    "spread": "spread of the members",
    "spread_skill": "predicted over actual error of the ensemble mean",
    "acc": "anomaly correlation of the ensemble mean",
    "energy": "energy score",
    "brier": "Brier score",
    "ranks": "share of the truth by rank among the members",
    "spectrum": "isotropic power spectrum",
    "reliability": "reliability of event probabilities",
}


def choose(
    metrics: Sequence[str], thresholds: Sequence[float], fair: float, grid: Grid, seed: int, members: int
) -> tuple[dict[str, Metric], dict[str, Metric]]:
    """Metrics by label, those that are numbers and those that are arrays; what one member cannot have is left out."""
    scalars: dict[str, Metric] = {}
    arrays: dict[str, Metric] = {}
    simple = {"rmse": RMSE(), "bias": Bias(), "spread": Spread(), "spread_skill": SpreadSkill(), "acc": ACC()}
    simple |= {"crps": CRPS(fair), "energy": Energy()}
    for name in metrics:
        if name in simple:
            if simple[name].least <= members:
                scalars[name] = simple[name]
        elif name == "ranks":
            arrays[name] = Ranks(seed)
        elif name == "spectrum":
            arrays[name] = Spectrum(_spacing(grid), "hann")
        for threshold in thresholds if name in ("brier", "reliability") else ():
            label = f"{name}_{threshold:g}"
            if name == "brier":
                scalars[label] = Brier(threshold, bool(fair))
            else:
                arrays[label] = Reliability(threshold)
    return scalars, arrays


def _spacing(grid: Grid) -> tuple[float, float]:
    """Grid spacing of the last two dimensions; 1 where they are not equally spaced."""
    if len(grid.dims) < 2:
        raise ValueError(f"the spectrum needs a field of two dimensions, the grid has {grid.dims}.")
    found = []
    for values in grid.values[-2:]:
        steps = np.abs(np.diff(np.asarray(values, np.float64)))
        found.append(float(steps[0]) if len(steps) and np.allclose(steps, steps[0], rtol=1e-3) else 1.0)
    return found[0], found[1]


def _wavenumbers(grid: Grid) -> np.ndarray:
    return power_spectrum(torch.zeros(grid.shape[-2:]), _spacing(grid))[0].numpy()


def score_table(scorer: Scorer, level: float, block: int | None, seed: int) -> xr.Dataset:
    """Scores and intervals as variables."""
    leads = range(len(scorer.leads)) if "lead_time" in scorer.by else range(1)
    levels = range(len(scorer.variable.channels))
    axes = (("lead_time",) if scorer.by else ()) + ((scorer.variable.level,) if scorer.variable.level else ())
    coords: dict[Any, Any] = {"lead_time": scorer.leads} if scorer.by else {}
    if scorer.variable.level:
        coords[scorer.variable.level] = list(scorer.variable.levels)
    units = scorer.variable.attrs.get("units")
    found: dict[str, Any] = {}

    def put(suffix: str, cell: Any, inner: tuple[str, ...] = (), attrs: Any = None) -> None:
        grid = [[cell((lead, k)) for k in levels] for lead in leads]
        blank = next((np.asarray(v) for row in grid for v in row if v is not None), np.asarray(np.nan))
        values = np.array([[np.full(blank.shape, np.nan) if v is None else v for v in row] for row in grid])
        values = values if scorer.variable.level else values[:, 0]
        values = values if scorer.by else values[0]
        found[f"{scorer.variable.name}_{suffix}"] = ((*axes, *inner), values, attrs or {})

    for label, metric in scorer.scalars.items():
        known = {} if metric.name in ("spread_skill", "acc", "brier") or not units else {"units": units}
        put(label, lambda key, m=metric: _value(scorer.model, key, m), attrs={**known, **_about(label)})
        ends = {key: _interval(scorer.model[key][0], metric, level, block, seed) for key in scorer.model}
        for side, end in enumerate(("low", "high")):
            put(f"{label}_{end}", lambda key, s=side, e=ends: e[key][s] if key in e else None, attrs=known)
        if scorer.rival and metric in next(iter(scorer.rival.values())).metrics:
            put(f"{label}_baseline", lambda key, m=metric: _value(scorer.rival, key, m), attrs=known)
            if metric.name in ("crps", "rmse", "energy", "brier"):
                skill = {
                    key: _skill(scorer.model[key][0], scorer.rival[key], metric, level, block, seed)
                    for key in scorer.model
                }
                for at, end in enumerate(("", "_low", "_high")):
                    put(f"{label}_skill{end}", lambda key, a=at, s=skill: s[key][a] if key in s else None)
    inner = {"ranks": ("rank",), "spectrum": ("spectrum_of", "wavenumber")}
    for label, metric in scorer.arrays.items():
        put(label, lambda key, m=metric: _value(scorer.model, key, m, 1), inner.get(label, ("reliability_row", "bin")))
    if "spectrum" in scorer.arrays:
        coords["spectrum_of"] = ["members", "truth"]
        coords["wavenumber"] = _wavenumbers(scorer.grid)
    if any(label.startswith("reliability") for label in scorer.arrays):
        coords["reliability_row"] = ["weight", "probability", "frequency"]
    put("cases", lambda key: float(scorer.model[key][0].cases) if key in scorer.model else 0.0)
    return xr.Dataset(found, coords)


def _value(where: Any, key: tuple[int, int], metric: Metric, which: int = 0) -> np.ndarray | None:
    if key not in where:
        return None
    accumulator = where[key][which] if isinstance(where[key], tuple) else where[key]
    return accumulator.value(metric).numpy()


def _block(cases: int, block: int | None) -> int:
    return min(cases, block or max(1, round(cases ** (1 / 3))))


def _interval(ours: Accumulator, metric: Metric, level: float, block: int | None, seed: int) -> tuple[float, float]:
    if ours.cases < 2:
        return math.nan, math.nan
    generator = Generator().manual_seed(seed)
    low, high = block_bootstrap(
        ours.series(metric), _block(ours.cases, block), metric.value, level, generator=generator
    )
    return float(low), float(high)


def _skill(
    ours: Accumulator, theirs: Accumulator, metric: Metric, level: float, block: int | None, seed: int
) -> tuple[float, float, float]:
    """One minus the ratio of two scores, and its interval: both forecasts are resampled together."""
    value = 1 - float(ours.value(metric) / theirs.value(metric))
    if ours.cases < 2:
        return value, math.nan, math.nan
    pair = {f"a_{n}": v for n, v in ours.series(metric).items()}
    pair |= {f"b_{n}": v for n, v in theirs.series(metric).items()}

    def ratio(means: dict[str, Tensor]) -> Tensor:
        a, b = ({n[2:]: v for n, v in means.items() if n.startswith(p)} for p in ("a_", "b_"))
        return 1 - metric.value(a) / metric.value(b)

    generator = Generator().manual_seed(seed)
    low, high = block_bootstrap(pair, _block(ours.cases, block), ratio, level, generator=generator)
    return value, float(low), float(high)


def markdown(scores: xr.Dataset) -> str:
    """The scores that are numbers as Markdown, a line for every lead (and level), intervals in brackets."""
    names = [str(n) for n in scores.data_vars if not str(n).endswith(("_low", "_high"))]
    names = [n for n in names if set(scores[n].dims) <= set(_axes(scores))]
    axes = _axes(scores)
    lines = ["| " + " | ".join([*axes, *names]) + " |", "|" + "---|" * (len(axes) + len(names))]
    for place in np.ndindex(*(scores.sizes[a] for a in axes)):
        at = dict(zip(axes, place, strict=True))
        cells = [_label(scores[a].values[i]) for a, i in at.items()]
        for name in names:
            here = {a: i for a, i in at.items() if a in scores[name].dims}
            text = f"{float(scores[name].isel(here)):.4g}"
            if f"{name}_low" in scores:
                low, high = (float(scores[f"{name}_{end}"].isel(here)) for end in ("low", "high"))
                text += f" [{low:.4g}, {high:.4g}]" if math.isfinite(low) else ""
            cells.append(text)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _axes(scores: xr.Dataset) -> list[str]:
    arrays = {"rank", "spectrum_of", "wavenumber", "reliability_row", "bin"}
    return [str(d) for d in scores.dims if d not in arrays]


def _label(value: Any) -> str:
    if isinstance(value, np.timedelta64):
        hours = value / np.timedelta64(1, "h")
        return f"{hours / 24:g} d" if hours % 24 == 0 else f"{hours:g} h" if hours >= 1 else f"{hours * 60:g} min"
    return f"{value:g}" if isinstance(value, (int, float, np.number)) else str(value)


def _about(label: str) -> dict[str, str]:
    name = label if label in WORDS else label.rpartition("_")[0]
    return {"long_name": WORDS[name]}
