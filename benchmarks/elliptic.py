"""Few points of a field and an equation: how far from the best possible answer are we, and where is published work?

    python benchmarks/elliptic.py [--size 64] [--cases 4] [--members 32] [--steps 64] [--pairs FILE] [--threads 1]

For each problem the relative L2 error (per cent, mean over cases) of the posterior mean: ours, that of the exact
posterior ("Bayes"), and the root mean square over cases of the gap, the expected error of our mean over the least
possible one (32 exact draws have 1.016). Coverage is that of the exact central 90 % intervals of every pixel by our
members. With ``--pairs``, a joint prior of (a, u) trained on Poisson's equation, the same from pairs.
"""

import argparse
import time
from functools import partial

import torch

from scidiff import problems
from scidiff.posterior import MMPS, DiffusionPDE
from scidiff.samplers import DPMSolver
from scidiff.schedules import karras, log_linear
from scidiff.testing.posterior import compare_with_exact

ANALYTIC = ("poisson-forward", "poisson-inverse", "helmholtz-forward", "helmholtz-inverse")
SIGMA_MAX = 300.0
"""Four times the standard deviation of the strongest pattern of the fields, on 64x64 points."""

PUBLISHED = """\
Published, 128x128, 500 points without noise, relative L2 error in %, forward / inverse; all values are transcriptions
that have not been confirmed against the papers:
  method                          steps  Poisson        Helmholtz      Darcy
  FunDPS                            500  1.99 / 20.47   2.13 / 17.16   2.49 / 5.18    (unconfirmed)
  DiffusionPDE, re-run by FunDPS   2000  4.88 / 21.10   12.64 / 19.07  6.07 / 7.87    (unconfirmed)
  FNO, in FunDPS's table              -  100.9 / 232.7  98.2 / 218.2   28.2 / 49.3    (unconfirmed)"""


def rms(values: list[float]) -> float:
    return (sum(v * v for v in values) / len(values)) ** 0.5


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def row(label: str, problem, posterior_of, sampler, cases: int, members: int) -> None:
    ours, bayes, gaps, covered, begin, cost = [], [], [], [], time.perf_counter(), None
    for index in range(cases):
        case = problem.case(index)
        ensemble = sampler(posterior_of(case.observation), members, torch.Generator().manual_seed(index), batch_size=16)
        cost = ensemble.cost.as_dict()
        fields = ensemble.samples[:, 0].reshape(members, *problem.template(case.observation).shape)
        result = case.observation.assign({problem.field: (("member", *problem.dims), fields.numpy())})
        scores = problem.evaluate(result, case.truth)
        ours.append(float(scores["relative_l2"]))
        bayes.append(float(scores["relative_l2_bayes"]))
        gaps.append(float(scores["gap"]))
        a, _ = problem.both(ensemble.samples)
        covered.append(compare_with_exact(a, problem.exact(case.observation)).coverage if members > 1 else float("nan"))
    seconds = (time.perf_counter() - begin) / cases
    calls = "/".join(str(v) for v in (cost or {}).values())
    print(
        f"{problem.name:18s} {label:26s} {mean(ours):7.2f} {mean(bayes):7.2f} {rms(gaps):6.3f} {mean(covered):8.3f} "
        f"{seconds:7.1f}  {calls}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--cases", type=int, default=4)
    parser.add_argument("--members", type=int, default=32)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=16)
    parser.add_argument("--problems", nargs="*", default=list(ANALYTIC))
    parser.add_argument("--pairs", help="joint prior of pairs of Poisson's equation, a name or a file")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    schedule = partial(log_linear, sigma_max=SIGMA_MAX * given.size / 64)
    mmps = MMPS(DPMSolver(given.steps, schedule, stochastic=True), given.iterations)
    print(f"size {given.size}, cases {given.cases}, members {given.members}, threads {given.threads}; {mmps!r}")
    print(
        f"{'problem':18s} {'prior, sampler':26s} {'ours %':>7s} {'Bayes %':>7s} {'gap':>6s} {'coverage':>8s} "
        f"{'s/case':>7s}  network/product/operator/product"
    )
    for name in given.problems:
        problem = problems.get(name, size=given.size)
        row("analytic, mmps", problem, problem.posterior, mmps, given.cases, given.members)
    if given.pairs:
        guided = DiffusionPDE(given.steps, schedule=partial(karras, sigma_max=SIGMA_MAX))
        for name in ("poisson-forward", "poisson-inverse"):
            problem = problems.get(name, size=given.size, state="pair", prior=given.pairs)
            row("pairs, mmps", problem, problem.posterior, mmps, given.cases, given.members)
            row("pairs, diffusion_pde", problem, problem.with_residual, guided, given.cases, given.members)
    print(PUBLISHED)


if __name__ == "__main__":
    main()
