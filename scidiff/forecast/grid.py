r"""The grid of a state: names and values of its dimensions, and the area of every cell.

On a sphere the cell between latitudes :math:`\varphi_-`, :math:`\varphi_+` and longitudes :math:`\lambda_\pm` has the
exact area :math:`(\sin \varphi_+ - \sin \varphi_-)\,(\lambda_+ - \lambda_-)`, edges being midway between the centres
and cut off at the poles. The cosine at the centre, often used instead, gives the row at the pole no weight at all.
On a plane the area is the product of the widths of the cell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from scidiff.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Grid", "cell_widths", "is_latitude", "is_longitude"]

KEPT = ("units", "long_name", "standard_name", "axis")


def is_latitude(name: str, attrs: Mapping[str, Any]) -> bool:
    """Whether a dimension is a latitude, by its standard name, its units or its own name."""
    return (
        attrs.get("standard_name") == "latitude"
        or attrs.get("units") in ("degrees_north", "degree_north")
        or name.lower() in ("lat", "latitude")
    )


def is_longitude(name: str, attrs: Mapping[str, Any]) -> bool:
    """Whether a dimension is a longitude, by its standard name, its units or its own name."""
    return (
        attrs.get("standard_name") == "longitude"
        or attrs.get("units") in ("degrees_east", "degree_east")
        or name.lower() in ("lon", "longitude")
    )


def _edges(centres: np.ndarray) -> np.ndarray:
    """Edges of cells around centres: midway, the outer ones as far out as their neighbours are in."""
    if len(centres) == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    middle = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])


def cell_widths(name: str, values: np.ndarray, attrs: Mapping[str, Any]) -> np.ndarray:
    r"""Extent of the cells along one dimension; for a latitude in degrees, :math:`\sin\varphi_+ - \sin\varphi_-`."""
    edges = _edges(np.asarray(values, np.float64))
    if is_latitude(name, attrs):
        edges = np.sin(np.deg2rad(edges.clip(-90, 90)))
    return np.abs(np.diff(edges))


@dataclass(frozen=True, eq=False)
class Grid:
    """Names and values of the dimensions of a field.

    Arguments:
        dims: Names, in the order of the tensor's last dimensions.
        values: Values along each; numbers 0, 1, ... where the data have no coordinate.
        attrs: Attributes of each coordinate (units, long_name, standard_name).
    """

    dims: tuple[str, ...]
    values: tuple[np.ndarray, ...]
    attrs: tuple[dict[str, Any], ...]

    @classmethod
    def of(cls, array: xr.DataArray, dims: tuple[str, ...]) -> Grid:
        """The grid of an array."""
        values, attrs = [], []
        for dim in dims:
            if dim not in array.dims:
                raise InputError(f"{array.name} has dimensions {array.dims}, expected {dim!r} among them.")
            given = array.coords.get(dim)
            values.append(np.arange(array.sizes[dim]) if given is None else np.asarray(given.values))
            attrs.append({} if given is None else {k: str(v) for k, v in given.attrs.items() if k in KEPT})
            if values[-1].dtype.kind not in "fiu":
                raise InputError(f"the coordinate {dim!r} must hold numbers, got {values[-1].dtype}.")
            if len(values[-1]) > 1 and not (np.diff(values[-1]) > 0).all() and not (np.diff(values[-1]) < 0).all():
                raise InputError(f"the coordinate {dim!r} must ascend or descend; sort the data by it.")
        return cls(dims, tuple(values), tuple(attrs))

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of points along each dimension."""
        return tuple(map(len, self.values))

    @property
    def spherical(self) -> bool:
        """Whether one of the dimensions is a latitude."""
        return any(is_latitude(d, a) for d, a in zip(self.dims, self.attrs, strict=True))

    @cached_property
    def area(self) -> np.ndarray:
        """Area of every cell, divided by their mean: weights of the shape of the grid, float64."""
        area = np.ones(())
        for dim, values, attrs in zip(self.dims, self.values, self.attrs, strict=True):
            area = area[..., None] * cell_widths(dim, values, attrs)
        return area / area.mean()

    def align(self, array: xr.DataArray, here: str = "the model was trained on") -> xr.DataArray:
        """The array on this grid, its rows in this order; a grid that runs the other way is turned round.

        Arguments:
            array: Has the dimensions of this grid, in any order.
            here: How an error introduces this grid.

        Raises:
            InputError: another grid.
        """
        for dim, values in zip(self.dims, self.values, strict=True):
            if dim not in array.dims:
                raise InputError(
                    f"{array.name} has dimensions {array.dims}; {here} a grid with {self.dims}. "
                    "Rename the dimensions with rename."
                )
            given = array.coords.get(dim)
            found = np.arange(array.sizes[dim]) if given is None else np.asarray(given.values)
            if _same(found, values):
                continue
            if _same(found[::-1], values):
                array = array.isel({dim: slice(None, None, -1)})
                continue
            raise InputError(
                f"{array.name} lies on {_words(dim, found)}; {here} {_words(dim, values)}. "
                "Interpolate or cut the data to that grid first; nothing is interpolated silently."
            )
        return array

    def coords(self) -> dict[str, Any]:
        """Coordinates for a Dataset."""
        return {d: (d, v, a) for d, v, a in zip(self.dims, self.values, self.attrs, strict=True)}

    def to_card(self) -> list[dict[str, Any]]:
        """For the card of a model."""
        rows = zip(self.dims, self.values, self.attrs, strict=True)
        return [{"dim": d, "values": v.tolist(), "dtype": str(v.dtype), "attrs": a} for d, v, a in rows]

    @classmethod
    def from_card(cls, card: list[dict[str, Any]]) -> Grid:
        """Undoes `to_card`."""
        values = tuple(np.asarray(row["values"], dtype=row["dtype"]) for row in card)
        return cls(tuple(row["dim"] for row in card), values, tuple(dict(row["attrs"]) for row in card))


def _same(found: np.ndarray, values: np.ndarray) -> bool:
    if found.shape != values.shape:
        return False
    step = np.abs(np.diff(np.asarray(values, np.float64))).min() if len(values) > 1 else 1.0
    return bool(np.allclose(np.asarray(found, np.float64), values, rtol=0, atol=1e-4 * step))


def _words(dim: str, values: np.ndarray) -> str:
    return f"{dim} = {values[0]:g} ... {values[-1]:g} ({len(values)} points)"
