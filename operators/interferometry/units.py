"""Numbers with or without a unit: angles on the sky in radians, baselines in wavelengths."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["in_units", "wavelengths"]

SPEED_OF_LIGHT = 299_792_458.0
"""Metres per second, exact by definition of the metre."""


def in_units(value: Any, unit: str, name: str) -> Any:
    """The magnitude of ``value`` in ``unit``; a plain number or array is taken to be in ``unit`` already.

    Arguments:
        value: Number, array or pint quantity.
        unit: What is wanted, ``"radian"``, as pint spells it.
        name: What the caller calls the value, for the message.

    Raises:
        ValueError: if the quantity has another dimension.
    """
    if not (hasattr(value, "magnitude") and hasattr(value, "to")):
        return value
    import pint

    try:
        return value.to(unit).magnitude
    except pint.DimensionalityError as error:
        raise ValueError(
            f"{name} must be in units of {unit}, got {value.units}; give a {unit} or convert it."
        ) from error


def wavelengths(length: Any, frequency: Any) -> np.ndarray:
    r"""A length in wavelengths, :math:`u = b \nu / c`.

    Arguments:
        length: :math:`b` in metres, or a pint length; any shape.
        frequency: :math:`\nu` in hertz, or a pint frequency.

    Raises:
        ValueError: if a quantity has another dimension or the frequency is not positive.
    """
    hertz = float(in_units(frequency, "hertz", "frequency"))
    if not hertz > 0:
        raise ValueError(f"frequency must be positive, got {hertz} Hz.")
    return np.asarray(in_units(length, "metre", "length"), float) * (hertz / SPEED_OF_LIGHT)
