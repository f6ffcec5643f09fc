r"""A random field that is carried along, decays and is stirred anew: the law of its future is known exactly.

.. math:: \partial_t x + c \cdot \nabla x = \nu \Delta x - \mu x + \xi

on a periodic grid with white noise :math:`\xi` in time. Every Fourier coefficient is a complex Ornstein-Uhlenbeck
process: with :math:`\gamma_k = \mu + \nu |k|^2` and a step :math:`\Delta t`,

.. math:: \hat x_{t + j} = a_k^j \hat x_t + \sqrt{\lambda_k (1 - |a_k|^{2 j})}\; \epsilon, \qquad
          a_k = e^{-(\gamma_k + i c \cdot k) \Delta t},

where :math:`\lambda_k` is the stationary spectrum. So the law of the field j steps ahead is Gaussian with mean
:math:`F^H a^j F x_t` and the stationary covariance :math:`F^H \lambda (1 - |a|^{2j}) F`; every point has the same
variance :math:`s_j^2`, and no forecast has a lower expected CRPS than :math:`s_j / \sqrt\pi`.

Wavenumbers :math:`\pm n/2` of an even side cannot tell left from right; they are not carried.

References:
    Uhlenbeck and Ornstein, On the theory of the Brownian motion, Physical Review 36, 1930. Sigrist, Kuensch and
    Stahel, Stochastic partial differential equation based modelling of large space-time data sets, 2015 (the equation
    and its solution by modes). Gneiting and Raftery, Strictly proper scoring rules, prediction, and estimation, 2007
    (the CRPS of a Gaussian law).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from scidiff.linalg.stationary import Stationary
from scidiff.rng import Streams

__all__ = ["StochasticTransport"]


class StochasticTransport:
    r"""The law of the module's formula for fields (B, \*grid); lengths in sides of the box, times in steps.

    Arguments:
        grid: Points along each axis, at least 2.
        velocity: :math:`c`, sides of the box per step along each axis; axes beyond the last given are at rest.
        diffusivity: :math:`\nu`, in squared sides per step, with :math:`k = 2 \pi m`.
        drag: :math:`\mu` per step.
        exponent, cutoff: Of the stationary spectrum :math:`\lambda_k \propto (\kappa^2 + |m|^2)^{-\alpha/2}`,
            :math:`m` in waves per box (`Stationary.power_law`).
        variance: Of every point.

    Raises:
        ValueError: A negative rate, or a mode that never forgets.
    """

    def __init__(
        self,
        grid: Sequence[int],
        velocity: Sequence[float] = (0.02, 0.05),
        diffusivity: float = 1e-4,
        drag: float = 0.04,
        exponent: float = 4.0,
        cutoff: float = 2.0,
        variance: float = 1.0,
    ) -> None:
        grid = tuple(int(n) for n in grid)
        if not grid or min(grid) < 2:
            raise ValueError(f"grid must have at least 2 points along every axis, got {grid}.")
        if len(velocity) > len(grid):
            raise ValueError(f"velocity has {len(velocity)} components, the grid {len(grid)} axes.")
        if diffusivity < 0 or not drag > 0 or not variance > 0:
            raise ValueError(
                "expected diffusivity >= 0, drag > 0 (the mean must forget) and variance > 0, got "
                f"{diffusivity}, {drag} and {variance}."
            )
        self.grid, self.dims = grid, tuple(range(-len(grid), 0))
        self.velocity = tuple(float(v) for v in velocity) + (0.0,) * (len(grid) - len(velocity))
        self.diffusivity, self.drag, self.variance = float(diffusivity), float(drag), float(variance)
        self.stationary = Stationary.power_law(grid, exponent, cutoff, variance)
        turn, rate = torch.zeros(()), torch.full((), self.drag, dtype=torch.float64)
        for axis, (n, c) in enumerate(zip(grid, self.velocity, strict=True)):
            last = axis == len(grid) - 1
            m = torch.fft.rfftfreq(n, 1 / n, dtype=torch.float64) if last else torch.fft.fftfreq(n, 1 / n).double()
            m = m.reshape(*(-1 if a == axis else 1 for a in range(len(grid))))
            rate = rate + self.diffusivity * (2 * math.pi * m).square()
            turn = turn + torch.where(2 * m.abs() == n, 0.0, 2 * math.pi * c * m)
        self.rate, self.turn = rate, turn
        """:math:`\\gamma_k` and :math:`c \\cdot k`, per step, over the half series."""

    def _transfer(self, lead: float, like: Tensor) -> Tensor:
        wide = torch.exp(-lead * torch.complex(self.rate, self.turn))
        return wide.to(device=like.device, dtype=like.dtype.to_complex())

    def mean(self, x: Tensor, lead: float = 1) -> Tensor:
        r"""Expected field ``lead`` steps after ``x`` (..., \*grid)."""
        series = torch.fft.rfftn(x, dim=self.dims) * self._transfer(lead, x)
        return torch.fft.irfftn(series, s=self.grid, dim=self.dims)

    def covariance(self, lead: float = 1) -> Stationary:
        """Of the field ``lead`` steps ahead, given the field now; the stationary covariance for an infinite lead."""
        n = self.grid[-1]
        half = torch.exp(-2 * lead * self.rate).expand(*self.grid[:-1], n // 2 + 1)
        rest = half[..., 1 : n - n // 2].flip(-1)  # |a|^2 is even along every axis
        return Stationary(self.stationary.eigenvalues * (1 - torch.cat([half, rest], -1)))

    def std(self, lead: float = 1) -> float:
        """:math:`s_j`, of every point of the field ``lead`` steps ahead, given the field now."""
        return math.sqrt(float(self.covariance(lead).eigenvalues.mean()))

    def expected_crps(self, lead: float = 1) -> float:
        r""":math:`s_j / \sqrt\pi`: the expected CRPS of the exact law, which no forecast undercuts on average."""
        return self.std(lead) / math.sqrt(math.pi)

    def crps(self, state: Tensor, truth: Tensor, lead: float = 1) -> Tensor:
        r"""CRPS of the exact law at every point of ``truth`` (..., \*grid), the field ``lead`` steps after ``state``.

        .. math:: s \left[ z (2 \Phi(z) - 1) + 2 \varphi(z) - \tfrac{1}{\sqrt\pi} \right], \quad z = (x^* - m) / s
        """
        s = self.std(lead)
        z = (truth - self.mean(state, lead)) / s
        density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
        return s * (z * torch.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi))

    def trajectories(self, source: Generator | Streams, n: int, steps: int, start: Tensor | None = None) -> Tensor:
        r"""Exact draws (n, steps + 1, \*grid), float64; stationary unless ``start`` (n, \*grid) is given.

        Arguments:
            source: A generator, or one stream per trajectory.
            n: Number of trajectories.
            steps: States after the first.
            start: First states.
        """
        noise = self.covariance(1)
        x = self.stationary.sample(source, n) if start is None else start.double()
        found = [x]
        for _ in range(steps):
            x = self.mean(x) + noise.sample(source, n)
            found.append(x)
        return torch.stack(found, 1)
