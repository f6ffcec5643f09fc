r"""One method on one case: computed in a folder of its own, found again, never lost.

A folder holds ``cell.json`` (who, what, scores, cost, time, memory; written last) and ``fields.npz`` (truth, mean,
spread and the first member, for pictures). Its name ends with a fingerprint of all settings, so cells of other settings
stay beside it and are not read. A cell is a function of its settings alone: whichever process computes it, whenever,
the members are the same.
"""

from __future__ import annotations

import hashlib
import json
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator

from scidiff.benchmark.budget import Budget, affordable
from scidiff.benchmark.certify import UNSAFE
from scidiff.benchmark.contestants import EXACT, Contestant
from scidiff.benchmark.judge import judge
from scidiff.benchmark.limit import within
from scidiff.benchmark.questions import Question, question
from scidiff.errors import Interrupted
from scidiff.fields import atomic, write_json
from scidiff.inference import Ensemble

__all__ = ["Cell", "kept", "run_cell"]


@dataclass(frozen=True)
class Cell:
    """One method on one case.

    Arguments:
        problem: Name, see `scidiff.benchmark.questions`.
        method: Who answers.
        seed: The case.
        members: Members asked for.
        budget: What may be spent; None runs the method's own steps.
        object: The problem itself, where it is not known by name.
        tuned: Whether the parameters were chosen on other cases.
    """

    problem: str
    method: Contestant
    seed: int
    members: int
    budget: Budget | None = None
    object: Any = field(default=None, compare=False)
    tuned: bool = False

    @property
    def label(self) -> str:
        """One line for progress."""
        return f"{self.method.label} on {self.problem}, case {self.seed}"

    @property
    def folder(self) -> str:
        """Name of the cell's folder."""
        own = "" if self.object is None else json.dumps(self.object.config(), sort_keys=True, default=str)
        parts = [self.problem, own, self.method.describe(), self.seed, self.members, self.budget, self.tuned]
        digest = hashlib.blake2b(" | ".join(map(str, parts)).encode(), digest_size=5).hexdigest()
        return f"{self.problem}--{self.method.label}--{self.seed}--{digest}".translate(UNSAFE)

    def question(self) -> Question:
        """What is asked."""
        return question(self.problem, self.seed, self.object)


def kept(cell: Cell, folder: Path | None) -> dict[str, Any] | None:
    """The record of a finished cell; None if there is none."""
    path = None if folder is None else folder / cell.folder / "cell.json"
    return json.loads(path.read_text(encoding="utf-8")) if path is not None and path.is_file() else None


def run_cell(cell: Cell, folder: Path | None = None, retry: bool = False, limit: float | None = None) -> dict[str, Any]:
    """The record of a cell: computed, or read if the folder holds it.

    ``status`` is ``done``, ``skipped`` (the method cannot work here, or the budget is too small) or ``failed``; then
    ``reason`` says why. A failure is a line of the table, not the end of the grid.

    Arguments:
        cell: What to compute.
        folder: Where the cells' folders are; None keeps nothing.
        retry: Compute failed cells again.
        limit: Seconds after which a cell has failed, see `scidiff.benchmark.limit`.
    """
    found = kept(cell, folder)
    if found is not None and not (retry and found["status"] == "failed"):
        return found
    from scidiff.record import source, versions

    record: dict[str, Any] = {
        "problem": cell.problem,
        "sampler": cell.method.label if not cell.tuned else cell.method.name,
        "parameters": {key: str(value) for key, value in cell.method.parameters.items()},
        "seed": cell.seed,
        "members": cell.members,
        "budget": str(cell.budget or ""),
        "tuned": cell.tuned,
        "source": source(),
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "status": "done",
        "reason": "",
    }
    fields: dict[str, Any] = {}
    try:
        with within(limit):
            numbers, fields = _compute(cell)
        record |= numbers
    except (KeyboardInterrupt, Interrupted):
        raise
    except TimeoutError as error:
        record |= {"status": "failed", "reason": str(error)}
    except Exception as error:
        if isinstance(error, TypeError) and not cell.method.foreign:  # how samplers say what they require
            reason = " ".join(str(error).split()).partition(" Samplers that")[0]
            return _written(cell, folder, record | {"status": "skipped", "reason": reason}, {})
        frame = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno})"
        record |= {"status": "failed", "reason": " ".join(reason.split())}
    return _written(cell, folder, record, fields)


def _written(cell: Cell, folder: Path | None, record: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    if folder is not None:
        place = folder / cell.folder
        place.mkdir(parents=True, exist_ok=True)
        if fields:
            with atomic(place / "fields.npz") as path, open(path, "wb") as stream:
                np.savez_compressed(stream, **fields)
        write_json(place / "cell.json", record)
    return record


def _compute(cell: Cell) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    asked = cell.question()
    method = cell.method if cell.budget is None else affordable(cell.method, asked, cell.members, cell.budget)
    _forget_peak()
    begin = time.perf_counter()
    ensemble = method.draw(asked, cell.members, Generator().manual_seed(cell.seed))
    seconds, memory = time.perf_counter() - begin, _peak()
    scores, ranks = judge(asked, ensemble)
    numbers = {
        "observation": asked.fingerprint,
        "settings": ", ".join(f"{key}={value}" for key, value in method.parameters.items()),
        "drawn": len(ensemble.samples),
        "scores": _finite(scores),
        "own": _own(asked, ensemble),
        "ranks": ranks,
        "cost": ensemble.cost.as_dict() if cell.method.name != EXACT else {},
        "seconds": round(seconds, 4),
        "peak_memory_bytes": memory,
    }
    return numbers, _fields(asked, ensemble)


def _own(asked: Question, ensemble: Ensemble) -> dict[str, float]:
    """The problem's own scores; of a single estimate those that one field has."""
    if len(ensemble.samples) > 1:
        return _finite(asked.own(ensemble))
    try:
        return _finite(asked.own(ensemble))
    except (ValueError, RuntimeError, ArithmeticError):  # a score of the problem wants members
        return {}


def _finite(scores: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in scores.items() if value == value and abs(value) != float("inf")}


def _fields(asked: Question, ensemble: Ensemble) -> dict[str, np.ndarray]:
    x = ensemble.samples[:, 0]
    parts = {"mean": x.mean(0), "member": x[0]}
    if len(x) > 1:
        parts["spread"] = ensemble.spread[0]
    if asked.truth is not None:
        parts["truth"] = asked.truth[0]
    half = {True: torch.complex64, False: torch.float32}
    return {name: value.detach().cpu().to(half[value.is_complex()]).numpy() for name, value in parts.items()}


def _forget_peak() -> None:
    """Asks the system to measure the peak from here on; where it cannot, peaks are those of the whole process."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def _peak() -> int:
    """Largest memory since `_forget_peak`, bytes; on a GPU what torch took there."""
    from scidiff.record import peak_memory

    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return peak_memory().get("peak_memory_bytes", 0)
