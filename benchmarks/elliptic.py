"""Few points of a field and an equation: how far from the best possible answer are we, and where is published work?

    python benchmarks/elliptic.py [--sizes 64 128] [--rows analytic pairs darcy] [--cases 4] [--folder runs/elliptic]

Each cell (problem, row, case) is a file in ``--folder`` as soon as it is done; a run that was stopped goes on, and the
table is made of the files. Of the quantity asked for: relative L2 error (per cent, mean over cases) of the mean of our
members and of the exact posterior mean ("Bayes"); ``gap``, the root mean square over cases of the expected error of our
mean over the least possible one (32 exact draws have 1.016, 16 have 1.031); ``exact 90 %``, the share of our members
in the exact central 90 % intervals, point by point; ``truth 90 %``, the share of points whose truth lies in our central
90 % intervals (it varies much from case to case). Calls: network / its products / operator / its products, a member.

Rows: ``analytic`` has the law of the source as prior. ``pairs`` has the learned joint prior of (a, u), which answers by
itself (``pairs, mmps``), with the solver as forward model of a alone (``pairs, mmps, solver``), or guided by the
equation's residual (``pairs, diffusion_pde``). ``darcy`` has no closed form; its baselines stand beside it.
"""

import argparse
import hashlib
import json
import time
from functools import partial
from pathlib import Path

import torch

from scidiff import problems
from scidiff.fields import write_json
from scidiff.posterior import MMPS, DiffusionPDE
from scidiff.samplers import DPMSolver
from scidiff.schedules import karras, log_linear

LINEAR = ("poisson-forward", "poisson-inverse", "helmholtz-forward", "helmholtz-inverse")
POISSON = ("poisson-forward", "poisson-inverse")
DARCY = ("darcy-forward", "darcy-inverse")
DRAWS = 256
"""Exact draws from which the spread of the exact posterior is taken where the solution is asked for."""

PUBLISHED = """\
Published, 128x128, 500 points without noise, relative L2 error in %, forward / inverse; all values are transcriptions
that have not been confirmed against the papers:
  method                          steps  Poisson        Helmholtz      Darcy
  FunDPS                            500  1.99 / 20.47   2.13 / 17.16   2.49 / 5.18    (unconfirmed)
  DiffusionPDE, re-run by FunDPS   2000  4.88 / 21.10   12.64 / 19.07  6.07 / 7.87    (unconfirmed)
  FNO, in FunDPS's table              -  100.9 / 232.7  98.2 / 218.2   28.2 / 49.3    (unconfirmed)"""


def rows(given: argparse.Namespace) -> dict[str, tuple]:
    """Label -> names of problems, arguments of the problem, how its posterior is made, sampler."""
    pairs = {"state": "pair", "prior": given.prior} if given.prior else {"state": "pair"}
    few = DPMSolver(given.pair_steps, partial(log_linear, sigma_max=80.0), stochastic=True)
    guided = DiffusionPDE(given.guided_steps, schedule=partial(karras, sigma_max=80.0))
    exact = MMPS(DPMSolver(given.steps, stochastic=True), solver="direct")
    learned = MMPS(few, given.iterations, solver="scaled")
    gradient = MMPS(DPMSolver(given.pair_steps, stochastic=True), given.iterations)
    wide = DiffusionPDE(given.guided_steps, schedule=partial(karras, sigma_max=300.0))
    return {
        "analytic": {"analytic, mmps": (LINEAR, {}, "posterior", exact)},
        "pairs": {
            "pairs, mmps": (POISSON, pairs, "posterior", learned),
            "pairs, mmps, solver": (POISSON, pairs, "with_solver", learned),
            "pairs, diffusion_pde": (POISSON, pairs, "with_residual", guided),
        },
        "darcy": {
            "analytic, mmps": (DARCY, {}, "posterior", gradient),
            "pairs, mmps": (DARCY, {"state": "pair"}, "posterior", learned),
            "pairs, diffusion_pde": (DARCY, {"state": "pair"}, "with_residual", wide),
            "baseline": (DARCY, {}, "posterior", None),
        },
    }  # fmt: skip


def cell(problem, make: str, sampler, index: int, members: int) -> dict:
    """One case: its scores, cost and time."""
    case, begin = problem.case(index), time.perf_counter()
    if sampler is None:
        x = problem.baselines(case.observation)
        (label, found), calls = next(iter(x.items())), ""
        fields = torch.from_numpy(found.values)[None]
    else:
        posterior, label = getattr(problem, make)(case.observation), ""
        ensemble = sampler(posterior, members, torch.Generator().manual_seed(index), batch_size=32)
        fields, calls = ensemble.samples[:, 0], "/".join(map(str, ensemble.cost.as_dict().values()))
        if make == "with_solver":
            fields = problem.solved(fields)
        fields = fields.reshape(-1, *problem.template(case.observation).shape)
    seconds = time.perf_counter() - begin
    result = case.observation.assign({problem.field: (("member", *problem.dims), fields.numpy())})
    scores = {k: float(v) for k, v in problem.evaluate(result, case.truth).items()}
    asked = problem.both(fields)["au".index(problem.asked)].flatten(1)
    covered = float("nan")
    if "gap" in scores:
        exact = problem.exact(case.observation)
        if problem.asked == "u":
            draws = problem.solver(exact.sample(DRAWS, torch.Generator().manual_seed(1)))
            mean, std = problem.solver(exact.mean[None]).flatten(), draws.flatten(1).std(0)
        else:
            mean, std = exact.mean.flatten(), exact.variance.flatten().sqrt()
        covered = float(((asked - mean).abs() <= 1.6448536 * std).double().mean())
    return {"scores": scores, "covered": covered, "calls": calls, "seconds": seconds, "label": label}


def average(values: list[float]) -> float:
    return sum(values) / len(values)


def line(size: int, name: str, label: str, cells: list[dict], members: int) -> str:
    scores = [c["scores"] for c in cells]

    def mean(key: str) -> float:
        return average([s.get(key, float("nan")) for s in scores])

    gap = average([s.get("gap", float("nan")) ** 2 for s in scores]) ** 0.5
    label = f"{label}: {cells[0]['label']}" if cells[0]["label"] else label
    text = (
        f"{size:4d} {name:18s} {label:32s} {len(cells):5d} {members if cells[0]['calls'] else 1:7d} "
        f"{mean('relative_l2'):7.2f} {mean('relative_l2_bayes'):7.2f} {gap:6.3f} "
        f"{average([c['covered'] for c in cells]):10.3f} {mean('coverage_90'):10.3f} {mean('chi2'):7.2f} "
        f"{average([c['seconds'] for c in cells]):7.1f}  {cells[0]['calls']}"
    )
    return text.replace("nan", "  -")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[64, 128])
    parser.add_argument("--rows", nargs="*", default=["analytic", "pairs", "darcy"])
    parser.add_argument("--problems", nargs="*", help="only these")
    parser.add_argument("--labels", nargs="*", help="only these rows")
    parser.add_argument("--cases", type=int, default=4)
    parser.add_argument("--members", type=int, default=32, help="of the analytic prior")
    parser.add_argument("--pair-members", type=int, default=16, help="of learned priors and of Darcy's equation")
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--pair-steps", type=int, default=32)
    parser.add_argument("--guided-steps", type=int, default=100)
    parser.add_argument("--iterations", type=int, default=6, help="of the solver with a learned prior")
    parser.add_argument("--prior", help="another joint prior of pairs of Poisson's equation, a name or a file")
    parser.add_argument("--folder", type=Path, default=Path("runs/elliptic"))
    parser.add_argument("--show", action="store_true", help="print what the folder holds, compute nothing")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    given.folder.mkdir(parents=True, exist_ok=True)
    print(f"threads {given.threads}, cases 0 to {given.cases - 1}; seed of members: the case's number")
    print(
        f"{'size':>4s} {'problem':18s} {'prior, sampler':32s} {'cases':>5s} {'members':>7s} {'ours %':>7s} "
        f"{'Bayes %':>7s} {'gap':>6s} {'exact 90 %':>10s} {'truth 90 %':>10s} {'chi2':>7s} {'s/case':>7s}  calls"
    )
    table = rows(given)
    for kind in given.rows:
        for size in given.sizes if kind == "analytic" else [64]:
            for label, (names, options, make, sampler) in table[kind].items():
                if given.labels and label not in given.labels:
                    continue
                for name in names:
                    if given.problems and name not in given.problems:
                        continue
                    members = given.members if kind == "analytic" else given.pair_members
                    problem = problems.get(name, size=size, **options)
                    card = getattr(problem.prior, "card", {})
                    settings = f"{sampler!r} {make} {options} {members} {card.get('sha256', '')}"
                    key = hashlib.blake2b(settings.encode(), digest_size=4).hexdigest()
                    cells = []
                    for index in range(given.cases):
                        path = given.folder / f"{name}-{size}-{label.replace(', ', '-')}-{key}-{index}.json"
                        if not path.is_file() and not given.show:
                            found = cell(problem, make, sampler, index, members)
                            write_json(path, {"settings": settings, **found})
                        if path.is_file():
                            cells.append(json.loads(path.read_text(encoding="utf-8")))
                    if cells:
                        print(line(size, name, label, cells, members), flush=True)
    print(PUBLISHED)


if __name__ == "__main__":
    main()
