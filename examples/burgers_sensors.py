"""What did a wave look like at the start, if five sensors saw it pass?

A field obeys Burgers' equation on a ring and steepens into shocks. Five sensors record time series with noise. The
posterior of the initial field is drawn with the solver as forward model, and with it the whole x-t plane. The table
compares with the most probable field, which has no error bars, and with what the prior alone knows.
"""

from pathlib import Path

import torch

import scidiff
from scidiff import problems
from scidiff.inference import Ensemble
from scidiff.posterior import MMPS
from scidiff.samplers import DPMSolver

MEMBERS = 16
POINTS, SENSORS, FRAMES = 64, 5, 16
NOISE = 0.02
STEPS = 16
OUTPUT = Path("runs/burgers_sensors.png")


def main(
    members: int = MEMBERS,
    points: int = POINTS,
    sensors: int = SENSORS,
    frames: int = FRAMES,
    steps: int = STEPS,
    output: Path = OUTPUT,
) -> dict[str, dict[str, float]]:
    problem = problems.get("burgers", points=points, sensors=sensors, frames=frames, noise=NOISE)
    case = problem.case(0)
    sampler = MMPS(sampler=DPMSolver(steps, stochastic=True), iterations=4, linearisations=1)
    result = scidiff.reconstruct(problem, case.observation, sampler, members=members, truth=case.truth)

    def scores(fields: torch.Tensor) -> dict[str, float]:
        return {k: float(v) for k, v in problem.evaluate(Ensemble(fields[:, None]), case.truth).items()}

    mode = torch.as_tensor(problem.baselines(case.observation)["most_probable"].values)[None, None]
    table = {
        "prior": scores(problem.prior.sample(members, torch.Generator().manual_seed(0))),
        "most probable": scores(mode),
        "posterior": {k: float(v) for k, v in problem.evaluate(result, case.truth).items()},
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    problem.plot(result).savefig(output)

    columns = ("relative_l2", "plane_relative_l2", "crps", "coverage_90", "plane_coverage_90")
    print(f"{'':14s}" + "".join(f"{c:>19s}" for c in columns))
    for name, row in table.items():
        print(f"{name:14s}" + "".join(f"{row[c]:19.3f}" if c in row else f"{'-':>19s}" for c in columns))
    print(f"errors of the mean over the norm of the truth; the picture is in {output}")
    return table


if __name__ == "__main__":
    main()
