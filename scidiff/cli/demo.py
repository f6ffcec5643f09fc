"""``scidiff demo``: a simulated scan, from k-space to an ensemble beside two classical methods. Needs no data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scidiff.cli.common import Json, emit, say
from scidiff.cli.reconstruct import Device, Style, build

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["demo"]

FOLDER = Path("runs") / "demo"
PRIOR = "head-phantom"
CASE = {"shape": (128, 112), "map_sets": 1}  # the grid that the bundled prior was trained on
COLUMNS = {
    "psnr": "PSNR dB",
    "ssim": "SSIM",
    "nrmse": "NRMSE",
    "crps": "CRPS",
    "coverage_90": "90 % covers",
    "spread_skill": "spread/skill",
    "chi2": "chi2",
    "calls": "calls",
    "seconds": "seconds",
}
POINT_SCORES = ("psnr", "ssim", "nrmse", "chi2", "seconds")  # of an answer without spread


def demo(
    out: Annotated[Path | None, typer.Option(help=f"Folder of the result; {FOLDER} is replaced.")] = None,
    members: Annotated[int, typer.Option(min=2, help="Number of draws.")] = 8,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the sampler.")] = 24,
    acceleration: Annotated[float, typer.Option(help="Keep one line of so many.")] = 4.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the simulated head and of all draws.")] = 0,
    prior: Annotated[str, typer.Option(help="Name of a bundled prior, or a .safetensors file with its card.")] = PRIOR,
    device: Device = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what --out holds.")] = False,
    progress: Style = "auto",
    json: Json = False,
) -> None:
    """Reconstruct a simulated multi-coil scan and compare with two classical methods.

    Draws a random head, simulates 8 coils on a finer grid than the reconstruction's, keeps every fourth line, and
    samples the posterior. Writes result.nc, figures/result.png, table.txt and more into the folder --out.
    """
    from scidiff import problems
    from scidiff import reconstruct as draw

    run = {
        "problem": {"name": "mri", "acceleration": acceleration, "prior": prior, "seed": seed, **CASE},
        "sampler": {"name": "mmps", "steps": steps},
        "device": device or "auto",
    }
    problem, method = build(run, problems.get)
    _ = problem.prior  # a missing or unreadable one is reported before anything is simulated
    say("simulating the scan")
    case = problem.case()
    folder = out or FOLDER
    result = draw(
        problem,
        case.observation,
        method,
        members=members,
        seed=seed,
        output=folder,
        overwrite=overwrite or out is None,
        device=run["device"],
        progress="none" if json and progress == "auto" else progress,
        truth=case.truth,
    )
    rows = compare(problem, case.observation, folder, result)
    text = table(rows)
    (folder / "table.txt").write_text(text + "\n", encoding="utf-8")
    if json:
        emit({"result": folder / "result.nc", "figure": folder / "figures" / "result.png", "table": rows})
    else:
        typer.echo(text)
        say(f"written: {folder / 'result.nc'}, {folder / 'figures' / 'result.png'}, {folder / 'table.txt'}")


def compare(problem: Any, observation: xr.Dataset, folder: Path, result: xr.Dataset) -> dict[str, dict[str, Any]]:
    """Scores of the ensemble and of the classical methods by method; metrics.json of the result is read."""
    import json
    import time

    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    scores, cost = metrics["scores"], metrics["cost"]
    rows: dict[str, dict[str, Any]] = {
        f"mean of {result.sizes['member']} members": {name: scores[name] for name in COLUMNS if name in scores}
        | {
            "chi2": metrics["chi2"],
            "calls": cost["denoiser"] + cost["denoiser_vjp"],
            "seconds": result.attrs["sampling_seconds"],
        }
    }
    begin = time.monotonic()
    baselines = problem.baselines(observation)
    seconds = {name: time.monotonic() - begin for name in baselines}  # all of them together, dominated by the slowest
    for name, image in baselines.items():
        own = {key: scores[f"{key}_{name}"] for key in POINT_SCORES if f"{key}_{name}" in scores}
        rows[name.replace("_", " ")] = own | {"chi2": misfit(problem, observation, image)}
    rows[list(rows)[-1]]["seconds"] = max(seconds.values())
    return rows


def misfit(problem: Any, observation: xr.Dataset, image: xr.DataArray) -> float:
    """Chi2 per degree of freedom of an estimate."""
    import torch

    from scidiff.fields import to_tensor

    posterior = problem.posterior(observation)
    with torch.no_grad():
        shape = posterior.prior.decode(torch.zeros(1, *(posterior.shape or ()))).shape
        return float(posterior.likelihoods[0].chi2(to_tensor(image).reshape(shape)))


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Rows of scores as aligned text; a dash where a method has none."""
    cells = [["", *COLUMNS.values()]]
    for name, row in rows.items():
        cells.append([name, *(_cell(key, row.get(key)) for key in COLUMNS)])
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    lines = [
        "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in cells
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    digits = {"psnr": ".2f", "chi2": ".2f", "calls": ".0f", "seconds": ".1f"}.get(name, ".3f")
    return format(value, digits)
