"""Forecasters on test years and test trajectories: how good, how honest about it, how fast?

    python benchmarks/forecasters.py CASE [CASE ...] [--data DATA] [--forecasters damped,lim] [--model NAME=PATH ...]
                                     [--members 50] [--limit 0] [--part test] [--against damped] [--batch 16]
                                     [--threads 1] [--out runs/forecasters]

Cases: advection-16, advection-32 (exact law known), spring-mesh, spring-mesh-long, kolmogorov, lorenz96, obstacles,
and, with --data the folder of real series: slp, t2m, sst, kaplan, radar. A trained forecaster is added with --model;
its file tells whether it wants the series itself or departures from the season. Longer leads than a forecaster's
horizon feed its last states back. Masses of the spring mesh that are pinned stay where they are, for every forecaster.

Forecasts start at times of the test part, the same for all; member m of case b has its own random stream. With --part
validation they start in the validation part: that is where settings are chosen. Every cell (case, forecaster) is
written to --out when it is done, and read from there the next time: delete the file to run it again. Numbers of
patterns and of analogues are chosen on the validation part, by CRPS at the middle lead.

CRPS is fair, averaged over area and cases, in the units of the variable (for several variables that do not share their
units: in standard deviations of each). "x floor" is the mean CRPS divided by that of the exact law on the same cases.
Coverage is that of the central 90 % interval (Student's t). The difference to damped persistence, or to --against, is
that of the mean CRPS, with the 95 % interval of 2000 block bootstrap samples of cases: trajectories, or blocks of
successive initial times.
"""

import argparse
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scidiff import forecast
from scidiff.datasets import part_of, trajectories, with_season
from scidiff.datasets.stochastic_transport import law_of
from scidiff.fields import write_json
from scidiff.forecast import StateSpec
from scidiff.metrics import block_bootstrap, crps, inside_interval
from scidiff.rng import Streams


@dataclass
class Case:
    """A data set, and which forecasts of it are scored."""

    name: str
    variables: tuple[str, ...]
    horizon: int
    leads: tuple[int, ...]
    step: str
    """What a lead counts."""
    options: dict[str, Any] = field(default_factory=dict)
    file: str | None = None
    first: int = 3
    """Index of the first initial time: what lies before is room for forecasters' past."""
    every: int = 1
    """Steps between two initial times."""
    block: int = 1
    """Successive cases that the bootstrap keeps together; trajectories are kept together anyway."""
    forecasters: tuple[str, ...] = ("persistence", "damped", "climatology", "analogues", "lim")
    patterns: tuple[int | float, ...] = (10, 20, 40, 80)


SERIES = {"slp": "ncep_slp_natl_daily_2001_2008", "t2m": "ncep_t2m_precip_daily_10x12"}
SERIES |= {"sst": "sst_anom_pacific_monthly_1970_2003", "radar": "radar_knmi_20100826_5min"}
SERIES["kaplan"] = "kaplan_sst_anom_pacific_monthly_1856_1982"
ADVECTION = {"variables": ("tracer",), "horizon": 8, "leads": (1, 2, 4, 8), "step": "step", "every": 8}
MESH = ("q_x", "q_y", "p_x", "p_y")
EXACT = ("exact", "persistence", "damped", "climatology", "analogues", "lim")
RAIN = ("persistence", "damped", "climatology", "analogues", "lim", "flow", "flow-still")
CASES = {
    "advection-16": Case("stochastic-transport", **ADVECTION, forecasters=EXACT, patterns=(20, 80, 256)),
    "advection-32": Case(
        "stochastic-transport", **ADVECTION, options={"grid": (32, 32)}, forecasters=EXACT, patterns=(500, 1024)
    ),
    "spring-mesh": Case("spring-mesh", MESH, 134, (1, 34, 67, 134), "0.00781", first=0, every=134),
    "spring-mesh-long": Case(
        "spring-mesh", MESH, 804, (1, 134, 402, 804), "0.00781", first=0, forecasters=("persistence", "climatology")
    ),
    "kolmogorov": Case("kolmogorov", ("vorticity",), 8, (1, 2, 4, 8), "0.25", every=8, patterns=(20, 40, 80)),
    "lorenz96": Case("lorenz96", ("x",), 20, (1, 4, 10, 20), "0.05", every=10, patterns=(10, 20, 40)),
    "obstacles": Case(
        "obstacles", ("velocity_x", "velocity_y", "pressure"), 16, (1, 4, 8, 16), "0.08", first=16, every=16,
        options={"rows": 16, "train": 24}, patterns=(10, 20, 40),
    ),
    "slp": Case("slp", ("slp",), 5, (1, 2, 3, 4, 5), "day", file=SERIES["slp"], every=2, block=5),
    "t2m": Case("t2m", ("t",), 5, (1, 2, 3, 4, 5), "day", file=SERIES["t2m"], every=2, block=5),
    "sst": Case("sst", ("sst_anom",), 7, (3, 4, 5, 6, 7), "month", file=SERIES["sst"], block=12, patterns=(5, 10, 20)),
    "kaplan": Case(
        "series", ("sst_anom",), 7, (3, 4, 5, 6, 7), "month", file=SERIES["kaplan"], block=12, patterns=(5, 10, 20, 40),
        options={"validation": ("1951", "1960"), "test": ("1961", "1982"), "departures": True, "season": True},
    ),
    "radar": Case(
        "radar", ("log_rain",), 12, (1, 3, 6, 9, 12), "5 min", file=SERIES["radar"], block=5,
        forecasters=RAIN, patterns=(3, 6, 12), options={"coarsen": 4},
    ),
}  # fmt: skip
SEASON = ("annual_cos", "annual_sin")
LEVEL, SAMPLES, ROOT = 0.9, 2000, 7


class Data:
    """The parts of a case, as departures from the season where there is one."""

    def __init__(self, case: Case, folder: Path | None) -> None:
        options = dict(case.options)
        if case.file:
            if folder is None:
                raise SystemExit(f"{case.name} needs --data, the folder that holds {case.file}.npz")
            options["file"] = folder / f"{case.file}.npz"
        self.case, self.whole = case, trajectories(case.name, **options)
        self.raw = self.whole
        if case.file and case.name in ("slp", "t2m"):
            self.raw = trajectories(case.name, departures=False, **options)
        train = part_of(self.whole, "train")
        forcing = [n for n in SEASON if n in self.whole]
        self.spec = StateSpec.fit(train, case.variables, forcing, mask="missing")
        weight = self.spec.area.expand(self.spec.shape).clone()
        if self.spec.mask is not None:
            weight = weight * self.spec.mask
        self.weight = weight / weight.sum()
        one = len(set(self.spec.units.values())) == 1
        self.scale = self.spec.scale if one else torch.ones_like(self.spec.scale)
        self.units = self.spec.units[case.variables[0]] if one else "standard deviations"
        self.pinned = None if "fixed" not in self.whole else torch.from_numpy(self.whole["fixed"].values)

    def takes_raw(self, spec: StateSpec) -> bool:
        """Whether a trained forecaster wants the series itself: its mean tells."""
        name = self.case.variables[0]
        loc = float(spec.loc[0].mean())
        raw, departure = (float(part_of(d, "train")[name].mean()) for d in (self.raw, self.whole))
        return abs(loc - raw) < abs(loc - departure)

    def rows(self, part: str) -> list[tuple[int, int]]:
        """(trajectory, index of the initial time) in the part."""
        ds = part_of(self.whole, part)
        count, steps = ds.sizes.get("trajectory", 1), ds.sizes["time"]
        starts = range(self.case.first, steps - self.case.horizon, self.case.every)
        return [(k, t) for k in range(count) for t in starts]

    def tensors(self, part: str, spec: StateSpec, raw: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Normalised states (N, T, C, *grid) and forcings (N, T, K, *grid) of a part."""
        ds = part_of(self.raw if raw else self.whole, part)
        if set(spec.forcing) & set(SEASON):
            ds = with_season(ds)
        x = spec.to_tensor(ds)
        x = x.reshape(-1, *x.shape[-len(spec.shape) - 1 :])
        f = spec.forcing_tensor(ds) if spec.forcing_channels else None
        return x, None if f is None else f.expand(len(x), *f.shape[-len(spec.shape) - 1 :])


def rolled(
    model: Any,
    state: torch.Tensor,
    forcing: torch.Tensor | None,
    streams: Streams,
    horizon: int,
    pinned: torch.Tensor | None = None,
) -> torch.Tensor:
    """Forecast of ``horizon`` steps, window by window; where ``pinned``, the state stays what it is."""
    past, found = state, []
    still = state[:, -1]
    correct = None if pinned is None else lambda x, _: torch.where(pinned, still, x)
    for first in range(0, horizon, model.horizon):
        window = None
        if forcing is not None:
            window = forcing[:, first : first + model.window + model.horizon]
            if window.shape[1] < model.window + model.horizon:  # leads beyond the last one are not scored
                last = window[:, -1:]
                lacking = model.window + model.horizon - window.shape[1]
                window = torch.cat([window, last.expand(-1, lacking, *last.shape[2:])], 1)
        ahead = model.sample(past[:, -model.window :], window, generator=streams, correct=correct)
        found.append(ahead)
        past = torch.cat([past, ahead], 1)
    return torch.cat(found, 1)[:, :horizon]


def scores(data: Data, model: Any, part: str, members: int, batch: int, rows: list[tuple[int, int]]):
    """Means over the field by case and lead: crps, var, mse, inside, floor; seconds of sampling a case."""
    spec = getattr(model, "spec", None) or data.spec
    raw = spec is not data.spec and data.takes_raw(spec)
    own, forcing = data.tensors(part, spec, raw)
    truth = own if spec is data.spec else data.tensors(part, data.spec, False)[0]
    members, h, past = members if model.stochastic else 2, data.case.horizon, model.window
    law = law_of(data.whole) if data.whole.attrs.get("simulator") == "stochastic-transport" else None
    found: dict[str, list[torch.Tensor]] = {}
    seconds = 0.0
    weight, scale = data.weight.float(), data.scale.float()
    for first in range(0, len(rows), batch):
        chosen = rows[first : first + batch]
        k, t = (torch.tensor([r[i] for r in chosen]) for i in (0, 1))
        before, after = t[:, None] + torch.arange(1 - past, 1), t[:, None] + torch.arange(1, h + 1)
        y = truth[k[:, None], after]
        count = len(chosen)

        def repeated(x: torch.Tensor) -> torch.Tensor:
            return x.expand(members, *x.shape).flatten(0, 1)  # noqa: B023 - used at once

        state = repeated(own[k[:, None], before])
        around = None if forcing is None else repeated(forcing[k[:, None], torch.cat([before, after], 1)])
        # Row b of member m keeps its stream whatever the batch: cases are numbered through the whole part.
        streams = Streams(ROOT, range(members), count)
        each = [Streams(1000 * ROOT + first + b, range(members)).generators for b in range(count)]
        streams.generators = [each[b][m] for m in range(members) for b in range(count)]
        began = time.perf_counter()
        with torch.no_grad():
            x = rolled(model, state, around, streams, h, data.pinned)
        seconds += time.perf_counter() - began
        if spec is not data.spec:
            x = x * spec.scale.to(x) + spec.loc.to(x)
            if raw:
                x = x - repeated(_season(data, part, t, h)).to(x)
            x = data.spec.normalise(x)
        x = x.unflatten(0, (members, count))
        if not bool(x.isfinite().all()):
            raise SystemExit(f"a forecast of {data.case.name} is not finite")

        def mean(v: torch.Tensor) -> torch.Tensor:
            return (v * weight).flatten(2).sum(2)

        cell = {
            "crps": mean(crps(x, y) * scale),
            "var": mean(x.var(0) * scale.square()),
            "mse": mean((x.mean(0) - y).square() * scale.square()),
            "inside": mean(inside_interval(x, y, LEVEL)[..., 0].float()),
        }
        if law is not None:
            loc, size = data.spec.loc.float(), data.spec.scale.float()
            start, later = truth[k, t] * size + loc, y * size + loc
            cell["floor"] = torch.stack([mean(law.crps(start, later[:, j], j + 1)[:, None])[:, 0] for j in range(h)], 1)
        for name, value in cell.items():
            found.setdefault(name, []).append(value)
    return {name: torch.cat(v).double().numpy() for name, v in found.items()}, seconds / len(rows), members


def _season(data: Data, part: str, t: torch.Tensor, h: int) -> torch.Tensor:
    """Series minus departures at the leads: (cases, h, C, *grid)."""
    name = data.case.variables[0]
    cycle = torch.from_numpy((part_of(data.raw, part)[name] - part_of(data.whole, part)[name]).values)[:, None]
    return cycle[t[:, None] + torch.arange(1, h + 1)]


def fitted(kind: str, data: Data, arguments: argparse.Namespace) -> tuple[Any, str]:
    """A baseline, and what was chosen on the validation part."""
    case, spec, train = data.case, data.spec, part_of(data.whole, "train")
    h = case.horizon
    if kind == "exact":
        return forecast.ExactForecaster(law_of(data.whole), h, spec.loc.float(), spec.scale.float()), ""
    plain = {
        "persistence": forecast.Persistence,
        "damped": forecast.DampedPersistence,
        "climatology": forecast.Climatology,
    }
    if kind in plain:
        return plain[kind].fit(train, spec, h), ""
    if kind in ("flow", "flow-still"):
        return forecast.OpticalFlow.fit(train, spec, h, spread=kind == "flow"), ""
    options = {"lim": ("components", case.patterns), "analogues": ("near", (25, 100, 400))}
    maker = {"lim": forecast.LinearInverseModel, "analogues": forecast.Analogues}[kind]
    name, values = options[kind]
    rows, best = data.rows("validation"), None
    rows = rows[:: max(1, len(rows) // 24)]
    for value in values:
        try:
            model = maker.fit(train, spec, h, **{name: value})
        except ValueError:
            continue  # more patterns or analogues than the training data hold
        table = scores(data, model, "validation", 20, arguments.batch, rows)[0]
        score = float(table["crps"][:, (h - 1) // 2].mean())
        if best is None or score < best[0]:
            best = score, model, f"{name} {value}"
    if best is None:
        raise SystemExit(f"{kind}: the training data of {case.name} are too short for any of {values}")
    return best[1], best[2]


def cell(label: str, case: str, data: Data, arguments: argparse.Namespace, path: Path | None) -> dict[str, Any]:
    """The scores of one forecaster, from the file if there is one."""
    rows = data.rows(arguments.part)
    rows = rows[: arguments.limit] if arguments.limit else rows
    settings = {"case": case, "forecaster": label, "members": arguments.members, "rows": len(rows), "root": ROOT}
    if arguments.part != "test":
        settings["part"] = arguments.part
    if path is not None:
        model = forecast.load_forecaster(path)
        settings["sha256"] = model.card["sha256"]
    ending = "" if arguments.part == "test" else f".{arguments.part}"
    file = arguments.out / f"{case}.{label.replace('/', '-')}{ending}.json"
    if file.exists():
        kept = json.loads(file.read_text())
        if kept["settings"] == settings:
            return kept
    began = time.perf_counter()
    model, choice = (model, "") if path is not None else fitted(label, data, arguments)
    spent = time.perf_counter() - began
    table, seconds, members = scores(data, model, arguments.part, arguments.members, arguments.batch, rows)
    blocks = -(-data.case.horizon // model.horizon)
    kept = {
        "settings": settings,
        "choice": choice,
        "members": members,
        "fit_seconds": spent,
        "seconds": seconds,
        "network_calls": model.network_calls * blocks,
        **{name: value.tolist() for name, value in table.items()},
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_json(file, kept)
    return kept


def interval(difference: np.ndarray, group: np.ndarray | None, block: int) -> tuple[float, float]:
    """95 % interval of the mean of ``difference`` over cases, by resampling trajectories or blocks of cases."""
    if group is not None and len(np.unique(group)) > 1:
        difference, block = np.array([difference[group == g].mean() for g in np.unique(group)]), 1
    low, high = block_bootstrap(torch.from_numpy(difference), min(block, len(difference)), draws=SAMPLES)
    return float(low), float(high)


def printed(name: str, data: Data, cells: dict[str, dict[str, Any]], part: str, against: str) -> None:
    case, leads = data.case, [j - 1 for j in data.case.leads]
    group = np.array([k for k, _ in data.rows(part)])
    damped = np.array(cells[against]["crps"]) if against in cells else None
    floor = next((np.array(c["floor"]) for c in cells.values() if "floor" in c), None)
    some = next(iter(cells.values()))
    head = " | ".join(f"{j}" for j in case.leads)
    where = "" if part == "test" else f" of the {part} part"
    print(f"\n### {name}: {some['settings']['rows']} forecasts{where}, {some['settings']['members']} members\n")
    what = f"Fair CRPS in {data.units} at leads in steps ({case.step})"
    what += "; exact law " + ", ".join(f"{v:.4g}" for v in floor[:, leads].mean(0)) if floor is not None else ""
    print(f"{what}.\n\n| forecaster | {head} |")
    print("|---|" + "---|" * len(leads))
    for label, c in cells.items():
        score = np.array(c["crps"])
        shown = [f"{v:.4g}" for v in score[:, leads].mean(0)]
        if floor is not None:
            ratio = score[:, leads].mean(0) / floor[: len(score), leads].mean(0)
            shown = [f"{a} ({r:.3f} x floor)" for a, r in zip(shown, ratio, strict=True)]
        named = f"{label} ({c['choice']})" if c["choice"] else label
        print(f"| {named} | {' | '.join(shown)} |")
    if damped is not None and len(cells) > 1:
        print(f"\n| CRPS minus that of {against}, 95 % interval | {head} |\n|---|" + "---|" * len(leads))
        for label, c in cells.items():
            difference = np.array(c["crps"]) - damped
            several = group[: len(difference)] if "trajectory" in data.whole.dims else None
            shown = []
            for lead in leads:
                low, high = interval(difference[:, lead], several, case.block)
                shown.append(f"{difference[:, lead].mean():+.3g} [{low:+.3g}, {high:+.3g}]")
            if label != against:
                print(f"| {label} | {' | '.join(shown)} |")
    head = head.replace(" |", ",")
    print(f"\n| forecaster | spread/skill at {head} | RMSE | share in 90 % interval | s per case | network calls |")
    print("|---|---|---|---|---|---|")
    for label, c in cells.items():
        var, mse, inside = (np.array(c[k])[:, leads].mean(0) for k in ("var", "mse", "inside"))
        ratio = np.sqrt(var * (1 + 1 / c["members"]) / mse)
        parts = [" ".join(f"{v:.2f}" for v in ratio), " ".join(f"{v:.3g}" for v in np.sqrt(mse))]
        parts += [" ".join(f"{v:.2f}" for v in inside), f"{c['seconds']:.3f}", str(c["network_calls"])]
        print(f"| {label} | {' | '.join(parts)} |")
    if case.horizon > 100:
        print(f"\n| mean over {case.horizon} leads | CRPS | MSE | spread/skill |\n|---|---|---|---|")
        for label, c in cells.items():
            score, var, mse = (float(np.mean(c[k])) for k in ("crps", "var", "mse"))
            print(f"| {label} | {score:.4g} | {mse:.3g} | {(var * (1 + 1 / c['members']) / mse) ** 0.5:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", choices=list(CASES))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--forecasters", help="which baselines, with commas; default: all of the case")
    parser.add_argument("--model", action="append", default=[], metavar="NAME=PATH", help="a trained forecaster")
    parser.add_argument("--members", type=int, default=50)
    parser.add_argument("--limit", type=int, default=0, help="first so many forecasts only")
    parser.add_argument("--against", default="damped", help="whose CRPS the differences are taken to")
    parser.add_argument("--part", choices=("test", "validation"), default="test")
    parser.add_argument("--batch", type=int, default=16, help="cases at once")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/forecasters"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"threads {arguments.threads}, members {arguments.members}, root {ROOT}")
    for name in arguments.cases:
        data = Data(CASES[name], arguments.data)
        wanted = arguments.forecasters.split(",") if arguments.forecasters else list(data.case.forecasters)
        cells = {label: cell(label, name, data, arguments, None) for label in wanted}
        for entry in arguments.model:
            label, _, path = entry.rpartition("=")
            cells[label or Path(path).stem] = cell(label or Path(path).stem, name, data, arguments, Path(path))
        printed(name, data, cells, arguments.part, arguments.against)


if __name__ == "__main__":
    main()
