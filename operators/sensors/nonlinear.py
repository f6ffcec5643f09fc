r"""What sensors do to the value they see; entry by entry, not linear.

===============  =============================================  ==========================================
`Speed`          :math:`\sqrt{u^2 + v^2}`                       no derivative at rest; torch takes 0 there
`Saturating`     :math:`s\,r / (1 + |r|),\ r = x / s`           differentiable everywhere
`Squared`        :math:`x^2`                                    differentiable everywhere
`Clipped`        :math:`\min(\max(x, a), b)`                    kinks at a and b; flat, hence blind, beyond
`Exceeds`        1 where :math:`x > a`, else 0                  steps at a, flat elsewhere: a black box
===============  =============================================  ==========================================

Compose them with a sensor: ``Saturating() @ Points(...)`` saturates in the sensor, ``Points(...) @ Saturating()`` in
the field.

References:
    Score-based Data Assimilation, Rozet and Louppe, 2023, arXiv:2306.10574 (the saturating sensor).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scidiff.operators.algebra import Algebra

__all__ = ["Clipped", "Exceeds", "Saturating", "Speed", "Squared"]


class Speed(Algebra):
    r"""The length of vectors along one axis: (B, ..., n, ...) to (B, ..., 1, ...).

    Arguments:
        dim: Axis of the components; 1 for winds (B, 2, H, W).
    """

    def __init__(self, dim: int = 1) -> None:
        if dim == 0:
            raise ValueError("dim 0 counts independent fields; components lie along another axis, such as 1.")
        self.dim = dim

    def __call__(self, x: Tensor) -> Tensor:
        return torch.linalg.vector_norm(x, dim=self.dim, keepdim=True)


class Saturating(Algebra):
    r"""A sensor that saturates, :math:`s\,r / (1 + |r|)` with :math:`r = x / s`: values in (-s, s).

    Arguments:
        scale: s in the unit of the field; 1 as in the reference.
    """

    def __init__(self, scale: float = 1.0) -> None:
        if not (scale > 0 and math.isfinite(scale)):
            raise ValueError(f"scale must be positive and finite, got {scale}.")
        self.scale = float(scale)

    def __call__(self, x: Tensor) -> Tensor:
        return x / (1 + x.abs() / self.scale)


class Squared(Algebra):
    """The square of every entry; its sign is lost, so posteriors have several modes."""

    def __call__(self, x: Tensor) -> Tensor:
        return x.square()


class Clipped(Algebra):
    """A sensor with ends: what lies beyond them is reported as the end.

    Arguments:
        low, high: The ends in the unit of the field; None where there is none. A detection limit is ``Clipped(low)``.
    """

    def __init__(self, low: float | None = None, high: float | None = None) -> None:
        if low is None and high is None:
            raise ValueError("Clipped needs an end: low, high or both.")
        if low is not None and high is not None and not low < high:
            raise ValueError(f"low must be below high, got {low} and {high}.")
        self.low, self.high = low, high

    def __call__(self, x: Tensor) -> Tensor:
        return x.clamp(self.low, self.high)


class Exceeds(Algebra):
    """A sensor that only tells whether a threshold is exceeded: 1 or 0, without a gradient.

    Arguments:
        threshold: In the unit of the field.
    """

    differentiable = False

    def __init__(self, threshold: float) -> None:
        if not math.isfinite(threshold):
            raise ValueError(f"threshold must be finite, got {threshold}.")
        self.threshold = float(threshold)

    def __call__(self, x: Tensor) -> Tensor:
        return (x > self.threshold).to(x.dtype)

    def __repr__(self) -> str:
        return f"Exceeds({self.threshold:g})"
