r"""From line integrals to photons: transmission with open-beam and dark fields, and back.

Behind a line integral z the expected counts of a detector bin are

.. math:: \bar k = k_0\, e^{-z} + d

with the counts :math:`k_0` of the open beam ("white field", dark counts already subtracted) and the dark counts d.
Measured counts scatter about them as `scidiff.noise.PoissonNoise` says. `Transmission` with that noise is the exact
likelihood, also where few photons arrive. `log_transform` turns counts into line integrals with Gaussian noise, good
from some ten counts upwards, which keeps the problem linear.

References:
    Statistical image reconstruction for polyenergetic X-ray computed tomography. Elbakri and Fessler, 2002, IEEE Trans.
    Med. Imaging 21 (the Poisson model of transmission and its Gaussian approximation).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from scidiff.operators.algebra import Algebra
from scidiff.protocols import Operator

__all__ = ["LogData", "Transmission", "log_transform"]


def _field(value: Any, name: str, positive: bool) -> Tensor:
    values = torch.as_tensor(value)
    values = values if values.is_floating_point() else values.to(torch.get_default_dtype())
    good = torch.isfinite(values) & ((values > 0) if positive else (values >= 0))
    if not bool(good.all()):
        bound = "positive" if positive else "zero or more"
        raise ValueError(
            f"{name} must be finite and {bound} everywhere, {int((~good).sum())} of {good.numel()} values are not; "
            "replace dead bins by their neighbours or leave them out with Mask."
        )
    return values


class Transmission(Algebra):
    r"""Expected counts behind a field or behind line integrals, :math:`A(x) = k_0\, e^{-P x} + d`.

    Not linear. Differentiable any number of times.

    Arguments:
        white: :math:`k_0`, expected counts without the object less the dark counts; one number, or a tensor that
            broadcasts against line integrals (B, C, views, bins).
        dark: d, expected counts without beam, likewise.
        projector: P, from fields to line integrals, `ParallelBeam` say; without it fields are line integrals already.

    Raises:
        ValueError: if an entry of white is not positive or one of dark is negative.
    """

    def __init__(self, white: float | Tensor, dark: float | Tensor = 0.0, projector: Operator | None = None) -> None:
        self.white, self.dark = _field(white, "white", True), _field(dark, "dark", False)
        self.projector = projector

    def __repr__(self) -> str:
        return (
            f"Transmission(white {float(self.white.mean()):.4g}, dark {float(self.dark.mean()):.4g} counts on average)"
        )

    def __call__(self, x: Tensor) -> Tensor:
        z = x if self.projector is None else self.projector(x)
        return self.white.to(z) * torch.exp(-z) + self.dark.to(z)


class LogData(NamedTuple):
    r"""Line integrals from counts and their noise.

    Arguments:
        y: Line integrals, dimensionless, in the shape of the counts.
        std: Their standard deviation, for ``GaussianNoise(std)``.
    """

    y: Tensor
    std: Tensor


def log_transform(
    counts: Tensor, white: float | Tensor, dark: float | Tensor = 0.0, gain: float = 1.0, floor: float = 0.5
) -> LogData:
    r"""Line integrals :math:`y = -\ln((k - d) / k_0)` with the standard deviation :math:`\sqrt{g k} / (k - d)`.

    The standard deviation is that of Poisson counts to first order. White and dark fields are taken as exact: average
    many frames. Where no more than ``floor`` photons beyond the dark counts arrived, these are put in their place, in
    both formulas; many such bins call for `Transmission` with `PoissonNoise` instead.

    Arguments:
        counts: Measured k, zero or more.
        white: :math:`k_0`, counts of the open beam less the dark counts; broadcasts against the counts.
        dark: d, likewise.
        gain: g, units of the counts per photon.
        floor: Fewest photons to take the logarithm of.

    Raises:
        ValueError: if a count is negative or not finite, or white or dark are out of range.
    """
    values = counts if counts.is_floating_point() else counts.to(torch.get_default_dtype())
    bad = int((~torch.isfinite(values) | (values < 0)).sum())
    if bad:
        raise ValueError(
            f"{bad} of {values.numel()} counts are negative or not finite; was the dark field subtracted already? "
            "Give raw counts, and the dark field as `dark`."
        )
    k0, d = _field(white, "white", True).to(values), _field(dark, "dark", False).to(values)
    net = (values - d).clamp(min=floor * gain)
    return LogData(torch.log(k0 / net), (gain * torch.maximum(values, net)).sqrt() / net)
