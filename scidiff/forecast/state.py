r"""What turns a Dataset into the channels of a forecaster and back: `StateSpec`.

A variable is one channel, a variable with levels one per level. The forecaster sees

.. math:: u = (x - \text{loc}) / \text{scale}

per channel, or per channel and grid point. Points that are missing (land in an ocean field) are 0 in :math:`u` and NaN
in :math:`x`; a specification without a mask refuses them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from scidiff.errors import InputError
from scidiff.forecast.grid import Grid
from scidiff.forecast.times import Step, step_text, text_step

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["LEVELS", "SAMPLES", "StateSpec", "Variable"]

LEVELS = ("level", "plev", "lev", "pressure_level", "isobaricInhPa", "height", "depth")
"""Names of dimensions that become channels."""
SAMPLES = ("member", "case", "trajectory", "sample", "number", "ensemble", "realization", "init_time", "lead_time")
"""Names of dimensions that are neither time nor grid."""
KEPT = ("units", "long_name", "standard_name", "cell_methods")


@dataclass(frozen=True, eq=False)
class Variable:
    """A variable of the state: its name, levels and the attributes it is written with.

    Arguments:
        name: In the Dataset.
        attrs: units, long_name, standard_name. Without units, numbers are taken as they are.
        level: Name of the dimension of levels, None for a variable without.
        levels: Their values.
    """

    name: str
    attrs: dict[str, str] = field(default_factory=dict)
    level: str | None = None
    levels: tuple[float, ...] = ()

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of its channels: ``t`` or ``t@500``, ``t@850``."""
        return tuple(f"{self.name}@{value:g}" for value in self.levels) if self.level else (self.name,)

    def to_card(self) -> dict[str, Any]:
        """For the card of a model."""
        return {"name": self.name, "attrs": self.attrs, "level": self.level, "levels": list(self.levels)}

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> Variable:
        """Undoes `to_card`."""
        return cls(card["name"], dict(card["attrs"]), card["level"], tuple(card["levels"]))


@dataclass(frozen=True, eq=False)
class StateSpec:
    r"""Variables, grid, step and normalisation of the states of a forecaster.

    Made by `fit` from training data, kept in the card of a model (`to_card`, `tensors`), read by `from_card`.

    Arguments:
        variables: Prognostic variables: predicted and fed back.
        forcings: Prescribed variables, known at every valid time.
        statics: Prescribed variables without time (orography, distance to the coast).
        grid: Dimensions and their values.
        step: Time between two states: `numpy.timedelta64`, of unit month for monthly data, or a number.
        loc: (C, \*1) or (C, \*grid), float64, in the units of the variables; C counts prognostic channels.
        scale: Like ``loc``, positive.
        forcing_loc: (K, \*1) or (K, \*grid) for the forcings.
        forcing_scale: Like ``forcing_loc``.
        static_fields: (S, \*grid), normalised.
        mask: (C, \*grid), True where the field exists; None where it exists everywhere.
    """

    variables: tuple[Variable, ...]
    forcings: tuple[Variable, ...]
    statics: tuple[Variable, ...]
    grid: Grid
    step: Step
    loc: Tensor
    scale: Tensor
    forcing_loc: Tensor
    forcing_scale: Tensor
    static_fields: Tensor
    mask: Tensor | None = None

    # What it holds

    @property
    def prognostic(self) -> tuple[str, ...]:
        """Names of the prognostic variables."""
        return tuple(v.name for v in self.variables)

    @property
    def forcing(self) -> tuple[str, ...]:
        """Names of the forcings."""
        return tuple(v.name for v in self.forcings)

    @property
    def static(self) -> tuple[str, ...]:
        """Names of the prescribed variables without time."""
        return tuple(v.name for v in self.statics)

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the prognostic channels, as ``t@500``."""
        return tuple(name for v in self.variables for name in v.channels)

    @property
    def forcing_channels(self) -> int:
        """Channels K of the tensor that `forcing_tensor` makes: forcings, then static fields."""
        return sum(len(v.channels) for v in (*self.forcings, *self.statics))

    @property
    def shape(self) -> tuple[int, ...]:
        r"""(C, \*grid)."""
        return (len(self.channels), *self.grid.shape)

    @property
    def units(self) -> dict[str, str | None]:
        """Units by prognostic variable; None where the training data had none."""
        return {v.name: v.attrs.get("units") for v in self.variables}

    @cached_property
    def area(self) -> Tensor:
        """Area of every cell, of mean one: weights of averages over the grid, float64."""
        return torch.from_numpy(self.grid.area)

    # Normalisation of tensors

    def normalise(self, x: Tensor) -> Tensor:
        r"""(..., C, \*grid) in the units of the variables -> normalised; missing points become 0."""
        u = (x - self.loc.to(x)) / self.scale.to(x)
        return u if self.mask is None else u.where(self.mask.to(u.device), u.new_zeros(()))

    def denormalise(self, u: Tensor) -> Tensor:
        r"""Normalised (..., C, \*grid) -> the units of the variables; missing points become NaN."""
        x = self.loc.to(u) + self.scale.to(u) * u
        return x if self.mask is None else x.where(self.mask.to(u.device), u.new_full((), torch.nan))

    # Datasets

    def to_tensor(self, ds: xr.Dataset, dtype: torch.dtype = torch.float32, gaps: bool = False) -> Tensor:
        r"""The prognostic variables of a Dataset, normalised: (T, C, \*grid).

        Dimensions that are neither time, level nor grid (``member``, ``case``) come before T. Data without time give
        T = 1. Units are converted; a grid that runs the other way is turned round.

        Arguments:
            ds: Holds every prognostic variable.
            dtype: Type of the answer.
            gaps: Accept times that are not spaced by `step`, for training on separate stretches; the caller knows
                where a stretch ends.

        Raises:
            InputError: a variable is missing, its units measure something else, times are not spaced by `step`, the
                grid is another one, or values are missing where the mask has them.
        """
        from scidiff.forecast import stacking

        return self.normalise(
            stacking.read(ds, self.variables, self.grid, None if gaps else self.step, self.mask, dtype)
        )

    def forcing_tensor(self, ds: xr.Dataset | None, dtype: torch.dtype = torch.float32, gaps: bool = False) -> Tensor:
        r"""Forcings of a Dataset, then the static fields at every time, normalised: (T, K, \*grid).

        Arguments:
            ds: Holds every forcing; None for a model with static fields only, which gives T = 1.
            dtype: Type of the answer.
            gaps: As in `to_tensor`.
        """
        from scidiff.forecast import stacking

        static = self.static_fields.to(dtype)
        if not self.forcings:
            times = 1 if ds is None else ds.sizes.get("time", 1)
            return static.expand(times, *static.shape)
        if ds is None:
            raise InputError(f"the model needs the forcing {', '.join(self.forcing)}; none was given.")
        x = stacking.read(ds, self.forcings, self.grid, None if gaps else self.step, None, dtype)
        u = (x - self.forcing_loc.to(x)) / self.forcing_scale.to(x)
        return torch.cat([u, static.expand(*u.shape[: -static.ndim], *static.shape)], -static.ndim)

    def to_dataset(
        self,
        tensor: Tensor,
        times: Any = None,
        dims: Sequence[str] = ("time",),
        coords: Mapping[Hashable, Any] | None = None,
    ) -> xr.Dataset:
        r"""Normalised states (\*dims, C, \*grid) as a Dataset with units, levels and grid.

        Arguments:
            tensor: Normalised states.
            times: Values of ``time``, if that is one of ``dims``.
            dims: Names of the leading dimensions.
            coords: More coordinates.
        """
        import xarray as xr

        if tensor.shape[len(dims) :] != self.shape:
            raise ValueError(
                f"the tensor must be {(*dims, 'C', *self.grid.dims)}, its end {self.shape}; got {tuple(tensor.shape)}."
            )
        values = self.denormalise(tensor.detach()).cpu().numpy()
        found = {v.name: (names, part, v.attrs) for v, names, part in self.split(values, tuple(dims))}
        own = {v.level: (v.level, list(v.levels)) for v in self.variables if v.level}
        given = {} if times is None else {"time": ("time", np.asarray(times))}
        return xr.Dataset(found, {**self.grid.coords(), **own, **given, **(coords or {})})

    def split(self, values: np.ndarray, dims: tuple[str, ...]) -> list[tuple[Variable, tuple[str, ...], np.ndarray]]:
        r"""Channels (\*dims, C, \*grid) shared out to variables: (variable, names of dimensions, numbers)."""
        axis, start, found = len(dims), 0, []
        for v in self.variables:
            count = len(v.channels)
            part = values[(slice(None),) * axis + (slice(start, start + count),)]
            part = part if v.level else part[(slice(None),) * axis + (0,)]
            found.append((v, (*dims, *([v.level] if v.level else []), *self.grid.dims), part))
            start += count
        return found

    # Making and keeping

    @classmethod
    def fit(
        cls,
        ds: xr.Dataset,
        prognostic: Sequence[str] | str,
        forcing: Sequence[str] | str = (),
        static: Sequence[str] | str = (),
        *,
        per: Literal["channel", "pixel"] = "channel",
        mask: xr.DataArray | Literal["missing"] | None = None,
        dims: Sequence[str] | None = None,
        step: Step | None = None,
    ) -> StateSpec:
        """Takes variables, levels, grid and step from training data, and mean and standard deviation over them.

        Arguments:
            ds: Training data only: statistics of test years are a leak.
            prognostic: Variables to predict.
            forcing: Prescribed variables with time.
            static: Prescribed variables without time.
            per: One mean and deviation per channel (weighted by area), or one per channel and point; a point that
                never varies takes the deviation of its channel.
            mask: True where the field exists; ``"missing"`` takes points that are NaN at every time as missing; None
                refuses NaN.
            dims: Dimensions of the grid; None takes those that are neither time, level nor one of `SAMPLES`.
            step: Time between states, if the data have gaps; None finds it and refuses gaps.

        Raises:
            InputError: a variable is missing, constant, or holds NaN outside the mask; times are not equally spaced.
        """
        from scidiff.forecast import stacking

        names = [(part,) if isinstance(part, str) else tuple(part) for part in (prognostic, forcing, static)]
        return cls(**stacking.fit(ds, *names, per=per, mask=mask, dims=dims, step=step))

    def to_card(self) -> dict[str, Any]:
        """Everything but the tensors, as JSON."""
        return {
            "variables": [v.to_card() for v in self.variables],
            "forcings": [v.to_card() for v in self.forcings],
            "statics": [v.to_card() for v in self.statics],
            "grid": self.grid.to_card(),
            "step": step_text(self.step),
        }

    def tensors(self) -> dict[str, Tensor]:
        """The tensors, for safetensors: ``loc``, ``scale``, ``forcing_*``, ``static_fields``, and ``mask`` if any."""
        names = ("loc", "scale", "forcing_loc", "forcing_scale", "static_fields", "mask")
        return {name: value.contiguous() for name in names if (value := getattr(self, name)) is not None}

    @classmethod
    def from_card(cls, card: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> StateSpec:
        """Undoes `to_card` and `tensors`.

        Raises:
            InputError: an entry or a tensor is missing.
        """
        make: Callable[[str], tuple[Variable, ...]] = lambda part: tuple(map(Variable.from_card, card[part]))  # noqa: E731
        try:
            return cls(
                make("variables"),
                make("forcings"),
                make("statics"),
                Grid.from_card(card["grid"]),
                text_step(card["step"]),
                *(tensors[name] for name in ("loc", "scale", "forcing_loc", "forcing_scale", "static_fields")),
                mask=tensors.get("mask"),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"the card holds no complete description of a state ({error!r}).") from error
