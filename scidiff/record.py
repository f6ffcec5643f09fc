"""What a run writes down about itself: version and commit, configuration, log, time and memory."""

from __future__ import annotations

import contextlib
import importlib.metadata
import inspect
import json
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

__all__ = [
    "RunLog",
    "dump_toml",
    "largest_cost",
    "peak_memory",
    "provenance",
    "references",
    "source",
    "toml_value",
    "versions",
]

# An attribute of an HDF5 object holds at most 64 KiB; pictures and loss curves of a card stay in the card's file.
LONGEST_ENTRY = 4096


@cache
def source() -> str:
    """Name, version and, in a checkout, commit of this package."""
    from scidiff import __version__

    root = Path(__file__).resolve().parents[1]
    commit = ""
    if (root / ".git").exists():
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            command = ["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"]
            answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
            commit = f" (commit {answer.stdout.strip()})"
    return f"scidiff {__version__}{commit}"


@cache
def versions() -> dict[str, str]:
    """Versions of what computes and writes."""
    found = {"python": platform.python_version()}
    for name in ("torch", "numpy", "xarray", "h5py", "h5netcdf", "deepinv"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def references(method: Any) -> str:
    """The ``References:`` section of a class's docstring, one line; empty where there is none."""
    text = inspect.getdoc(type(method)) or ""
    found = re.search(r"^References?:\s*\n((?:[ \t]+.*\n?|\s*\n)+)", text, re.MULTILINE)
    return " ".join(found.group(1).split()) if found else ""


def _compact(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False, sort_keys=True)


def _abridged(card: Mapping[str, Any]) -> dict[str, Any]:
    long = "(long; see the card of the weights)"
    return {name: value if len(_compact(value)) <= LONGEST_ENTRY else long for name, value in card.items()}


def provenance(
    title: str,
    history: str,
    configuration: Mapping[str, Any],
    method: Any,
    prior_card: Mapping[str, Any] | None,
    fingerprints: Mapping[str, str | None],
    cost: Mapping[str, Any],
    checks: Mapping[str, Any],
    warnings: list[str],
) -> dict[str, Any]:
    """Global attributes of a result. They hold no time and no name of a machine: the same run gives the same file.

    Arguments:
        title: What the file holds.
        history: The command or call that made it.
        configuration: All settings; ``scidiff reconstruct --from FILE`` runs them again.
        method: The sampler; the references of its docstring are copied.
        prior_card: What the weights say of themselves.
        fingerprints: sha256 of input, observation and prior.
        cost: Calls per member.
        checks: Outcome of the checks of the forward model.
        warnings: What was warned of.
    """
    from scidiff import __version__

    return {
        "Conventions": "CF-1.11",
        "title": title,
        "history": history,
        "source": source(),
        "version": __version__,
        "references": references(method),
        "problem": _compact(configuration["problem"]),
        "sampler": _compact(configuration["sampler"]),
        "configuration": _compact(configuration),
        "seed": int(configuration["seed"]),
        "prior_card": _compact(_abridged(prior_card or {})),
        **{f"{name}_sha256": value or "" for name, value in fingerprints.items()},
        "versions": _compact(versions()),
        "cost": _compact(cost),
        "checks": _compact(checks),
        "warnings": _compact(warnings),
    }


def largest_cost(costs: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Calls per member; where batches needed different numbers of inner iterations, the largest."""
    found: dict[str, int] = {}
    for cost in costs:
        for name, value in cost.items():
            found[name] = max(found.get(name, 0), int(value))
    return found


def peak_memory() -> dict[str, int]:
    """Largest memory this process has held so far, in bytes; on a GPU also the largest that torch has taken there."""
    import torch

    found: dict[str, int] = {}
    with contextlib.suppress(ImportError):  # the module is absent on Windows
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        found["peak_memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        found["peak_gpu_memory_bytes"] = torch.cuda.max_memory_allocated()
    return found


class RunLog:
    """Events of a run, one JSON object a line, with the time; continued when the run is resumed.

    Arguments:
        path: File to append to; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.started = time.monotonic()

    def __call__(self, event: str, /, **values: Any) -> None:
        """Appends one event."""
        if self.path is None:
            return
        now = datetime.now(UTC).isoformat(timespec="seconds")
        line = {"time": now, "seconds": round(time.monotonic() - self.started, 3), "event": event, **values}
        with open(self.path, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, default=str) + "\n")


def dump_toml(settings: Mapping[str, Any]) -> str:
    """Settings as TOML: scalars first, then one section for every mapping; entries that are None are left out."""
    lines: list[str] = []
    _table(settings, (), lines)
    return "\n".join(lines).strip() + "\n"


def _table(settings: Mapping[str, Any], path: tuple[str, ...], lines: list[str]) -> None:
    inner = {k: v for k, v in settings.items() if isinstance(v, Mapping)}
    plain = {k: v for k, v in settings.items() if v is not None and k not in inner}
    if path and (plain or not inner):
        lines += ["", f"[{'.'.join(map(_key, path))}]"]
    lines += [f"{_key(name)} = {toml_value(value)}" for name, value in plain.items()]
    for name, value in inner.items():
        _table(value, (*path, str(name)), lines)


def _key(name: Any) -> str:
    return str(name) if re.fullmatch(r"[A-Za-z0-9_-]+", str(name)) else json.dumps(str(name))


def toml_value(value: Any) -> str:
    """A number, string, list or mapping in TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value)  # "inf" and "nan" are TOML too
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml_value(part) for part in value if part is not None) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(k)} = {toml_value(v)}" for k, v in value.items() if v is not None) + "}"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
