"""What does the pressure in a few wells tell about the rock between them?

Rock has one of two permeabilities. The pressure of water that seeps through it is measured at 3 % of the points. The
prior is a Gaussian field seen through a smooth step. MMPS follows the gradient of the solver, EnKG runs the same solver
as a black box. The table says how far their means are from the true permeability, beside a homogeneous medium.
"""

from functools import partial
from pathlib import Path

import numpy as np

import scidiff
from scidiff import problems
from scidiff.posterior import MMPS, EnKG
from scidiff.samplers import DPMSolver
from scidiff.schedules import log_linear

SIZE = 32
MEMBERS = 16
STEPS = 32
PARTICLES = 64
NOISE = 0.01
OUTPUT = Path("runs/darcy_inverse.png")


def main(
    size: int = SIZE,
    members: int = MEMBERS,
    steps: int = STEPS,
    particles: int = PARTICLES,
    output: Path = OUTPUT,
) -> dict[str, dict[str, float]]:
    problem = problems.get("darcy-inverse", size=size, noise=NOISE)
    case = problem.case(0)
    samplers = {
        "mmps": MMPS(DPMSolver(steps, partial(log_linear, sigma_max=300.0), stochastic=True), iterations=6),
        "enkg": EnKG(steps=steps, particles=particles),
    }
    truth = case.truth["a"].values
    flat = problem.baselines(case.observation)["homogeneous"].values
    table = {"homogeneous": {"relative_l2": 100 * float(np.linalg.norm(flat - truth) / np.linalg.norm(truth))}}
    for name, sampler in samplers.items():
        count = members if name == "mmps" else particles
        result = scidiff.reconstruct(problem, case.observation, sampler, members=count, truth=case.truth)
        table[name] = {k: float(v) for k, v in problem.evaluate(result, case.truth).items()}
        if name == "mmps":
            output.parent.mkdir(parents=True, exist_ok=True)
            problem.plot(result).savefig(output)
    columns = ("relative_l2", "crps", "spread_skill", "coverage_90", "chi2")
    print(f"{'':12s}" + "".join(f"{c:>13s}" for c in columns))
    for name, scores in table.items():
        print(f"{name:12s}" + "".join(f"{scores[c]:13.3f}" if c in scores else f"{'-':>13s}" for c in columns))
    print(f"errors in per cent of the norm of the permeability; the picture is in {output}")
    return table


if __name__ == "__main__":
    main()
