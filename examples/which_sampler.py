"""Which sampler can I trust here?

One number is measured of an eight-dimensional field that lies near one of 25 places, and it leaves a few of them
possible. The posterior is known in closed form, so every sampler can be checked: the table says how far its ensemble is
from the exact law and what it costs, the picture shows its draws on top of exact ones. Build a problem from your own
operator and noise with a Gaussian (mixture) prior fitted to your fields to ask the question about your measurement.
"""

import math
from collections.abc import Callable
from pathlib import Path

import torch

from scidiff import posterior
from scidiff.benchmark.exact import ExactProblem, inpainting, modes
from scidiff.benchmark.scores import scores

SAMPLERS = ("mmps", "daps", "dps_annealed", "enkg", "mcgdiff", "tds")
PROBLEM, ARGUMENTS = modes, {"measurements": 1, "seed": 4}
ONE_MODE = inpainting, {"seed": 0}  # or another problem of scidiff.benchmark.exact
MEMBERS = 512
OUTPUT = Path("runs/which_sampler.png")


def main(
    samplers: tuple[str, ...] = SAMPLERS,
    build: Callable[..., ExactProblem] = PROBLEM,
    arguments: dict[str, int] = ARGUMENTS,  # noqa: B006 - never changed
    members: int = MEMBERS,
    output: Path = OUTPUT,
) -> dict[str, dict[str, float]]:
    problem = build(**arguments)
    seed = torch.Generator().manual_seed
    exact = problem.exact.sample(members, seed(1)).float()
    draws, table, calls = {"exact draws": exact}, {}, {"exact draws": ""}
    for name in samplers:
        ensemble = posterior.get(name)(problem.posterior, members=members, generator=seed(0))
        draws[name] = ensemble.samples[:, 0]
        calls[name] = f"{ensemble.cost.denoiser} + {ensemble.cost.denoiser_vjp}"
    for name, fields in draws.items():
        table[name] = {key: value for key, (value, _) in scores(problem, fields, seed(2)).items()}

    measured = ("mean_error", "trace_ratio", "coverage", "distance", "floor")
    columns = [name for name in measured if math.isfinite(table["exact draws"][name])]
    print(f"{'sampler':14s}" + "".join(f"{c:>13s}" for c in columns) + "   network calls + products")
    for name, row in table.items():
        print(f"{name:14s}" + "".join(f"{row[c]:13.3f}" for c in columns) + f"   {calls[name]}")
    print(f"can be trusted here: {', '.join(name for name in samplers if trusted(table[name])) or 'none'}; {output}")
    picture(draws, output)
    return table


def trusted(row: dict[str, float]) -> bool:
    """Where a distance between laws is measured: at most twice that between exact draws. Else by mean and variance."""
    if math.isfinite(row["floor"]):
        return row["distance"] < 2 * row["floor"]
    return row["mean_error"] < 0.2 and abs(row["trace_ratio"] - 1) < 0.1


def picture(draws: dict[str, torch.Tensor], output: Path) -> None:
    """The first two numbers of every member, over those of exact draws."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.4 * len(draws), 2.7), layout="constrained")
    panels = figure.subplots(1, len(draws), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (name, fields) in zip(panels, draws.items(), strict=True):
        for points, colour in ((draws["exact draws"], "#dddddd"), (fields, "#3b6ea5")):
            axes.plot(*points.flatten(1)[:, :2].T.numpy(), ".", color=colour, markersize=3)
        axes.set_title(name, fontsize=9)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=100)


if __name__ == "__main__":
    main()
