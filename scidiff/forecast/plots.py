"""Pictures of forecasts and of their scores: maps by lead, fans at points, scores by lead, an animation.

Figures are made through matplotlib's objects, without pyplot: nothing is registered, shown, or left open. The time axis
of a fan is the lead in days or hours, in months, or in numbers of the model.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from scidiff.errors import InputError
from scidiff.forecast.grid import is_latitude
from scidiff.plots import BAND, INK, QUANTILE, TRUTH
from scidiff.plots import GRID as LINES

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["animate", "fan_figure", "map_figure", "score_figure"]

QUANTILES = (0.05, 0.25, 0.75, 0.95)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _pick(forecast: xr.Dataset, variable: str | None, init: int, level: float | None) -> xr.DataArray:
    """One variable of one initial time: (member, lead_time, *grid)."""
    names = [str(n) for n in forecast.data_vars if "lead_time" in forecast[n].dims]
    name = variable or (names[0] if names else "")
    if name not in names:
        raise InputError(f"the forecast holds no {name!r}; it has {', '.join(names) or 'no variable with lead_time'}.")
    array = forecast[name]
    array = array.isel(init_time=init) if "init_time" in array.dims else array
    array = array if "member" in array.dims else array.expand_dims("member")
    return _level(array, level).transpose("member", "lead_time", ...)


def _level(array: xr.DataArray, level: float | None) -> xr.DataArray:
    from scidiff.forecast.state import LEVELS

    dim = next((d for d in LEVELS if d in array.dims), None)
    if dim is None:
        return array
    if level is not None and level not in array[dim].values:
        raise InputError(
            f"{array.name} has no {dim} {level:g}; it has {', '.join(f'{v:g}' for v in array[dim].values)}."
        )
    return array.isel({dim: 0}) if level is None else array.sel({dim: level})


def _true(truth: xr.Dataset | None, array: xr.DataArray, level: float | None) -> xr.DataArray | None:
    """The truth at the valid times (lead_time, *grid), in the units of the forecast; NaN where it is unknown."""
    if truth is None:
        return None
    from scidiff.fields import convert_units

    if str(array.name) not in truth:
        raise InputError(f"the truth holds no {str(array.name)!r}; it has {', '.join(map(str, truth.data_vars))}.")
    found = _level(truth[str(array.name)], level)
    units = array.attrs.get("units")
    found = convert_units(found, units) if units and found.attrs.get("units") != units else found
    valid = array["valid_time"]
    return found.reindex(time=np.unique(valid.values)).sel(time=valid).transpose("lead_time", ...)


def _leads(array: xr.DataArray) -> tuple[np.ndarray, str]:
    """Leads as numbers, and their unit."""
    values = array["lead_time"].values
    if values.dtype.kind != "m":
        return values.astype(float), str(array["lead_time"].attrs.get("units", ""))
    hours = values / np.timedelta64(1, "h")
    return (hours / 24, "days") if hours.max() >= 48 else (hours, "hours")


def _name(array: xr.DataArray) -> str:
    units = str(array.attrs.get("units", "")).strip()
    name = str(array.attrs.get("long_name", array.name))
    return name if units in ("", "1") else f"{name} ({units})"


def _image(axis: Axes, values: xr.DataArray, **style: Any) -> Any:
    """A map with its coordinates; north is up, and y too."""
    y, x = (str(d) for d in values.dims)
    edges = []
    for dim in (x, y):
        at = np.asarray(values[dim].values if dim in values.coords else np.arange(values.sizes[dim]), float)
        half = (at[-1] - at[0]) / max(len(at) - 1, 1) / 2 or 0.5
        edges += [at[0] - half, at[-1] + half]
    image = axis.imshow(np.asarray(values.values), origin="lower", extent=tuple(edges), aspect="auto", **style)
    if is_latitude(y, values[y].attrs if y in values.coords else {}):
        axis.set_ylim(min(edges[2:]), max(edges[2:]))
    axis.tick_params(labelsize=6, colors=INK)
    return image


def _scale(parts: Sequence[xr.DataArray | None]) -> dict[str, Any]:
    values = np.concatenate([np.asarray(p.values).ravel() for p in parts if p is not None])
    values = values[np.isfinite(values)]
    low, high = np.percentile(values, [100 - QUANTILE, QUANTILE])
    if low < 0 < high and min(-low, high) > 0.2 * max(-low, high):
        return {"cmap": "RdBu_r", "vmin": -max(-low, high), "vmax": max(-low, high)}
    return {"cmap": "viridis", "vmin": low, "vmax": high}


def map_figure(
    forecast: xr.Dataset,
    truth: xr.Dataset | None = None,
    variable: str | None = None,
    leads: Sequence[int] | None = None,
    members: int = 2,
    init: int = 0,
    level: float | None = None,
) -> Figure:
    """Maps by lead: truth, mean, spread, and some members.

    Arguments:
        forecast: As `scidiff.forecast` writes it, on a grid of two dimensions.
        truth: By valid time, if known.
        variable: To draw; None takes the first.
        leads: Positions of leads; None takes up to five.
        members: Number of members to draw.
        init: Position of the initial time.
        level: Value of the level; None takes the first.
    """
    array = _pick(forecast, variable, init, level)
    if array.ndim != 4:
        raise InputError(f"maps need a grid of two dimensions, {array.name} has {array.dims[2:]}; draw a fan.")
    count = array.sizes["lead_time"]
    chosen = list(leads) if leads is not None else sorted({int(i) for i in np.linspace(0, count - 1, min(5, count))})
    array = array.isel(lead_time=chosen).load()
    known = _true(truth, array, level)
    rows: list[tuple[str, xr.DataArray]] = [("truth", known)] if known is not None else []
    rows.append(("mean", array.mean("member", keep_attrs=True)))
    if array.sizes["member"] > 1:
        rows.append(("spread", array.std("member", ddof=1, keep_attrs=True)))
    rows += [(f"member {int(array['member'][m])}" if "member" in array.coords else f"member {m}", array.isel(member=m))
             for m in range(min(members, array.sizes["member"]))]  # fmt: skip
    scale = _scale([part for title, part in rows if title != "spread"])
    number, unit = _leads(array)
    figure = _figure(2.1 * len(chosen) + 0.9, 1.6 * len(rows) + 0.5)
    axes = figure.subplots(len(rows), len(chosen), squeeze=False, sharex=True, sharey=True)
    for row, (title, part) in zip(axes, rows, strict=True):
        style = {**_scale([part]), "cmap": "magma", "vmin": 0} if title == "spread" else scale
        image: Any = None
        for column, axis in enumerate(row):
            image = _image(axis, part.isel(lead_time=column), **style)
            if axis in axes[0]:
                axis.set_title(f"{number[column]:g} {unit}", fontsize=9, color=INK)
        row[0].set_ylabel(title, fontsize=9, color=INK)
        bar = figure.colorbar(image, ax=list(row), fraction=0.04, pad=0.01)
        bar.ax.tick_params(labelsize=6)
    start = f" from {str(array['init_time'].values)[:16]}" if "init_time" in array.coords else ""
    figure.suptitle(f"{_name(array)}{start}", fontsize=10, color=INK)
    return figure


def fan_figure(
    forecast: xr.Dataset,
    points: Sequence[Mapping[str, float]],
    truth: xr.Dataset | None = None,
    variable: str | None = None,
    init: int = 0,
    level: float | None = None,
) -> Figure:
    """The law of the forecast at points, by lead: median, half and nine tenths of the members, the truth if known.

    Arguments:
        forecast: As `scidiff.forecast` writes it.
        points: Coordinates of each point, such as ``{"lat": 48, "lon": 11}``; the nearest point of the grid is drawn.
        truth: By valid time, if known.
        variable: To draw; None takes the first.
        init: Position of the initial time.
        level: Value of the level; None takes the first.
    """
    array = _pick(forecast, variable, init, level)
    number, unit = _leads(array)
    figure = _figure(3.6 * len(points) + 0.4, 2.9)
    axes = figure.subplots(1, len(points), squeeze=False, sharey=True)[0]
    for axis, point in zip(axes, points, strict=True):
        if unknown := [k for k in point if k not in array.dims[2:]]:
            raise InputError(f"a point has {', '.join(map(str, array.dims[2:]))}; there is no {unknown[0]!r}.")
        here = array.sel(point, method="nearest").load()
        low, lower, upper, high = np.quantile(here.values, QUANTILES, axis=0)
        axis.fill_between(number, low, high, color=BAND, alpha=0.25, lw=0, label="90 %")
        axis.fill_between(number, lower, upper, color=BAND, alpha=0.45, lw=0, label="50 %")
        axis.plot(number, np.median(here.values, 0), color=BAND, lw=1.5, label="median")
        if truth is not None:
            known = _true(truth.sel(point, method="nearest"), here, level)
            assert known is not None
            axis.plot(number, known.values, color=TRUTH, lw=1.3, label="truth")
        title = ", ".join(f"{k} {float(here[k]):g}" for k in point)
        axis.set_title(title, fontsize=9, color=INK)
        _dress(axis, f"lead ({unit})" if unit else "lead")
    axes[0].set_ylabel(_name(array), fontsize=9, color=INK)
    axes[-1].legend(fontsize=7, frameon=False)
    return figure


def _dress(axis: Axes, xlabel: str) -> None:
    axis.set_xlabel(xlabel, fontsize=9, color=INK)
    axis.grid(color=LINES, lw=0.6)
    axis.tick_params(labelsize=7, colors=INK)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def score_figure(scores: xr.Dataset, variable: str | None = None, level: int = 0) -> Figure:
    """The scores of `scidiff.forecast.verify` by lead, with intervals; rank histograms and spectra where they are.

    Arguments:
        scores: Of one or more variables.
        variable: To draw; None takes the first.
        level: Position of the level, for variables with levels.
    """
    names = [str(n).removesuffix("_cases") for n in scores.data_vars if str(n).endswith("_cases")]
    name = variable or (names[0] if names else "")
    if name not in names:
        raise InputError(f"there are no scores of {name!r}; expected one of {', '.join(names)}.")
    inner = {"rank", "spectrum_of", "wavenumber", "reliability_row", "bin"}
    own = {str(n).removeprefix(f"{name}_"): scores[n] for n in scores.data_vars if str(n).startswith(f"{name}_")}
    levels = {str(d) for a in own.values() for d in a.dims} - inner - {"lead_time"}
    own = {n: a.isel(dict.fromkeys(levels & set(map(str, a.dims)), level)) for n, a in own.items()}
    ends = ("_low", "_high", "_baseline")
    lines = [n for n, a in own.items() if not n.endswith(ends) and n != "cases" and not set(map(str, a.dims)) & inner]
    arrays = [n for n, a in own.items() if set(map(str, a.dims)) & inner]
    panels = lines + arrays
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = _figure(3.7 * columns, 2.8 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, panel in zip(axes, panels, strict=False):
        if panel in lines:
            _line(axis, own, panel)
        else:
            _array(axis, own[panel], panel)
        axis.set_title(panel.replace("_", " "), fontsize=10, color=INK, loc="left")
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    figure.suptitle(name, fontsize=11, color=INK, x=0.01, ha="left")
    return figure


def _line(axis: Axes, own: Mapping[str, xr.DataArray], panel: str) -> None:
    array = own[panel]
    if "lead_time" not in array.dims:
        number, unit = np.zeros(1), "all leads"
    else:
        number, unit = _leads(array)
    values = np.atleast_1d(array.values)
    if f"{panel}_low" in own:
        low, high = (np.atleast_1d(own[f"{panel}_{end}"].values) for end in ("low", "high"))
        if len(number) == 1:
            axis.errorbar(number, values, [values - low, high - values], color=BAND, capsize=3)
        else:
            axis.fill_between(number, low, high, color=BAND, alpha=0.25, lw=0)
    axis.plot(number, values, color=BAND, marker="o", ms=3, lw=1.4, label="forecast")
    if f"{panel}_baseline" in own:
        base = np.atleast_1d(own[f"{panel}_baseline"].values)
        axis.plot(number, base, color=TRUTH, marker="s", ms=3, lw=1.2, ls="--", label="baseline")
        axis.legend(fontsize=7, frameon=False)
    if panel == "spread_skill":
        axis.axhline(1, color=INK, lw=0.8, ls=":")
    if panel.endswith("_skill") and panel != "spread_skill" or panel == "bias":
        axis.axhline(0, color=INK, lw=0.8, ls=":")
    _dress(axis, f"lead ({unit})" if unit else "lead")
    axis.set_ylabel(str(array.attrs.get("units", "")), fontsize=8, color=INK)


def _array(axis: Axes, array: xr.DataArray, panel: str) -> None:
    """The first and the last lead of an array score."""
    places = [0, array.sizes["lead_time"] - 1] if array.sizes.get("lead_time", 0) > 1 else [0]
    for place, colour in zip(places, (BAND, TRUTH), strict=False):
        part = array.isel(lead_time=place) if "lead_time" in array.dims else array
        label = ""
        if "lead_time" in array.dims:
            number, unit = _leads(array)
            label = f"{number[place]:g} {unit}"
        values = part.values
        if panel == "ranks":
            axis.step(np.arange(len(values)), values * len(values), where="mid", color=colour, label=label)
            axis.axhline(1, color=INK, lw=0.8, ls=":")
        elif panel == "spectrum":
            k = part["wavenumber"].values
            _plain_log(axis)
            axis.plot(k[1:], values[0, 1:], color=colour, label=f"members {label}")
            axis.plot(k[1:], values[1, 1:], color=colour, ls="--", label=f"truth {label}")
        else:
            axis.plot(values[1], values[2], color=colour, marker="o", ms=3, label=label)
            axis.plot([0, 1], [0, 1], color=INK, lw=0.8, ls=":")
    words = {"ranks": "rank of the truth (1 is flat)", "spectrum": "wavenumber"}
    _dress(axis, words.get(panel, "forecast probability"))
    axis.legend(fontsize=7, frameon=False)


def _plain_log(axis: Axes) -> None:
    """Logarithmic axes; less than a decade of wavenumbers is labelled at 1, 2 and 5, in plain numbers."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator

    axis.loglog()
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axis.xaxis.set_minor_locator(LogLocator(subs=()))


def animate(
    forecast: xr.Dataset,
    path: str | os.PathLike[str],
    truth: xr.Dataset | None = None,
    variable: str | None = None,
    init: int = 0,
    level: float | None = None,
    fps: int = 4,
) -> None:
    """Writes a GIF, one frame a lead: truth if known, mean, spread and one member.

    Arguments:
        forecast: As `scidiff.forecast` writes it, on a grid of two dimensions.
        path: Ends in ``.gif``.
        truth: By valid time, if known.
        variable: To draw; None takes the first.
        init: Position of the initial time.
        level: Value of the level; None takes the first.
        fps: Frames a second.
    """
    from matplotlib.animation import PillowWriter

    if not str(path).endswith(".gif"):
        raise ValueError(f"the animation is a GIF; end its name in .gif, got {os.fspath(path)!r}.")
    array = _pick(forecast, variable, init, level).load()
    if array.ndim != 4:
        raise InputError(f"maps need a grid of two dimensions, {array.name} has {array.dims[2:]}.")
    known = _true(truth, array, level)
    parts = {} if known is None else {"truth": known}
    parts["mean"] = array.mean("member", keep_attrs=True)
    if array.sizes["member"] > 1:
        parts["spread"] = array.std("member", ddof=1, keep_attrs=True)
    parts["one member"] = array.isel(member=0)
    scale = _scale([part for title, part in parts.items() if title != "spread"])
    number, unit = _leads(array)
    figure = _figure(2.9 * len(parts), 2.6)
    axes = figure.subplots(1, len(parts), squeeze=False)[0]
    images = []
    for axis, (title, part) in zip(axes, parts.items(), strict=True):
        style = {**_scale([part]), "cmap": "magma", "vmin": 0} if title == "spread" else scale
        images.append(_image(axis, part.isel(lead_time=0), **style))
        axis.set_title(title, fontsize=9, color=INK)
        figure.colorbar(images[-1], ax=axis, fraction=0.04).ax.tick_params(labelsize=6)
    figure.suptitle(_name(array), fontsize=10, color=INK)
    figure.canvas.draw()
    figure.set_layout_engine("none")  # the layout of the first frame is that of all
    writer = PillowWriter(fps=fps)
    with writer.saving(figure, os.fspath(path), dpi=110):
        for lead in range(array.sizes["lead_time"]):
            for image, part in zip(images, parts.values(), strict=True):
                image.set_data(part.isel(lead_time=lead).values)
            figure.suptitle(f"{_name(array)}, lead {number[lead]:g} {unit}", fontsize=10, color=INK)
            writer.grab_frame()
