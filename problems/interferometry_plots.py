"""Pictures of interferometric data: the uv-plane, amplitudes against baseline length, images with the beam beside them.

Figures are made through matplotlib's objects, without pyplot: nothing is registered, shown, or left open.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from scidiff.operators.interferometry import Beam, VisibilityData
from scidiff.operators.interferometry.visibilities import pixel_sides

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["MICROARCSECOND", "draw_sky", "uv_figure"]

MICROARCSECOND = math.radians(1 / 3600) * 1e-6
"""In radians."""


def uv_figure(data: VisibilityData, models: Sequence[Tensor] = ()) -> Figure:
    """The sampled uv-plane, and amplitudes with error bars against the length of the baseline.

    Arguments:
        data: The measurement.
        models: Visibilities of fields that should explain it, each (n,), drawn as crosses.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.2), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    plane, radial = figure.subplots(1, 2)
    uv = data.uv.cpu().numpy() / 1e9
    amplitude = data.vis.abs().cpu().numpy()
    both = np.concatenate([uv, -uv])
    dots = plane.scatter(*both.T, c=np.log10(np.tile(amplitude, 2)), s=4, cmap="viridis")
    figure.colorbar(dots, ax=plane, label="log10 of the amplitude in Jy")
    reach = 1.05 * float(np.abs(uv).max())
    plane.set(xlim=(reach, -reach), ylim=(-reach, reach), aspect="equal")
    plane.set(xlabel="u, towards east (10⁹ wavelengths)", ylabel="v, towards north (10⁹ wavelengths)")
    length = np.hypot(*uv.T)
    radial.errorbar(length, amplitude, data.sigma.cpu().numpy(), fmt=".", ms=3, lw=0.6, color="#222222", label="data")
    for number, model in enumerate(models):
        label = "model" if len(models) == 1 else f"model {number + 1}"
        radial.plot(length, torch.as_tensor(model).abs().cpu().numpy(), "x", ms=3, label=label)
    radial.set(yscale="log", xlabel="baseline (10⁹ wavelengths)", ylabel="amplitude (Jy)")
    radial.legend(frameon=False)
    return figure


def draw_sky(axes: Axes, image: Tensor | np.ndarray, pixel: Any, beam: Beam | None = None, **style: Any) -> Any:
    """Draws one field (H, W) with axes in microarcseconds, east to the left, and the beam in the lower left corner.

    Arguments:
        axes: Where.
        image: Rows from north to south, columns from east to west.
        pixel: Side of a pixel in radians, or a pint angle.
        beam: Drawn as its half-maximum ellipse.
        style: Passed to ``imshow``.

    Returns:
        What ``imshow`` returns, for a colour bar.
    """
    from matplotlib.patches import Ellipse

    values = torch.as_tensor(image).detach().cpu().numpy()
    rows, columns = (p / MICROARCSECOND for p in pixel_sides(pixel))
    north, east = values.shape[0] * rows / 2, values.shape[1] * columns / 2
    style = {"cmap": "afmhot", "origin": "upper", **style}
    drawn = axes.imshow(values, extent=(east, -east, -north, north), **style)
    axes.set(xlabel="east (µas)", ylabel="north (µas)")
    if beam is not None:
        major, minor = beam.major / MICROARCSECOND, float(beam.minor or beam.major) / MICROARCSECOND
        # The angle counts from north to east; the axis to the east is drawn backwards, so data angles are 90 - angle.
        axes.add_patch(
            Ellipse(
                (east - 0.7 * major, -north + 0.7 * major),
                major,
                minor,
                angle=90 - math.degrees(beam.angle),
                facecolor="none",
                edgecolor="white",
            )
        )
    return drawn
