r"""Operators along time: the same instrument at every frame, and stations that report when they can.

A trajectory is a field with time behind the batch, (B, T, \*X).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scidiff.operators.combined import Combined, vjp
from scidiff.operators.recorded import known_as

__all__ = ["OverTime", "StationSeries", "frames_at"]


class OverTime(Combined):
    r"""Applies an operator to frames of a trajectory, (B, T, \*X) to (B, n, \*Y).

    Arguments:
        operator: Of one frame, (B, \*X) to (B, \*Y); linear ones make a linear operator.
        frames: T, the number of frames.
        observed: Indices of the n observed frames, increasing; all of them by default.

    Raises:
        ValueError: no frame, or indices that do not increase from 0 to T - 1.
    """

    def __init__(self, operator: Any, frames: int, observed: Sequence[int] | None = None) -> None:
        if not callable(operator):
            raise TypeError(f"OverTime needs an operator of one frame, got {type(operator).__name__}.")
        self.frames = int(frames)
        self.observed = list(range(self.frames)) if observed is None else [int(i) for i in observed]
        increasing = all(a < b for a, b in zip(self.observed, self.observed[1:], strict=False))
        if not self.observed or not increasing or self.observed[0] < 0 or self.observed[-1] >= self.frames:
            raise ValueError(f"observed must be increasing indices from 0 to {self.frames - 1}, got {self.observed}.")
        self._join((operator,))
        own = getattr(operator, "field_shape", None)
        self.field_shape = None if own is None else (self.frames, *own)
        self.rows_orthonormal = bool(getattr(operator, "rows_orthonormal", False))
        whole = len(self.observed) == self.frames
        self.columns_orthonormal = whole and bool(getattr(operator, "columns_orthonormal", False))

    def __repr__(self) -> str:
        part = "" if len(self.observed) == self.frames else f", observed={self.observed}"
        return f"OverTime({self.operators[0]!r}, {self.frames}{part})"

    def __call__(self, x: Tensor) -> Tensor:
        return self._each(self.operators[0], self._select(x))

    def _select(self, x: Tensor) -> Tensor:
        if x.ndim < 3 or x.shape[1] != self.frames:
            raise ValueError(f"expected a trajectory (B, {self.frames}, ...), got {tuple(x.shape)}.")
        return x if len(self.observed) == self.frames else x[:, self.observed]

    def _each(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return function(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    def _spread(self, x: Tensor) -> Tensor:
        """Observed frames among zeros."""
        if len(self.observed) == self.frames:
            return x
        out = x.new_zeros(len(x), self.frames, *x.shape[2:])
        out[:, self.observed] = x
        return out

    def _adjoint(self, y: Tensor) -> Tensor:
        if y.ndim < 2 or y.shape[1] != len(self.observed):
            raise ValueError(f"expected measurements (B, {len(self.observed)}, ...), got {tuple(y.shape)}.")
        return self._spread(self._each(self.operators[0].adjoint, y))

    def _vjp(self, x: Tensor, v: Tensor) -> Tensor:
        operator, frames = self.operators[0], self._select(x)
        return self._spread(vjp(operator, frames.flatten(0, 1), v.flatten(0, 1)).unflatten(0, frames.shape[:2]))


class StationSeries(Combined):
    r"""Time series at stations with gaps, (B, T, H, W) to the n values that were reported, (B, n), time slowest.

    Arguments:
        sensors: What one frame shows, (B, T, \*grid) to (B, T, m): `Points`, `LatLonPoints`, `Footprints`, ...
        reported: Boolean (T, m), True where station and time have a value, such as ``torch.isfinite(y)``.

    Raises:
        ValueError: if nothing was reported.
    """

    def __init__(self, sensors: Any, reported: Tensor) -> None:
        if reported.dtype != torch.bool or reported.ndim != 2:
            raise ValueError(
                f"reported must be boolean (times, stations), got {reported.dtype} {tuple(reported.shape)}; "
                "write `torch.isfinite(y)`."
            )
        count = getattr(sensors, "count", reported.shape[1])
        if count != reported.shape[1]:
            raise ValueError(f"reported has {reported.shape[1]} stations, {known_as(sensors)} has {count}.")
        if not bool(reported.any()):
            raise ValueError("no station reported at any time, so there is no measurement.")
        self._join((sensors,))
        self.reported = reported
        self._index = reported.flatten().nonzero()[:, 0]

    def __repr__(self) -> str:
        times, stations = self.reported.shape
        return f"StationSeries({len(self._index)} of {times} times x {stations} stations, {self.operators[0]!r})"

    def __call__(self, x: Tensor) -> Tensor:
        if x.ndim < 3 or x.shape[1] != len(self.reported):
            raise ValueError(f"expected a trajectory (B, {len(self.reported)}, ...), got {tuple(x.shape)}.")
        return self.values(self.operators[0](x))

    def values(self, series: Tensor) -> Tensor:
        """The reported values (B, n) of full series (B, T, m), such as data with NaN in the gaps."""
        if series.ndim != 3 or tuple(series.shape[1:]) != tuple(self.reported.shape):
            raise ValueError(
                f"expected series (B, {', '.join(map(str, self.reported.shape))}), got {tuple(series.shape)}."
            )
        return series.flatten(1).index_select(1, self._index.to(series.device))

    def series(self, values: Tensor, missing: float = float("nan")) -> Tensor:
        """Full series (B, T, m) of reported values (B, n), with ``missing`` in the gaps."""
        if values.ndim != 2 or values.shape[1] != len(self._index):
            raise ValueError(f"expected values (B, {len(self._index)}), got {tuple(values.shape)}.")
        out = values.new_full((len(values), self.reported.numel()), missing)
        return out.index_copy(1, self._index.to(values.device), values).unflatten(1, self.reported.shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operators[0].adjoint(self.series(y, 0.0))

    def _vjp(self, x: Tensor, v: Tensor) -> Tensor:
        return vjp(self.operators[0], x, self.series(v, 0.0))


def frames_at(times: Any, axis: Any, tolerance: float = 1e-6) -> list[int]:
    """Indices of the frames at which observations were made.

    Arguments:
        times: Times of the observations, increasing; numbers or datetime64.
        axis: Times of the frames, evenly spaced or not, of the same kind.
        tolerance: Largest distance between the two, as a share of the smallest spacing of the frames.

    Raises:
        ValueError: if an observation lies between two frames or outside them; one error that names the times.
    """
    found, frames = np.asarray(times), np.asarray(axis)
    origin = frames[0]
    unit = np.timedelta64(1, "us") if frames.dtype.kind == "M" else 1.0
    t, s = ((np.atleast_1d(v) - origin) / unit for v in (found, frames))
    near = np.abs(t[:, None] - s[None]).argmin(1)
    spacing = float(np.diff(s).min()) if len(s) > 1 else 1.0
    off = np.flatnonzero(np.abs(t - s[near]) > tolerance * spacing)
    if len(off):
        shown = ", ".join(str(np.atleast_1d(found)[i]) for i in off[:3]) + (", ..." if len(off) > 3 else "")
        raise ValueError(
            f"{len(off)} of {len(t)} observation times are no times of frames: {shown}; frames run from {frames[0]} to "
            f"{frames[-1]} in steps of {spacing:g}{' us' if frames.dtype.kind == 'M' else ''}. Add time as an axis of "
            "Points to interpolate, or choose other frames."
        )
    return near.tolist()
