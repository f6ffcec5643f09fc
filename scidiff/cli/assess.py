"""``scidiff assess PRIOR``: what has a learned prior not learned?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from scidiff.cli.common import ConfigError, Json, emit, say

__all__ = ["assess"]


def assess(
    prior: Annotated[str, typer.Argument(help="A bundled name or a .safetensors file with its card.")],
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder of the files that the card names; simulators need none.")
    ] = None,
    draws: Annotated[int, typer.Option(min=8, help="Draws, and fields of each kind.")] = 256,
    steps: Annotated[int, typer.Option(min=3, help="Network calls per draw.")] = 30,
    seed: Annotated[int, typer.Option(min=0, help="Of draws and fields.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    json: Json = False,
) -> None:
    """Compare draws of a learned prior with fields that it was trained on and fields that it has never seen.

    Prints spectra, distribution functions and denoising errors; on a 64x64 grid and one core about a minute with
    `--draws 64`, four minutes with the default.
    """
    from scidiff.benchmark.assess import assess as compare
    from scidiff.placement import resolve_device
    from scidiff.priors import load_pretrained

    try:
        place = resolve_device(device)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    loaded = load_pretrained(prior, place)
    last = 0

    def tell(done: int, total: int) -> None:
        nonlocal last
        if done == total or done - last >= total / 4:
            last = done
            say(f"{done} of {total} draws")

    found = compare(loaded, data, draws, seed, steps, tell)
    if json:
        emit(found)
        return
    typer.echo(table(found), nl=False)


def table(found: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        f"### {found['prior']}: {found['draws']} draws by {found['sampler']}, windows {tuple(found['crop'])}, "
        f"seed {found['seed']}",
        "",
        "| fields | channel | rings within 10 % | worst ring: power ratio (fields alone) | "
        "Kolmogorov (fields alone) | std ratio |",
        "|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        worst = f"{row['worst_ring']}: {row['spectrum']:.2f} +- {row['spectrum_error']:.2f}"
        distance = f"{row['kolmogorov']:.3f} ({row['kolmogorov_floor']:.3f})"
        lines.append(
            f"| {row['fields']} | {row['channel']} | {100 * row['rings_within']:.0f} % of {row['rings']} | "
            f"{worst} ({row['spectrum_floor']:.2f}) | {distance} | {row['std']:.3f} |"
        )
    errors = ", ".join(f"{w['ratio']:.3f} +- {w['error']:.3f} at {w['sigma']:g}" for w in found["wiener"])
    lines += ["", f"Denoising error over that of the Wiener filter, by noise level: {errors}.", ""]
    return "\n".join(lines)
