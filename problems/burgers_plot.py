"""The picture of a reconstruction from sensors: the initial field, and the x-t plane that follows from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["sensors_figure"]


def sensors_figure(result: xr.Dataset, field: str, planes: np.ndarray) -> Figure:
    """Members and truth at time 0; mean and spread of the x-t planes, with the sensors as lines.

    Arguments:
        result: Of `scidiff.reconstruct`.
        field: Name of the initial field.
        planes: The planes of the members (M, T, N) at the times ``t`` of the result.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    first, second, third = figure.subplots(1, 3)
    x, members = result["x"].values, result[field].transpose("member", "x").values
    first.plot(x, members.T, color="#3b6ea5", alpha=0.25, linewidth=0.8)
    first.plot(x, members.mean(0), color="#222222", linewidth=1.4, label="mean")
    if "truth" in result:
        first.plot(x, result["truth"].values, color="#c0392b", linewidth=1.4, linestyle="--", label="truth")
    first.set(xlabel="x", ylabel="u(x, 0)")
    first.set_title("initial field", loc="left")
    first.legend(frameon=False)
    size = float(np.abs(planes.mean(0)).max())
    panels = (
        (second, planes.mean(0), "mean of u(x, t)", "RdBu_r", {"vmin": -size, "vmax": size}),
        (third, planes.std(0), "spread of u(x, t)", "viridis", {"vmin": 0.0}),
    )
    for axis, values, title, colours, limits in panels:
        drawn = axis.pcolormesh(x, result["t"].values, values, cmap=colours, shading="nearest", **limits)
        figure.colorbar(drawn, ax=axis)
        for place in result["position"].values:
            axis.axvline(float(place), color="white" if axis is third else "#222222", linewidth=0.8, linestyle=":")
        axis.set(xlabel="x", ylabel="t")
        axis.set_title(title, loc="left")
    return figure
