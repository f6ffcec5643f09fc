r"""Forward models of closure quantities, amplitudes and total flux: fields (B, 1, H, W) to real numbers (B, m).

**Angles.** The difference of two phases is only known up to whole turns, but a `Likelihood` computes ``y - z``. So
`ClosurePhases` is given the measured phases and answers with the difference from them, taken to :math:`(-\pi, \pi]`;
the measurement is then ``y = 0``. With :math:`\Delta = \psi(x) - \psi_\mathrm{measured}` it answers with

=======================================  ===================================================================
:math:`z = 2 \sin(\Delta / 2)`           the chord (default): :math:`z^2 = 2 - 2\cos\Delta` is smooth, and Gaussian
                                         noise on z is the von Mises law :math:`e^{\cos\Delta / s^2}` of the phase
:math:`z = \Delta`                       the arc: a normal law of the wrapped difference
=======================================  ===================================================================

They agree to third order in the difference; without reference (zero) and as arc the answer is the closure phase itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from scidiff.operators.algebra import Algebra
from scidiff.operators.interferometry.closure_sets import ClosureSet

__all__ = ["ClosurePhases", "LogClosureAmplitudes", "TotalFlux", "VisibilityAmplitudes", "debiased", "wrap"]


def wrap(angle: Tensor) -> Tensor:
    r"""The angle plus whole turns in :math:`[-\pi, \pi)`, radians."""
    return torch.remainder(angle + torch.pi, 2 * torch.pi) - torch.pi


def debiased(amplitude: Tensor, std: Tensor) -> Tensor:
    r"""Noise makes amplitudes too large on average, :math:`E|V + n| \approx |V| + \sigma^2 / 2|V|`; this removes it.

    .. math:: A \mapsto \sqrt{\max(A^2 - \sigma^2, 0)}

    Arguments:
        amplitude: Measured :math:`A`, Jy.
        std: :math:`\sigma` per real component, Jy.
    """
    return (amplitude.square() - std.square()).clamp_min(0).sqrt()


class _OfVisibilities(Algebra):
    """What follows from the visibilities of a field."""

    def __init__(self, visibilities: Callable[[Tensor], Tensor]) -> None:
        self.visibilities = visibilities
        """Operator from fields to complex visibilities (B, n)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one field."""
        return self.visibilities.shape  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.visibilities})"

    def of(self, v: Tensor) -> Tensor:
        """The quantities of visibilities (..., n)."""
        raise NotImplementedError

    def __call__(self, x: Tensor) -> Tensor:
        return self.of(self.visibilities(x))


def _checked(closures: ClosureSet, visibilities: Any, corners: int, name: str) -> ClosureSet:
    if len(closures) == 0:
        raise ValueError(f"{name} needs at least one closed {name}: no scan has enough baselines.")
    if closures.index.shape[1] != corners:
        raise ValueError(f"expected a set of {name}s ({corners} baselines each), got {closures.index.shape[1]}.")
    if hasattr(visibilities, "__len__") and len(visibilities) != closures.visibilities:
        raise ValueError(
            f"the closures are made of {closures.visibilities} visibilities, the operator gives {len(visibilities)}."
        )
    return closures


class ClosurePhases(_OfVisibilities):
    r"""Closure phases minus the measured ones, (B, m): their ``y`` is zero. See the top of this file.

    Arguments:
        visibilities: Operator from fields to visibilities, `Visibilities` or another.
        triangles: From `scidiff.operators.interferometry.triangles`.
        reference: Measured closure phases :math:`\psi`, radians, (m,); zero by default.
        von_mises: Whether the answer is the chord :math:`2\sin(\Delta/2)`, else the arc :math:`\Delta`.

    Raises:
        ValueError: if sizes do not fit.
    """

    def __init__(
        self,
        visibilities: Callable[[Tensor], Tensor],
        triangles: ClosureSet,
        reference: Tensor | None = None,
        von_mises: bool = True,
    ) -> None:
        super().__init__(visibilities)
        self.closures = _checked(triangles, visibilities, 3, "triangle")
        if reference is not None and tuple(reference.shape) != (len(triangles),):
            raise ValueError(f"reference must have shape ({len(triangles)},), got {tuple(reference.shape)}.")
        self.reference = reference
        self.von_mises = bool(von_mises)

    def phases(self, v: Tensor) -> Tensor:
        """Closure phases of visibilities: (..., n) to (..., m), radians, within half a turn of zero."""
        return wrap(self.closures(v.angle()))

    def of(self, v: Tensor) -> Tensor:
        difference = self.closures(v.angle())
        if self.reference is not None:
            difference = difference - self.reference.to(difference)
        difference = wrap(difference)
        return 2 * (difference / 2).sin() if self.von_mises else difference


class LogClosureAmplitudes(_OfVisibilities):
    r"""Log closure amplitudes, (B, m), dimensionless.

    Arguments:
        visibilities: Operator from fields to visibilities.
        quadrangles: From `scidiff.operators.interferometry.quadrangles`.

    Raises:
        ValueError: if sizes do not fit.
    """

    def __init__(self, visibilities: Callable[[Tensor], Tensor], quadrangles: ClosureSet) -> None:
        super().__init__(visibilities)
        self.closures = _checked(quadrangles, visibilities, 4, "quadrangle")

    def of(self, v: Tensor) -> Tensor:
        return self.closures(v.abs().log())


class VisibilityAmplitudes(_OfVisibilities):
    r""":math:`|V_n|` in Jy, (B, n). Measured ones are larger by noise: compare with `debiased` ones."""

    def of(self, v: Tensor) -> Tensor:
        return v.abs()


class TotalFlux(Algebra):
    r"""The sum of all pixels in Jy, :math:`\sum_{hw} I_{hw}`: (B, 1, H, W) to (B, 1).

    Arguments:
        shape: Height and width of the field.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.grid = (int(shape[0]), int(shape[1]))

    def __repr__(self) -> str:
        return f"TotalFlux(shape={self.grid})"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one field, (1, H, W)."""
        return (1, *self.grid)

    def __call__(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"x must have shape (B, 1, {self.grid[0]}, {self.grid[1]}), got {tuple(x.shape)}.")
        return x.sum((-2, -1))

    def adjoint(self, y: Tensor) -> Tensor:
        """Every pixel gets the flux, (B, 1) to (B, 1, H, W)."""
        return y[..., None, None].expand(-1, 1, *self.grid)
