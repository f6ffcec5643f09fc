"""``scidiff benchmark PROBLEMS``: every sampler on every problem, on the same observations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from scidiff.cli.common import CODES, ConfigError, Json, emit, say
from scidiff.cli.reconstruct import stop_politely
from scidiff.errors import NumericalError

__all__ = ["benchmark"]

FOLDER = Path("runs") / "benchmark"


def benchmark(
    problems: Annotated[
        list[str] | None,
        typer.Argument(help="Names, with parameters if wanted: mri, ct:views=30, exact-inpainting. See --list."),
    ] = None,
    samplers: Annotated[
        list[str] | None,
        typer.Option(
            "--sampler", "-s", help="mmps, dps:steps=200, deepinv-dps, baseline-tv; repeat it. Default: all of scidiff."
        ),
    ] = None,
    members: Annotated[int, typer.Option(min=2, help="Draws of every cell.")] = 32,
    seeds: Annotated[int, typer.Option(min=1, help="Number of cases.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="The first case.")] = 0,
    budget: Annotated[
        str | None,
        typer.Option(
            help="denoiser=256, operator=1000, seconds=30, or several (a,b): sets everybody's number of steps."
        ),
    ] = None,
    limit: Annotated[
        float | None, typer.Option(min=1, help="Seconds after which a cell has failed. Not with --scheduler.")
    ] = None,
    tune: Annotated[
        int, typer.Option(min=0, help="Settings to try per method, on other cases; 0 keeps the defaults.")
    ] = 0,
    tune_cases: Annotated[int, typer.Option(min=1, help="Cases of each trial.")] = 2,
    out: Annotated[Path, typer.Option(help="Folder of the results and of one folder per cell.")] = FOLDER,
    workers: Annotated[int, typer.Option(min=1, help="Processes, one thread each when more than one.")] = 1,
    scheduler: Annotated[str | None, typer.Option(help="Dask: tcp://host:8786, its scheduler.json, or local.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep the cells that --out holds.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="With --resume: compute failed cells again.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Discard what --out holds.")] = False,
    show: Annotated[bool, typer.Option("--list", help="List problems and samplers and stop.")] = False,
    json: Json = False,
) -> None:
    """Compare samplers on problems: accuracy, calibration and cost, on the same observations.

    Writes results.nc, results.csv, table.md and index.html (with pictures) into --out, one folder per cell beside
    them. A run that was stopped goes on with --resume. A method that fails is a line of the table.

    SIGTERM ends the run with code 75, Ctrl-C with 130; finished cells are kept, and their tables written. Ends with
    code 5 if no cell has a result.
    """
    from scidiff.benchmark.grid import benchmark as run
    from scidiff.benchmark.grid import plan
    from scidiff.benchmark.markdown import table
    from scidiff.benchmark.questions import known
    from scidiff.benchmark.tuning import Tuning
    from scidiff.interop.deepinv_samplers import METHODS
    from scidiff.posterior import names

    entered = [*names(), *(f"deepinv-{name}" for name in METHODS)]
    if show:
        if json:
            emit({"problems": known(), "samplers": entered})
            return
        typer.echo("problems: " + ", ".join(known()))
        typer.echo("samplers: " + ", ".join(entered) + "; baseline-NAME for a classical answer of the problem")
        return
    if not problems:
        raise ConfigError("name at least one problem; `scidiff benchmark --list` shows them.")
    if limit is not None and scheduler is not None:
        raise ConfigError("--limit needs processes of its own (--workers); Dask computes in threads. Leave one out.")
    chosen, cases = samplers or names(), range(seed, seed + seeds)
    try:
        plan(problems, chosen, cases, members, budget)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    stop_politely()
    engine: Any = workers
    if scheduler is not None:
        from scidiff.benchmark.cluster import dask

        engine = dask(None if scheduler == "local" else scheduler, workers)
    data = run(
        problems,
        chosen,
        cases,
        budget,
        members=members,
        tuning=Tuning(tune, tune_cases) if tune else None,
        output=out,
        resume=resume,
        overwrite=overwrite,
        retry=retry,
        limit=limit,
        engine=engine,
        tell=say,
    )
    if json:
        emit({**data.attrs, "problems": list(data["problem"].values), "written": out})
    else:
        typer.echo(table(data), nl=False)
        say(f"written: {out / 'index.html'}, table.md, results.csv, results.nc")
    if not bool((data["status"] == "done").any()):
        say("error: no cell has a result; the table says why.")
        raise typer.Exit(CODES[NumericalError])
