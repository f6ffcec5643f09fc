"""What the commands of ``scidiff train`` share: tables of a configuration, a stopped run that resumes, the card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from scidiff.cli.common import ConfigError

__all__ = [
    "Data",
    "Device",
    "Out",
    "Overwrite",
    "Progress",
    "Resume",
    "Steps",
    "card_of",
    "initialised",
    "placed",
    "read_tables",
    "stopping",
    "strict",
    "unknown_keys",
]

Out = Annotated[Path | None, typer.Option(help="Folder of the run; default runs/<name of CONFIG>.")]
Data = Annotated[Path | None, typer.Option(help="Folder that data.files are relative to.")]
Resume = Annotated[bool, typer.Option(help="Continue a stopped run, to the bit.")]
Overwrite = Annotated[bool, typer.Option(help="Discard an existing run.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Steps = Annotated[int | None, typer.Option(help="Overrides training.steps.")]
Progress = Annotated[bool, typer.Option(help="Show a bar on stderr.")]


def read_tables(path: Path, known: set[str], required: set[str]) -> dict[str, dict[str, Any]]:
    """The tables of a configuration; those left out are empty.

    Raises:
        ConfigError: No such file, not TOML, a table too many or too few.
    """
    from scidiff.cli.config import read_toml

    tables = read_toml(path)
    unknown = sorted(tables.keys() - known)
    missing = sorted(required - tables.keys())
    if unknown or missing:
        raise ConfigError(
            f"{path}: expected the tables {', '.join(sorted(known))}; unknown {unknown}, missing {missing}."
        )
    return {**{name: {} for name in known}, **tables}


def strict(kind: type, values: Mapping[str, Any], table: str):  # noqa: ANN201 - an instance of kind
    """A dataclass from a table; ConfigError for a key that it does not have or a value that makes no sense."""
    import dataclasses

    unknown_keys(values, [f.name for f in dataclasses.fields(kind)], table)
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"[{table}]: {error}") from error


def unknown_keys(values: Mapping[str, Any], names: list[str], table: str) -> None:
    """ConfigError for the first key of a table that is none of the names."""
    import difflib

    for key in values:
        if key not in names:
            near = difflib.get_close_matches(key, names, 1)
            raise ConfigError(
                f"[{table}] has no '{key}'" + (f"; did you mean '{near[0]}'?" if near else f"; it has {names}.")
            )


def initialised(kind: type, options: dict[str, Any], seed: int):  # noqa: ANN201 - the network
    """A network whose initial weights depend on the seed alone; the global random state is left as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            return kind(**options)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"[network] does not fit: {error}") from error


def placed(network: Any, device: str) -> tuple[Any, str]:
    """The network in the memory format that suits the device, and the device: auto takes CUDA where there is one."""
    import os

    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if device == "cpu":
        network = network.to(memory_format=torch.channels_last if network.dims == 2 else torch.contiguous_format)
    return network, device


@contextmanager
def stopping() -> Iterator[list[int]]:
    """A list that fills when the run is asked to stop (Ctrl-C, TERM); the handlers of before come back at the end."""
    import signal

    stopped: list[int] = []
    before = {
        number: signal.signal(number, lambda n, _frame: stopped.append(n)) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def card_of(
    tables: Mapping[str, dict[str, Any]], source: Any, training: Any, step: int, log: Path, command: str
) -> dict[str, Any]:
    """What every card of a trained network says."""
    from dataclasses import asdict

    import torch

    import scidiff
    from scidiff.record import source as provenance

    lines = read_log(log)
    thinned = [r for r in lines if "loss" in r][:: max(1, len(lines) // 50)]
    return {
        **tables["card"],
        "channels": source.channels,
        "loc": source.loc,
        "scale": source.scale,
        "complex": source.complex,
        "units": source.units,
        "data": tables["data"],
        "files_sha256": source.files,
        "training": asdict(training) | {"steps_done": step},
        "command": command,
        "source": provenance(),
        **source.extra,
        **({"loss": tables["loss"]} if tables["loss"] else {}),
        "versions": {"scidiff": scidiff.__version__, "torch": torch.__version__},
        "loss_curve": [[r["step"], round(r["loss"], 5)] for r in thinned],
        "validation_curve": [[r["step"], round(r["validation"], 5)] for r in lines if "validation" in r],
    }


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of ``log.jsonl``."""
    import json

    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def last_of(log: Path, key: str) -> Any:
    """The last value of a key in the log, None without one."""
    return next((row[key] for row in reversed(read_log(log)) if key in row), None)
