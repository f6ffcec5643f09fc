r"""Classical deconvolution of photon counts, and what it takes to fit a stationary prior to a stack.

**Richardson and Lucy.** The likelihood of :math:`y \sim \mathrm{Poisson}(A x + b)` (in any units: the gain cancels)
grows with every step of

.. math:: x \leftarrow \frac{x}{A^T 1}\, A^T \frac{y}{A x + b} ,

which keeps :math:`x \ge 0`. Stopped early it is smooth; run long it fits the noise.

**Wiener.** For :math:`x \sim N(m, C)` and white Gaussian noise of variance :math:`s^2` the posterior mean

.. math:: m + C A^T (A C A^T + s^2)^{-1} (y - b - A m),

by conjugate gradients in the space of the data.

**Length.** The spectrum of homogeneous fields with the correlation length :math:`\ell` is here
:math:`\lambda(k) \propto (1 + (2 \pi \ell |k|)^2)^{-5/2}`, k in cycles per unit length. Periodogram values of the data
are then independent and exponential with mean :math:`v |h|^2 \lambda + s^2` (Whittle), and :math:`\ell` is that of
greatest likelihood on a grid of values (the variance found beside it is not used: what a blur hides it exaggerates).

References:
    Bayesian-based iterative method of image restoration. Richardson, 1972, J. Opt. Soc. Am. 62.
    An iterative technique for the rectification of observed distributions. Lucy, 1974, Astronomical Journal 79.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scidiff.linalg import Covariance, Stationary, cg
from scidiff.operators.widefield import WidefieldBlur, flux

__all__ = ["correlation_length", "richardson_lucy", "spectrum", "wiener"]


def richardson_lucy(
    operator: WidefieldBlur, y: Tensor, background: float = 0.0, iterations: int = 30, start: Tensor | None = None
) -> Tensor:
    r"""Fields (1, 1, \*grid) that are not negative.

    Arguments:
        operator: Blur with a kernel that is not negative.
        y: Stack (1, 1, \*shape) without the camera's offset, not negative.
        background: :math:`b`.
        iterations: Steps.
        start: Positive field to begin with; None takes a uniform one.

    Raises:
        ValueError: if the stack has negative values.
    """
    if bool((y < 0).any()):
        raise ValueError("Richardson-Lucy needs counts, got negative values; subtract less offset, or clip them.")
    seen = flux(operator, y.dtype).to(y.device)
    # Voxels that the stack hardly sees would rise without limit on rounding; they stay dark.
    inverse = torch.where(seen > 1e-6 * seen.max(), 1 / seen, 0)
    level = (y.mean() - background).clamp(min=1e-3 * float(y.mean())) / operator.kernel.sum().to(y)
    x = torch.ones_like(seen) * level if start is None else start
    tiny = torch.finfo(y.dtype).tiny
    for _ in range(iterations):
        z = (operator(x) + background).clamp(min=tiny)  # FFTs leave rounding below zero
        x = (x * inverse * operator.adjoint(y / z)).clamp(min=0)
    return x


def wiener(
    operator: WidefieldBlur,
    y: Tensor,
    mean: float,
    covariance: Covariance,
    std: float,
    background: float = 0.0,
    iterations: int = 150,
    tolerance: float = 1e-4,
) -> Tensor:
    r"""The posterior mean of a Gaussian field, (1, 1, \*grid); exact where the iteration has converged.

    Arguments:
        operator: Blur.
        y: Stack (1, 1, \*shape).
        mean: Of the field.
        covariance: Of the field, on (1, \*grid).
        std: Standard deviation of the noise.
        background: :math:`b`.
        iterations: Most iterations.
        tolerance: Relative residual to stop at.
    """
    m = torch.full((1, 1, *operator.grid), mean, dtype=y.dtype, device=y.device)

    def normal(w: Tensor) -> Tensor:
        return operator(covariance.matmul(operator.adjoint(w))) + std**2 * w

    solved, _ = cg(normal, y - background - operator(m), iterations=iterations, tolerance=tolerance)
    return m + covariance.matmul(operator.adjoint(solved))


def spectrum(grid: Sequence[int], voxel: Sequence[float], length: float, variance: float = 1.0) -> Stationary:
    r"""Covariance of homogeneous periodic fields (1, \*grid) with a correlation length, the same in all directions.

    Arguments:
        grid: Sides in voxels.
        voxel: Spacing along each axis.
        length: :math:`\ell` in the same unit.
        variance: Of every voxel.
    """
    values = _shape(grid, voxel, length)
    values = values * variance / values.mean()
    return Stationary(values, (1, *grid), len(values.shape))


def _shape(grid: Sequence[int], voxel: Sequence[float], length: float) -> Tensor:
    axes = [torch.fft.fftfreq(n, d, dtype=torch.float64) for n, d in zip(grid, voxel, strict=True)]
    square = torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(0)
    return (1 + (2 * math.pi * length) ** 2 * square) ** -2.5


def correlation_length(y: Tensor, kernel: Tensor, voxel: Sequence[float], noise: float) -> float:
    """Correlation length (unit of ``voxel``) of the field behind a stack, by Whittle's likelihood.

    Arguments:
        y: Stack (*shape).
        kernel: Point-spread function, sides at most those of the stack (it is cropped).
        voxel: Spacing along each axis.
        noise: Variance of the noise per voxel.
    """
    y = y.double()
    window = torch.ones((), dtype=torch.float64)
    for n in y.shape:  # so that opposite faces, which do not match, are not seen as an edge
        window = window[..., None] * torch.hann_window(n, periodic=False, dtype=torch.float64)
    window = window / window.square().mean().sqrt()
    power = torch.fft.fftn((y - y.mean()) * window).abs().square() / y.numel()
    k = torch.zeros_like(y)
    sides = [min(a, b) for a, b in zip(kernel.shape, y.shape, strict=True)]
    at = [(a - b + 1) // 2 if a > b else 0 for a, b in zip(kernel.shape, sides, strict=True)]
    k[tuple(slice(n) for n in sides)] = kernel.double()[tuple(slice(a, a + n) for a, n in zip(at, sides, strict=True))]
    transfer = torch.fft.fftn(k).abs().square()
    keep = torch.ones_like(power, dtype=torch.bool)
    keep[(0,) * y.ndim] = False
    finest, longest = min(voxel) / 2, max(n * d for n, d in zip(y.shape, voxel, strict=True)) / 4
    best = (-math.inf, finest)
    for length in torch.logspace(math.log10(finest), math.log10(longest), 16).tolist():
        shape = _shape(y.shape, voxel, length)
        signal = (transfer * shape / shape.mean())[keep]
        p = power[keep]
        guess = float(((p - noise).clamp(min=0)).sum() / signal.sum())
        for variance in (guess * torch.logspace(-1.5, 1.5, 13)).tolist():
            expected = variance * signal + noise
            value = -float((expected.log() + p / expected).sum())
            best = max(best, (value, length))
    return best[1]
