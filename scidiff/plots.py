"""The picture of a reconstruction: what the data alone give, mean, one sample, spread; error and z-score if known.

Figures are made through matplotlib's objects, without pyplot: nothing is registered, shown, or left open.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["result_figure"]

QUANTILE = 99.7  # of the values that a colour scale spans; a few bright pixels shall not darken the rest
Z_LIMIT = 4.0
INK, GRID, BAND, TRUTH = "#222222", "#dddddd", "#3b6ea5", "#c0392b"


def result_figure(result: xr.Dataset, direct: str | None = None) -> Figure:
    r"""Draws the result of `scidiff.reconstruct`.

    With the truth :math:`x`, the mean :math:`\bar x` and the spread :math:`s` of :math:`M` members, the error is
    :math:`e = \bar x - x` and the z-score :math:`e / (s \sqrt{1 + 1/M})`. If truth and members are draws of one
    Gaussian law, it follows Student's t with :math:`M - 1` degrees of freedom (:math:`2 M - 2` for complex fields,
    whose spread comes from twice as many numbers), which is normal for many members.

    Complex fields are drawn as magnitudes, several components as their root sum of squares. Their error is the part of
    :math:`e` along the truth, :math:`\mathrm{Re}\langle x, e\rangle / \|x\|`: to first order the error of the
    magnitude, but without the bias that magnitudes have where there is no signal.

    Arguments:
        result: With ``<field>`` (member, ..., y, x), ``<field>_mean``, ``<field>_spread``, and ``truth`` if known.
        direct: Variable that shows what the data give without a prior, such as ``zero_filled``; None takes the one
            whose name ends in ``zero_filled`` or ``observation`` and that lives on the grid of the field, if any.

    Returns:
        A figure, neither shown nor saved.

    Raises:
        ValueError: the dataset holds no ``<field>_mean``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    field = _field(result)
    mean = result[f"{field}_mean"]
    panels = _panels(result, field, direct)
    flat = len(_grid(mean)) < 2
    columns = {6: 3, 5: 3}.get(len(panels), min(len(panels), 4))
    rows = -(-len(panels) // columns)
    height = 2.6 if flat else 3.15 * float(np.clip(_ratio(mean), 0.6, 1.6))
    figure = Figure(figsize=(3.55 * columns, height * rows + 0.6), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06, wspace=0.02, hspace=0.03)  # type: ignore[union-attr]
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (title, draw) in zip(axes, panels, strict=False):
        draw(axis, figure)
        axis.set_title(title, fontsize=10.5, color=INK, loc="left", pad=5)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    figure.suptitle(_headline(result, field), fontsize=11.5, color=INK, x=0.008, ha="left")
    return figure


def _field(result: xr.Dataset) -> str:
    names = [str(name).removesuffix("_mean") for name in result.data_vars if str(name).endswith("_mean")]
    if not names:
        raise ValueError(f"the dataset holds no '<field>_mean'; it has {sorted(map(str, result.data_vars))}.")
    return names[0]


def _grid(array: xr.DataArray) -> tuple[str, ...]:
    """The dimensions that are drawn: the last two, fewer where the field has fewer."""
    return tuple(str(dim) for dim in array.dims[-2:] if array.sizes[dim] > 1)


def _numbers(array: xr.DataArray) -> np.ndarray:
    """What is drawn of an array: real fields as they are, complex ones as magnitudes, components combined."""
    values = np.asarray(array.values)
    values = values.reshape(-1, *(array.sizes[dim] for dim in _grid(array)))
    if np.iscomplexobj(values) or len(values) > 1:
        return np.sqrt((np.abs(values.astype(np.result_type(values, np.complex64))) ** 2).sum(0))
    return values[0]


def _units(array: xr.DataArray) -> str:
    units = str(array.attrs.get("units", "")).strip()
    return "" if units in ("", "1", "dimensionless") else units


def _ratio(array: xr.DataArray) -> float:
    """Height over width of the field, by its coordinates where these share units."""
    y, x = _grid(array)
    left, right, bottom, top = _extent(array)
    return abs(top - bottom) / abs(right - left) if _same_units(array, y, x) else array.sizes[y] / array.sizes[x]


def _same_units(array: xr.DataArray, y: str, x: str) -> bool:
    return array[y].attrs.get("units") == array[x].attrs.get("units")


def _extent(array: xr.DataArray) -> tuple[float, float, float, float]:
    """Outer edges of the first and last pixels: left, right, bottom, top, in coordinates."""
    edges = []
    for dim in _grid(array)[::-1]:
        values = np.asarray(array[dim].values, dtype=float)
        half = (values[-1] - values[0]) / (len(values) - 1) / 2
        edges.append((values[0] - half, values[-1] + half))
    (left, right), (top, bottom) = edges
    return left, right, bottom, top


def _panels(result: xr.Dataset, field: str, direct: str | None) -> list[tuple[str, Any]]:
    mean, spread = result[f"{field}_mean"], result[f"{field}_spread"]
    if len(_grid(mean)) < 2:
        return [("Posterior", lambda axis, figure: _fan(axis, result, field))]
    parts = {"Mean": _numbers(mean)}
    if field in result:
        parts["One sample"] = _numbers(result[field].isel(member=0))
    elif f"{field}_real" in result:
        pair = (result[f"{field}_{part}"].isel(member=0) for part in ("real", "imag"))
        parts["One sample"] = np.hypot(*map(_numbers, pair))
    direct = direct or _direct(result, field)
    if direct is not None:
        title = str(result[direct].attrs.get("long_name", direct.removeprefix(f"{field}_").replace("_", " ")))
        title = title.partition(",")[0]  # what follows is for the file; panels are narrow
        parts = {title[:1].upper() + title[1:]: _numbers(result[direct])} | parts
    known = "truth" in result
    if known:
        parts = {"Truth": _numbers(result["truth"])} | parts
    scale = _scale(_numbers(result["truth"] if known else mean), list(parts.values()))
    units = _units(mean)

    def image(values: np.ndarray, label: str, **style: Any) -> Any:
        return lambda axis, figure: _image(axis, figure, mean, values, label, **style)

    panels = [(title, image(values, units, **scale)) for title, values in parts.items()]
    deviation = _numbers(spread)
    high = float(np.percentile(deviation, QUANTILE)) or 1.0
    panels.append(("Spread (standard deviation)", image(deviation, units, cmap="magma", vmin=0, vmax=high)))
    if known:
        error, along = _error(mean, spread, result["truth"])
        widest = float(np.percentile(np.abs(error), QUANTILE)) or 1.0
        members = result.sizes["member"]
        z = error / np.maximum(along * np.sqrt(1 + 1 / members), np.finfo(np.float32).tiny)
        freedom = (members - 1) * (2 if np.iscomplexobj(mean.values) else 1)
        panels.append(("Error of the mean", image(error, units, **_both_sides("RdBu_r", widest))))
        panels.append(("z-score", image(z, "standard deviations", **_both_sides("PuOr_r", Z_LIMIT))))
        if members > 1:
            panels.append(("Are the z-scores as they should be?", lambda axis, figure: _histogram(axis, z, freedom)))
    return panels


def _scale(reference: np.ndarray, parts: Sequence[np.ndarray]) -> dict[str, Any]:
    """Colours of all panels, by the truth or the mean: of both signs, from zero on, or far from zero (kelvin)."""
    low, top = (float(np.nanpercentile(reference, q)) for q in (100 - QUANTILE, QUANTILE))
    if top > low > 0.5 * top:
        return {"cmap": "viridis", "vmin": low, "vmax": top}
    if all(np.nanmin(part) >= 0 for part in parts):
        return {"cmap": "gray", "vmin": 0, "vmax": top or 1.0}
    return _both_sides("RdBu_r", float(np.nanpercentile(np.abs(reference), QUANTILE)) or 1.0)


def _error(mean: xr.DataArray, spread: xr.DataArray, truth: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """Error of the mean and the standard deviation it should have but for the factor of M, both on the drawn grid."""
    m, s, x = (np.asarray(array.values) for array in (mean, spread, truth))
    if not np.iscomplexobj(m) or x.shape != m.shape:
        return _numbers(mean) - _numbers(truth), _numbers(spread)
    m, s, x = (a.reshape(-1, *a.shape[-2:]) for a in (m, s, x))
    norm = np.sqrt((np.abs(x) ** 2).sum(0))
    direction = np.where(norm > 0, x / np.maximum(norm, np.finfo(np.float32).tiny), len(x) ** -0.5)
    return np.real(np.conj(direction) * (m - x)).sum(0), np.sqrt((np.abs(direction) ** 2 * s**2).sum(0))


def _direct(result: xr.Dataset, field: str) -> str | None:
    shape = result[f"{field}_mean"].dims
    for ending in ("zero_filled", "observation"):
        for name in result.data_vars:
            if str(name).endswith(ending) and result[name].dims == shape:
                return str(name)
    return None


def _both_sides(colours: str, limit: float) -> dict[str, Any]:
    return {"cmap": colours, "vmin": -limit, "vmax": limit}


def _image(axis: Axes, figure: Figure, grid: xr.DataArray, values: np.ndarray, label: str, **style: Any) -> None:
    y, x = _grid(grid)
    aspect = "equal" if _same_units(grid, y, x) else "auto"
    picture = axis.imshow(values, extent=_extent(grid), aspect=aspect, interpolation="nearest", **style)
    bar = figure.colorbar(picture, cax=axis.inset_axes((1.03, 0.0, 0.045, 1.0)))
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.tick_params(labelsize=7.5, length=2, color=INK, labelcolor=INK)
    bar.set_label(label, fontsize=8, color=INK)
    for spine in axis.spines.values():
        spine.set_visible(False)
    first = axis.get_subplotspec()
    outer_left = first is not None and first.is_first_col()
    outer_bottom = first is not None and first.is_last_row()
    axis.tick_params(labelsize=7.5, length=2, color=INK, labelcolor=INK, labelleft=outer_left, labelbottom=outer_bottom)
    if outer_left:
        axis.set_ylabel(_axis_label(grid, y), fontsize=8, color=INK)
    if outer_bottom:
        axis.set_xlabel(_axis_label(grid, x), fontsize=8, color=INK)


def _axis_label(array: xr.DataArray, dim: str) -> str:
    name, units = str(array[dim].attrs.get("long_name", dim)), _units(array[dim])
    return f"{name} ({units})" if units else name


def _histogram(axis: Axes, z: np.ndarray, freedom: int) -> None:
    """Density of the z-scores beside Student's t."""
    from scipy.stats import t

    edges = np.linspace(-Z_LIMIT, Z_LIMIT, 49)
    count, _ = np.histogram(z, edges)
    axis.stairs(count / (z.size * np.diff(edges)), edges, fill=True, color=BAND, alpha=0.55, label="all pixels")
    grid = np.linspace(-Z_LIMIT, Z_LIMIT, 201)
    axis.plot(grid, t.pdf(grid, freedom), color=INK, lw=1.2, label=f"expected (t, {freedom} d.o.f.)")
    limit = float(t.ppf(0.95, freedom))
    text = f"{100 * float((np.abs(z) <= limit).mean()):.1f} %\nwithin ±{limit:.2f}\n(expected 90 %)"
    axis.text(0.04, 0.8, text, transform=axis.transAxes, va="top", fontsize=7.5, color=INK)
    axis.set_xlim(-Z_LIMIT, Z_LIMIT)
    axis.set_ylim(0, 1.5 * axis.get_ylim()[1])
    axis.set_box_aspect(1)
    axis.set_xlabel("z-score", fontsize=8, color=INK)
    _plain(axis, "upper left")


def _plain(axis: Axes, corner: Literal["upper right", "upper left"] = "upper right") -> None:
    axis.tick_params(labelsize=7.5, length=2, color=INK, labelcolor=INK)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=7.5, loc=corner)


def _fan(axis: Axes, result: xr.Dataset, field: str) -> None:
    """A field along a line (or a single number): the 90 % band, the mean, some members, the truth."""
    mean, spread = _numbers(result[f"{field}_mean"]), _numbers(result[f"{field}_spread"])
    dims = _grid(result[f"{field}_mean"])
    x = np.asarray(result[dims[0]].values) if dims else np.zeros(1)
    mean, spread = np.atleast_1d(mean), np.atleast_1d(spread)
    half = 1.6449 * spread
    axis.fill_between(x, mean - half, mean + half, color=BAND, alpha=0.25, lw=0, label="90 % band")
    for member in range(min(3, result.sizes["member"]) if field in result else 0):
        axis.plot(x, np.atleast_1d(_numbers(result[field].isel(member=member))), color=BAND, lw=0.6, alpha=0.7)
    axis.plot(x, mean, color=BAND, lw=1.6, label="mean")
    if "truth" in result:
        axis.plot(x, np.atleast_1d(_numbers(result["truth"])), color=TRUTH, lw=1.2, ls="--", label="truth")
    axis.set_ylabel(f"{field} {_units(result[f'{field}_mean'])}".strip(), fontsize=8, color=INK)
    if dims:
        axis.set_xlabel(_axis_label(result[f"{field}_mean"], dims[0]), fontsize=8, color=INK)
    axis.grid(color=GRID, lw=0.5)
    _plain(axis)


def _headline(result: xr.Dataset, field: str) -> str:
    import json

    settings = json.loads(result.attrs.get("configuration", "{}"))
    words = [str(result[f"{field}_mean"].attrs.get("long_name", field)).removeprefix("mean over members of ")]
    if settings:
        words.append(f"{settings['problem']['name']}, {settings['sampler']['name']}")
    words.append(f"{result.sizes['member']} members")
    if "chi2" in result:
        words.append(f"data misfit χ² {float(result['chi2'].mean()):.2f} per degree of freedom")
    return "   ·   ".join(words)
