r"""Positive and bounded fields: a transform :math:`x = T(z)` that is part of a prior.

The prior's :math:`u` is the standardised :math:`z`, so every draw obeys the bounds without clipping:

============  =======================================================  =====================
transform     :math:`T(z)`                                             fields
============  =======================================================  =====================
`Log`         :math:`s\,e^z`                                           positive, over decades
`Softplus`    :math:`s \ln(1 + e^z)`                                   positive, near linear far from zero
`Logit`       :math:`l + (h - l) / (1 + e^{-z})`                       between l and h
============  =======================================================  =====================

``s``, ``l`` and ``h`` are in the units of the field; fields must lie strictly inside. A prior with a transform is not
affine: a linear operator is no longer linear in ``u``.
"""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from scidiff.errors import InputError

__all__ = ["Log", "Logit", "Softplus", "Transform", "make_transform"]


@dataclass(frozen=True)
class Transform:
    """A smooth, increasing map of the line onto an interval."""

    kind: ClassVar[str]

    @property
    def bounds(self) -> tuple[float, float]:
        """The open interval of the field."""
        raise NotImplementedError

    def decode(self, z: Tensor) -> Tensor:
        """The field in physical units."""
        raise NotImplementedError

    def encode(self, x: Tensor) -> Tensor:
        """Inverse of `decode`.

        Raises:
            InputError: A value on or beyond the bounds.
        """
        low, high = self.bounds
        if not bool(((x > low) & (x < high)).all()):
            raise InputError(
                f"the field must lie strictly between {low:g} and {high:g} for the transform '{self.kind}'; "
                f"it ranges from {float(x.min()):.4g} to {float(x.max()):.4g}. Mask such values or choose other bounds."
            )
        return self._inverse(x)

    def _inverse(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def rescaled(self, factor: float) -> Transform:
        """The transform of ``factor * x``."""
        return dataclasses.replace(self, **{k: v * factor for k, v in asdict(self).items()})

    @property
    def card(self) -> dict[str, Any]:
        """For the card of a prior; `make_transform` reads it."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True)
class Log(Transform):
    """Positive fields; ``scale`` makes the logarithm's argument a pure number."""

    kind: ClassVar[str] = "log"
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.scale <= 0:
            raise ValueError(f"scale must be positive, got {self.scale}.")

    @property
    def bounds(self) -> tuple[float, float]:
        return 0.0, float("inf")

    def decode(self, z: Tensor) -> Tensor:
        return self.scale * z.exp()

    def _inverse(self, x: Tensor) -> Tensor:
        return (x / self.scale).log()


@dataclass(frozen=True)
class Softplus(Transform):
    """Positive fields; about linear where the field is larger than ``scale``."""

    kind: ClassVar[str] = "softplus"
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.scale <= 0:
            raise ValueError(f"scale must be positive, got {self.scale}.")

    @property
    def bounds(self) -> tuple[float, float]:
        return 0.0, float("inf")

    def decode(self, z: Tensor) -> Tensor:
        return self.scale * F.softplus(z, threshold=40.0)

    def _inverse(self, x: Tensor) -> Tensor:
        y = x / self.scale
        return y + (-torch.expm1(-y)).log()


@dataclass(frozen=True)
class Logit(Transform):
    """Fields between ``low`` and ``high``."""

    kind: ClassVar[str] = "logit"
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"low must be less than high, got {self.low} and {self.high}.")

    @property
    def bounds(self) -> tuple[float, float]:
        return self.low, self.high

    def decode(self, z: Tensor) -> Tensor:
        return self.low + (self.high - self.low) * torch.sigmoid(z)

    def _inverse(self, x: Tensor) -> Tensor:
        return ((x - self.low) / (self.high - x)).log()


_KINDS: dict[str, type[Transform]] = {kind.kind: kind for kind in (Log, Softplus, Logit)}


def make_transform(kind: str, **options: float) -> Transform:
    """A transform by name: log, softplus or logit, with its arguments.

    Raises:
        InputError: A name or an argument that does not exist, or bounds that are none.
    """
    if kind not in _KINDS:
        raise InputError(f"there is no transform '{kind}'; expected one of {', '.join(_KINDS)}.")
    try:
        return _KINDS[kind](**options)
    except (TypeError, ValueError) as error:
        raise InputError(f"the transform '{kind}' does not fit: {error}") from error
