"""Which sampler finds the initial state of a flow, with and without gradients of the solver, and at what cost?

Every method sees the same observations, made on a finer grid (`scidiff.problems.navier_stokes`), and has the exact
prior of the truths. Black boxes get the operator wrapped in `Frozen`, so that no gradient can be used. Errors are those
of the mean of the ensemble, scores those of its members; ``solver`` and ``gradients`` count solver calls and passes
backward through it, for the whole ensemble of one case. Seconds are those of one processor.

Each combination of method, case and noise is a file in ``--out``; those that are there are not computed again, so a run
that was stopped continues, and ``--table`` prints what there is. The column ``cases`` says on how many a row rests.

    python benchmarks/navier_stokes.py --side 32 --cases 2
    python benchmarks/navier_stokes.py --side 64 --noise 0 1 --cases 10 --out cells
    python benchmarks/navier_stokes.py --side 64 --noise 0 1 --cases 10 --out cells --table
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator

from scidiff import posterior as samplers
from scidiff.inference import Ensemble, Likelihood, Posterior
from scidiff.operators import Frozen
from scidiff.posterior.population import PopulationSampler
from scidiff.problems.flow_baselines import interpolated, most_probable, randomised
from scidiff.problems.imaging import tensor
from scidiff.problems.navier_stokes import NavierStokesInitial, initial_law
from scidiff.samplers import DPMSolver
from scidiff.schedules import log_linear

BLACK_BOXES = ("enkg", "eki", "scg", "dpg")
METHODS = (
    "no_dynamics", "4dvar", "4dvar_ensemble", "dps:steps=240", "red_diff:steps=240", "eki:particles=256",
    "enkg:particles=64",
    "mmps:calls=16,linearisations=1,iterations=5", "daps:steps=20,moves=10", "scg:steps=100,draws=8",
    "enkg:particles=256", "dpg:steps=50,samples=32", "enkg:particles=1024",
)  # fmt: skip
LEVELS = partial(log_linear, sigma_min=0.05, sigma_max=30.0)
COLUMNS = (
    "noise",
    "cases",
    "relative L2",
    "CRPS",
    "spread/skill",
    "coverage 90 %",
    "members",
    "solver",
    "gradients",
    "seconds",
)


def value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return {"true": True, "false": False}.get(text, text)


def make(method: str) -> Any:
    """``name:key=value,...`` as a sampler; ``calls=n`` stands for a stochastic integrator of n noise levels.

    The field varies in a few dozen waves only, each far stronger than one of its points: levels from 30 down to 0.05
    standard deviations of a point are those that matter.
    """
    name, _, settings = method.partition(":")
    options = {key: value(text) for key, _, text in (pair.partition("=") for pair in filter(None, settings.split(",")))}
    if name == "daps":
        options["schedule"] = LEVELS
    if "calls" in options:
        options["sampler"] = DPMSolver(options.pop("calls"), LEVELS, stochastic=True)
    return samplers.get(name, **options)


def variational(problem: NavierStokesInitial, observation: Any, members: int, seed: int) -> tuple[Ensemble, int]:
    """4D-Var, of more than one member with a draw of prior and noise each, and its number of solver calls."""
    part, count = problem.likelihood(observation), [0]

    def operator(x: torch.Tensor) -> torch.Tensor:
        count[0] += 1
        return part.operator(x)

    cov, generator = initial_law(problem.grid(observation), problem.std).cov, Generator().manual_seed(seed)
    if members == 1:
        return Ensemble(most_probable(cov, operator, part.noise, part.y, problem.iterations)[None]), count[0]
    x = randomised(cov, operator, part.noise, part.y, members, generator, problem.iterations)
    return Ensemble(x), count[0]


def run(problem: NavierStokesInitial, case: Any, method: str, arguments: argparse.Namespace) -> list[float]:
    """The numbers of one row of the table for one case."""
    observation, begin = problem.read(case.observation), time.process_time()
    if method == "no_dynamics":
        y = tensor(observation[problem.measured])[None, None]
        ensemble, members, calls = Ensemble(interpolated(y, problem.grid(observation))[None]), 1, [0, 0]
    elif method.startswith("4dvar"):
        members = arguments.members if method == "4dvar_ensemble" else 1
        ensemble, count = variational(problem, observation, members, arguments.seed)
        calls = [count, count]
    else:
        sampler, posterior = make(method), problem.posterior(observation)
        if method.partition(":")[0] in BLACK_BOXES:
            part = problem.likelihood(observation)
            posterior = Posterior(
                posterior.prior, Likelihood(Frozen(part.operator), part.noise, part.y), posterior.shape
            )
        members = sampler.particles if isinstance(sampler, PopulationSampler) else arguments.members
        generator = Generator().manual_seed(arguments.seed)
        ensemble = sampler(posterior, members=members, generator=generator, batch_size=arguments.batch)
        cost = ensemble.cost
        calls = [cost.operator * members, cost.operator_vjp * members]
    seconds = time.process_time() - begin
    scores = problem.evaluate(ensemble, case.truth)
    four = [float(scores[key]) if key in scores else np.nan for key in KEYS]
    return [*four, members, *calls, seconds]


KEYS = ("relative_l2", "crps", "spread_skill", "coverage_90")


def cell(arguments: argparse.Namespace, method: str, index: int, noise: float) -> tuple[Path | None, dict[str, Any]]:
    """Where the numbers of a method for a case are kept, and all that they depend on."""
    independent = not method.startswith(("no_dynamics", "4dvar", "enkg", "eki")) or method == "4dvar_ensemble"
    key = {
        "method": method, "case": index, "noise": noise, "side": arguments.side, "std": arguments.std,
        "subsampling": arguments.subsampling, "seed": arguments.seed, "prior": arguments.prior or "",
        "members": arguments.members if independent else 0,
    }  # fmt: skip
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return (Path(arguments.out) / f"{name}.json" if arguments.out else None), key


def numbers(arguments: argparse.Namespace, method: str, index: int, noise: float) -> list[float] | None:
    """Those of a cell, from its file if there is one; None where they are missing and only the table is wanted."""
    path, key = cell(arguments, method, index, noise)
    if path is not None and path.exists():
        return json.loads(path.read_text())["values"]
    if arguments.table:
        return None
    problem, case = setting(arguments.side, arguments.subsampling, noise, arguments.std, arguments.prior, index)
    values = run(problem, case, method, arguments)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps({**key, "model_error": problem.model_error, "values": values}))
        os.replace(part, path)
    return values


@cache
def make_problem(side: int, subsampling: int, noise: float, std: float, prior: str | None) -> NavierStokesInitial:
    return NavierStokesInitial((side, side), subsampling, noise, std=std, prior=prior, iterations=60)


@cache
def setting(side: int, subsampling: int, noise: float, std: float, prior: str | None, index: int) -> tuple[Any, Any]:
    problem = make_problem(side, subsampling, noise, std, prior)
    return problem, problem.case(index)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--subsampling", type=int, default=2)
    parser.add_argument("--noise", type=float, nargs="+", default=[1.0])
    parser.add_argument("--std", type=float, default=5.0, help="of the initial vorticity, s-1")
    parser.add_argument("--prior", help="name or file of another prior than the law of the truths")
    parser.add_argument("--cases", type=int, default=2)
    parser.add_argument("--first", type=int, default=0, help="index of the first case")
    parser.add_argument("--members", type=int, default=4, help="of methods whose members are independent")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--methods", nargs="+", default=METHODS, help="name[:key=value,...]")
    parser.add_argument("--out", help="folder of the finished combinations")
    parser.add_argument("--table", action="store_true", help="compute nothing, print what is in --out")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    cases = range(arguments.first, arguments.first + arguments.cases)
    found: dict[tuple[str, float], list[list[float]]] = {}
    for index in cases:  # the first case of all methods before the second: a table of a stopped run has all rows
        for method in arguments.methods:
            for noise in arguments.noise:
                values = numbers(arguments, method, index, noise)
                if values is None:
                    continue
                found.setdefault((method, noise), []).append(values)
                if not arguments.table:
                    print(f"case {index}, noise {noise:g}, {method}: {values[0]:.3f}, {values[-1]:.0f} s", flush=True)
    print(
        f"\ntorch {torch.__version__}, {torch.get_num_threads()} thread(s); {arguments.side}x{arguments.side}, every "
        f"{arguments.subsampling}. point, vorticity {arguments.std:g}, cases {cases[0]} to {cases[-1]}, "
        f"seed {arguments.seed}; means over the cases\n"
    )
    if not arguments.table:
        for noise in arguments.noise:
            error = make_problem(
                arguments.side, arguments.subsampling, noise, arguments.std, arguments.prior
            ).model_error
            print(f"noise {noise:g}: error of the grid {error:.3f}")
    print("| method | " + " | ".join(COLUMNS) + " |")
    print("|---" * (len(COLUMNS) + 1) + "|", flush=True)
    for method in arguments.methods:
        for noise in arguments.noise:
            if (method, noise) not in found:
                continue
            rows = np.array(found[method, noise], dtype=float)
            mean = rows.mean(0)
            scores = [f"{v:.3f}" for v in mean[:4]]
            cells = [f"{noise:g}", f"{len(rows)}", *scores, *(f"{v:.0f}" for v in mean[4:7]), f"{mean[7]:.1f}"]
            each = " ".join(f"{v:.3f}" for v in rows[:, 0])
            print("| " + " | ".join([f"`{method}`", *cells]).replace("nan", "") + f" | <!-- {each} -->", flush=True)


if __name__ == "__main__":
    main()
