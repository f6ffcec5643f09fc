"""What every format of raw k-space gives before it is validated. Used by `scidiff.datasets.kspace` and its formats."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from scidiff.errors import InputError

__all__ = ["Raw", "choose_variable"]


@dataclass
class Raw:
    """What a format gives: an array whose meaning is still to be checked, and what the file says about it."""

    array: np.ndarray
    variable: str
    layout: str = "coil ky kx"
    mask: np.ndarray | None = None
    voxel_mm: tuple[float, float] | None = None
    attrs: dict[str, Any] = field(default_factory=dict)


def choose_variable(path: Path, found: dict[str, tuple[tuple[int, ...], np.dtype]], variable: str | None) -> str:
    """The named array, the one called ``kspace``, or the only complex one with two to four dimensions."""
    listing = ", ".join(f"{name} {shape} {dtype}" for name, (shape, dtype) in found.items()) or "nothing"
    if variable is not None:
        if variable not in found:
            raise InputError(f"{path}: there is no variable '{variable}'; found {listing}.")
        return variable
    if "kspace" in found:
        return "kspace"
    complexes = [name for name, (shape, dtype) in found.items() if dtype.kind == "c" and 2 <= len(shape) <= 4]
    if len(complexes) == 1:
        return complexes[0]
    reason = "none is complex" if not complexes else f"{', '.join(complexes)} are complex; name one with `variable`"
    raise InputError(f"{path}: not k-space: expected one complex array, but {reason}. Found {listing}.")
