r"""One damped step towards the most probable state given a Gaussian law of it and a nonlinear measurement.

With :math:`u_0 \sim N(D, C)` the most probable state minimises

.. math:: \phi(u_0) = -2 \log p(y | u_0) + (u_0 - D)^T C^{-1} (u_0 - D).

States are written :math:`u_0 = D + C g`, so that the second term is :math:`g^T C g` and no inverse is needed; a path
between two of them is a path between their :math:`g` and :math:`C g`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scidiff.posterior.base import Run

__all__ = ["Point"]

HALVINGS = 6


def _rows(scalar: Tensor, like: Tensor) -> Tensor:
    return scalar.reshape(-1, *[1] * (like.ndim - 1))


@dataclass(frozen=True)
class Point:
    r"""A state :math:`D + C g`.

    Arguments:
        g: (rows, \*S).
        image: :math:`C g`, (rows, \*S).
        phi: :math:`\phi` up to a constant, (rows,).
    """

    g: Tensor
    image: Tensor
    phi: Tensor

    @staticmethod
    def at(run: Run, D: Tensor, g: Tensor, image: Tensor, shift: Tensor | None = None) -> Point:
        r"""Evaluates :math:`\phi`; one operator call. A ``shift`` n makes the first term :math:`|r + n|^2`."""
        with torch.no_grad():
            if shift is not None:
                misfit = (run.measurement.residual(D + image) + shift).square().sum(1)
            elif all(part.whitens for part in run.posterior.likelihoods):
                misfit = run.measurement.residual(D + image).square().sum(1)
            else:
                misfit = -2 * run.measurement.log_prob(D + image)
            return Point(g, image, misfit + (g * image).flatten(1).sum(1))

    def towards(self, run: Run, D: Tensor, g: Tensor, image: Tensor, shift: Tensor | None = None) -> Point:
        r"""The furthest point on the way to (g, image) that does not raise :math:`\phi`, among 1, 1/2, 1/4, ... of it.

        Each row has its own length; a row without such a point stays. One operator call per length tried. A rise by
        1e-3, or 1e-5 of it, is rounding and no change of probability that matters.
        """
        t = torch.ones_like(self.phi)
        for last in [*[False] * (HALVINGS - 1), True]:
            way = self.g + _rows(t, g) * (g - self.g), self.image + _rows(t, g) * (image - self.image)
            point = Point.at(run, D, *way, shift)
            worse = ~(point.phi <= self.phi + 1e-3 + 1e-5 * self.phi.abs())
            if not bool(worse.any()):
                return point
            t = torch.where(worse, torch.zeros_like(t) if last else t / 2, t)
        keep = t == 0
        return Point(
            torch.where(_rows(keep, g), self.g, point.g),
            torch.where(_rows(keep, g), self.image, point.image),
            torch.where(keep, self.phi, point.phi),
        )
