r"""Every sampler against posteriors known exactly: the cells of a certificate.

A cell is one sampler on one problem with one seed. The seed draws truth, noise and points of the problem, and the
members. Each finished cell is a small JSON file, so that a run that was stopped goes on where it was. The file's name
holds a fingerprint of all settings: cells of other settings stay beside it and are not read.

Members are as many as the problem asks for (`scidiff.benchmark.catalogue`), fewer where a method costs too much
(`SLOW`); every table has the number. Methods run with their defaults; where a problem needs another setting
(`SETTINGS`), the table says so.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Generator

from scidiff.arguments import near
from scidiff.benchmark.catalogue import PROBLEMS
from scidiff.benchmark.exact import ExactProblem
from scidiff.benchmark.scores import scores
from scidiff.errors import Interrupted, NumericalError
from scidiff.fields import write_json
from scidiff.inference import Cost
from scidiff.posterior import MemberSampler, get, names

__all__ = ["EXACT", "GATES", "SETTINGS", "SLOW", "VARIANTS", "Cell", "Gate", "broken", "certify", "plan"]

EXACT = "exact draws"
"""The row that draws from the exact posterior itself: what chance alone does to every number."""

ELLIPTIC = ("poisson-inverse", "poisson-forward", "helmholtz-inverse", "helmholtz-forward")
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "mmps": {name: {"iterations": 16} for name in ELLIPTIC},  # condition number 1e6; 8 leave a trace ratio of 1.3
    "mcgdiff": {name: {"particles": 256} for name in ("blur", *ELLIPTIC)},  # 4096 pixels: a minute and more
    "fps": {name: {"particles": 256} for name in ("blur", *ELLIPTIC)},
}
"""Parameters that differ from the defaults, by sampler and problem; the problem ``*`` stands for all."""

VARIANTS = ("pigdm:covariance=prior", "daps:width=published", "ddrm:steps=20,eta=0.85")
"""Run beside the defaults: the covariance that is exact for Gaussians, and published settings that ours replace."""

SLOW = frozenset({"dps", "tmpd", "lgd", "scg", "dpg", "dps_gsg", "daps", "pnpdm", "red_diff", "tds", "mcgdiff", "fps"})
"""Samplers that draw `Entry.slow` members on problems that name such a number: a second or more per member there."""


@dataclass(frozen=True)
class Gate:
    """What a sampler must reach on the problem ``inpainting`` with 512 members.

    Arguments:
        mean_error: Largest mean error.
        trace_ratio: Range of the trace ratio.
        coverage: Range of the coverage.
    """

    mean_error: float = float("inf")
    trace_ratio: tuple[float, float] = (0.0, float("inf"))
    coverage: tuple[float, float] = (0.0, 1.0)


STRICT = Gate(0.06, (0.97, 1.03), (0.885, 0.915))
ASYMPTOTIC = Gate(0.12, (0.9, 1.1))
GATES: dict[str, Gate] = {
    "mmps": STRICT,
    "pigdm:covariance=prior": STRICT,
    "daps": ASYMPTOTIC,
    "pnpdm": ASYMPTOTIC,
    "mcgdiff": ASYMPTOTIC,
    "tds": ASYMPTOTIC,
    "ddrm": Gate(trace_ratio=(0.8, float("inf"))),
    "dps": Gate(mean_error=0.4),
    "enkg": Gate(0.5, (0.7, 1.3)),
}
GATED = "inpainting"
UNSAFE = str.maketrans(dict.fromkeys(" :=,/\\\"'", "-"))
GATED_MEMBERS = 512


@dataclass(frozen=True)
class Cell:
    """One sampler on one problem with one seed.

    Arguments:
        sampler: Name, or ``name:key=value,...`` for other parameters than the defaults.
        problem: Name of the problem.
        seed: Of problem and members.
        members: Number of draws.
        parameters: Parameters that are not the defaults.
    """

    sampler: str
    problem: str
    seed: int
    members: int
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> str:
        """The parameters that are not the defaults, in words."""
        return ", ".join(f"{name}={value}" for name, value in self.parameters.items())

    def method(self) -> MemberSampler | None:
        """The sampler; None draws from the exact posterior."""
        return None if self.sampler == EXACT else get(self.sampler.partition(":")[0], **self.parameters)

    @property
    def file(self) -> str:
        """Name of the cell's file: what it is, and a fingerprint of everything that decides its numbers."""
        method = re.sub(r" at 0x[0-9a-f]+", "", repr(self.method()))
        digest = hashlib.blake2b(f"{asdict(self)} {method}".encode(), digest_size=4).hexdigest()
        return f"{self.sampler}--{self.problem}--{self.seed}--{digest}.json".translate(UNSAFE)


def plan(
    samplers: Sequence[str] | None = None,
    problems: Sequence[str] | None = None,
    members: int | None = None,
    seeds: Iterable[int] = range(2),
    quick: bool = False,
) -> list[Cell]:
    """The cells of a certificate, problem by problem; exact draws come first.

    Arguments:
        samplers: Names, or ``name:key=value,...`` for other parameters; None takes every registered sampler and
            `VARIANTS`.
        problems: Names of `PROBLEMS`; None takes all, or those of the quick run.
        members: Members of every cell; None takes those of the problem and of the method.
        seeds: Seeds.
        quick: A short look: fewer problems and members.

    Raises:
        ValueError: an unknown name, a wrong parameter, fewer than two members, or no seed.
    """
    seeds = list(seeds)
    samplers = list(dict.fromkeys(samplers or [*names(), *VARIANTS]))
    problems = list(dict.fromkeys(problems or _all(quick)))
    methods = {text: parse(text) for text in samplers}
    plain = [name for name, _ in methods.values()]
    for kind, given, known in (("sampler", plain, names()), ("problem", problems, list(PROBLEMS))):
        for name in given:
            if name not in known:
                raise ValueError(f"unknown {kind} {name!r};{near(name, known)} {kind}s are {', '.join(known)}.")
    if members is not None and members < 2:
        raise ValueError(f"members must be at least 2, got {members}: one draw has no spread.")
    if not seeds:
        raise ValueError("at least one seed is needed.")
    for text, (name, parameters) in methods.items():
        try:
            get(name, **(parameters or {}))
        except TypeError as error:
            raise ValueError(f"{text}: {error}") from error
    cells = []
    for problem in problems:
        entry = PROBLEMS[problem]
        usual = (entry.quick or min(entry.members, 128)) if quick else entry.members
        for text, (name, parameters) in {EXACT: (EXACT, None), **methods}.items():
            most = entry.slow if name in SLOW and entry.slow else usual
            if parameters is None:
                own = SETTINGS.get(name, {})
                parameters = {**own.get("*", {}), **own.get(problem, {})}
            draws = members or min(usual, most)
            cells += [Cell(text, problem, seed, draws, parameters) for seed in _repeated(seeds, entry.instances, quick)]
    return cells


def _repeated(seeds: list[int], instances: int, quick: bool) -> list[int]:
    """For problems whose draws differ much: so many seeds for each, counted on from the last one."""
    more = (instances - 1) * len(seeds) * (not quick)
    return [*seeds, *range(max(seeds) + 1, max(seeds) + 1 + more)]


def parse(text: str) -> tuple[str, dict[str, Any] | None]:
    """``"mmps"`` to (``"mmps"``, None), ``"mri:shape=[64,48],coils=4"`` to the name and its parameters.

    ``"mmps:"`` takes the defaults on every problem, whatever `SETTINGS` says.
    """
    name, colon, rest = text.partition(":")
    if not colon:
        return name, None
    parameters: dict[str, Any] = {}
    for pair in filter(None, re.split(r",(?![^\[\]]*\])", rest)):  # commas in brackets belong to a value
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ValueError(f"{text!r} is not understood; write name:key=value,key=value.")
        try:
            parameters[key.strip()] = json.loads(value)  # numbers, true, false, null
        except json.JSONDecodeError:
            parameters[key.strip()] = value
    return name, parameters


def _all(quick: bool) -> list[str]:
    return [name for name, entry in PROBLEMS.items() if entry.quick or not quick]


def certify(
    cells: Sequence[Cell], folder: Path | None = None, tell: Callable[[str], None] = lambda text: None
) -> Iterator[dict[str, Any]]:
    """Computes cells, or reads those that the folder holds; yields the record of each.

    Arguments:
        cells: From `plan`.
        folder: Where the cells' files are kept; None keeps nothing.
        tell: Called with one line about each cell.
    """
    from scidiff.record import source

    build = _builder()
    for number, cell in enumerate(cells, 1):
        label = f"[{number}/{len(cells)}] {cell.sampler} on {cell.problem}, seed {cell.seed}"
        path = folder / cell.file if folder is not None else None
        if path is not None and path.is_file():
            record = json.loads(path.read_text(encoding="utf-8"))
            tell(f"{label}: kept")
        else:
            record = {"source": source(), **run_cell(cell, build(cell.problem, cell.seed))}
            if path is not None:
                write_json(path, record)
            tell(f"{label}: {_words(record)}")
        yield record


def _builder() -> Callable[[str, int], ExactProblem]:
    """Builds problems, and remembers those of the problem at hand."""
    held: dict[tuple[str, int], ExactProblem] = {}

    def build(name: str, seed: int) -> ExactProblem:
        if any(key[0] != name for key in held):
            held.clear()
        if (name, seed) not in held:
            held[name, seed] = PROBLEMS[name].build(seed=seed)
        return held[name, seed]

    return build


def run_cell(cell: Cell, problem: ExactProblem) -> dict[str, Any]:
    """The record of one cell: ``status`` done, skipped (the method refuses the problem) or failed, and the numbers."""
    record: dict[str, Any] = {**asdict(cell), "settings": cell.settings, "status": "done", "reason": ""}
    generator, method, cost = Generator().manual_seed(cell.seed), cell.method(), Cost()
    begin = time.perf_counter()
    try:
        if method is None:
            samples = problem.exact.sample(cell.members, generator)
        else:
            ensemble = method(problem.posterior, cell.members, generator)
            samples, cost = ensemble.samples[:, 0], ensemble.cost
    except Interrupted:
        raise
    except TypeError as error:
        return {**record, "status": "skipped", "reason": str(error)}
    except (ValueError, NumericalError, RuntimeError) as error:  # a failure of one method is a line of the table
        return {**record, "status": "failed", "reason": f"{type(error).__name__}: {error}"}
    seconds = time.perf_counter() - begin
    if not bool(torch.isfinite(samples).all()):
        return {**record, "status": "failed", "reason": "the ensemble holds NaN or infinite values."}
    found = scores(problem, samples, Generator().manual_seed(cell.seed + 1_000_003))
    numbers = {name: [_finite(part) for part in pair] for name, pair in found.items()}
    return {**record, "scores": numbers, "cost": cost.as_dict(), "seconds": round(seconds, 3)}


def _finite(value: float) -> float | None:
    return value if value == value and abs(value) != float("inf") else None


def _words(record: dict[str, Any]) -> str:
    if record["status"] != "done":
        return f"{record['status']}: {record['reason']}"
    s = {name: pair[0] for name, pair in record["scores"].items()}
    text = f"mean error {s['mean_error']:.3f}, trace ratio {s['trace_ratio']:.3f}, coverage {s['coverage']:.3f}"
    return f"{text}, {record['members']} members, {record['seconds']:.1f} s"


def broken(rows: Iterable[dict[str, Any]]) -> list[str]:
    """What leaves the range that its sampler is held to (`GATES`), one line each.

    Arguments:
        rows: Rows of `scidiff.benchmark.report.summary`. With fewer than 512 members the limits are widened by what
            chance does: the mean error by the larger floor, the ranges by the interval of the number.
    """
    found = []
    for row in rows:
        gate = GATES.get(row["sampler"])  # other variants are held to nothing
        if gate is None or row["problem"] != GATED:
            continue
        if row["status"] != "done":
            found.append(f"{row['sampler']} on {GATED}: {row['reason']}")
            continue
        short = row["members"] < GATED_MEMBERS
        room = max(0.0, 1 / row["members"] - 1 / GATED_MEMBERS)
        limit = (gate.mean_error**2 + room) ** 0.5 + (row["mean_error_interval"] or 0) * short
        if row["mean_error"] > limit:
            found.append(f"{row['sampler']} on {GATED}: mean error {row['mean_error']:.3f} > {limit:.3f}")
        for name, (low, high) in (("trace_ratio", gate.trace_ratio), ("coverage", gate.coverage)):
            give = (row[f"{name}_interval"] or 0) * short
            if not low - give <= row[name] <= high + give:
                found.append(
                    f"{row['sampler']} on {GATED}: {name.replace('_', ' ')} {row[name]:.3f} is not in [{low}, {high}]"
                )
    return found
