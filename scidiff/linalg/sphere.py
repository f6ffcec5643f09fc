r"""Distances on the sphere along great circles, by the haversine formula

.. math:: d = 2 R \arcsin\sqrt{\sin^2\tfrac{\phi_2 - \phi_1}{2}
    + \cos\phi_1 \cos\phi_2 \sin^2\tfrac{\lambda_2 - \lambda_1}{2}},

with the mean radius R = 6371.0088 km of the Earth (IUGG). It is exact to rounding also for near places.

References:
    Geodetic Reference System 1980, Moritz, 2000, Journal of Geodesy 74 (the radius).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["EARTH_RADIUS", "great_circle"]

EARTH_RADIUS = 6371.0088
"""Mean radius of the Earth in km."""


def great_circle(lat1: Any, lon1: Any, lat2: Any, lon2: Any, radius: float = EARTH_RADIUS) -> Tensor:
    """Distance along the sphere in units of ``radius``, float64; arguments broadcast.

    Arguments:
        lat1, lon1: Places in degrees: numbers, arrays or tensors.
        lat2, lon2: Other places.
        radius: Of the sphere, by default the Earth's in km.
    """
    a, b, c, d = (torch.as_tensor(np.asarray(v, dtype=float)).deg2rad() for v in (lat1, lon1, lat2, lon2))
    h = ((c - a) / 2).sin().square() + a.cos() * c.cos() * ((d - b) / 2).sin().square()
    return 2 * radius * h.clamp(0, 1).sqrt().asin()
