"""Physical parameters of operators: plain numbers in the documented unit, or pint quantities of the same dimension.

Nothing here imports pint: a quantity is known by its methods.
"""

from __future__ import annotations

from typing import Any

__all__ = ["is_quantity", "magnitude"]


def is_quantity(value: Any) -> bool:
    """Whether the value carries units in the manner of pint."""
    return all(hasattr(value, name) for name in ("magnitude", "to", "dimensionality"))


def magnitude(value: Any, unit: str, name: str) -> Any:
    """The number of ``unit`` in a quantity; anything without units is taken to be in that unit already.

    Arguments:
        value: Number, array or pint quantity.
        unit: Unit in pint's spelling.
        name: What the value is called in messages.

    Raises:
        ValueError: if the quantity measures something else. Angles have no dimension, so a bare ratio is refused too.
    """
    if not is_quantity(value):
        return value
    wanted = value._REGISTRY.Unit(unit)
    bare = value.unitless and wanted != value._REGISTRY.dimensionless
    if bare or value.dimensionality != wanted.dimensionality:
        raise ValueError(f"{name} has units {str(value.units)!r}, expected a quantity that converts to {unit!r}.")
    return value.to(wanted).magnitude
