"""``scidiff calibrate SAMPLER``: simulation-based calibration and TARP, no exact posterior needed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scidiff.cli.common import QUALITY_GATE, ConfigError, Json, emit, say
from scidiff.cli.reconstruct import stop_politely

__all__ = ["calibrate"]


def calibrate(
    sampler: Annotated[str, typer.Argument(help="Name, or name:key=value,...")],
    problem: Annotated[
        str, typer.Option(help="Whose prior can be drawn from: exact-inpainting, exact-modes-2, gaussian.")
    ] = "exact-inpainting",
    simulations: Annotated[int, typer.Option(min=20, help="Truths drawn from the prior.")] = 200,
    members: Annotated[int, typer.Option(min=3, help="Draws for each; 19, 39 and 99 give even bins.")] = 19,
    batch: Annotated[int, typer.Option(min=1, help="Observations that the sampler gets at once.")] = 50,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    out: Annotated[Path | None, typer.Option(help="NetCDF file for the ranks.")] = None,
    gate: Annotated[bool, typer.Option("--gate", help="End with code 6 if ranks are not uniform.")] = False,
    json: Json = False,
) -> None:
    """Check a sampler by simulation: draw truths from the prior, observe them, and rank each among its members.

    Ranks are uniform for a sampler that draws from the posterior, whatever number is ranked: the log likelihood, the
    mean, projections, the distance to a point that knows the data. p-values are corrected for the number of rows.
    """
    from torch import Generator

    from scidiff.benchmark.calibration import calibrate as run
    from scidiff.benchmark.calibration import from_name
    from scidiff.benchmark.certify import parse
    from scidiff.errors import InputError
    from scidiff.fields import write_dataset
    from scidiff.posterior import get

    if out is not None and out.exists():
        raise InputError(f"{out} exists; choose another --out.")
    name, parameters = parse(sampler)
    try:
        method, simulate = get(name, **(parameters or {})), from_name(problem)
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from error
    stop_politely()

    def tell(done: int, total: int) -> None:
        say(f"{done} of {total} simulations")

    found = run(simulate, method, simulations, members, batch, generator=Generator().manual_seed(seed), progress=tell)
    if out is not None:
        data = found.to_dataset()
        write_dataset(data.assign_attrs(data.attrs | {"sampler": sampler, "problem": problem, "seed": seed}), out)
    flagged = found.flagged()
    if json:
        emit({"sampler": sampler, "problem": problem, "p_values": found.p_values, "flagged": flagged})
    else:
        typer.echo(found.table())
        say(f"not uniform: {', '.join(flagged)}" if flagged else "no ranks that an exact sampler would not have")
    if gate and flagged:
        raise typer.Exit(QUALITY_GATE)
