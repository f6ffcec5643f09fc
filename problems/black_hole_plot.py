"""The picture of an ensemble of images from interferometry: aligned mean, spread, members as a beam sees them, data.

Panels: truth (if known), mean and spread of the aligned members, single members convolved with the beam, baselines and
amplitudes of the data, misfit per member and data product, diameters of the rings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from scidiff.problems.black_hole_scores import BEAM, CHI2_LIMITS, align, blurred, verdict

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["black_hole_figure"]

INK, LINE, LIMIT = "#222222", "#3b6ea5", "#c0392b"
PUBLISHED = (42.0, 3.0)  # M87*, First M87 Event Horizon Telescope Results VI, 2019


def black_hole_figure(problem: Any, result: xr.Dataset) -> Figure:
    """Draws the result of `scidiff.reconstruct`.

    Arguments:
        problem: `BlackHoleImaging`, which knows pixels and likelihoods.
        result: With ``image`` (member, y, x), the observation, and ``truth`` if known.

    Returns:
        A figure, neither shown nor saved.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    table = problem.members(result)
    good = table["kept"].values if "kept" in table and table["kept"].any() else np.ones(table.sizes["member"], bool)
    members = problem.aligned(result.isel(member=np.flatnonzero(good)))
    half = np.array(problem.shape) * problem.pixel / 2
    extent = (half[1], -half[1], -half[0], half[0])  # east is left
    pictures: list[tuple[str, np.ndarray, str]] = []
    mean = members.mean(0)
    if "truth" in result:
        truth = np.asarray(result["truth"].values, float)
        pictures.append(("Truth", align(truth[None], mean)[0][0], "afmhot"))
    pictures.append((f"Mean of {len(members)} aligned members", mean, "afmhot"))
    if len(members) > 1:
        pictures.append(("Spread (standard deviation)", members.std(0, ddof=1), "magma"))
    pictures.append(("One member", members[0], "afmhot"))
    for k in range(max(1, 5 - len(pictures))):
        if k == len(members):
            break
        pictures.append((f"Member {k}, {BEAM:g} µas beam", blurred(members[k], problem.pixel), "afmhot"))
    columns = 4
    rows = -(-(len(pictures) + 3) // columns)
    figure = Figure(figsize=(3.3 * columns, 3.2 * rows + 0.5), dpi=120, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (title, values, colours) in zip(axes, pictures, strict=False):
        _picture(axis, figure, values * 1e3, extent, colours)
        axis.set_title(title, fontsize=9.5, loc="left", color=INK)
    rest = axes[len(pictures) :]
    if "u" in result:
        _coverage(rest[0], figure, result)
    _misfits(rest[1], table)
    _diameters(rest[2], table, good, str(result.attrs.get("source", result.get("source", ""))))
    for axis in rest[3:]:
        axis.set_visible(False)
    words = [f"{int(good.sum())} of {len(good)} members kept", *verdict(table)]
    figure.suptitle("   ·   ".join(words), fontsize=10, color=INK, x=0.01, ha="left", wrap=True)
    return figure


def _picture(axis: Axes, figure: Figure, values: np.ndarray, extent: tuple[float, ...], colours: str) -> None:
    picture = axis.imshow(values, extent=extent, cmap=colours, vmin=0, interpolation="nearest")  # type: ignore[arg-type]
    bar = figure.colorbar(picture, ax=axis, shrink=0.75)
    bar.set_label("mJy/pixel", fontsize=7)
    bar.ax.tick_params(labelsize=7)
    axis.set_xlabel("east (µas)", fontsize=7)
    axis.set_ylabel("north (µas)", fontsize=7)
    axis.tick_params(labelsize=7)


def _coverage(axis: Axes, figure: Figure, result: xr.Dataset) -> None:
    u, v = (np.asarray(result[name].values) / 1e9 for name in ("u", "v"))
    colour = np.log10(np.abs(result["visibility"].values))
    points = axis.scatter(np.r_[u, -u], np.r_[v, -v], c=np.r_[colour, colour], s=6, cmap="viridis")
    bar = figure.colorbar(points, ax=axis, shrink=0.75)
    bar.set_label("log amplitude (Jy)", fontsize=7)
    bar.ax.tick_params(labelsize=7)
    axis.invert_xaxis()
    axis.set_aspect("equal")
    axis.set_xlabel("u (10⁹ wavelengths)", fontsize=7)
    axis.set_ylabel("v (10⁹ wavelengths)", fontsize=7)
    axis.tick_params(labelsize=7)
    axis.set_title("Baselines", fontsize=9.5, loc="left", color=INK)


def _misfits(axis: Axes, table: xr.Dataset) -> None:
    names = [str(name) for name in table.data_vars if str(name).startswith("chi2_") and name != "chi2_flux"]
    for k, name in enumerate(names):
        place = np.arange(table.sizes["member"]) + 0.25 * (k - (len(names) - 1) / 2)
        axis.plot(place, table[name].values, "o", ms=4, label=name.removeprefix("chi2_").replace("_", " "))
    axis.axhspan(*CHI2_LIMITS, color=LINE, alpha=0.12, lw=0)
    top = max([2.0, *(1.1 * float(table[name].max()) for name in names)])
    axis.set_ylim(0, top)
    axis.set_xlabel("member", fontsize=7)
    axis.tick_params(labelsize=7)
    if names:
        axis.legend(frameon=False, fontsize=7)
    axis.set_title("Misfit χ² per datum", fontsize=9.5, loc="left", color=INK)


def _diameters(axis: Axes, table: xr.Dataset, good: np.ndarray, source: str) -> None:
    rings = good & table["is_ring"].values
    values = table["diameter"].values[rings]
    title = "No member kept is a ring"
    if len(values):
        axis.hist(values, bins=list(range(20, 72, 2)), color=LINE, alpha=0.7)
        spread = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""
        title = f"Ring diameter {values.mean():.1f}{spread} µas"
    if source.startswith("M87"):
        axis.axvspan(PUBLISHED[0] - PUBLISHED[1], PUBLISHED[0] + PUBLISHED[1], color=LIMIT, alpha=0.15, lw=0)
        axis.axvline(PUBLISHED[0], color=LIMIT, lw=1, label="published 42 ± 3")
        axis.legend(frameon=False, fontsize=7)
    axis.set_xlabel("diameter (µas)", fontsize=7)
    axis.tick_params(labelsize=7)
    axis.set_title(title, fontsize=9.5, loc="left", color=INK)
