"""Latent samplers beside pixel samplers and total variation on one problem: at equal calls and at equal seconds.

Every method draws an ensemble for the same held-out cases. Two budgets are compared. *Calls*: passes through the
network and the operator (with the decoder), forward and back, per member. *Seconds*: wall time of a case. The steps of
a method are those that two short runs predict for the budget; what it then took is in the table. Defaults otherwise.

Each cell (method, budget, case) runs in a process of its own, so that its peak memory is its own, and writes one JSON
file; a run that was stopped goes on where it was. Total variation is the problem's own baseline.

    python benchmarks/latent_quality.py ct --latent NAME_OR_PATH --data FILE --out runs/latent_quality
        [--pixel NAME] [--set views=25] [--cases 5] [--members 8] [--calls 400] [--seconds 60] [--threads 1]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

METHODS: dict[str, tuple[str, bool, dict[str, Any]]] = {
    "resample": ("resample", True, {}),
    "resample, white": ("resample", True, {"width": "white"}),
    "resample, published": ("resample", True, {"form": "published"}),
    "psld": ("psld", True, {}),
    "psld, published": ("psld", True, {"form": "published"}),
    "latent_daps": ("latent_daps", True, {}),
    "latent_dps": ("latent_dps", True, {"form": "published"}),
    "mmps": ("mmps", False, {}),
    "dps": ("dps", False, {}),
    "daps": ("daps", False, {}),
}
SCORES = ("psnr", "ssim", "crps", "coverage_90", "chi2")
PROBE = 6
"""Steps of the run that predicts how many a budget allows; below 20 some methods skip parts of themselves."""


def parse(pairs: list[str]) -> dict[str, Any]:
    """``key=value`` to a dictionary; values are JSON where they can be."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        try:
            found[key] = json.loads(value)
        except json.JSONDecodeError:
            found[key] = value
    return found


def prepared(a: argparse.Namespace, case: int, latent: bool) -> tuple[Any, Any, Any]:
    """The problem, one case, and its posterior with the pixel prior or the one of codes."""
    import torch

    from scidiff import Posterior, problems
    from scidiff.priors import LatentPrior, load_pretrained

    settings = parse(a.set) | ({"prior": a.pixel} if a.pixel else {}) | ({"data": a.data} if a.data else {})
    problem: Any = problems.get(a.problem, **settings)
    found = problem.case(case)
    posterior = problem.posterior(found.observation)
    if latent:
        prior: Any = load_pretrained(a.latent)
        if not isinstance(prior, LatentPrior):
            raise SystemExit(f"{a.latent}: expected a prior of codes behind an autoencoder, found another prior.")
        with torch.no_grad():
            field = posterior.prior.decode(torch.zeros(1, *posterior.shape)).shape[1:]
        stride = prior.autoencoder.stride
        if any(n % stride for n in field[1:]):
            prior = LatentPrior(prior.autoencoder.on(tuple(field[1:])), prior.prior)  # type: ignore[attr-defined]
        posterior = Posterior(prior, posterior.likelihood, prior.state_shape(tuple(field)))
    return problem, found, posterior


def run(method: Any, posterior: Any, members: int) -> tuple[Any, float, float]:
    """The ensemble, seconds, and calls per member."""
    import torch

    begin = time.perf_counter()
    ensemble = method(posterior, members, torch.Generator().manual_seed(0))
    return ensemble, time.perf_counter() - begin, float(sum(ensemble.cost.as_dict().values()))


def cell(a: argparse.Namespace, name: str, budget: str, case: int) -> dict[str, Any]:
    """One method with one budget on one case."""
    import torch

    from scidiff.posterior import get

    torch.set_num_threads(a.threads)
    kind, latent, options = METHODS[name]
    problem, found, posterior = prepared(a, case, latent)
    if budget == "default":
        steps = None
    else:  # two probes: what a run costs beside its steps, and what a step costs
        short, long = (run(get(kind, **options, steps=PROBE * k), posterior, a.members) for k in (2, 4))
        index, limit = (1, a.seconds) if budget == "seconds" else (2, a.calls)
        each = max((long[index] - short[index]) / (2 * PROBE), 1e-9)
        fixed = max(0.0, short[index] - 2 * PROBE * each)
        steps = max(4, min(1000, int((limit - fixed) / each)))
        options = {**options, "steps": steps}
    ensemble, seconds, calls = run(get(kind, **options), posterior, a.members)
    result = found.observation.assign(
        {problem.field: (("member", *found.truth[problem.field].dims), ensemble.samples[:, 0, 0].numpy())}
    )
    scores = {key: float(value) for key, value in problem.evaluate(result, found.truth).items()}
    return {
        "method": name, "budget": budget, "case": case, "steps": steps, "seconds": seconds, "calls": calls,
        "decoder": ensemble.diagnostics.get("decoder"), "unreached": ensemble.diagnostics.get("unreached"),
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "scores": {key: value for key, value in scores.items() if value == value},
    }  # fmt: skip


def path_of(a: argparse.Namespace, name: str, budget: str, case: int) -> Path:
    """The file of a cell: its name, and a fingerprint of the settings that decide its numbers."""
    limit = {"seconds": a.seconds, "calls": a.calls, "default": 0}[budget]
    key = [a.problem, a.latent, a.pixel, a.data, sorted(a.set), a.members, limit, METHODS[name]]
    digest = hashlib.blake2b(json.dumps(key).encode(), digest_size=4).hexdigest()
    return a.out / f"{a.problem}--{name.replace(', ', '-')}--{budget}--{case}--{digest}.json"


def table(a: argparse.Namespace, cells: list[dict[str, Any]]) -> None:
    """Means over cases, method by method; differences beside the first row of a budget in PSNR."""
    columns = ("steps", "calls", "seconds", "peak_gib")
    for budget in a.budgets:
        print(f"\nbudget: {budget}" + {"seconds": f" {a.seconds:g}", "calls": f" {a.calls:g}"}.get(budget, ""))
        print(f"{'':22s}" + "".join(f"{name:>12s}" for name in (*SCORES, *columns, "cases")))
        for name in a.methods:
            rows = [c for c in cells if c["method"] == name and c["budget"] == budget]
            if not rows:
                continue
            numbers = [[c["scores"].get(key) for c in rows] for key in SCORES] + [
                [c[key] for c in rows] for key in columns
            ]
            means = [sum(v) / len(v) if None not in v else None for v in numbers]
            print(
                f"{name:22s}"
                + "".join(f"{'-':>12s}" if v is None else f"{v:12.3f}" for v in means)
                + f"{len(rows):12d}"
            )
    by_case = {c["case"]: c["scores"] for c in cells if "psnr_tv" in c["scores"]}
    if by_case:
        tv = [[s[f"{key}_tv"] for s in by_case.values() if f"{key}_tv" in s] for key in ("psnr", "ssim")]
        print(f"\n{'total variation':22s}" + "".join(f"{sum(v) / len(v):12.3f}" for v in tv if v))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problem")
    parser.add_argument("--latent", required=True, help="prior of codes, by name or path")
    parser.add_argument("--pixel", help="pixel prior; default: the problem's own")
    parser.add_argument("--data", help="file or folder of held-out cases, where the problem takes one")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="parameters of the problem")
    parser.add_argument("--out", type=Path, default=Path("runs/latent_quality"))
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--budgets", nargs="+", choices=["calls", "seconds", "default"], default=["calls", "seconds"])
    parser.add_argument("--cases", type=int, default=5)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--calls", type=float, default=400)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.one:
        name, budget, case = a.one
        target = path_of(a, name, budget, int(case))
        part = target.with_suffix(".part")
        part.write_text(json.dumps(cell(a, name, budget, int(case)), indent=1))
        os.replace(part, target)
        return
    a.out.mkdir(parents=True, exist_ok=True)
    print(
        f"{a.problem} {a.set}, latent {a.latent}, pixel {a.pixel or 'default'}, {a.members} members, seed 0, ", end=""
    )
    print(f"{a.threads} thread(s)")
    cells = []
    for case in range(a.cases):
        for budget in a.budgets:
            for name in a.methods:
                target = path_of(a, name, budget, case)
                if not target.exists():
                    command = [sys.executable, *sys.argv, "--one", name, budget, str(case)]
                    done = subprocess.run(command, capture_output=True, text=True, check=False)
                    if done.returncode:
                        lines = done.stderr.strip().splitlines() or ["no message"]
                        print(f"{name}, {budget}, case {case} failed: {lines[-1]}", flush=True)
                        continue
                cells.append(json.loads(target.read_text()))
                last = cells[-1]
                print(f"{name}, {budget}, case {case}: PSNR {last['scores'].get('psnr', float('nan')):.2f}", flush=True)
    table(a, cells)


if __name__ == "__main__":
    main()
