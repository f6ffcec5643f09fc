r"""Gaussian random fields whose law, and so their exact denoiser, is known: the measure of what a network has learned.

.. math:: x \sim N\big(m,\; s^2 C\big), \qquad C \propto (-\Delta + \tau^2)^{-\alpha} \text{ in the unit box},

scaled so that the mean variance of :math:`C` is one. On a periodic box the eigenvectors are Fourier modes with
:math:`-\Delta \to |2 \pi k|^2`; in a box with walls of zero slope they are cosines with :math:`-\Delta \to |\pi k|^2`.
The best denoiser is linear, :math:`D(u, \sigma) = C (C + \sigma^2)^{-1} u`, and its mean squared error per number is
:math:`\frac1d \sum_k \lambda_k \sigma^2 / (\lambda_k + \sigma^2)`, with :math:`\lambda` the eigenvalues of :math:`C`.

A draw fills the box whatever its grid: finer grids show the same fields at more points.

References:
    An explicit link between Gaussian fields and Gaussian Markov random fields: the stochastic partial differential
    equation approach, Lindgren, Rue and Lindstrom, 2011, doi:10.1111/j.1467-9868.2011.00777.x (the law).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from scidiff.datasets.simulator import Simulator
from scidiff.linalg.cosine import Cosine
from scidiff.linalg.covariance import Spectral
from scidiff.linalg.stationary import Stationary

__all__ = ["GaussianFields"]


class GaussianFields(Simulator):
    r"""Draws (channels, \*grid) with independent channels.

    Arguments:
        alpha: Smoothness :math:`\alpha`; in d dimensions the covariance is Matern's of order :math:`\alpha - d/2`.
        tau: Inverse correlation length :math:`\tau`, in units of the box.
        boundary: "periodic", or "reflect" for walls of zero slope.
        channels: Number of channels.
        mean, std: Mean :math:`m` and standard deviation :math:`s` of the field, in its units.
        units: Physical units.
    """

    def __init__(
        self,
        alpha: float = 1.5,
        tau: float = 10.0,
        boundary: str = "periodic",
        channels: int = 1,
        mean: float = 0.0,
        std: float = 1.0,
        units: str = "1",
    ) -> None:
        if boundary not in ("periodic", "reflect"):
            raise ValueError(f"boundary must be 'periodic' or 'reflect', got '{boundary}'.")
        if not (alpha > 0 and tau > 0 and std > 0 and channels >= 1):
            raise ValueError(
                f"alpha, tau and std must be positive, channels 1 or more; got {alpha, tau, std, channels}."
            )
        self.alpha, self.tau, self.boundary = alpha, tau, boundary
        self.channels, self.loc, self.scale, self.units = channels, float(mean), float(std), units
        self._known: dict[tuple[int, ...], Spectral] = {}

    def covariance(self, grid: Sequence[int]) -> Spectral:
        r"""The covariance of ``u`` on a grid, of fields (channels, \*grid); its eigenvalues have the mean one."""
        grid = tuple(grid)
        if grid not in self._known:
            if self.boundary == "reflect":
                made: Spectral = Cosine.matern(grid, self.alpha, self.tau, channels=self.channels)
            else:
                cutoff = self.tau / (2 * math.pi)
                made = Stationary.power_law(grid, 2 * self.alpha, cutoff, channels=self.channels)
            self._known[grid] = made
        return self._known[grid]

    def __call__(self, generator: Generator, crop: tuple[int, ...]) -> Tensor:
        r"""One field (channels, \*crop) in units of ``u``."""
        return self.covariance(crop).sample(generator, 1, torch.float32)[0]

    @property
    def card(self) -> dict[str, Any]:
        return {"law": f"Gaussian, covariance (-Laplacian + {self.tau:g}^2)^-{self.alpha:g}, {self.boundary} unit box"}
