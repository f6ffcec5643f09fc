"""Baselines in wavelengths."""

from __future__ import annotations

from typing import Any

import numpy as np

from scidiff.operators.units import magnitude

__all__ = ["wavelengths"]

SPEED_OF_LIGHT = 299_792_458.0
"""Metres per second, exact by definition of the metre."""


def wavelengths(length: Any, frequency: Any) -> np.ndarray:
    r"""A length in wavelengths, :math:`u = b \nu / c`.

    Arguments:
        length: :math:`b` in metres, or a pint length; any shape.
        frequency: :math:`\nu` in hertz, or a pint frequency.

    Raises:
        ValueError: if a quantity has another dimension or the frequency is not positive.
    """
    hertz = float(magnitude(frequency, "hertz", "frequency"))
    if not hertz > 0:
        raise ValueError(f"frequency must be positive, got {hertz} Hz.")
    return np.asarray(magnitude(length, "metre", "length"), float) * (hertz / SPEED_OF_LIGHT)
