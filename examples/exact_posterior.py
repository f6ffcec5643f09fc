"""How far is a sampler from the exact posterior?

A temperature field is seen at a few noisy stations. Prior and noise are Gaussian, so the posterior is known in closed
form. MMPS and DPS draw from it; the table says how far their mean and variance are from the truth about the truth.
"""

from pathlib import Path

import torch

import scidiff
from scidiff import posterior, problems

MEMBERS = 128
SAMPLERS = ("mmps", "dps")
SHAPE = (8, 12)
OUTPUT = Path("runs/exact_posterior.png")


def main(
    members: int = MEMBERS,
    samplers: tuple[str, ...] = SAMPLERS,
    shape: tuple[int, int] = SHAPE,
    output: Path = OUTPUT,
) -> dict[str, dict[str, float]]:
    problem = problems.get("gaussian", shape=shape)
    case = problem.case(0)
    exact = problem.exact(case.observation)

    table = {}
    for name in samplers:
        result = scidiff.reconstruct(problem, case.observation, posterior.get(name), members=members, truth=case.truth)
        table[name] = {k: float(v) for k, v in problem.evaluate(result, case.truth).items()}
        if name == samplers[0]:
            output.parent.mkdir(parents=True, exist_ok=True)
            problem.plot(result).savefig(output)
    draws = exact.sample(members, torch.Generator().manual_seed(0))
    ideal = case.observation.assign(temperature=(("member", "y", "x"), draws[:, 0].float().numpy()))
    table["exact"] = {k: float(v) for k, v in problem.evaluate(ideal, case.truth).items()}

    columns = ("mean_error", "trace_ratio", "rmse", "crps", "coverage_90")
    print(f"{'sampler':10s}" + "".join(f"{c:>13s}" for c in columns))
    for name, scores in table.items():
        print(f"{name:10s}" + "".join(f"{scores[c]:13.3f}" for c in columns))
    print(f"mean_error of {members} exact draws is about {members**-0.5:.3f}; the picture is in {output}")
    return table


if __name__ == "__main__":
    main()
