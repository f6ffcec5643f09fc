"""Which sampler finds the initial state of a flow, with and without gradients of the solver, and at what cost?

Every method sees the same observations, made on a finer grid (`scidiff.problems.navier_stokes`), and has the exact
prior of the truths. Black boxes get the operator wrapped in `Frozen`, so that no gradient can be used. Errors are those
of the mean of the ensemble, scores those of its members; ``solver`` and ``gradients`` count solver calls and passes
backward through it, for the whole ensemble of one case.

    python benchmarks/navier_stokes.py --side 32 --cases 2
    python benchmarks/navier_stokes.py --side 64 --cases 10 --methods enkg:particles=1024 reddiff mmps
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Generator

from scidiff import posterior as samplers
from scidiff.inference import Ensemble, Likelihood, Posterior
from scidiff.operators import Frozen
from scidiff.posterior.population import PopulationSampler
from scidiff.problems.imaging import tensor
from scidiff.problems.navier_stokes import NavierStokesInitial
from scidiff.samplers import DPMSolver
from scidiff.schedules import log_linear

BLACK_BOXES = ("enkg", "eki", "scg", "dpg")
METHODS = (
    "no_dynamics", "4dvar", "enkg:particles=64", "enkg:particles=256", "eki:particles=256", "scg", "dpg",
    "dps:steps=100", "mmps:calls=16,linearisations=1,iterations=5", "daps:steps=20", "red_diff:steps=150",
)  # fmt: skip
LEVELS = partial(log_linear, sigma_min=0.05, sigma_max=30.0)
COLUMNS = ("relative L2", "CRPS", "spread/skill", "coverage 90 %", "members", "solver", "gradients", "seconds")


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
    if "calls" in options:
        options["sampler"] = DPMSolver(options.pop("calls"), LEVELS, stochastic=True)
    return samplers.get(name, **options)


def run(problem: NavierStokesInitial, case: Any, method: str, arguments: argparse.Namespace) -> list[float]:
    """The numbers of one row of the table for one case."""
    observation, begin = problem.read(case.observation), time.perf_counter()
    if method in ("no_dynamics", "4dvar"):
        x = tensor(problem.baselines(observation)[method])[None, None, None]
        ensemble, members = Ensemble(x), 1
        calls = [problem.iterations, problem.iterations] if method == "4dvar" else [0, 0]
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
    seconds = time.perf_counter() - begin
    scores = problem.evaluate(ensemble, case.truth)
    four = [float(scores[key]) if key in scores else np.nan for key in KEYS]
    return [*four, members, *calls, seconds]


KEYS = ("relative_l2", "crps", "spread_skill", "coverage_90")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--subsampling", type=int, default=2)
    parser.add_argument("--noise", type=float, default=1.0)
    parser.add_argument("--std", type=float, default=5.0, help="of the initial vorticity, s-1")
    parser.add_argument("--cases", type=int, default=2)
    parser.add_argument("--first", type=int, default=0, help="index of the first case")
    parser.add_argument("--members", type=int, default=8, help="of methods whose members are independent")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--methods", nargs="+", default=METHODS, help="name[:key=value,...]")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    problem = NavierStokesInitial(
        (arguments.side,) * 2, arguments.subsampling, arguments.noise, std=arguments.std, iterations=60
    )
    cases = [problem.case(arguments.first + i) for i in range(arguments.cases)]
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} thread(s); {arguments.side}x{arguments.side}, every "
        f"{arguments.subsampling}. point, noise {arguments.noise:g}, error of the grid {problem.model_error:.3f}, "
        f"vorticity {arguments.std:g}, cases {arguments.first} to {arguments.first + arguments.cases - 1}, "
        f"seed {arguments.seed}; means over the cases\n"
    )
    print("| method | " + " | ".join(COLUMNS) + " |")
    print("|---" * (len(COLUMNS) + 1) + "|", flush=True)
    for method in arguments.methods:
        rows = np.array([run(problem, case, method, arguments) for case in cases])
        mean = rows.mean(0)
        cells = [*(f"{v:.3f}" for v in mean[:4]), *(f"{v:.0f}" for v in mean[4:7]), f"{mean[7]:.1f}"]
        each = " ".join(f"{v:.3f}" for v in rows[:, 0])
        print("| " + " | ".join([method, *cells]).replace("nan", "-") + f" | <!-- {each} -->", flush=True)


if __name__ == "__main__":
    main()
