r"""A page for every operator, problem, sampler, integrator and forecaster: equation, reference, certificate and cost.

Nothing is typed twice. Names are what the registries and packages hold; equations stand in `catalogue.toml`, in
docs/methods_*.md (posterior samplers) and in docstrings (integrators); references in docstrings, else in
`catalogue.toml`; costs in docs/costs.md, which `python benchmarks/costs.py` prints; the certificate is the sampler's
rows of docs/certificate_table.md, or the files of tests that name the thing. `missing` says what is not there.

    python docs/site/catalogue.py        # what is missing
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["Entry", "entries", "missing", "pages"]

ROOT = Path(__file__).resolve().parents[2]
EXTRA = ("ClosurePhases", "LogClosureAmplitudes", "StationGains", "TotalFlux", "VisibilityAmplitudes")
"""Operators of `scidiff.operators.interferometry`, which has other things, too."""
KINDS = {
    "operators": "Operators",
    "problems": "Problems",
    "samplers": "Posterior samplers",
    "integrators": "Integrators",
    "forecasters": "Forecasters",
}


@dataclass(frozen=True)
class Entry:
    """What a page says.

    Arguments:
        kind: One of `KINDS`.
        name: As a user writes it.
        thing: Class.
        equation: LaTeX, or text of formulas.
        reference: Source; "definition" where the equation is all there is.
        certificate: What it was checked against.
        cost: Of one call, or per member.
        page: Page of docs/ that explains it.
    """

    kind: str
    name: str
    thing: type
    equation: str
    reference: str
    certificate: str
    cost: str
    page: str


@cache
def _text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


@cache
def _written() -> dict[str, dict[str, list[str]]]:
    return tomllib.loads(_text("docs/site/catalogue.toml"))


@cache
def _tests() -> dict[str, str]:
    return {
        p.relative_to(ROOT).as_posix(): p.read_text(encoding="utf-8") for p in sorted(ROOT.glob("tests/**/test_*.py"))
    }


def _checked(*words: str) -> str:
    """The files of tests that name one of these words, at most four."""
    pattern = re.compile(r"(?<![\w-])(" + "|".join(map(re.escape, words)) + r")(?![\w-])")
    counts = {path: len(pattern.findall(text)) for path, text in _tests().items() if "/house/" not in path}
    found = sorted((p for p, n in counts.items() if n), key=lambda p: ("conformance" not in p, -counts[p], p))[:4]
    return ", ".join(f"`{path}`" for path in found)


def _cost(table: str, name: str) -> str:
    """The row of docs/costs.md, in words."""
    part = _text("docs/costs.md").partition(f"## {table}\n")[2].partition("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    heads = [cell.strip() for cell in lines[0].strip("|").split("|")] if lines else []
    for line in lines[2:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == f"`{name}`":
            return "; ".join(f"{head}: {cell}" for head, cell in zip(heads[1:], cells[1:], strict=True))
    return ""


def _reference(thing: Any) -> str:
    """The section ``References:`` of a class's docstring, or of its module's."""
    for text in (inspect.getdoc(thing) or "", inspect.getmodule(thing).__doc__ or ""):  # type: ignore[union-attr]
        found = re.search(r"^References?:\s*\n((?:[ \t]+.*\n?|\s*\n)+)", text, re.MULTILINE)
        if found:
            return " ".join(found.group(1).split())
    return ""


def _certified(name: str) -> str:
    """The sampler's rows of the certificate as a table."""
    text, lines, heads = _text("docs/certificate_table.md"), [], ""
    for section in text.split("\n### ")[1:]:
        problem = section.partition("\n")[0].strip()
        for line in section.splitlines():
            if line.startswith("| sampler"):
                heads = line
            elif line.startswith((f"| {name} |", f"| {name} (")):
                cells = line.strip("|").split("|")
                lines.append(f"| {problem} | " + " | ".join(c.strip() for c in cells[3:7]) + " |")
    if not lines:
        return ""
    names = [cell.strip() for cell in heads.strip("|").split("|")][3:7]
    return "\n".join([f"| problem | {' | '.join(names)} |", "|---|---:|---:|---:|---:|", *lines])


def _operators() -> list[Entry]:
    top, more = (
        importlib.import_module("scidiff.operators"),
        importlib.import_module("scidiff.operators.interferometry"),
    )
    named = {n: getattr(top, n) for n in top.__all__} | {n: getattr(more, n) for n in EXTRA}
    return [
        _listed("operators", name, thing, "Operators", _checked(name))
        for name, thing in sorted(named.items())
        if isinstance(thing, type)
    ]


def _listed(kind: str, name: str, thing: type, table: str, certificate: str) -> Entry:
    equation, page, reference, *cost = _written()[kind].get(name, ["", "", ""])
    price = cost[0] if cost else _cost(table, name)
    return Entry(kind, name, thing, equation, reference or _reference(thing), certificate, price, page)


def _problems() -> list[Entry]:
    from scidiff.problems import get, names

    found = []
    for name in names():
        thing = type(get(name))
        found.append(_listed("problems", name, thing, "Problems", _checked(thing.__name__, f'"{name}"')))
    return found


def _forecasters() -> list[Entry]:
    package = importlib.import_module("scidiff.forecast")
    base = package.Forecaster
    named = {n: getattr(package, n) for n in package.__all__}
    return [
        _listed("forecasters", name, thing, "", _checked(name))
        for name, thing in sorted(named.items())
        if isinstance(thing, type) and issubclass(thing, base) and thing is not base
    ]


def _samplers() -> list[Entry]:
    from scidiff.posterior import get, names

    found = []
    for name in names():
        thing = type(get(name))
        page = next(
            (p.stem for p in sorted(ROOT.glob("docs/methods_*.md")) if f"\n## `{name}`" in _text(f"docs/{p.name}")), ""
        )
        section = _text(f"docs/{page}.md").partition(f"\n## `{name}`")[2].partition("\n## ")[0] if page else ""
        formulas = re.search(r"```text\n(.*?)```", section, re.DOTALL)
        reference = re.search(r"\*\*Reference\*\*:?(.*?)(?:\n\n|\n```|\Z)", section, re.DOTALL)
        equation = formulas.group(1).strip("\n") if formulas else _formula(thing)
        source = " ".join(reference.group(1).split()) if reference else _reference(thing)
        certificate = _certified(name) or _checked(thing.__name__)
        found.append(
            Entry("samplers", name, thing, equation, source, certificate, _cost("Posterior samplers", name), page)
        )
    return found


def _formula(thing: Any) -> str:
    """What a docstring writes as a formula: that of the class, else of its module; empty if neither does."""
    for text in (inspect.getdoc(thing) or "", inspect.getmodule(thing).__doc__ or ""):  # type: ignore[union-attr]
        found = re.search(r":math:`([^`]+)`|\.\. math::\s*((?:.+\n?)+)", text)
        if found:
            return " ".join((found.group(1) or found.group(2)).split())
    return ""


def _integrators() -> list[Entry]:
    package = importlib.import_module("scidiff.samplers")
    return [
        Entry(
            "integrators",
            name,
            thing,
            _formula(thing),
            _reference(thing),
            _checked(name),
            _cost("Integrators", name),
            "prior_samplers" if f"`{name}`" in _text("docs/prior_samplers.md") else "",
        )
        for name in package.__all__
        if isinstance(thing := getattr(package, name), type) and name != "Sampler"
    ]


@cache
def entries() -> tuple[Entry, ...]:
    """Everything that has a page."""
    return (*_operators(), *_problems(), *_samplers(), *_integrators(), *_forecasters())


def missing() -> list[str]:
    """What some entry lacks, and what `catalogue.toml` holds without need, a line each."""
    found = [
        f"{entry.kind[:-1]} {entry.name} has no {part}"
        for entry in entries()
        for part in ("equation", "reference", "certificate", "cost", "page")
        if not getattr(entry, part)
    ]
    known = {(entry.kind, entry.name) for entry in entries()}
    spare = [(kind, name) for kind, table in _written().items() for name in table if (kind, name) not in known]
    return found + [f"catalogue.toml names the {kind[:-1]} {name}, which does not exist" for kind, name in spare]


def pages(folder: Path) -> list[str]:
    """Writes the pages and an overview; returns their names, the overview first."""
    (folder / "catalogue").mkdir()
    overview = ["# Catalogue", "", "Every part that has a name: equation, reference, certificate, cost.", ""]
    names = ["catalogue/index"]
    for kind, title in KINDS.items():
        overview += [f"## {title}", "", "| name | is | cost |", "|---|---|---|"]
        for entry in (e for e in entries() if e.kind == kind):
            place = f"{kind}-{entry.name}"
            summary = (inspect.getdoc(entry.thing) or "").partition("\n")[0]
            summary = re.sub(r":math:`([^`]*)`", r"$\1$", summary).replace("``", "`").replace("|", "\\|")
            overview.append(f"| [`{entry.name}`]({place}.md) | {summary} | {entry.cost} |")
            (folder / "catalogue" / f"{place}.md").write_text(_page(entry, title), encoding="utf-8")
            names.append(f"catalogue/{place}")
        overview.append("")
    (folder / "catalogue" / "index.md").write_text("\n".join(overview), encoding="utf-8")
    return names


def _page(entry: Entry, title: str) -> str:
    where = f"{entry.thing.__module__}.{entry.thing.__qualname__}"
    text = entry.kind == "samplers" and "\\" not in entry.equation
    formula = f"```text\n{entry.equation}\n```" if text else f"$$\n{entry.equation}\n$$"
    certificate = entry.certificate if "\n" in entry.certificate else f"Checked by {entry.certificate}."
    return "\n\n".join(
        [
            f"# `{entry.name}`",
            f"*{title}*; explained in [{entry.page}.md](../{entry.page}.md).",
            formula,
            "## Reference",
            entry.reference,
            "## Certificate",
            certificate,
            "## Cost",
            f"{entry.cost} ([how measured](../costs.md))",
            "## Class",
            f"```{{eval-rst}}\n.. autoclass:: {where}\n   :no-index:\n```",
            "",
        ]
    )


if __name__ == "__main__":
    found = missing()
    sys.stdout.write("\n".join(found or ["nothing is missing"]) + "\n")
    sys.exit(bool(found))
