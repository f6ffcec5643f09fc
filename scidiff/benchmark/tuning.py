r"""Parameters chosen on other cases than those that are reported, with the same number of trials for everybody.

Trial 0 is the default. The others draw every tunable parameter of the method from its range (log-uniform or uniform)
by random search; all methods of a problem are tried on the same cases. The smallest mean CRPS wins, and its parameters
are frozen before a test case is looked at. A method without tunable parameters keeps its defaults.

References:
    Random search for hyper-parameter optimization (Bergstra & Bengio, 2012).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator

from scidiff.benchmark.cells import Cell
from scidiff.benchmark.contestants import Contestant

__all__ = ["FIRST_CASE", "RANGES", "Tuning", "best", "trials"]

FIRST_CASE = 10_000
"""Cases from here on are for tuning; test cases are below."""

RANGES: dict[str, dict[str, tuple[float, float, str]]] = {
    "daps": {"ode_steps": (1, 10, "whole"), "steps": (20, 100, "whole")},
    "ddnm": {"eta": (0.0, 1.0, "even")},
    "ddrm": {"eta": (0.0, 1.0, "even"), "eta_b": (0.3, 1.0, "even")},
    "dds": {"gamma": (0.003, 0.3, "log"), "eta": (0.0, 1.0, "even")},
    "diffpir": {"lam": (0.1, 10.0, "log"), "zeta": (0.0, 1.0, "even")},
    "diffusion_pde": {"observation_weight": (0.05, 5.0, "log"), "residual_weight": (0.05, 5.0, "log")},
    "dpg": {"strength": (0.1, 10.0, "log"), "decay": (0.5, 0.99, "even")},
    "dps": {"zeta": (0.03, 30.0, "log")},
    "dps_gsg": {"zeta": (0.05, 5.0, "log"), "mu": (0.001, 0.1, "log")},
    "enkg": {"inflation": (1.0, 1.2, "even")},
    "lgd": {"zeta": (0.03, 30.0, "log")},
    "pnpdm": {"rho_min": (0.03, 0.3, "log"), "decay": (0.85, 0.97, "even")},
    "red_diff": {"lam": (0.01, 10.0, "log"), "lr": (0.02, 0.5, "log")},
    "scg": {"start": (0.05, 1.0, "log")},
    "sda": {"gamma": (0.003, 3.0, "log")},
}
"""What is tuned, by sampler: lowest and highest value, and how it is drawn (log, even, whole)."""


@dataclass(frozen=True)
class Tuning:
    """How to tune.

    Arguments:
        trials: Settings tried per method and problem, the defaults included.
        cases: Cases each is tried on.
        seed: Of the search.
    """

    trials: int = 8
    cases: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.trials < 1 or self.cases < 1:
            raise ValueError(f"tuning needs at least one trial and one case, got {self.trials} and {self.cases}.")


def trials(method: Contestant, problem: str, tuning: Tuning) -> list[Contestant]:
    """The settings to try, the given ones first; parameters that were given are not tuned."""
    ranges = {k: v for k, v in RANGES.get(method.name, {}).items() if k not in method.parameters}
    if not ranges or not method.tunable:
        return [method]
    digest = hashlib.blake2b(f"{tuning.seed}/{method.label}/{problem}".encode(), digest_size=8).digest()
    generator = Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
    found = [method]
    for _ in range(tuning.trials - 1):
        found.append(method.with_parameters(**{k: _draw(*v, generator) for k, v in ranges.items()}))
    return found


def _draw(low: float, high: float, kind: str, generator: Generator) -> Any:
    share = float(torch.rand((), generator=generator, dtype=torch.float64))
    if kind == "log":
        return float(f"{math.exp(math.log(low) + share * math.log(high / low)):.3g}")
    value = low + share * (high - low)
    return round(value) if kind == "whole" else float(f"{value:.3g}")


def best(
    cell: Cell, tuning: Tuning, run: Callable[[Sequence[Cell]], Sequence[dict[str, Any]]]
) -> tuple[Contestant, list[dict[str, Any]]]:
    """The setting with the smallest mean CRPS over the tuning cases, and what was tried.

    Arguments:
        cell: A test cell; its problem, method, members and budget are those of the trials.
        tuning: How to tune.
        run: Computes cells, in any order, and returns their records in the order given.
    """
    settings = trials(cell.method, cell.problem, tuning)
    if len(settings) == 1:
        return cell.method, []
    cases = range(FIRST_CASE, FIRST_CASE + tuning.cases)
    cells = [Cell(cell.problem, s, case, cell.members, cell.budget, cell.object) for s in settings for case in cases]
    records = run(cells)
    tried = []
    for i, setting in enumerate(settings):
        mine = records[i * tuning.cases : (i + 1) * tuning.cases]
        values = [r["scores"]["crps"] for r in mine if r["status"] == "done" and "crps" in r.get("scores", {})]
        value = sum(values) / len(values) if len(values) == tuning.cases else math.inf
        tried.append({"parameters": setting.parameters, "crps": value})
    winner = min(range(len(settings)), key=lambda i: tried[i]["crps"])
    return settings[winner], tried
