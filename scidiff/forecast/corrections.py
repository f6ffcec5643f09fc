r"""Corrections of predicted states: prescribed values, conserved means, positivity.

A correction is a function of the state in physical units and of the context of the step. It is called after every
predicted step, in the order given, before the state is used further:

.. code-block:: python

    def no_slip(state: dict[str, Tensor], at: StepContext) -> dict[str, Tensor]:
        return {**state, "u": state["u"].where(at_sea, 0.0)}

``state`` maps every prognostic variable to (B, \*grid) or (B, levels, \*grid), rows being members and initial times;
points outside the mask are NaN. A correction must not mix rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from scidiff.errors import InputError
from scidiff.forecast.base import Correct
from scidiff.forecast.times import Step, advance, same_time

if TYPE_CHECKING:
    import xarray as xr

    from scidiff.forecast.state import StateSpec

__all__ = ["Conserve", "Correction", "Positive", "Prescribe", "StepContext", "make_correct"]


@dataclass(frozen=True, eq=False)
class StepContext:
    r"""Where in a forecast a step is.

    Arguments:
        lead: Steps since the initial state; fractions between states.
        init_times: Time of the initial state of every row, (B,).
        step: Time between states.
        initial: The initial state of every row, physical units.
        spec: What the state is made of; ``spec.area`` holds the areas of the cells.
    """

    lead: float
    init_times: np.ndarray
    step: Step
    initial: Mapping[str, Tensor]
    spec: StateSpec

    def around(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Times of the states before and after this step, (B,) each, and how far it is from the first to the second."""
        low = int(np.floor(self.lead + 1e-9))
        part = max(0.0, self.lead - low)
        part = part if part > 1e-9 else 0.0
        before = advance(self.init_times, low, self.step)
        return before, before if part == 0 else advance(self.init_times, low + 1, self.step), part


Correction = Callable[[dict[str, Tensor], StepContext], Mapping[str, Tensor]]


def _weights(x: Tensor, at: StepContext) -> Tensor:
    """Area of the cells where x exists, of the shape of x."""
    return at.spec.area.to(x).expand_as(x).where(x.isfinite(), x.new_zeros(()))


def _mean(x: Tensor, at: StepContext) -> Tensor:
    r"""Mean over the grid by area, in float64: (B, [levels], \*1)."""
    space = tuple(range(x.ndim - len(at.spec.grid.dims), x.ndim))
    wide = x.double()
    weight = _weights(wide, at)
    total = (wide.where(weight > 0, wide.new_zeros(())) * weight).sum(space, keepdim=True)
    return (total / weight.sum(space, keepdim=True)).to(x)


@dataclass(frozen=True)
class Conserve:
    r"""Keeps the mean of a variable over the area: that of the initial state, or a number.

    .. math:: x \leftarrow x + (m - \bar x) \qquad \text{or} \qquad x \leftarrow x \, m / \bar x

    Arguments:
        variable: Name; every level is conserved by itself.
        mean: The mean m in the units of the variable; None takes that of the initial state of the row.
        how: ``add`` a constant, or ``scale`` by a factor, which keeps signs.
    """

    variable: str
    mean: float | None = None
    how: Literal["add", "scale"] = "add"

    def __post_init__(self) -> None:
        if self.how not in ("add", "scale"):
            raise ValueError(f"how must be 'add' or 'scale', got {self.how!r}.")

    def __call__(self, state: dict[str, Tensor], at: StepContext) -> dict[str, Tensor]:
        """Corrects a state."""
        x = state[self.variable]
        found = _mean(x, at)
        wanted = _mean(at.initial[self.variable], at) if self.mean is None else torch.full_like(found, self.mean)
        return {**state, self.variable: x + (wanted - found) if self.how == "add" else x * (wanted / found)}


@dataclass(frozen=True)
class Positive:
    r"""Raises values below a floor to it.

    Arguments:
        variable: Name.
        floor: In the units of the variable.
        keep_mean: Takes what was added from the values above the floor, in proportion to their height over it, so that
            the mean over the area stays; a field whose mean is below the floor becomes the floor.
    """

    variable: str
    floor: float = 0.0
    keep_mean: bool = False

    def __call__(self, state: dict[str, Tensor], at: StepContext) -> dict[str, Tensor]:
        """Corrects a state."""
        x = state[self.variable]
        above = (x - self.floor).clamp(min=0)  # NaN stays
        if self.keep_mean:
            before, after = _mean(x, at) - self.floor, _mean(above, at)
            above = above * (before.clamp(min=0) / after.clamp(min=torch.finfo(x.dtype).tiny))
        return {**state, self.variable: above + self.floor}


class Prescribe:
    r"""Sets a variable to given values, everywhere or in a region: boundaries, a prescribed sea surface.

    Between states (the auxiliary steps of some models) values are interpolated linearly in time; at states they are
    those of the data, and a time that the data do not hold is refused.

    Arguments:
        variable: Name.
        values: On the grid of the model, with ``time`` (valid times) or constant; units are converted.
        where: True where values are set, on the grid; None sets them wherever ``values`` hold a number at some time.
    """

    def __init__(self, variable: str, values: xr.DataArray, where: xr.DataArray | None = None) -> None:
        if where is not None and where.dtype != bool:
            raise InputError(f"where must be boolean, True where {variable} is set, got {where.dtype}.")
        from scidiff.forecast.state import LEVELS

        if where is None and bool(values.isnull().any()):
            where = values.notnull().any([d for d in values.dims if d == "time" or d in LEVELS])
        self.variable, self.values, self.where = variable, values, where

    def __repr__(self) -> str:
        """Names the variable, the times, the region and a checksum of the values: what a resumed run must share."""
        times = f"{self.values.sizes.get('time', 1)} times"
        points = "" if self.where is None else f", {int(self.where.sum())} points"
        content = hashlib.sha256(np.ascontiguousarray(self.values.values).tobytes())
        if self.where is not None:
            content.update(np.ascontiguousarray(self.where.values).tobytes())
        return f"Prescribe({self.variable!r}, {times}{points}, {content.hexdigest()[:12]})"

    def check(self, spec: StateSpec, times: np.ndarray) -> None:
        """Refuses an unknown variable, wrong units or grid, and times or points that the values do not hold."""
        array = self._array(spec)
        region = self._region(spec)
        if "time" in array.dims:
            places = same_time(times, array["time"].values, spec.step)
            if (places < 0).any():
                found = array["time"].values
                raise InputError(
                    f"the prescribed values of {self.variable!r} run from {found[0]} to {found[-1]}; "
                    f"the forecast needs {times[places < 0][0]}."
                )
            array = array.isel(time=np.unique(places))
        gaps = ~np.isfinite(np.asarray(array.values))
        if spec.mask is not None:
            index = spec.prognostic.index(self.variable)
            first = sum(len(v.channels) for v in spec.variables[:index])
            mask = spec.mask[first : first + len(spec.variables[index].channels)].numpy()
            gaps &= mask if spec.variables[index].level else mask[0]
        if (gaps if region is None else gaps & region).any():
            raise InputError(
                f"the prescribed values of {self.variable!r} are missing at some of the points or times that they set; "
                "a point must hold a number at every valid time of the forecast, or be missing at all times (free)."
            )

    def _array(self, spec: StateSpec) -> xr.DataArray:
        from scidiff.forecast.stacking import take

        variable = next((v for v in spec.variables if v.name == self.variable), None)
        if variable is None:
            raise InputError(
                f"{self.variable!r} cannot be prescribed: the model predicts {', '.join(spec.prognostic)}."
            )
        return take(self.values.to_dataset(name=self.variable), variable, spec.grid)

    def __call__(self, state: dict[str, Tensor], at: StepContext) -> dict[str, Tensor]:
        """Corrects a state."""
        array, x = self._array(at.spec), state[self.variable]
        if "time" in array.dims:
            before, after, part = at.around()
            value = self._at(array, before, at)
            if part:
                value = value + part * (self._at(array, after, at) - value)
        else:
            value = array.values
        found = torch.as_tensor(np.array(value)).to(x)
        region = self._region(at.spec)
        if region is None:
            return {**state, self.variable: found.expand_as(x)}
        return {**state, self.variable: torch.where(torch.from_numpy(region).to(x.device), found, x)}

    def _region(self, spec: StateSpec) -> np.ndarray | None:
        if self.where is None:
            return None
        return np.array(spec.grid.align(self.where.rename("where")).transpose(*spec.grid.dims).values)

    def _at(self, array: xr.DataArray, times: np.ndarray, at: StepContext) -> np.ndarray:
        places = same_time(times, array["time"].values, at.step)
        if (places < 0).any():
            raise InputError(f"the prescribed values of {self.variable!r} hold no {times[places < 0][0]}.")
        unique, back = np.unique(places, return_inverse=True)
        return np.asarray(array.isel(time=unique).values)[back]


def make_correct(
    corrections: Sequence[Correction], spec: StateSpec, base: int, init_times: np.ndarray, initial: Tensor
) -> Correct | None:
    r"""The hook of `Forecaster.sample` for one block of one batch.

    Arguments:
        corrections: In the order of application; none gives None.
        spec: What the state is made of.
        base: Steps before the block.
        init_times: (B,).
        initial: Normalised initial states (B, C, \*grid).
    """
    if not corrections:
        return None
    first = _fields(spec.denormalise(initial), spec)

    def correct(u: Tensor, lead: float) -> Tensor:
        at = StepContext(base + float(lead), init_times, spec.step, first, spec)
        state: Any = _fields(spec.denormalise(u), spec)
        for correction in corrections:
            state = dict(correction(state, at))
        parts = [state[v.name] if v.level else state[v.name].unsqueeze(1) for v in spec.variables]
        return spec.normalise(torch.cat(parts, 1))

    return correct


def _fields(x: Tensor, spec: StateSpec) -> dict[str, Tensor]:
    parts = x.split([len(v.channels) for v in spec.variables], 1)
    return {v.name: p if v.level else p.squeeze(1) for v, p in zip(spec.variables, parts, strict=True)}
