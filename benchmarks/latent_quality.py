"""Latent samplers beside pixel samplers and total variation on one problem: at equal calls and at equal seconds.

Every method draws an ensemble for the same held-out cases. Two budgets are compared. *Calls*: passes through networks
(denoiser, decoder, encoder), forward and back, per member. *Seconds*: processor time of a case, which other work on the
machine does not change. The steps of a method are those that two short runs predict for the budget; what it then took
is in the table. The samplers that would make few levels of it get cheaper levels (`METHODS`); defaults otherwise.

Each cell (method, budget, case) runs in a process of its own, so that its peak memory is its own, and writes one JSON
file; a run that was stopped goes on where it was. Total variation is the problem's own baseline. "autoencoder alone"
codes and decodes the truth: no draw of a latent sampler can be expected to be better. For `mri` the data are a
magnitude volume, see `head`.

    python benchmarks/latent_quality.py ct --latent NAME_OR_PATH --data FILE --out runs/latent_quality
        [--pixel NAME] [--set views=25] [--cases 5] [--members 8] [--calls 400] [--seconds 60] [--threads 1]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import time
from pathlib import Path
from typing import Any

METHODS: dict[str, tuple[str, bool, dict[str, Any]]] = {
    "resample": ("resample", True, {"newton": 1, "iterations": 10, "lanczos": 3}),
    "resample, white": ("resample", True, {"width": "white", "newton": 1, "iterations": 6}),
    "resample, published": ("resample", True, {"form": "published"}),
    "psld": ("psld", True, {}),
    "psld, published": ("psld", True, {"form": "published"}),
    "latent_daps": ("latent_daps", True, {"width": "white", "moves": 6}),
    "latent_dps": ("latent_dps", True, {"form": "published"}),
    "latent_dps, annealed": ("latent_dps", True, {"form": "annealed"}),
    "mmps": ("mmps", False, {}),
    "dps": ("dps", False, {}),
    "daps": ("daps", False, {}),
}
FLOOR = "autoencoder alone"
SCORES = ("psnr", "ssim", "crps", "coverage_90", "chi2")
PROBE = 4
"""Steps of the shorter run that predicts how many a budget allows."""


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
    from scidiff import problems

    own = a.problem == "mri" and a.data
    settings = parse(a.set) | ({"data": a.data} if a.data and not own else {})
    prior = a.latent if latent else a.pixel
    problem: Any = problems.get(a.problem, **settings, **({"prior": prior} if prior else {}))
    found = head(problem, a.data, case) if own else problem.case(case)
    return problem, found, problem.posterior(found.observation)


def head(problem: Any, path: str, index: int) -> Any:
    """A case of the MRI problem from a magnitude volume: one axial slice on pixels of 1.25 mm with a smooth phase.

    K-space is simulated on the grid of the inversion, with coils and noise of the problem; the truth is the image of
    noiseless full k-space with the maps estimated from the observation, as in the problem's own cases.
    """
    import torch
    import xarray as xr

    from scidiff.datasets.kspace import validate_kspace
    from scidiff.datasets.phantom import coil_maps
    from scidiff.datasets.volumes import read_volume
    from scidiff.operators.mri import fft2c
    from scidiff.problems.base import Case, stream
    from scidiff.problems.mri_observation import image_array, observation_from_kspace

    volume, generator = read_volume(path), stream("latent-quality", index)
    plane = int((0.5, 0.4, 0.6, 0.3, 0.7)[index % 5] * volume.sizes["z"])
    pixel = abs(float(volume["y"][1] - volume["y"][0]))
    magnitude = torch.as_tensor(volume.values[plane])[None, None].float()
    side = [round(n * pixel / 1.25 / 8) * 8 for n in magnitude.shape[2:]]
    magnitude = torch.nn.functional.interpolate(magnitude, size=side, mode="area")[0, 0]
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in side), indexing="ij")
    waves = torch.stack([torch.ones_like(x), x, y, x * y, x**2, y**2])
    phase = torch.einsum("k,kij->ij", torch.randn(6, generator=generator), waves)
    image = torch.polar(magnitude / torch.quantile(magnitude, 0.99), phase)
    clean = fft2c(coil_maps(tuple(side), problem.coils, generator) * image)  # type: ignore[arg-type]
    noise = torch.view_as_complex(torch.randn(*clean.shape, 2, generator=generator))
    data = validate_kspace((clean + problem.noise * noise).numpy())
    observation, full = observation_from_kspace(data, problem.sampling, problem.map_sets, clean)
    truth = image_array(full, data, problem.field, "complex image")  # type: ignore[arg-type]
    return Case(xr.Dataset({problem.field: truth}), observation)


def run(method: Any, posterior: Any, members: int) -> tuple[Any, float, float]:
    """The ensemble, seconds of processor time, and passes through networks per member."""
    import torch

    begin = time.process_time()
    ensemble = method(posterior, members, torch.Generator().manual_seed(0))
    calls = [ensemble.cost.denoiser, ensemble.cost.denoiser_vjp]
    calls += [ensemble.diagnostics.get(name, 0) for name in ("decoder", "decoder_vjp", "encoder")]
    return ensemble, time.process_time() - begin, float(sum(calls))


def steps_for(a: argparse.Namespace, name: str, budget: str) -> int | None:
    """Steps that a budget allows: by two short runs on case 0 (after one to warm up), in a file for all cases."""
    from scidiff.posterior import get

    if budget == "default":
        return None
    kept = path_of(a, name, "probe", 0)
    if not kept.exists():
        kind, latent, options = METHODS[name]
        posterior = prepared(a, 0, latent)[2]
        probes = [run(get(kind, **options, steps=PROBE * k), posterior, a.members)[1:] for k in (1, 1, 3)][1:]
        kept.write_text(json.dumps(probes))
    short, long = json.loads(kept.read_text())
    index, limit = (0, a.seconds) if budget == "seconds" else (1, a.calls)
    each = max((long[index] - short[index]) / (2 * PROBE), 1e-9)
    fixed = max(0.0, short[index] - PROBE * each)
    return max(4, min(1000, int((limit - fixed) / each)))


def floor(a: argparse.Namespace, case: int) -> dict[str, Any]:
    """What the autoencoder alone makes of the truth, scored as an answer; chi2 is what its field leaves of the data."""
    import torch

    problem, found, posterior = prepared(a, case, True)
    true = found.truth[problem.field]
    x = torch.as_tensor(true.values)
    with torch.no_grad():
        x = x.to(torch.complex64 if x.is_complex() else torch.float32)[None, None]
        back = posterior.prior.decode(posterior.prior.encode(x))
    result = found.observation.assign({problem.field: (("member", *true.dims), back[:, 0].numpy())})
    scores = {key: float(value) for key, value in problem.evaluate(result, found.truth).items()}
    return {"method": FLOOR, "case": case, "scores": {key: value for key, value in scores.items() if value == value}}


def cell(a: argparse.Namespace, name: str, budget: str, case: int) -> dict[str, Any]:
    """One method with one budget on one case."""
    import torch

    from scidiff.posterior import get

    torch.set_num_threads(a.threads)
    kind, latent, options = METHODS[name]
    steps = steps_for(a, name, budget)
    problem, found, posterior = prepared(a, case, latent)
    ensemble, seconds, calls = run(get(kind, **options, **({"steps": steps} if steps else {})), posterior, a.members)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    result = found.observation.assign(
        {problem.field: (("member", *found.truth[problem.field].dims), ensemble.samples[:, 0, 0].numpy())}
    )
    scores = {key: float(value) for key, value in problem.evaluate(result, found.truth).items()}
    return {
        "method": name, "budget": budget, "case": case, "steps": steps, "seconds": seconds, "calls": calls,
        "unreached": ensemble.diagnostics.get("unreached"), "peak_gib": peak,
        "scores": {key: value for key, value in scores.items() if value == value},
    }  # fmt: skip


def apart(a: argparse.Namespace, name: str, budget: str, case: int, target: Path) -> str:
    """Computes a cell in a process of its own and writes its file; an error as text."""
    part = target.with_suffix(".part")
    child = os.fork()
    if child == 0:
        try:
            found = floor(a, case) if name == FLOOR else cell(a, name, budget, case)
            part.write_text(json.dumps(found, indent=1))
            os.replace(part, target)
        except Exception as error:  # noqa: BLE001 - told by the parent
            part.write_text(f"{type(error).__name__}: {error}")
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return (part.read_text() if part.exists() else "no message") if status else ""


def path_of(a: argparse.Namespace, name: str, budget: str, case: int) -> Path:
    """The file of a cell: its name, and a fingerprint of the settings that decide its numbers."""
    limit = {"seconds": a.seconds, "calls": a.calls}.get(budget, 0)
    key = [a.problem, a.latent, a.pixel, Path(a.data or "").name, sorted(a.set), a.members, limit, METHODS.get(name)]
    digest = hashlib.blake2b(json.dumps(key).encode(), digest_size=4).hexdigest()
    return a.out / f"{a.problem}--{name.replace(', ', '-')}--{budget}--{case}--{digest}.json"


def table(a: argparse.Namespace, cells: list[dict[str, Any]]) -> None:
    """Means over cases, method by method, and PSNR case by case."""
    columns = ("steps", "calls", "seconds", "peak_gib")
    for budget in a.budgets:
        print(f"\nbudget: {budget}" + {"seconds": f" {a.seconds:g}", "calls": f" {a.calls:g}"}.get(budget, ""))
        print(f"{'':22s}" + "".join(f"{name:>12s}" for name in (*SCORES, *columns, "cases")))
        for name in a.methods:
            rows = [c for c in cells if c["method"] == name and c.get("budget") == budget]
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
    alone = [c["scores"] for c in cells if c["method"] == FLOOR]
    if alone:
        both = [sum(s[key] for s in alone) / len(alone) for key in ("psnr", "ssim", "chi2")]
        print(f"{FLOOR:22s}" + "".join(f"{v:12.3f}" for v in both) + "  (the last is chi2)")
    for budget in a.budgets:
        print(f"\nPSNR of each case, budget: {budget}")
        for name in a.methods:
            each = [c["scores"]["psnr"] for c in cells if c["method"] == name and c.get("budget") == budget]
            print(f"{name:22s}" + "".join(f"{v:12.2f}" for v in each))


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
    a = parser.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    import scidiff.posterior  # noqa: F401 - loaded once; a forked cell then only computes
    import scidiff.problems  # noqa: F401

    print(
        f"{a.problem} {a.set}, latent {a.latent}, pixel {a.pixel or 'default'}, {a.members} members, seed 0, ", end=""
    )
    print(f"{a.threads} thread(s)")
    cells = []
    for case in range(a.cases):
        for budget, names in [*((budget, a.methods) for budget in a.budgets), ("once", [FLOOR])]:
            for name in names:
                target = path_of(a, name, budget, case)
                if not target.exists() and (error := apart(a, name, budget, case, target)):
                    print(f"{name}, {budget}, case {case} failed: {error}", flush=True)
                    continue
                cells.append(json.loads(target.read_text()))
                last = cells[-1]
                print(f"{name}, {budget}, case {case}: PSNR {last['scores'].get('psnr', float('nan')):.2f}", flush=True)
    table(a, cells)


if __name__ == "__main__":
    main()
