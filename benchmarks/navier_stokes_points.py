"""A flow seen at 3 % of its points: how well is the other time known, and how far from the best possible is that?

For both problems the relative L2 error in per cent (mean over cases) of the posterior mean of `MMPS`, beside

- forward: the best possible answer, the mean image of draws of the exact posterior of the vorticity at time 0;
- inverse: 4D-Var with the law of the truths, 60 iterations, and the data interpolated as if they were of time 0.

Then scores of the members. Solver calls and gradients are per member.

    python benchmarks/navier_stokes_points.py --size 64 --cases 4
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial

import numpy as np
import torch

import scidiff
from scidiff import problems
from scidiff.posterior import MMPS
from scidiff.samplers import DPMSolver
from scidiff.schedules import log_linear

PUBLISHED = """\
Published, 128x128, 500 points without noise, relative L2 error in %, forward / inverse; transcriptions that have not
been confirmed against the papers:
  FunDPS (500 steps)                        3.32 / 8.48   (unconfirmed)
  DiffusionPDE, re-run by FunDPS (2000)     3.78 / 9.63   (unconfirmed)
  FNO, in FunDPS's table                  101.4  / 96.0   (unconfirmed)"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", default=["navier-stokes-forward", "navier-stokes-inverse"])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--cases", type=int, default=4)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--calls", type=int, default=16, help="noise levels")
    parser.add_argument("--iterations", type=int, default=16, help="of the solver in each")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    levels = partial(log_linear, sigma_min=0.02, sigma_max=100.0)
    sampler = MMPS(
        DPMSolver(arguments.calls, levels, stochastic=True), iterations=arguments.iterations, linearisations=1
    )
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} thread(s); {arguments.size}x{arguments.size}, "
        f"cases 0 to {arguments.cases - 1}, {arguments.members} members, {sampler.sampler.calls} noise levels, "
        f"{arguments.iterations} iterations, seed = number of the case\n"
    )
    columns = ("problem", "ours %", "reference %", "data as answer %", "CRPS s-1", "spread/skill", "coverage 90 %")
    columns += ("solver",
               "gradients", "s/case")  # fmt: skip
    print("| " + " | ".join(columns) + " |")
    print("|---" * 10 + "|", flush=True)
    for name in arguments.problems:
        problem, rows = problems.get(name, size=arguments.size), []
        begin = time.process_time()
        for index in range(arguments.cases):
            case = problem.case(index)
            result = scidiff.reconstruct(
                problem, case.observation, sampler, members=arguments.members, seed=index, truth=case.truth
            )
            s = {k: float(v) for k, v in problem.evaluate(result, case.truth).items()}
            best = s["relative_l2_bayes"] if "forward" in name else s["relative_l2_4dvar"]
            naive = s.get("relative_l2_no_dynamics", np.nan)
            cost = json.loads(result.attrs["cost"])
            rows.append([100 * s["relative_l2"], 100 * best, 100 * naive, s["crps"], s["spread_skill"],
                         s["coverage_90"], cost["operator"], cost["operator_vjp"]])  # fmt: skip
        mean = np.mean(rows, 0)
        cells = [f"{v:.2f}" for v in mean[:3]] + [f"{mean[3]:.4f}"] + [f"{v:.2f}" for v in mean[4:6]]
        cells += [f"{v:.0f}" for v in mean[6:]] + [f"{(time.process_time() - begin) / arguments.cases:.0f}"]
        print("| " + " | ".join([name, *cells]).replace("nan", "") + " |", flush=True)
    print("\n" + PUBLISHED)


if __name__ == "__main__":
    main()
