"""A turbulent flow from a few of its frames: learned windows beside ensemble smoothers that know the equations.

    python benchmarks/kolmogorov.py [--observed coarse subsampled saturating] [--cases 1] [--members 4] [--steps 32]
        [--iterations 4] [--length 17] [--seed 0] [--out FOLDER]

Relative to the vorticity, in per cent: error of the mean of the members (``ours``), of the ensemble Kalman smoother
with and without localisation, of strong 4D-Var and of interpolation (means over cases). ``residual``: root mean square
misfit of our members to the data in units of their noise, 1 is right. ``imbalance``: root mean square of the next frame
by the equations minus the frame drawn, relative to the vorticity, in per cent; then that of the truth, which comes from
a finer grid. Spread-skill and coverage of 90 % intervals are those of ours. Each case is a file in ``--out``, if given;
a stopped run goes on.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path

import torch

from scidiff.posterior import MMPS
from scidiff.problems import KolmogorovAssimilation
from scidiff.samplers import DPMSolver
from scidiff.schedules import karras

BASELINES = ("local_enks", "enks", "strong_4dvar", "interpolation")
COLUMNS = ("ours", *BASELINES, "residual", "imbalance", "(truth)", "spread/skill", "cover 90", "seconds")


def imbalance(problem: KolmogorovAssimilation, x: torch.Tensor) -> float:
    """Of frames (M, L, H, W): how far each is from what the equations make of the one before."""
    model = problem.model
    before, after = x[:, :-1].double().flatten(0, 1).flatten(1), x[:, 1:].double().flatten(0, 1).flatten(1)
    return float((model.step(before) - after).norm() / after.norm())


def cell(given: argparse.Namespace, observed: str, index: int) -> dict:
    problem = KolmogorovAssimilation(observed=observed, length=given.length, seed=given.seed)
    case = problem.case(index)
    predictor = DPMSolver(given.steps, partial(karras, sigma_min=0.01, sigma_max=20.0), stochastic=True)
    begin = time.process_time()
    ensemble = MMPS(predictor, given.iterations)(
        problem.posterior(case.observation), given.members, torch.Generator().manual_seed(index)
    )
    seconds, x = time.process_time() - begin, ensemble.samples[:, 0, 0]
    data = case.observation.assign({problem.field: (("member", "time", "y", "x"), x.float().numpy())})
    scores = {k: float(v) for k, v in problem.evaluate(data, case.truth).items()}
    truth = torch.as_tensor(case.truth[problem.field].values)
    found = {
        name: 100 * float((torch.as_tensor(v.values) - truth).norm() / truth.norm())
        for name, v in problem.baselines(case.observation).items()
    }
    return {
        "ours": 100 * scores["relative_l2"],
        **found,
        "residual": scores["residual"] / problem.noise,
        "imbalance": 100 * imbalance(problem, x),
        "(truth)": 100 * imbalance(problem, truth[None]),
        "spread/skill": scores["spread_skill"],
        "cover 90": scores["coverage_90"],
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--observed", nargs="*", default=["coarse", "subsampled", "saturating"])
    parser.add_argument("--cases", type=int, default=1)
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--iterations", type=int, default=4, help="of MMPS")
    parser.add_argument("--length", type=int, default=17, help="frames")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    settings = {k: getattr(given, k) for k in ("members", "steps", "iterations", "length", "seed")}
    print(f"32x32, cases 0 to {given.cases - 1}, {settings}, threads 1")
    print(f"{'observed':12s} {'cases':>5s}" + "".join(f"{name:>14s}" for name in COLUMNS))
    for observed in given.observed:
        rows = []
        for index in range(given.cases):
            name = "-".join([observed, str(index), *map(str, settings.values())])
            path = given.out / f"{name}.json" if given.out else None
            row = json.loads(path.read_text()) if path and path.is_file() else cell(given, observed, index)
            if path:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(row))
            rows.append(row)
        mean = [sum(row[name] for row in rows) / len(rows) for name in COLUMNS]
        print(f"{observed:12s} {len(rows):5d}" + "".join(f"{v:14.2f}" for v in mean), flush=True)


if __name__ == "__main__":
    main()
