"""``scidiff list``: what there is to choose from, read from the registries; works offline."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from scidiff.cli.common import Json, emit

__all__ = ["Kind", "catalogue", "show"]


AUTOENCODERS = ("FieldAutoencoder", "LinearAutoencoder")
"""Classes of `scidiff.priors` that are no priors."""


class Kind(StrEnum):
    """What can be listed."""

    samplers = "samplers"
    problems = "problems"
    priors = "priors"
    autoencoders = "autoencoders"
    forecasters = "forecasters"
    operators = "operators"
    datasets = "datasets"


def _summary(thing: Any) -> str:
    """First line of a docstring, without markup."""
    line = (inspect.getdoc(thing) or "").partition("\n")[0]
    return re.sub(r"(?::\w+:)?`+([^`]*)`+", r"\1", line)


def _public(package: str) -> list[tuple[str, Any]]:
    module = import_module(package)
    found = ((name, getattr(module, name)) for name in module.__all__)
    return [(name, thing) for name, thing in found if inspect.isclass(thing) or inspect.isfunction(thing)]


def _samplers() -> list[dict[str, Any]]:
    from scidiff import posterior

    names = ("nonlinear", "counts", "black box")
    rows = [
        {
            "name": row["name"],
            "family": row["family"],
            **{name: row[name] for name in names},
            "requires": sorted(posterior.get(row["name"]).requires),
            "summary": row["summary"],
        }
        for row in posterior.table()
    ]
    classes = [(n, c) for n, c in _public("scidiff.samplers") if inspect.isclass(c) and not inspect.isabstract(c)]
    empty = {"family": "prior", **dict.fromkeys(names, ""), "requires": []}
    return rows + [{"name": n, **empty, "summary": _summary(c)} for n, c in classes]


def _problems() -> list[dict[str, Any]]:
    from scidiff import problems

    rows = []
    for name in problems.names():
        problem = problems.get(name)
        rows.append({"name": name, "default sampler": problem.default_sampler, "summary": _summary(type(problem))})
    return rows


def _weights(files: dict[str, Path]) -> list[dict[str, Any]]:
    from scidiff.priors.pretrained import read_card

    rows = []
    for name, path in files.items():
        card = read_card(path)
        rows.append(
            {
                "name": name,
                "kind": f"codes of {card['autoencoder_file']}" if "autoencoder" in card else "weights",
                "size": f"{path.stat().st_size / 2**20:.1f} MB",
                "licence": card.get("license", card.get("licence", "")),
                "summary": card.get("description") or card.get("title") or "",
            }
        )
    return rows


def _priors() -> list[dict[str, Any]]:
    from scidiff.priors.pretrained import bundled

    exact = [(n, c) for n, c in _public("scidiff.priors") if inspect.isclass(c) and n not in AUTOENCODERS]
    classes = [{"name": n, "kind": "class", "size": "", "licence": "", "summary": _summary(c)} for n, c in exact]
    return _weights(bundled()) + classes


def _autoencoders() -> list[dict[str, Any]]:
    from scidiff.priors.pretrained import bundled_autoencoders, read_card

    rows = _weights(bundled_autoencoders())
    for row in rows:
        card = read_card(row["name"])
        row["kind"] = f"stride {card['stride']}, {card['compression']:g} : 1"
    exact = [(n, c) for n, c in _public("scidiff.priors") if inspect.isclass(c) and n in AUTOENCODERS]
    return rows + [{"name": n, "kind": "class", "size": "", "licence": "", "summary": _summary(c)} for n, c in exact]


def _forecasters() -> list[dict[str, Any]]:
    from scidiff.forecast.base import Forecaster
    from scidiff.forecast.files import bundled_forecasters, read_forecaster_card

    rows = []
    for name, path in bundled_forecasters().items():
        card, size = read_forecaster_card(path), f"{path.stat().st_size / 2**20:.1f} MB"
        rows.append({"name": name, "kind": "weights", "size": size, "summary": card.get("title", "")})
    classes = [
        (n, c)
        for n, c in _public("scidiff.forecast")
        if inspect.isclass(c) and issubclass(c, Forecaster) and not inspect.isabstract(c)
    ]
    return rows + [{"name": n, "kind": "class", "size": "", "summary": _summary(c)} for n, c in classes]


def _operators() -> list[dict[str, Any]]:
    found = [(name, thing) for name, thing in _public("scidiff.operators") if inspect.isclass(thing)]
    return [{"name": n, "linear": "yes" if hasattr(c, "adjoint") else "no", "summary": _summary(c)} for n, c in found]


def _datasets() -> list[dict[str, Any]]:
    return [{"name": name, "summary": _summary(thing)} for name, thing in _public("scidiff.datasets")]


CATALOGUES: dict[Kind, Callable[[], list[dict[str, Any]]]] = {
    Kind.samplers: _samplers,
    Kind.problems: _problems,
    Kind.priors: _priors,
    Kind.autoencoders: _autoencoders,
    Kind.forecasters: _forecasters,
    Kind.operators: _operators,
    Kind.datasets: _datasets,
}


def catalogue(kind: Kind) -> list[dict[str, Any]]:
    """One row per thing of a kind: name, what it needs, one line about it."""
    return CATALOGUES[kind]()


def show(
    kind: Annotated[Kind | None, typer.Argument(help="What to list; everything when left out.")] = None,
    json: Json = False,
) -> None:
    """Lists samplers with what they require, problems, priors, autoencoders and forecasters with their size, operators,
    readers.

    A sampler requires of the measurement: `linear` (linear operator, affine prior), `gradient` (differentiable
    operator), `gaussian` (Gaussian noise), `variance` (Gaussian noise or one that states its variance) or `svd`. The
    columns say what it works with: nonlinear operators, counts (Poisson noise), black boxes (forward calls only).
    """
    tables = {k.value: catalogue(k) for k in ([kind] if kind else Kind)}
    if json:
        emit(tables)
        return
    from rich.console import Console

    console = Console()
    for title, rows in tables.items():
        _print(console, title, rows)


def _print(console: Any, title: str, rows: list[dict[str, Any]]) -> None:
    """A table; where the screen is too narrow for it, the summaries follow as a list of their own."""
    from rich import box
    from rich.table import Table

    cells = [{k: ", ".join(v) if isinstance(v, list) else str(v) for k, v in row.items()} for row in rows]
    columns = list(cells[0]) if cells else ["none"]
    width = sum(max(len(name), *(len(row[name]) for row in cells)) + 2 for name in columns[:-1]) if cells else 0
    narrow = len(columns) > 2 and width + 40 > console.width
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in columns[:-1] if narrow else columns:
        word = max((len(part) for row in cells for part in [*row[name].split(), name]), default=0)
        table.add_column(name, no_wrap=name == "name", overflow="fold", min_width=min(word, 16))
    for row in cells:
        table.add_row(*(row[name] for name in (columns[:-1] if narrow else columns)))
    console.print(table)
    if narrow:
        summary = Table(box=None, show_header=False, padding=(0, 1, 0, 0))
        summary.add_column(no_wrap=True)
        summary.add_column(overflow="fold")
        for row in cells:
            summary.add_row(row["name"], row[columns[-1]])
        console.print(summary)
