"""Angles, lengths and the reach of the detector: what is checked when a tomographic operator is made."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from scidiff.operators.units import is_quantity, magnitude

__all__ = ["Truncation", "degrees", "grid", "length", "require_reach", "sides"]

Truncation = Literal["raise", "warn", "ignore"]


def degrees(angles: Any) -> Tensor:
    """Angles in degrees, float64, (views,).

    Plain numbers are degrees. More than ten of them, different and all within one turn in radians, are taken for a
    mistake.

    Raises:
        ValueError: if they are not finite numbers in one dimension, or look like radians.
    """
    plain = not is_quantity(angles)
    values = torch.as_tensor(magnitude(angles, "degree", "angles"))
    if values.is_complex() or values.ndim != 1 or len(values) == 0:
        raise ValueError(f"angles must be real numbers in one dimension, (views,), got shape {tuple(values.shape)}.")
    values = values.detach().to("cpu", torch.float64)
    if not bool(torch.isfinite(values).all()):
        raise ValueError("angles must be finite; remove views whose angle is unknown.")
    low, high = float(values.min()), float(values.max())
    if plain and len(values) > 10 and max(abs(low), abs(high)) <= 2 * math.pi + 1e-3 and high > low:
        raise ValueError(
            f"{len(values)} angles between {low:.3g} and {high:.3g} look like radians, but plain numbers are degrees; "
            "write numpy.rad2deg(angles), or give a pint quantity (angles * ureg.degree if they are degrees)."
        )
    return values


def length(value: Any, name: str) -> float:
    """A positive length in mm."""
    number = float(magnitude(value, "mm", name))
    if not 0 < number < math.inf:
        raise ValueError(f"{name} must be a positive length in mm, got {number:g}.")
    return number


def grid(shape: Sequence[int]) -> tuple[int, int]:
    """Height and width of the field."""
    pair = tuple(int(n) for n in shape)
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(f"shape must be (height, width) of the field in pixels, got {tuple(shape)}.")
    return pair


def sides(pixel: Any) -> tuple[float, float]:
    """Height and width of a pixel in mm, from one length or two."""
    values = np.atleast_1d(np.asarray(magnitude(pixel, "mm", "pixel"), dtype=float))
    if values.shape not in ((1,), (2,)):
        raise ValueError(f"pixel must be one length or (height, width), got {pixel}.")
    return length(values[0], "pixel"), length(values[-1], "pixel")


def whole(value: Any, name: str) -> int:
    """A positive whole number."""
    if isinstance(value, bool) or int(value) != value or value < 1:
        raise ValueError(f"{name} must be a positive whole number, got {value!r}.")
    return int(value)


def require_reach(
    needed: float, low: float, high: float, slack: float, truncation: Truncation, full_turn: bool
) -> None:
    """Compares the shadow of the field with the detector.

    Arguments:
        needed: Largest distance from the axis of the shadow of the ellipse inscribed in the field, on the detector.
        low, high: Distances from the axis to the two ends of the detector, mm.
        slack: What may be missing.
        truncation: What to do about more.
        full_turn: Whether the longer side of the detector comes by all around, so that it alone must suffice.

    Raises:
        ValueError: if the detector is too short, or ``truncation`` is none of the three words.
    """
    if truncation not in ("raise", "warn", "ignore"):
        raise ValueError(f"truncation must be 'raise', 'warn' or 'ignore', got {truncation!r}.")
    reach = max(low, high) if full_turn else min(low, high)
    if truncation == "ignore" or reach + slack >= needed:
        return
    text = (
        f"the field is wider than the detector: its inscribed ellipse casts a shadow up to {needed:.4g} mm from the "
        f"rotation axis, but the detector ends {reach:.4g} mm from it, so that some views miss part of the field. "
        "Take a smaller field, more bins or another centre; or truncation='ignore' if what lies outside is empty."
    )
    if truncation == "raise":
        raise ValueError(text)
    warnings.warn(text, stacklevel=3)
