"""What the pictures say: the mirrored plane, east to the left, the beam's long axis where its angle says."""

import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from scidiff.operators.interferometry import Beam, VisibilityData
from scidiff.problems.interferometry_plots import MICROARCSECOND, draw_sky, uv_figure


def test_uv_figure():
    uv = torch.tensor([[1e9, 3e9], [-2e9, 5e9]], dtype=torch.float64)
    data = VisibilityData(uv, [[0, 1], [0, 2]], [0, 0], torch.tensor([0.3 + 0.4j, 0.1j]), torch.tensor([0.01, 0.02]))
    figure = uv_figure(data, [torch.tensor([0.6 + 0j, 0.2])])
    plane, radial = figure.axes[:2]
    points = plane.collections[0].get_offsets()
    assert np.allclose(points, [[1, 3], [-2, 5], [-1, -3], [2, -5]])
    assert plane.get_xlim()[0] > plane.get_xlim()[1]  # east is left
    model = radial.lines[-1]
    assert np.allclose(model.get_xdata(), [math.sqrt(10), math.sqrt(29)])
    assert np.allclose(model.get_ydata(), [0.6, 0.2])


def test_a_source_in_the_north_east_is_drawn_in_the_upper_left():
    axes = Figure().subplots()
    image = torch.zeros(4, 6)
    image[0, 0] = 1
    drawn = draw_sky(axes, image, 2 * MICROARCSECOND, Beam(4 * MICROARCSECOND, 2 * MICROARCSECOND, math.radians(30)))
    assert drawn.get_extent() == pytest.approx([6, -6, -4, 4])
    x, y = axes.transData.transform([(6, 4), (-6, -4)])
    assert x[0] < y[0] and x[1] > y[1]  # the north-east corner is above and left
    (ellipse,) = axes.patches
    # Its long axis, in data coordinates (east, north), is (sin 30, cos 30) degrees.
    tip = ellipse.get_patch_transform().transform([(1, 0)])[0] - np.array(ellipse.center)
    assert np.allclose(tip, 2 * np.array([math.sin(math.radians(30)), math.cos(math.radians(30))]))
