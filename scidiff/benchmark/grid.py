r"""Every problem, every method: the grid of cells behind `scidiff.benchmark`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scidiff.benchmark.budget import Budget
from scidiff.benchmark.cells import Cell, kept, run_cell
from scidiff.benchmark.contestants import EXACT, Contestant, contestant
from scidiff.benchmark.engines import Engine, processes, serial
from scidiff.benchmark.questions import EXACT_PREFIX, known
from scidiff.benchmark.tuning import FIRST_CASE, Tuning, best
from scidiff.errors import InputError, Interrupted

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["benchmark", "plan"]

RESULTS = ("results.nc", "results.csv", "table.md", "index.html")


def plan(
    problems: Iterable[Any],
    samplers: Iterable[Any],
    seeds: Iterable[int] = range(3),
    members: int = 32,
    budget: Budget | str | None = None,
) -> list[Cell]:
    """The cells of a grid, problem by problem and case by case, so that a grid that was stopped holds whole cases.

    Raises:
        ValueError: an unknown name, a wrong parameter of a sampler or a problem, a seed that is kept for tuning, fewer
            than two members.
    """
    named = [_problem(given) for given in problems]
    methods = [contestant(given) for given in samplers]
    seeds = [int(s) for s in seeds]
    if isinstance(budget, str):
        budget = Budget.parse(budget)
    if not named or not methods or not seeds:
        raise ValueError("a benchmark needs at least one problem, one sampler and one seed.")
    if members < 2:
        raise ValueError(f"members must be at least 2, got {members}: one draw has no spread.")
    if min(seeds) < 0 or max(seeds) >= FIRST_CASE:
        raise ValueError(f"seeds are 0 to {FIRST_CASE - 1}; those from {FIRST_CASE} on are for tuning. Got {seeds}.")
    twice = {m.label for i, m in enumerate(methods) if m.label in {o.label for o in methods[:i]}}
    if twice:
        raise ValueError(f"two samplers are called {', '.join(sorted(twice))}; give functions a name: ('mine', f).")
    cells = []
    for name, thing in named:
        entered = [Contestant(EXACT)] * (name.startswith(EXACT_PREFIX)) + [m for m in methods if m.name != EXACT]
        cells += [Cell(name, m, seed, members, budget, thing) for seed in seeds for m in entered]
    return cells


def _problem(given: Any) -> tuple[str, Any]:
    if not isinstance(given, str):
        return getattr(given, "name", type(given).__name__), given
    from scidiff.arguments import near
    from scidiff.benchmark.certify import parse
    from scidiff.problems import get

    plain, parameters = parse(given)
    if plain not in known():
        raise ValueError(f"unknown problem {plain!r};{near(plain, known())} problems are {', '.join(known())}.")
    if parameters and plain.startswith(EXACT_PREFIX):
        raise ValueError(f"{plain} takes no parameters, got {given!r}.")
    if parameters:  # a wrong one is found now, not in every cell
        try:
            get(plain, **parameters)
        except TypeError as error:
            raise ValueError(str(error)) from error
    return given, None


def benchmark(
    problems: Iterable[Any],
    samplers: Iterable[Any],
    seeds: Iterable[int] = range(3),
    budget: Budget | str | None = None,
    *,
    members: int = 32,
    tuning: Tuning | None = None,
    output: str | os.PathLike[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    retry: bool = False,
    limit: float | None = None,
    engine: Engine | int = 1,
    tell: Callable[[str], None] = lambda text: None,
) -> xr.Dataset:
    """Every sampler on every problem, on the same observations: scores, calibration and cost.

    Arguments:
        problems: Names (``"mri"``, ``"ct:views=30"``, ``"exact-inpainting"``) or problem objects.
        samplers: Names (``"mmps"``, ``"dps:steps=200"``, ``"deepinv-dps"``, ``"baseline-tv"``), sampler objects, or
            pairs ``(name, function)``; see `scidiff.benchmark.contestants`.
        seeds: Cases; the observation and its noise are the same for all samplers.
        budget: ``"denoiser=256"``, ``"operator=1000"``, ``"seconds=30"`` or several, ``"a,b"``: sets the number of
            steps of every method. None runs each method as it is.
        members: Draws of every cell.
        tuning: Chooses parameters on other cases first; None uses the defaults.
        output: Folder of the results and of one folder per cell. None keeps everything in memory.
        resume: Keep the cells that ``output`` holds.
        overwrite: Discard what ``output`` holds.
        retry: With ``resume``, compute failed cells again.
        limit: Seconds after which a cell counts as failed; None waits. Not with Dask, whose workers compute in threads.
        engine: Number of processes, or who computes the cells, see `scidiff.benchmark.engines`.
        tell: Called with one line after each cell.

    Returns:
        Numbers with dimensions (problem, sampler, seed), see `scidiff.benchmark.results`. With ``output`` also
        ``results.nc``, ``results.csv``, ``table.md`` and ``index.html`` with its pictures.

    A grid that is stopped leaves tables of its finished cells, without the page.

    Raises:
        ValueError: see `plan`.
        InputError: ``output`` holds results and neither ``resume`` nor ``overwrite`` is given.
    """
    from scidiff.benchmark.results import dataset, write

    cells = plan(problems, samplers, seeds, members, budget)
    folder = None if output is None else Path(output)
    if folder is not None:
        _prepare(folder, resume, overwrite)
    store = None if folder is None else folder / "cells"
    run = processes(engine) if isinstance(engine, int) and engine > 1 else serial if isinstance(engine, int) else engine
    tried: dict[str, list[dict[str, Any]]] = {}
    if tuning is not None:
        cells, tried = _tuned(cells, tuning, partial(_run, run=run, store=store, retry=retry, limit=limit, tell=tell))
    attributes = {
        "members": members,
        "budget": str(budget or "none"),
        "tuning": "none" if tuning is None else str(tuning),
    }
    try:
        records = _run(cells, run=run, store=store, retry=retry, limit=limit, tell=tell)
    except (KeyboardInterrupt, Interrupted):
        done = [record for record in (kept(cell, store) for cell in cells) if record is not None]
        if folder is not None and done:
            attributes["unfinished"] = f"{len(done)} of {len(cells)} cells"
            write(folder, dataset(done, attributes, tried), done)
        raise
    data = dataset(records, attributes, tried)
    if folder is not None:
        write(folder, data, records, [store / cell.folder for cell in cells] if store else [])
    return data


def _tuned(
    cells: Sequence[Cell], tuning: Tuning, run: Callable[[Sequence[Cell]], list[dict[str, Any]]]
) -> tuple[list[Cell], dict[str, list[dict[str, Any]]]]:
    chosen: dict[tuple[str, str], Contestant] = {}
    tried = {}
    for cell in cells:
        key = cell.problem, cell.method.label
        if key not in chosen:
            chosen[key], found = best(cell, tuning, run)
            if found:
                tried[f"{cell.method.label} on {cell.problem}"] = found
    return [
        Cell(c.problem, chosen[c.problem, c.method.label], c.seed, c.members, c.budget, c.object, True) for c in cells
    ], tried


def _run(
    cells: Sequence[Cell],
    run: Engine,
    store: Path | None,
    retry: bool = False,
    limit: float | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> list[dict[str, Any]]:
    """Records in the order of the cells; says how many are done and how long the rest may take."""
    begin, new = time.monotonic(), 0
    records: list[dict[str, Any] | None] = [kept(cell, store) for cell in cells]
    if retry:
        records = [None if r is not None and r["status"] == "failed" else r for r in records]
    todo = [i for i, r in enumerate(records) if r is None]
    if len(todo) < len(cells):
        tell(f"{len(cells) - len(todo)} of {len(cells)} cells kept")
    for place, record in run(partial(run_cell, folder=store, retry=retry, limit=limit), [cells[i] for i in todo]):
        records[todo[place]] = record
        new += 1
        left = (time.monotonic() - begin) / new * (len(todo) - new)
        done = len(cells) - len(todo) + new
        words = record["reason"] if record["status"] != "done" else _words(record)
        tell(f"[{done}/{len(cells)}, {_clock(left)} left] {cells[todo[place]].label}: {record['status']}, {words}")
    return [r for r in records if r is not None]


def _words(record: dict[str, Any]) -> str:
    from scidiff.benchmark.results import diverged

    shown = [f"{k} {record['scores'][k]:.3g}" for k in ("crps", "spread_skill", "coverage") if k in record["scores"]]
    far = diverged(record)
    return ", ".join([*([far] if far else []), *shown, f"{record['seconds']:.1f} s"])


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def _prepare(folder: Path, resume: bool, overwrite: bool) -> None:
    import shutil

    if resume and overwrite:
        raise ValueError("resume keeps what overwrite discards; give one of them.")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; the output is a folder.")
    cells = folder / "cells"
    held = [folder / name for name in RESULTS if (folder / name).exists()]
    number = len(list(cells.glob("*/cell.json"))) if cells.is_dir() else 0
    if (held or number) and not (resume or overwrite):
        raise InputError(
            f"{folder} holds a benchmark ({number} cells); resume computes what is missing, overwrite starts again."
        )
    if overwrite:
        for path in held:
            path.unlink()
        if cells.is_dir():
            shutil.rmtree(cells)
    cells.mkdir(parents=True, exist_ok=True)
