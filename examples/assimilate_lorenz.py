"""How well is chaos known from one coordinate, seen now and then?

Lorenz-63 is observed in its first coordinate only, every 8th state. A particle smoother, which knows the equations, is
the truth; score-based assimilation knows windows of five states from simulations only. The table says how far its
draws are from the truth, the picture shows both.
"""

from pathlib import Path

import torch

from scidiff.posterior import MMPS, SDA
from scidiff.problems import LorenzAssimilation
from scidiff.samplers import DPMSolver

PROTOCOL, LENGTH = "lo", 65
PRIOR = None  # or the path of a trained prior, see examples/priors/lorenz63.toml
COMPONENTS, PARTICLES, MEMBERS, STEPS = 32, 8192, 64, 64
OUTPUT = Path("runs/assimilate_lorenz.png")


def main(
    length: int = LENGTH,
    components: int = COMPONENTS,
    particles: int = PARTICLES,
    members: int = MEMBERS,
    steps: int = STEPS,
    output: Path = OUTPUT,
) -> dict[str, dict[str, float]]:
    problem = LorenzAssimilation(PROTOCOL, prior=PRIOR, components=components, particles=particles, length=length)
    case = problem.case(0)
    posterior = problem.posterior(case.observation)
    draws = {"particle smoother": problem.smoother(case.observation, members, seed=2).float()}
    for method in (SDA, MMPS):
        sampler = method(DPMSolver(steps, stochastic=True))
        draws[method.__name__] = sampler(posterior, members, torch.Generator().manual_seed(0)).samples[:, 0]
    table, names = {}, ("rmse", "crps", "spread_skill", "log_px", "log_py", "w1")
    for name, x in draws.items():
        data = case.observation.assign(state=(("member", *problem.dims), x.numpy()))
        scores = problem.evaluate(data, case.truth)
        table[name] = {key: float(scores[key]) for key in names}
        table["exact draws, over cases"] = {
            "log_px": problem.levels["log_px"],
            "log_py": problem.levels["log_py"],
            "w1": float(scores["w1_floor"]),
        }
    print(f"{'':26s}" + "".join(f"{name:>13s}" for name in names))
    for name, row in table.items():
        print(f"{name:26s}" + "".join(f"{row[k]:13.2f}" if k in row else f"{'':13s}" for k in names))
    data = case.observation.assign(state=(("member", *problem.dims), draws["MMPS"].numpy()), truth=case.truth["state"])
    output.parent.mkdir(parents=True, exist_ok=True)
    problem.plot(data).savefig(output, dpi=120)
    print(f"draws of MMPS over the truth: {output}")
    return table


if __name__ == "__main__":
    main()
