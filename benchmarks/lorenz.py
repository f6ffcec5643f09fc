"""Lorenz-63 by the published protocol: are draws from windows draws from the truth?

    python benchmarks/lorenz.py [--protocols lo hi] [--corrections 0 1 2 4] [--cases 16] [--members 32] [--steps 128]
        [--guidance sda] [--k 8 --stride 17] [--prior NAME] [--particles 16384] [--seed 0] [--first 0]
        [--out FILE.jsonl]

For each protocol and number C of Langevin corrections a step: means over cases of log p(x) of the members
(transitions), log p(y|x) (standardised units) and the Wasserstein distance W1 to as many draws of a particle smoother
that knows the equations; then the same of a second set of smoother draws ("truth"), and the mean difference, case by
case, with its 95 % interval. Lines of cases are added to FILE as they are done, and taken from there by a later run
with the same settings.

Reference: Score-based Data Assimilation (Rozet and Louppe, 2023), arXiv:2306.10574, section 4.1.
"""

import argparse
import json
import math
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from scidiff.assimilation import Observations
from scidiff.inference import Posterior
from scidiff.posterior import MMPS, SDA
from scidiff.problems import LorenzAssimilation
from scidiff.samplers import DPMSolver, PredictorCorrector
from scidiff.schedules import karras

NAMES = ("log_px", "log_py", "w1")


def integrator(steps: int, corrections: int, snr: float, last: float = 2e-3):
    """The stochastic solver down to a level far below the noise of a transition, which is 0.018."""
    predictor = DPMSolver(steps, partial(karras, sigma_min=last, sigma_max=20.0), stochastic=True)
    return PredictorCorrector(predictor=predictor, corrections=corrections, snr=snr) if corrections else predictor


def several(problem, cases) -> tuple[Posterior, list[Observations]]:
    """All cases as rows of one posterior."""
    records = [problem.observations(case.observation) for case in cases]
    one = records[0]
    rows = Observations(one.steps, one.operator, one.noise, torch.cat([r.y for r in records]))
    return Posterior(problem.prior, rows.likelihood(problem.length)), records


def scores(problem, record: Observations, x: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
    """Of trajectories (M, C, L) beside those of the smoother."""
    x = x.double()
    part = record.likelihood(problem.length).tile(len(x))
    units = record.y.numel() * math.log(problem.noise / problem.relative_noise)
    return {
        "log_px": float(problem.model.log_prob(problem.model.vectors(x)).mean()),
        "log_py": float(part.log_prob(x).mean()) + units,
        "w1": problem.wasserstein(x, truth.double()),
    }


def interval(values: list[float]) -> str:
    v = torch.tensor(values, dtype=torch.float64)
    wide = 1.96 * float(v.std()) / math.sqrt(len(v)) if len(v) > 1 else float("nan")
    return f"{float(v.mean()):8.2f} +- {wide:5.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--protocols", nargs="*", default=["lo", "hi"])
    parser.add_argument("--corrections", nargs="*", type=int, default=[0, 1, 2, 4])
    parser.add_argument("--cases", type=int, default=16)
    parser.add_argument(
        "--first", type=int, default=0, help="number of the first case; settings were chosen from 100 on"
    )
    parser.add_argument("--group", type=int, default=4, help="cases at once")
    parser.add_argument("--members", type=int, default=32)
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--snr", type=float, default=0.25)
    parser.add_argument("--last", type=float, default=2e-3, help="last noise level")
    parser.add_argument("--guidance", choices=["mmps", "sda"], default="sda")
    parser.add_argument("--iterations", type=int, default=8, help="of mmps")
    parser.add_argument("--gamma", type=float, default=0.01, help="of sda")
    parser.add_argument("--prior", help="name or file of the prior of windows")
    parser.add_argument("--k", type=int)
    parser.add_argument("--stride", type=int)
    parser.add_argument("--particles", type=int, default=16384)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    ends = ("protocols", "corrections", "cases", "first", "threads", "out")
    settings = {k: v for k, v in vars(given).items() if k not in ends}
    print(f"cases {given.first} to {given.first + given.cases - 1}, {settings}, threads {given.threads}", flush=True)
    kept = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out and given.out.exists() else []
    print(f"{'':10s} {'seconds':>8s}" + "".join(f"{name:>19s}" for name in NAMES) + "   difference from the truth's")
    for protocol in given.protocols:
        options = {"prior": given.prior, "k": given.k, "stride": given.stride, "particles": given.particles}
        problem = LorenzAssimilation(protocol, **{k: v for k, v in options.items() if v is not None}, seed=given.seed)
        print(f"{protocol}: exact draws have " + ", ".join(f"{k} {v:.2f}" for k, v in problem.levels.items()))
        smoothed: dict[int, tuple[torch.Tensor, dict[str, float]]] = {}
        for count in given.corrections:
            method = {"mmps": partial(MMPS, iterations=given.iterations), "sda": partial(SDA, gamma=given.gamma)}
            sampler = method[given.guidance](integrator(given.steps, count, given.snr, given.last))
            ours, truths, seconds = [], [], 0.0
            for first in range(given.first, given.first + given.cases, given.group):
                key = {"protocol": protocol, "C": count, "first": first, **settings}
                found: Any = next((r for r in kept if r["key"] == key), None)
                if found is None:
                    found = group(problem, sampler, first, given, smoothed) | {"key": key}
                    if given.out:
                        with given.out.open("a") as file:
                            file.write(json.dumps(found) + "\n")
                ours, truths, seconds = ours + found["ours"], truths + found["truths"], seconds + found["seconds"]
            rows = [(row, [r[name] for r in ours], [r[name] for r in truths]) for row, name in enumerate(NAMES)]
            print(f"  C = {count:<4d} {seconds:8.0f}" + "".join(f"{interval(a):>19s}" for _, a, _ in rows), end="   ")
            print("; ".join(interval([x - y for x, y in zip(a, b, strict=True)]).strip() for _, a, b in rows))
        print("  truth             " + "".join(f"{interval(b):>19s}" for _, _, b in rows), flush=True)


def group(problem, sampler, first: int, given, smoothed) -> dict:
    """Scores of some cases; the smoother's draws are kept for the next sampler."""
    numbers = range(first, min(first + given.group, given.first + given.cases))
    cases = [problem.case(index) for index in numbers]
    posterior, records = several(problem, cases)
    begin = time.perf_counter()
    x = sampler(posterior, given.members, torch.Generator().manual_seed(first)).samples  # (M, cases, 3, L)
    seconds, ours = time.perf_counter() - begin, []
    for place, (index, case, record) in enumerate(zip(numbers, cases, records, strict=True)):
        if index not in smoothed:
            a, b = (problem.smoother(case.observation, given.members, seed) for seed in (0, 1))
            smoothed[index] = (a, scores(problem, record, b, a))
        ours.append(scores(problem, record, x[:, place], smoothed[index][0]))
    return {"ours": ours, "truths": [smoothed[index][1] for index in numbers], "seconds": seconds}


if __name__ == "__main__":
    main()
