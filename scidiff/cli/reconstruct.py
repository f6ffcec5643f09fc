"""``scidiff reconstruct PROBLEM FILE``: from a measurement to an ensemble in a folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from scidiff.cli.common import ConfigError, Json, emit, say

__all__ = ["reconstruct", "settings_of", "usage"]

Problem = Annotated[str | None, typer.Argument(help="Name of a problem, see `scidiff list problems`.")]
File = Annotated[Path | None, typer.Argument(help="File with the measurement.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder of the result; default runs/PROBLEM-FILE.")]
Members = Annotated[int | None, typer.Option(min=1, help="Number of draws; default 16.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Of all random numbers; default 0.")]
Batch = Annotated[int | None, typer.Option(min=1, help="Members drawn together; changes results to rounding only.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Dtype = Annotated[str | None, typer.Option(help="float32 or float64; default that of the file.")]
Sampler = Annotated[str | None, typer.Option(help="Name of a sampler, see `scidiff list samplers`.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Steps of the sampler.")]
Acceleration = Annotated[float | None, typer.Option(help="mri: keep one line of so many (at least 1).")]
Zeros = Annotated[str | None, typer.Option(help="mri: points that are zero in all coils are `missing` or `measured`.")]
Prior = Annotated[str | None, typer.Option(help="Name of a bundled prior, or a .safetensors file with its card.")]
ConfigFile = Annotated[Path | None, typer.Option("-c", "--config", help="TOML file, as config.toml of a result.")]
Settings = Annotated[list[str] | None, typer.Option("-s", "--set", help="key=value, as sampler.iterations=10.")]
From = Annotated[Path | None, typer.Option("--from", help="A result.nc: run it again from its attributes.")]
Style = Annotated[str, typer.Option(help="auto, bar, plain or none; on stderr.")]


@contextlib.contextmanager
def usage() -> Iterator[None]:
    """Inside, a wrong value or an unknown name is the fault of who typed it (exit code 2), not of the program."""
    from scidiff.errors import InputError

    try:
        yield
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from error


def settings_of(
    again: Path | None, config: Path | None, settings: list[str] | None, options: dict[str, Any]
) -> dict[str, Any]:
    """The settings of a run: a result's, then a TOML file's, then ``-s``, then options of the command line.

    Arguments:
        again: Result whose attributes are the first source.
        config: TOML file.
        settings: ``key=value``, dots for nested keys.
        options: Options that were typed; None for those that were not.

    Raises:
        ConfigError: unknown keys, wrong kinds, or no problem or observation.
        InputError: the result is unreadable or holds no settings.
    """
    from typing import Literal

    from pydantic import ConfigDict, Field

    from scidiff.cli.config import Config, load_config
    from scidiff.record import toml_value

    class Named(Config):
        model_config = ConfigDict(extra="allow", frozen=True)  # parameters are checked by what they are given to
        name: str

    class Method(Named):
        name: str | None = None  # type: ignore[assignment]

    class Run(Config):
        problem: Named = Field(description="give PROBLEM, such as mri; `scidiff list problems` shows all")
        observation: str = Field(description="give FILE, the measurement")
        sampler: Method = Method()
        members: int = Field(16, ge=1)
        seed: int = Field(0, ge=0)
        batch: int | None = Field(None, ge=1)
        device: str = "auto"
        dtype: Literal["float32", "float64"] | None = None
        method: str | None = None  # the sampler in words, as results record it; not read

    base = _recorded(again) if again is not None else {}
    for part in ("problem", "sampler"):  # parameters belong to the one they were recorded for
        if options.get(f"{part}.name") not in (None, base.get(part, {}).get("name")):
            base.pop(part, None)
    if base and base.get("observation") is None and options.get("observation") is None:
        raise ConfigError(
            f"{again} does not record the file of its observation (it was given in memory); "
            "name problem and file: scidiff reconstruct PROBLEM FILE --from RESULT."
        )
    typed = [f"{key}={toml_value(value)}" for key, value in options.items() if value is not None]
    return load_config(Run, config, [*(settings or []), *typed], base).model_dump()


def _recorded(path: Path) -> dict[str, Any]:
    import json

    from scidiff.errors import InputError
    from scidiff.fields import open_result

    with open_result(path) as result:
        text = result.attrs.get("configuration")
    if not text:
        raise InputError(f"{path} has no attribute 'configuration'; it was not written by `scidiff reconstruct`.")
    return json.loads(text)


def reconstruct(
    problem: Problem = None,
    file: File = None,
    out: Out = None,
    members: Members = None,
    seed: Seed = None,
    sampler: Sampler = None,
    steps: Steps = None,
    prior: Prior = None,
    acceleration: Acceleration = None,
    zeros: Zeros = None,
    batch: Batch = None,
    device: Device = None,
    dtype: Dtype = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run, to the bit.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what --out holds.")] = False,
    portable: Annotated[bool, typer.Option("--portable", help="Split complex variables into _real, _imag.")] = False,
    progress: Style = "auto",
    json: Json = False,
    config: ConfigFile = None,
    settings: Settings = None,
    again: From = None,
) -> None:
    """Draw an ensemble of fields from a measurement in a file.

    Writes result.nc, config.toml, metrics.json, run.json, log.jsonl and figures/result.png into the folder --out.
    Finished members are kept as they come; --resume goes on after Ctrl-C, a kill or a full disk.

        scidiff reconstruct mri scan.h5 --acceleration 4 --members 8 --out runs/scan
    """
    options = {
        "problem.name": problem,
        "problem.acceleration": acceleration,
        "problem.zeros": zeros,
        "problem.prior": prior,
        "observation": str(file) if file is not None else None,
        "sampler.name": sampler,
        "sampler.steps": steps,
        "members": members,
        "seed": seed,
        "batch": batch,
        "device": device,
        "dtype": dtype,
    }
    run = settings_of(again, config, settings, options)
    from scidiff import problems
    from scidiff import reconstruct as draw

    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other: go on with the run, or replace it.")
    chosen, method = build(run, problems.get)
    folder = out or Path("runs") / f"{chosen.name}-{Path(run['observation']).stem}"
    stop_politely()
    result = draw(
        chosen,
        run["observation"],
        method,
        members=run["members"],
        seed=run["seed"],
        output=folder,
        batch=run["batch"],
        resume=resume,
        overwrite=overwrite,
        device=run["device"],
        dtype=run["dtype"],
        progress="none" if json and progress == "auto" else progress,
        portable=portable,
    )
    from scidiff.team import place

    if place()[0] == 0:
        report(folder, result, json)


def build(run: dict[str, Any], get_problem: Any) -> tuple[Any, Any]:
    """Problem and sampler of the settings; a wrong name or parameter is a usage error."""
    from scidiff import posterior
    from scidiff.placement import resolve_device

    with usage():
        resolve_device(run["device"])
        chosen = get_problem(**run["problem"])
        if "prior" in run["problem"]:
            _ = chosen.prior  # asked for by name: a wrong one is refused before the scan is read, which takes longer
        method = dict(run["sampler"])
        name = method.pop("name", None) or chosen.default_sampler
        return chosen, posterior.get(name, **{**getattr(chosen, "recommended", {}).get(name, {}), **method})


def report(folder: Path, result: Any, json: bool) -> None:
    """What was made: for people on stderr, or one JSON object on stdout."""
    import json as reader

    metrics = reader.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    attrs = result.attrs
    if json:
        emit(
            {
                "result": folder / "result.nc",
                "sizes": dict(result.sizes),
                "metrics": metrics,
                "warnings": reader.loads(attrs["warnings"]),
                "configuration": reader.loads(attrs["configuration"]),
                "wall_time_seconds": attrs.get("wall_time_seconds"),
                "peak_memory_bytes": attrs.get("peak_memory_bytes"),
            }
        )
        return
    say(f"{result.sizes['member']} members, data misfit chi2 {metrics['chi2']:.3f} per degree of freedom")
    for name, value in metrics.get("scores", {}).items():
        if isinstance(value, float):
            say(f"  {name} {value:.4g}")
    say(f"written: {folder / 'result.nc'}, {folder / 'figures' / 'result.png'}")


def stop_politely() -> None:
    """A batch system's SIGTERM ends the run as a full disk does: finished members are kept, exit code 75."""
    import signal

    from scidiff.errors import Interrupted

    def stop(number: int, _frame: Any) -> None:
        raise Interrupted(f"received {signal.Signals(number).name}")

    signal.signal(signal.SIGTERM, stop)
