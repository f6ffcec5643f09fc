"""M87* in April 2017: misfit per data product, ring and its spread per day and band, beside the published diameter.

    python benchmarks/m87.py --data FOLDER                      # 11 April, low band
    python benchmarks/m87.py --data FOLDER --days 095 096 100 101 --bands lo hi
    python benchmarks/m87.py --data FOLDER --prior generic      # a prior that knows no rings
    python benchmarks/m87.py --sources crescent disc double     # simulated sources instead, no data needed

The table prints, per set of visibilities: numbers of closure phases and log closure amplitudes; members kept, which is
those with both misfits between 0.8 and 1.5; their misfits (mean, least and largest); the share of them that are rings;
mean and standard deviation over the members of the ring's diameter and width; and the position angle of its brightest
side. Published diameter: 42 +- 3 microarcseconds (First M87 Event Horizon Telescope Results VI, 2019).
"""

import argparse
import os
import time
import warnings
from pathlib import Path

import numpy as np
import torch

from scidiff import posterior, problems

PRIOR = "rings"
MEMBERS = 4
STEPS, ITERATIONS = 32, 6
DAYS, BANDS = ("101",), ("lo",)


def methods(steps: int, iterations: int) -> dict:
    """Samplers at budgets of some hundred network calls and products per member."""
    return {
        "mmps": posterior.get("mmps", steps=steps, iterations=iterations),
        "dps": posterior.get("dps", steps=200),
        "daps": posterior.get("daps", steps=30, moves=5, width="published"),
        "pnpdm": posterior.get("pnpdm", iterations=60),
    }


HEAD = (
    f"{'data':16s} {'CP':>4s} {'LCA':>4s} {'kept':>5s} {'chi2 CP':>18s} {'chi2 LCA':>18s} {'flux':>5s} {'rings':>5s}"
    f" {'diameter':>13s} {'width':>12s} {'angle':>6s} {'s/member':>8s}"
)


def row(label: str, problem, observation, sampler, members: int, seed: int) -> str:
    begin = time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    ensemble = sampler(problem.posterior(observation), members, generator)
    seconds = (time.perf_counter() - begin) / members
    table, numbers = problem.members(ensemble, observation), problem.check(observation)
    good = table["kept"].values
    part = table.isel(member=np.flatnonzero(good)) if good.any() else table
    rings = part.isel(member=np.flatnonzero(part["is_ring"].values))

    def misfit(name: str) -> str:
        v = part[f"chi2_{name}"].values
        return f"{v.mean():.2f} ({v.min():.2f}-{v.max():.2f})"

    def spread(name: str) -> str:
        v = rings[name].values
        return f"{v.mean():.1f} +- {v.std(ddof=1):.1f}" if len(v) > 1 else f"{v.mean():.1f}" if len(v) else "none"

    turn = (
        np.angle(np.exp(1j * np.deg2rad(rings["angle"].values)).mean(), deg=True) if rings.sizes["member"] else np.nan
    )
    return (
        f"{label:16s} {numbers['closure_phases']:4d} {numbers['log_closure_amplitudes']:4d}"
        f" {good.sum():2d}/{members:<2d}"
        f" {misfit('closure_phase'):>18s} {misfit('log_closure_amplitude'):>18s} {float(part['flux'].mean()):5.2f}"
        f" {float(part['is_ring'].mean()):5.2f} {spread('diameter'):>13s} {spread('width'):>12s} {turn % 360:6.0f}"
        f" {seconds:8.1f}" + ("" if good.any() else "   no member kept: numbers of all")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SCIDIFF_DATA", "data")) / "eht" / "m87")
    parser.add_argument("--days", nargs="+", default=DAYS)
    parser.add_argument("--bands", nargs="+", default=BANDS)
    parser.add_argument("--together", action="store_true", help="both bands of a day in one posterior")
    parser.add_argument("--sources", nargs="+", help="simulated sources instead of data")
    parser.add_argument("--prior", default=PRIOR, help="bundled name, .safetensors file, or generic")
    parser.add_argument("--samplers", nargs="+", default=["mmps"])
    parser.add_argument("--members", type=int, default=MEMBERS)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--iterations", type=int, default=ITERATIONS)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print(
        f"prior {options.prior}, {options.members} members, seed {options.seed}, one thread,"
        f" mmps {options.steps} steps of {options.iterations} iterations"
    )
    print(HEAD, flush=True)
    table = methods(options.steps, options.iterations)
    for name in options.samplers:
        if options.sources:
            for kind in options.sources:
                array = options.data / "SR1_M87_2017_101_lo.csv"
                where = str(array) if array.is_file() else "eht2017"
                settings = {"prior": options.prior, "source": kind, "array": where}
                problem = problems.get("black-hole", systematic=0.0, **settings)  # simulated data have no such errors
                case = problem.case(0)
                print(
                    row(f"{name} {kind}", problem, case.observation, table[name], options.members, options.seed),
                    flush=True,
                )
            continue
        problem = problems.get("black-hole", prior=options.prior)
        for day in options.days:
            files = {band: options.data / f"SR1_M87_2017_{day}_{band}.csv" for band in options.bands}
            sets = {f"{name} {day} both": list(files.values())} if options.together else {
                f"{name} {day} {band}": path for band, path in files.items()
            }  # fmt: skip
            for label, source in sets.items():
                observation = problem.read(source)
                print(row(label, problem, observation, table[name], options.members, options.seed), flush=True)


if __name__ == "__main__":
    main()
