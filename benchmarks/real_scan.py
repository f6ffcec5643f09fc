"""The main job on a real scan: MMPS beside zero-filled and total variation, under two readings of its zeros.

Run ``python benchmarks/real_scan.py SCAN.npy`` with an array (coil, ky, kx) of centred k-space, for example the brain
scan with 8 coils of the data folder. Each protocol is one table:

missing
    Points that are exactly zero in every coil were not measured. All measured points but 5 % are given to the methods;
    the 5 %, outside the calibration region, are predicted. There is no reference image: the held-back samples are the
    truth. Chi2 of a prediction counts the noise alone, so 1 is out of reach of any point estimate.
measured
    Zeros are data, and the image of all k-space is the reference; one line of ``--acceleration`` is kept. This
    reading makes the reference a smooth image whenever the scan was in fact undersampled.

``--check`` prints the forward model's chi2 only. Members are drawn with seed 0 and MMPS's defaults unless told
otherwise; the finished runs stay in ``--out`` and are taken up again.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path

import torch

import scidiff
from scidiff.posterior import get
from scidiff.problems import AcceleratedMRI

COLUMNS = {
    "psnr": "PSNR dB",
    "ssim": "SSIM",
    "crps": "CRPS",
    "coverage_90": "90 % covers",
    "spread_skill": "spread/skill",
    "chi2": "chi2",
    "held_back_chi2_mean": "held-back chi2",
    "held_back_coverage_90": "held-back 90 % covers",
}


def run(scan: Path, zeros: str, options: argparse.Namespace) -> str:
    """One protocol: the table as Markdown."""
    problem = AcceleratedMRI(
        acceleration=options.acceleration, zeros=zeros, prior=options.prior, lines=options.lines, seed=options.seed
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the remarks are printed below
        observation = problem.read(scan)
        checks = problem.check(observation)
        numbers = ", ".join(f"{k} {v:.4g}" for k, v in checks.items() if isinstance(v, float))
        lines = [f"### zeros = {zeros}", "", f"{numbers}, sets of maps {checks['map_sets']}."]
        lines += [f"- {text}" for text in checks["warnings"]]
        if options.check:
            return "\n".join(lines)
        sampler = get("mmps", **options.sampler)
        result = scidiff.reconstruct(
            problem,
            observation,
            sampler,
            members=options.members,
            seed=options.seed,
            output=options.out / f"{scan.stem}-{zeros}-{options.lines}",
            resume=True,
            batch=1,
            progress="plain",
        )
    metrics = json.loads((options.out / f"{scan.stem}-{zeros}-{options.lines}" / "metrics.json").read_text())
    scores = metrics["scores"]
    columns = [c for c in COLUMNS if c in scores or f"{c}_tv" in scores]
    names = {"zero_filled": "zero-filled", "tv": f"total variation, weight {problem.tv_weight:g}"}
    rows = {f"mean of {options.members} members, {sampler!r}": {c: scores.get(c) for c in columns}}
    for key, name in names.items():
        rows[name] = {c: scores.get(f"{c.removesuffix('_mean')}_{key}") for c in columns}
    lines += ["", "| method | " + " | ".join(COLUMNS[c] for c in columns) + " |", "|" + "---|" * (len(columns) + 1)]
    lines += ["| " + " | ".join([name, *(_cell(row[c]) for c in columns)]) + " |" for name, row in rows.items()]
    cost = metrics["cost"]
    seconds = result.attrs.get("sampling_seconds")
    lines += ["", f"Per member {cost['denoiser']} network calls, {cost['denoiser_vjp']} products with its Jacobian;"]
    lines += [f"{seconds} s for all members on {torch.get_num_threads()} thread(s)."]
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if abs(value) < 10 else f"{value:.2f}"


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", type=Path)
    parser.add_argument("--zeros", nargs="+", choices=("missing", "measured"), default=["missing", "measured"])
    parser.add_argument("--acceleration", type=float, default=4.0)
    parser.add_argument("--lines", choices=("auto", "ky", "kx"), default="auto")
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--iterations", type=int)
    parser.add_argument("--prior", default="head-mri")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/real-scan"))
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    wanted = {"steps": options.steps, "iterations": options.iterations}
    options.sampler = {name: value for name, value in wanted.items() if value is not None}
    for zeros in options.zeros:
        print(run(options.scan, zeros, options), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
