"""``scidiff doctor``: what is installed, what is broken or missing, and the line that mends it."""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import typer

from scidiff.cli.common import Json, emit, exit_code, say
from scidiff.errors import MissingPackageError
from scidiff.optional import optional, pip_line

__all__ = ["doctor", "package_report", "requirements"]

DISTRIBUTION = "scidiff-toolkit"

# Packages whose import name differs from their name on the index; needed to name a module that is not installed.
IMPORT_NAMES = {"astra-toolbox": "astra", "scikit-image": "skimage", "mri-nufft": "mrinufft"}
TOOLS = "test"  # this extra holds tools of developers: their versions are shown, they are not imported


def requirements() -> list[str]:
    """The requirements of this package with their extras, from its metadata or, in a source folder, pyproject.toml."""
    try:
        return metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        import tomllib

        project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]
        extras = project["optional-dependencies"]
        return [
            *project["dependencies"],
            *(_with_extra(line, extra) for extra, lines in extras.items() for line in lines),
        ]


def _with_extra(line: str, extra: str) -> str:
    need, _, marker = map(str.strip, line.partition(";"))
    return f"{need}; ({marker}) and extra == '{extra}'" if marker else f"{need}; extra == '{extra}'"


def package_report() -> list[dict[str, Any]]:
    """One row per requirement: name, extra, wanted and installed version, state, and the pip line if it is not ok.

    ``state`` is ok, missing, other version (installed, but outside the bounds) or broken (importing fails).
    """
    rows = []
    for line in requirements():
        need, _, marker = line.partition(";")
        found = re.search(r"extra == ['\"]([^'\"]+)['\"]", marker)
        extra = found.group(1) if found else None
        if not _wanted_here(marker, extra):
            continue
        match = re.match(r"\s*([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*\(?([^)]*)\)?", need)
        assert match, line
        rows.append(_row(match.group(1), match.group(2).strip(), extra))
    return rows


def _wanted_here(marker: str, extra: str | None) -> bool:
    """Whether the rest of the marker, about system and machine, holds here."""
    if not marker.strip():
        return True
    from packaging.markers import Marker

    return Marker(marker.strip()).evaluate({"extra": extra or ""})


def _row(name: str, bounds: str, extra: str | None) -> dict[str, Any]:
    row = {
        "package": name,
        "extra": extra,
        "wanted": bounds,
        "installed": None,
        "state": "ok",
        "why": "",
        "install": "",
    }
    try:
        row["installed"] = metadata.version(name)
    except metadata.PackageNotFoundError:
        row["state"] = "missing"
    else:
        from packaging.specifiers import SpecifierSet

        if not SpecifierSet(bounds).contains(row["installed"], prereleases=True):
            row["state"] = "other version"
    if row["state"] != "missing" and extra != TOOLS:
        try:
            optional(IMPORT_NAMES.get(name, name.replace("-", "_")))
        except MissingPackageError as error:
            row |= {"state": "broken", "why": str(error.__cause__)}
    if row["state"] != "ok":
        row["install"] = pip_line(name, extra) if extra else 'python -m pip install -c constraints.txt -e "."'
    return row


def _devices() -> dict[str, Any]:
    try:
        torch = optional("torch")
    except MissingPackageError:
        return {"cpus": os.cpu_count()}
    gpus = (
        [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpus": usable, "torch_threads": torch.get_num_threads(), "gpus": gpus}


def _weights() -> dict[str, Any]:
    import scidiff

    folder = Path(scidiff.__file__).parent / "pretrained"
    return {"folder": folder, "bundled": {p.stem: p.stat().st_size for p in sorted(folder.glob("*.safetensors"))}}


def doctor(json: Json = False) -> None:
    """Shows versions, devices, bundled weights, and the pip line for what is missing.

    Ends with 4 when a package that scidiff needs is missing or broken; optional ones are only reported.
    """
    from scidiff import __version__

    report = {
        "scidiff": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "devices": _devices(),
        "weights": _weights(),
        "packages": package_report(),
    }
    if json:
        emit(report)
    else:
        _show(report)
    bad = [row for row in report["packages"] if row["extra"] is None and row["state"] in ("missing", "broken")]
    if bad:
        say("needed but not usable: " + ", ".join(row["package"] for row in bad))
        raise typer.Exit(exit_code(MissingPackageError()))


def _show(report: dict[str, Any]) -> None:
    devices, weights = report["devices"], report["weights"]
    typer.echo(f"scidiff   {report['scidiff']}\npython    {report['python']}  {report['executable']}")
    typer.echo(f"platform  {report['platform']}")
    typer.echo(
        f"devices   {devices['cpus']} CPU cores, torch uses {devices.get('torch_threads', 'none')} threads; ", nl=False
    )
    typer.echo(f"GPUs: {', '.join(devices.get('gpus', [])) or 'none'}")
    typer.echo(f"weights   {weights['folder']}: {', '.join(weights['bundled']) or 'none bundled'}\n")
    for row in report["packages"]:
        group = f"[{row['extra']}]" if row["extra"] else ""
        typer.echo(f"{row['package']:<18}{group:<9}{row['installed'] or '-':<16}{row['state']:<15}{row['wanted']}")
        if row["why"]:
            typer.echo(f"    {row['why']}")
    lines = dict.fromkeys(row["install"] for row in report["packages"] if row["install"])
    if lines:
        typer.echo("\nTo install what is missing, in the source folder:")
        for line in lines:
            typer.echo(f"    {line}")
