"""Where did this flow come from, and how sure can one be?

A quarter of the points of a stirred fluid were seen, once, with noise. Which flow led there one turnover earlier? The
solver is run forward from every guess; once its gradient is used (DPS, 4D-Var), once it is a black box (EnKG), as a
solver in another language would be. The table holds relative errors and how many truths lie in the 90 % intervals.
"""

from pathlib import Path
from typing import Any

import torch

import scidiff
from scidiff.inference import Likelihood, Posterior
from scidiff.operators import Frozen
from scidiff.posterior import DPS, EnKG
from scidiff.problems.navier_stokes import NavierStokesInitial

SHAPE = (32, 32)
NOISE, STD, TIME = 0.5, 2.5, 1.0  # noise and vorticity in s-1, time in s
MEMBERS = 8
PARTICLES = 128
STEPS = 100  # of DPS; a solver run and a gradient each
LEVELS = 20  # noise levels of EnKG; two solver runs of every particle each
OUTPUT = Path("runs/navier_stokes_initial.png")


def main(
    shape: tuple[int, int] = SHAPE,
    members: int = MEMBERS,
    particles: int = PARTICLES,
    steps: int = STEPS,
    levels: int = LEVELS,
    output: Path = OUTPUT,
    **physics: Any,
) -> dict[str, dict[str, float]]:
    problem = NavierStokesInitial(shape, **{"noise": NOISE, "std": STD, "time": TIME, "iterations": 40, **physics})
    case = problem.case(0)
    result = scidiff.reconstruct(problem, case.observation, sampler=DPS(steps), members=members, truth=case.truth)

    observation = problem.read(case.observation)
    posterior, part = problem.posterior(observation), problem.likelihood(observation)
    black_box = Posterior(posterior.prior, Likelihood(Frozen(part.operator), part.noise, part.y), posterior.shape)
    blind = EnKG(particles=particles, steps=levels)(black_box, particles, torch.Generator().manual_seed(0))

    table = {"DPS, gradient": problem.evaluate(result, case.truth)}
    table["EnKG, black box"] = problem.evaluate(blind, case.truth)
    found = {
        name: {"error": float(scores["relative_l2"]), "coverage": float(scores["coverage_90"])}
        for name, scores in table.items()
    }
    for name in ("no_dynamics", "4dvar"):
        found[name] = {"error": float(table["DPS, gradient"][f"relative_l2_{name}"]), "coverage": float("nan")}
    print(f"{'':18}{'relative error':>16}{'coverage 90 %':>16}")
    for name, row in found.items():
        print(f"{name:18}{row['error']:16.3f}{row['coverage']:16.3f}")
    output.parent.mkdir(parents=True, exist_ok=True)
    problem.plot(result).savefig(output, dpi=120)
    print(f"truth, data, mean, spread and members: {output}")
    return found


if __name__ == "__main__":
    main()
