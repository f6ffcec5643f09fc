"""``scidiff forecast MODEL INITIAL``: an ensemble of futures of the states in a file, as a Zarr store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from scidiff.cli.common import ConfigError, Json, emit, say

__all__ = ["forecast", "leads_of"]

Model = Annotated[str, typer.Argument(help="Name of a bundled forecaster, or a .safetensors file with its card.")]
Initial = Annotated[Path, typer.Argument(help="NetCDF file or Zarr store with the initial states.")]
Lead = Annotated[str, typer.Option("--lead", help="Number of steps (7), steps to keep (1,3,7), or a time (5d, 36h).")]
Members = Annotated[int, typer.Option(min=1, help="Number of draws.")]
Out = Annotated[Path, typer.Option("--out", help="Zarr store to write.")]
Forcing = Annotated[Path | None, typer.Option(help="File with the prescribed variables by valid time.")]
At = Annotated[list[str] | None, typer.Option("--at", help="Initial time to use; repeat for more. Default all.")]
Seed = Annotated[int, typer.Option(min=0, help="Of all random numbers.")]
Batch = Annotated[int | None, typer.Option(min=1, help="Rows drawn together; changes results to rounding only.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Names = Annotated[list[str] | None, typer.Option(help="Variable, raised to zero where negative; repeat for more.")]
Kept = Annotated[list[str] | None, typer.Option(help="Variable whose mean over the area is kept; repeat for more.")]
Fixed = Annotated[
    list[str] | None,
    typer.Option(
        metavar="VARIABLE=FILE",
        help="Values to set after every step, by valid time; points missing in FILE stay free. Repeat for more.",
    ),
]
Style = Annotated[str, typer.Option(help="auto, bar, plain or none; on stderr.")]


def leads_of(text: str) -> Any:
    """What ``--lead`` says: a number of steps, several, or a time.

    Raises:
        ConfigError: anything else.
    """
    import re

    import numpy as np

    if re.fullmatch(r"\d+", text):
        return int(text)
    if re.fullmatch(r"\d+(,\d+)+", text):
        return [int(part) for part in text.split(",")]
    found = re.fullmatch(r"(\d+) ?(d|h|min)", text)
    if found:
        return np.timedelta64(int(found[1]), {"d": "D", "h": "h", "min": "m"}[found[2]])
    raise ConfigError(f"--lead must be a number of steps (7), steps (1,3,7) or a time (5d, 36h, 30min), got {text!r}.")


def forecast(
    model: Model,
    initial: Initial,
    lead: Lead,
    members: Members = 16,
    out: Out = Path("run.zarr"),
    forcing: Forcing = None,
    at: At = None,
    seed: Seed = 0,
    conserve: Kept = None,
    positive: Names = None,
    prescribe: Fixed = None,
    batch: Batch = None,
    device: Device = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run, to the bit.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what --out holds.")] = False,
    progress: Style = "auto",
    json: Json = False,
) -> None:
    """Draw an ensemble of futures of every initial state in a file.

    Finished windows are kept as they come; --resume goes on after Ctrl-C, a kill or a full disk.

        scidiff forecast slp-north-atlantic days.nc --lead 5 --members 50 --out run.zarr
    """
    from scidiff.cli.reconstruct import stop_politely, usage
    from scidiff.forecast.corrections import Conserve, Positive
    from scidiff.forecast.loading import load_model
    from scidiff.forecast.rollout import forecast as draw
    from scidiff.placement import resolve_device

    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other: go on with the run, or replace it.")
    leads = leads_of(lead)
    with usage():
        resolve_device(device)
        forecaster, spec = load_model(model)
        steps = _steps(leads, spec)
        times = _times(at, spec)
    fixed = [_prescribed(text) for text in prescribe or ()]
    stop_politely()
    result = draw(
        forecaster,
        initial,
        steps,
        members,
        forcing,
        seed=seed,
        output=out,
        spec=spec,
        corrections=[*map(Positive, positive or ()), *map(Conserve, conserve or ()), *fixed],
        init_times=times,
        batch_size=batch,
        resume=resume,
        overwrite=overwrite,
        device=device,
        progress="none" if json and progress == "auto" else progress,
    )
    if json:
        emit(
            {
                "result": out,
                "sizes": dict(result.sizes),
                "variables": list(result.data_vars),
                "attributes": result.attrs,
            }
        )
        return
    sizes = result.sizes
    say(f"{sizes['init_time']} initial times, {sizes['member']} members, {sizes['lead_time']} leads; written: {out}")


def _steps(leads: Any, spec: Any) -> Any:
    """A time becomes the number of steps up to it."""
    from scidiff.forecast.times import lead_count

    return leads if isinstance(leads, (int, list)) else int(lead_count([leads], spec.step)[0])


def _prescribed(text: str) -> Any:
    """``--prescribe VARIABLE=FILE``: the values of the file, where it holds some."""
    from scidiff.errors import InputError
    from scidiff.forecast.corrections import Prescribe
    from scidiff.forecast.inputs import open_dataset

    variable, _, path = text.partition("=")
    if not variable or not path:
        raise ConfigError(f"--prescribe must be VARIABLE=FILE, such as sst=sst.nc, got {text!r}.")
    ds = open_dataset(path)
    if variable not in ds:
        raise InputError(f"{path}: there is no variable {variable!r}; found {', '.join(map(str, ds.data_vars))}.")
    return Prescribe(variable, ds[variable])


def _times(at: list[str] | None, spec: Any) -> Any:
    import numpy as np

    if not at:
        return None
    dated = isinstance(spec.step, np.timedelta64)
    try:
        return np.array(at, dtype="datetime64[ns]") if dated else np.array(at, dtype=float)
    except ValueError as error:
        raise ConfigError(f"--at must be a {'date such as 2020-01-31' if dated else 'number'}, got {at}.") from error
