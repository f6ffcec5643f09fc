"""``scidiff certify [SAMPLERS]``: every sampler against posteriors known exactly."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from scidiff.cli.common import QUALITY_GATE, ConfigError, Json, emit, say
from scidiff.cli.reconstruct import stop_politely

__all__ = ["certify"]

FOLDER = Path("runs") / "certificate"
WRITTEN = ("table.md", "certificate.nc", "certificate.json", "certificate.png")


def certify(
    samplers: Annotated[
        list[str] | None, typer.Argument(help="Names, or name:key=value,... for other parameters; all when left out.")
    ] = None,
    problems: Annotated[
        list[str] | None,
        typer.Option("--problems", help="A problem's name, or several with commas; all when left out."),
    ] = None,
    members: Annotated[
        int | None, typer.Option(min=2, help="Draws of every cell; default depends on problem and method.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="How many; default 2, quick 1.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The first one.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", help=f"Folder of the result; default {FOLDER}.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer problems and members: a look, not a certificate.")
    ] = False,
    gate: Annotated[
        bool, typer.Option("--gate", help="End with code 6 if a sampler leaves the range it is held to.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the cells that --out holds, compute the others.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what --out holds.")] = False,
    show: Annotated[bool, typer.Option("--list", help="List the problems and stop.")] = False,
    json: Json = False,
) -> None:
    """Measure samplers against posteriors known exactly: error, spread, coverage, distance and cost.

    Every sampler runs on every problem it can work on. Writes table.md, certificate.nc, certificate.json,
    certificate.png and one small file per cell into the folder --out; a run that was stopped goes on with --resume.

    SIGTERM ends the run with code 75, Ctrl-C with 130; finished cells are kept.
    Ends with code 5 if a sampler failed numerically, with --gate with code 6 if a sampler leaves its range.
    """
    from scidiff.benchmark.catalogue import PROBLEMS
    from scidiff.benchmark.certify import broken, plan
    from scidiff.benchmark.certify import certify as run
    from scidiff.benchmark.report import dataset, figure, summary, table
    from scidiff.fields import atomic, write_dataset, write_json
    from scidiff.record import source

    if show:
        _list(PROBLEMS, json)
        return
    wanted = [name for text in problems or [] for name in text.split(",") if name]
    count = seeds or (1 if quick else 2)
    try:
        cells = plan(samplers, wanted or None, members, range(seed, seed + count), quick)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    folder = out or FOLDER
    _prepare(folder, resume, overwrite)
    stop_politely()
    records = list(run(cells, folder / "cells", say))
    rows = summary(records)
    attributes = {
        "command": shlex.join(["scidiff", *sys.argv[1:]]),
        "source": "; ".join(dict.fromkeys([*(r["source"] for r in records)])) or source(),
        "seeds": ", ".join(str(s) for s in range(seed, seed + count)),
    }
    text = table(rows, attributes)
    with atomic(folder / "table.md") as path:
        path.write_text(text, encoding="utf-8")
    write_dataset(dataset(records, attributes), folder / "certificate.nc")
    write_json(folder / "certificate.json", {**attributes, "rows": rows})
    with atomic(folder / "certificate.png") as path:
        figure(rows).savefig(path, format="png")
    wrong, failed = broken(rows), [row for row in rows if row["status"] == "failed"]
    if json:
        emit({**attributes, "rows": rows, "outside": wrong, "written": [folder / name for name in WRITTEN]})
    else:
        typer.echo(text, nl=False)
        say("written: " + ", ".join(str(folder / name) for name in WRITTEN))
    for line in wrong:
        say(f"outside its range: {line}")
    for row in failed:
        say(f"failed: {row['sampler']} on {row['problem']}: {row['reason']}")
    if gate and wrong:
        raise typer.Exit(QUALITY_GATE)
    if failed:
        raise typer.Exit(5)


def _prepare(folder: Path, resume: bool, overwrite: bool) -> None:
    """Makes the folder of the cells, and refuses one that holds a certificate unless told what to do with it."""
    from scidiff.errors import InputError

    if resume and overwrite:
        raise ConfigError("--resume keeps what --overwrite replaces; give one of them.")
    cells = folder / "cells"
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; --out names a folder.")
    held = sorted(cells.glob("*.json")) if cells.is_dir() else []
    held += [folder / name for name in WRITTEN if (folder / name).exists()]
    if held and not (resume or overwrite):
        raise InputError(
            f"{folder} holds a certificate ({len(held)} files); --resume computes what is missing, "
            "--overwrite starts again, --out names another folder."
        )
    if overwrite:
        for path in held:
            path.unlink()
    cells.mkdir(parents=True, exist_ok=True)


def _list(catalogue: Any, json: bool) -> None:
    rows = [
        {"name": name, "members": entry.members, "quick": entry.quick, "summary": entry.summary}
        for name, entry in catalogue.items()
    ]
    if json:
        emit({"problems": rows})
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        typer.echo(f"{row['name']:<{width}}  {row['members']:>4} members  {row['summary']}")
