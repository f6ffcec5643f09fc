r"""Gaussian random fields in a box: laws that are powers of the Laplacian, with three kinds of walls.

.. math:: x \sim N\big(0,\; (-\Delta + \tau^2)^{-\alpha}\big), \qquad
          \lambda_k = (|\kappa_k|^2 + \tau^2)^{-\alpha}

==============  =============================================  ==============================
``walls``       eigenvectors per axis of length L              :math:`\kappa`
==============  =============================================  ==============================
``"periodic"``  Fourier modes, `Stationary`                    :math:`2 \pi k / L`, signed k
``"slope"``     cosines, zero slope at the walls, `Cosine`     :math:`\pi k / L, k \ge 0`
``"zero"``      sines, zero on the walls, `Sine`               :math:`\pi k / L, k \ge 1`
==============  =============================================  ==============================

In d dimensions this is Matern's covariance of smoothness :math:`\nu = \alpha - d/2` and correlation length
:math:`\ell = \sqrt{2 \nu} / \tau`, exactly on the whole plane and changed within about :math:`\ell` of a wall.
Wavenumbers are those of the continuous Laplacian: finer grids show the same field at more points.

References:
    An explicit link between Gaussian fields and Gaussian Markov random fields: the stochastic partial differential
    equation approach, Lindgren, Rue and Lindstrom, 2011, doi:10.1111/j.1467-9868.2011.00777.x.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch

from scidiff.linalg.cosine import Cosine
from scidiff.linalg.covariance import Spectral
from scidiff.linalg.sine import Sine
from scidiff.linalg.stationary import Stationary

__all__ = ["Walls", "laplacian_power", "matern"]

Walls = Literal["periodic", "slope", "zero"]


def laplacian_power(
    grid: Sequence[int],
    alpha: float = 2.0,
    tau: float = 3.0,
    walls: Walls = "slope",
    *,
    variance: float | None = None,
    lengths: Sequence[float] | None = None,
    channels: int | None = None,
    constant: bool = True,
) -> Spectral:
    r"""The covariance :math:`(-\Delta + \tau^2)^{-\alpha}` of fields at the centres of the cells of a box.

    Arguments:
        grid: Cells along each side.
        alpha: Smoothness :math:`\alpha`; draws are functions for :math:`\alpha > d/2`.
        tau: Inverse correlation length :math:`\tau`, in units of the inverse of ``lengths``.
        walls: See the module's table.
        variance: Variance of an entry, mean over the box, to which :math:`\lambda` is scaled. None keeps the law as it
            stands, with eigenfunctions that are orthonormal in the box: then covariances on two grids agree point by
            point.
        lengths: Sides of the box; 1 by default.
        channels: Number of independent channels; None for fields without a channel dimension.
        constant: Whether the mean over the box varies; False removes the constant mode (of walls that have one).

    Raises:
        ValueError: a parameter that is not positive, unknown walls, as many lengths as sides expected.
    """
    grid = tuple(int(n) for n in grid)
    lengths = tuple(1.0 for _ in grid) if lengths is None else tuple(float(length) for length in lengths)
    if len(lengths) != len(grid) or not min(*lengths, 1.0) > 0:
        raise ValueError(f"lengths must be {len(grid)} positive numbers, got {lengths}.")
    if not (alpha > 0 and tau >= 0 and (variance is None or variance > 0)):
        raise ValueError(f"alpha and variance must be positive, tau not negative; got {alpha}, {variance} and {tau}.")
    if walls not in ("periodic", "slope", "zero"):
        raise ValueError(f"walls must be 'periodic', 'slope' or 'zero', got {walls!r}.")
    if tau == 0 and constant and walls != "zero":
        raise ValueError("with tau = 0 the constant mode has no finite variance; take tau > 0 or constant=False.")
    axes = []
    for n, length in zip(grid, lengths, strict=True):
        if walls == "periodic":
            axes.append(2 * math.pi / length * torch.fft.fftfreq(n, 1 / n, dtype=torch.float64))
        else:
            axes.append(math.pi / length * (torch.arange(n, dtype=torch.float64) + (walls == "zero")))
    square = torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(0) + tau**2
    free = torch.zeros_like(square, dtype=torch.bool)
    if not constant and walls != "zero":
        free.view(-1)[0] = True
    spectrum = torch.where(free, 0.0, torch.where(free, 1.0, square) ** -alpha)
    # An eigenfunction of norm one in the box is, at N cell centres, a vector of norm sqrt(N / volume).
    scale = len(spectrum.view(-1)) / math.prod(lengths) if variance is None else variance / float(spectrum.mean())
    shape = None if channels is None else (channels, *grid)
    kind = {"periodic": Stationary, "slope": Cosine, "zero": Sine}[walls]
    return kind(spectrum * scale, shape, len(grid))


def matern(
    grid: Sequence[int],
    smoothness: float,
    length: float,
    walls: Walls = "periodic",
    *,
    variance: float | None = 1.0,
    lengths: Sequence[float] | None = None,
    channels: int | None = None,
    constant: bool = True,
) -> Spectral:
    r"""Matern's covariance of smoothness :math:`\nu` and correlation length :math:`\ell` in a box.

    On the plane :math:`k(r) = \frac{2^{1-\nu}}{\Gamma(\nu)} (\sqrt{2\nu}\, r/\ell)^\nu K_\nu(\sqrt{2\nu}\, r/\ell)`;
    :math:`\nu = 1/2` is :math:`e^{-r/\ell}`. Walls reflect, mirror with opposite sign or wrap what reaches them.

    Arguments:
        grid: Cells along each side.
        smoothness: :math:`\nu`.
        length: :math:`\ell`, in units of ``lengths``.
        walls, variance, lengths, channels, constant: See `laplacian_power`.
    """
    if not (smoothness > 0 and length > 0):
        raise ValueError(f"smoothness and length must be positive, got {smoothness} and {length}.")
    alpha, tau = smoothness + len(tuple(grid)) / 2, math.sqrt(2 * smoothness) / length
    return laplacian_power(
        grid, alpha, tau, walls, variance=variance, lengths=lengths, channels=channels, constant=constant
    )
