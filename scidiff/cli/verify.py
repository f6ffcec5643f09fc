"""``scidiff verify FORECAST TRUTH``: scores of a forecast, as a table, a file and a picture."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from scidiff.cli.common import ConfigError, Json, emit, say

__all__ = ["verify"]

Forecast = Annotated[Path, typer.Argument(help="Forecast as `scidiff forecast` writes it.")]
Truth = Annotated[Path, typer.Argument(help="NetCDF file or Zarr store with what happened, by valid time.")]
Metrics = Annotated[str, typer.Option(help="Scores, separated by commas.")]
Variable = Annotated[list[str] | None, typer.Option("--variable", help="To score; repeat for more. Default all.")]
By = Annotated[str, typer.Option(help="lead_time, or none for all leads together.")]
Baseline = Annotated[str | None, typer.Option(help="persistence, climatology, or another forecast to compare with.")]
Climatology = Annotated[Path | None, typer.Option(help="File with the climatology, for acc and that baseline.")]
Threshold = Annotated[list[float] | None, typer.Option(help="Of the events of brier, reliability; repeat for more.")]
Fair = Annotated[float, typer.Option(min=0, max=1, help="1 fair scores, 0 biased ones, between almost fair.")]
Block = Annotated[int | None, typer.Option(min=1, help="Cases in a block of the bootstrap; default their cube root.")]
Level = Annotated[float, typer.Option(help="Probability of the intervals.")]
Scheduler = Annotated[
    str | None, typer.Option(help="Score on Dask, lead by lead: tcp://host:8786, its scheduler.json, or local.")
]
Workers = Annotated[int, typer.Option(min=1, help="Processes of `--scheduler local`.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder for scores.nc, scores.md and figures; default none.")]


def verify(
    forecast: Forecast,
    truth: Truth,
    metrics: Metrics = "crps,rmse,bias,spread_skill",
    variable: Variable = None,
    by: By = "lead_time",
    baseline: Baseline = None,
    climatology: Climatology = None,
    threshold: Threshold = None,
    fair: Fair = 1.0,
    block: Block = None,
    level: Level = 0.95,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap and of broken ties.")] = 0,
    scheduler: Scheduler = None,
    workers: Workers = 2,
    out: Out = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what --out holds.")] = False,
    json: Json = False,
) -> None:
    """Score a forecast against what happened; prints a table with intervals.

    scidiff verify run.zarr truth.nc --baseline persistence --out runs/scores
    """
    from scidiff.cli.reconstruct import usage
    from scidiff.errors import InputError
    from scidiff.forecast.score_table import markdown
    from scidiff.forecast.verification import verify as score

    if by not in ("lead_time", "none"):
        raise ConfigError(f"--by must be lead_time or none, got {by!r}.")
    if by == "none" and scheduler is not None:
        raise ConfigError("--scheduler hands out leads, so scores must be --by lead_time.")
    if out is not None and not overwrite and any((out / name).exists() for name in ("scores.nc", "scores.md")):
        raise InputError(f"{out} holds scores; choose another --out, or replace them with --overwrite.")
    with usage(), ExitStack() as held:
        executor = None
        if scheduler is not None:
            from scidiff.benchmark.cluster import connected

            client = held.enter_context(connected(None if scheduler == "local" else scheduler, workers))
            executor = client.get_executor()
        scores = score(
            forecast.absolute() if executor else forecast,
            truth.absolute() if executor else truth,
            [name.strip() for name in metrics.split(",") if name.strip()],
            variables=variable,
            by=("lead_time",) if by == "lead_time" else (),
            baseline=baseline,
            climatology=climatology,
            thresholds=threshold or (),
            fair=fair,
            block=block,
            level=level,
            seed=seed,
            executor=executor,
        )
    table = markdown(scores)
    if out is not None:
        from scidiff.fields import atomic, write_dataset
        from scidiff.forecast.plots import score_figure

        (out / "figures").mkdir(parents=True, exist_ok=True)
        write_dataset(scores, out / "scores.nc")
        with atomic(out / "scores.md") as temporary:
            temporary.write_text(table, encoding="utf-8")
        with atomic(out / "figures" / "scores.png") as temporary:
            score_figure(scores).savefig(temporary, format="png")
        say(f"written: {out / 'scores.nc'}, {out / 'scores.md'}, {out / 'figures' / 'scores.png'}")
    if json:
        emit({"scores": {str(name): score.values for name, score in scores.data_vars.items()}, "folder": out})
    else:
        typer.echo(table, nl=False)
