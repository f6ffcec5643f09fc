"""``scidiff plot FORECAST``: maps by lead, fan charts at points and an animation of an ensemble forecast."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from scidiff.cli.common import ConfigError, Json, emit, say

__all__ = ["plot"]

Forecast = Annotated[Path, typer.Argument(help="Forecast as `scidiff forecast` writes it.")]
Truth = Annotated[Path | None, typer.Option(help="File with what happened, by valid time; drawn beside the forecast.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for maps.png, fan.png and forecast.gif.")]
Variable = Annotated[str | None, typer.Option(help="To draw; default the first.")]
At = Annotated[str | None, typer.Option("--at", help="Initial time to draw; default the first.")]
Level = Annotated[float | None, typer.Option(help="Level to draw; default the first.")]
Point = Annotated[
    list[str] | None,
    typer.Option(metavar="DIM=VALUE,...", help="Point of a fan chart, lat=48,lon=11; repeat for more. Default centre."),
]


def plot(
    forecast: Forecast,
    truth: Truth = None,
    out: Out = Path("figures"),
    variable: Variable = None,
    at: At = None,
    level: Level = None,
    point: Point = None,
    members: Annotated[int, typer.Option(min=0, help="Members drawn as maps.")] = 2,
    fps: Annotated[int, typer.Option(min=1, help="Frames a second of the animation.")] = 4,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what --out holds.")] = False,
    json: Json = False,
) -> None:
    """Draw a forecast. Rank histograms, spread-skill and spectra are pictures of scores: `scidiff verify --out`.

    A forecast on a line of points has no maps: only its fan chart is drawn.

        scidiff plot run.zarr --truth truth.nc --point lat=48,lon=11 --out figures
    """
    import os

    from scidiff.errors import InputError
    from scidiff.fields import atomic
    from scidiff.forecast.inputs import open_dataset
    from scidiff.forecast.plots import animate, fan_figure, map_figure
    from scidiff.forecast.scorer import open_forecast

    points = [_point(text) for text in point or ()]
    ds = open_forecast(forecast, "the forecast")
    known = None if truth is None else open_dataset(truth, "the truth")
    options: dict[str, Any] = {"variable": variable, "init": _init(at, ds), "level": level}
    files = {name: out / name for name in ("maps.png", "fan.png", "forecast.gif")}
    if not overwrite and (there := [str(path) for path in files.values() if path.exists()]):
        raise InputError(f"{there[0]} exists; choose another --out, or replace what it holds with --overwrite.")
    fan = fan_figure(ds, points or [_centre(ds, variable)], known, **options)
    written = [files["fan.png"]]
    plane = len(_grid(ds, variable)) == 2
    maps = map_figure(ds, known, members=members, **options) if plane else None
    out.mkdir(parents=True, exist_ok=True)
    for name, figure in (("fan.png", fan), ("maps.png", maps)):
        if figure is not None:
            with atomic(files[name]) as temporary:
                figure.savefig(temporary, format="png")
    if plane:
        temporary = out / f".forecast.{os.getpid()}.gif"
        try:
            animate(ds, temporary, known, fps=fps, **options)
            os.replace(temporary, files["forecast.gif"])
        finally:
            temporary.unlink(missing_ok=True)
        written = [files["maps.png"], *written, files["forecast.gif"]]
    say(f"written: {', '.join(map(str, written))}")
    if json:
        emit({"files": written})


def _point(text: str) -> dict[str, float]:
    """``lat=48,lon=11`` as coordinates."""
    try:
        return {name.strip(): float(value) for name, value in (part.split("=") for part in text.split(","))}
    except ValueError as error:
        raise ConfigError(f"--point must be coordinates such as lat=48,lon=11, got {text!r}.") from error


def _grid(ds: Any, variable: str | None) -> list[str]:
    """Dimensions of the grid of the variable that is drawn; none if there is no such variable."""
    from scidiff.forecast.state import LEVELS

    names = [n for n in ds.data_vars if "lead_time" in ds[n].dims and variable in (None, n)]
    if not names:
        return []
    return [str(d) for d in ds[names[0]].dims if d not in ("init_time", "member", "lead_time", *LEVELS)]


def _centre(ds: Any, variable: str | None) -> dict[str, float]:
    return {d: float(ds[d].values[ds.sizes[d] // 2]) for d in _grid(ds, variable)}


def _init(at: str | None, ds: Any) -> int:
    """Position of the initial time."""
    import numpy as np

    from scidiff.errors import InputError

    if at is None:
        return 0
    times = ds["init_time"].values
    try:
        wanted = np.datetime64(at, "ns") if times.dtype.kind == "M" else float(at)
    except ValueError as error:
        raise ConfigError(f"--at must be a {'date' if times.dtype.kind == 'M' else 'number'}, got {at!r}.") from error
    found = np.flatnonzero(times == wanted)
    if not len(found):
        raise InputError(f"the forecast has no initial time {at}; they run from {times[0]} to {times[-1]}.")
    return int(found[0])
