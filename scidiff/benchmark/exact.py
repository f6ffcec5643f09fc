r"""Posteriors known in closed form, small enough to measure every sampler in seconds.

Each problem is a `Posterior` beside its exact answer, a law with ``mean``, ``variance``, ``sample``, ``encode`` and
``marginal_cdf``. The observation is simulated with the very operator that the samplers get: here the answer has to be
exact, so nothing may differ between the world and the model.

More of them: `scidiff.benchmark.elliptic`, `scidiff.benchmark.nonlinear`; all by name: `scidiff.benchmark.catalogue`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from scidiff.inference import Likelihood, Posterior
from scidiff.linalg import Stationary
from scidiff.noise import GaussianNoise
from scidiff.operators.convolution import Convolution
from scidiff.operators.linear_map import LinearMap
from scidiff.operators.mask import Mask
from scidiff.priors import GaussianMixturePrior, GaussianPrior, LatentPrior, LinearAutoencoder
from scidiff.protocols import Operator

__all__ = [
    "ExactProblem", "blur", "blurred_sensors", "exponential", "hartley", "inpainting", "linear_latent", "modes",
]  # fmt: skip

F64 = torch.float64


@dataclass(frozen=True)
class ExactProblem:
    """A posterior and its closed form.

    Arguments:
        name: Name in tables.
        posterior: The problem, one observation.
        exact: Its posterior: `GaussianPrior`, `GaussianMixturePrior` or another law with the same methods.
        truth: The field behind the observation, (1, ``*X``).
        readout: What of a field is asked for, (M, ``*X``) -> (M, ``*Z``); None asks for the field itself.
        distance: Which distance between laws is measured beside mean, variance and coverage: ``"modes"`` for
            Wasserstein 2 of the Fourier modes, ``"sliced"`` for sliced Wasserstein 1, ``"relative"`` for the relative
            L2 error of the mean; empty for none. See `scidiff.benchmark.scores`.
    """

    name: str
    posterior: Posterior
    exact: Any
    truth: Tensor | None = None
    readout: Callable[[Tensor], Tensor] | None = None
    distance: str = ""


def exponential(size: int = 8, length: float = 2.0, width: int | None = None) -> Tensor:
    r"""Covariance :math:`e^{-d/\ell}` of the pixels of a grid, square without ``width``; unit variance, (d, d)."""
    points = torch.cartesian_prod(torch.arange(size, dtype=F64), torch.arange(width or size, dtype=F64))
    return torch.exp(-torch.cdist(points, points) / length)


def measured(
    name: str,
    prior: GaussianPrior | GaussianMixturePrior | LatentPrior,
    operator: Operator,
    std: float,
    seed: int,
    **more: Any,
) -> ExactProblem:
    """A problem whose truth and noise are drawn with ``seed``."""
    generator, noise = Generator().manual_seed(seed), GaussianNoise(std)
    truth = prior.sample(1, generator)
    y = noise.sample(operator(truth), generator)
    exact = prior.condition(operator, noise, y)
    return ExactProblem(name, Posterior(prior, Likelihood(operator, noise, y)), exact, truth, **more)


def inpainting(seed: int = 0, loc: float = 0.0, scale: float = 1.0, dtype: torch.dtype = torch.float32) -> ExactProblem:
    """A Gaussian field of 8x8 pixels, half of them seen with noise of a third of the field's standard deviation."""
    prior = GaussianPrior(torch.full((1, 8, 8), loc, dtype=dtype), scale**2 * exponential())
    mask = torch.randperm(64, generator=Generator().manual_seed(seed + 1000)).reshape(8, 8) < 32
    return measured("inpainting", prior, Mask(mask), scale / 3, seed)


def blurred_sensors(
    seed: int = 0, loc: float = 0.0, scale: float = 1.0, dtype: torch.dtype = torch.float32
) -> ExactProblem:
    """The same field seen by 24 sensors with a Gaussian footprint of 1 pixel, noise a tenth of the standard deviation.

    Footprints overlap: singular values range over three decades and the smallest are below the noise.
    """
    prior = GaussianPrior(torch.full((1, 8, 8), loc, dtype=dtype), scale**2 * exponential())
    axis = torch.arange(8, dtype=F64)
    points = torch.cartesian_prod(axis, axis)
    places = 7 * torch.rand(24, 2, generator=Generator().manual_seed(seed + 2000), dtype=F64)
    footprint = torch.exp(-torch.cdist(places, points).square() / 2)
    return measured(
        "blurred sensors", prior, LinearMap(footprint / footprint.sum(1, keepdim=True), (1, 8, 8)), scale / 10, seed
    )


def modes(measurements: int = 4, seed: int = 0, dimension: int = 8, scale: float = 1.0) -> ExactProblem:
    r"""25 unit Gaussians at :math:`8\,(i, j, i, j, \dots)`, :math:`i, j \in \{-2..2\}`, seen by a random operator.

    Weights are normalised squares of normal numbers; the operator has random orthogonal factors and singular values
    uniform in [0, 1]; the noise is uniform in [0, 1] times the largest of them.

    References:
        Monte Carlo guided Diffusion for Bayesian linear inverse problems (Cardoso et al., 2024), arXiv:2308.07983,
        section 4.
    """
    g = Generator().manual_seed(seed)
    step = 8.0 * torch.arange(-2, 3, dtype=F64)
    means = torch.cartesian_prod(step, step).repeat(1, dimension // 2)
    weights = torch.randn(25, generator=g, dtype=F64).square()
    prior = GaussianMixturePrior(weights, (scale * means).float(), scale**2 * torch.eye(dimension, dtype=F64))
    U = torch.linalg.qr(torch.randn(measurements, measurements, generator=g, dtype=F64)).Q
    V = torch.linalg.qr(torch.randn(dimension, measurements, generator=g, dtype=F64)).Q
    s = torch.rand(measurements, generator=g, dtype=F64)
    std = float(torch.rand((), generator=g, dtype=F64) * s.max())
    return measured(
        f"25 modes, {measurements} seen",
        prior,
        LinearMap(U * s @ V.mT, (dimension,)),
        std * scale,
        seed + 3000,
        distance="sliced",
    )


def linear_latent(
    seed: int = 0,
    shape: tuple[int, int] = (12, 16),
    components: int = 32,
    sensors: int = 24,
    loc: float = 0.0,
    scale: float = 1.0,
) -> ExactProblem:
    """Fields of 12x16 pixels with a code of 32 numbers, seen by 24 overlapping footprints, noise a tenth.

    The code holds the leading principal components of a field with covariance exp(-d / 4), unscaled: its variances
    range over two decades. Fields, and so their posterior, lie in a space of 32 dimensions.
    """
    values, vectors = torch.linalg.eigh(exponential(shape[0], 4.0, shape[1]))
    columns = vectors[:, -components:].mT.flip(0).reshape(components, 1, *shape)
    variance = scale**2 * values[-components:].flip(0)
    autoencoder = LinearAutoencoder(torch.full((1, *shape), loc), columns.float(), variance.float())
    prior = LatentPrior(autoencoder, autoencoder.code_prior())
    points = torch.cartesian_prod(*(torch.arange(n, dtype=F64) for n in shape))
    draw = torch.rand(sensors, 2, generator=Generator().manual_seed(seed + 4000), dtype=F64)
    places = draw * (torch.tensor(shape, dtype=F64) - 1)
    footprint = torch.exp(-torch.cdist(places, points).square() / 2)
    operator = LinearMap(footprint / footprint.sum(1, keepdim=True), (1, *shape))
    return measured("linear latent", prior, operator, scale / 10, seed)


def hartley(x: Tensor) -> Tensor:
    r"""Orthonormal Hartley transform of the last two dimensions, :math:`\mathrm{Re} F x - \mathrm{Im} F x`.

    Real, symmetric, its own inverse; it diagonalises circulant maps with an even kernel, as the Fourier transform does.
    """
    c = torch.fft.fft2(x, norm="ortho")
    return c.real - c.imag


def blur(seed: int = 0, size: int = 64, width: float = 2.0, std: float = 0.05) -> ExactProblem:
    r"""A periodic random field of 64x64 pixels seen through a blur of 2 pixels, noise 0.05.

    Spectrum :math:`\propto (3^2 + |k|^2)^{-2}` with k in cycles per side, unit variance per pixel. Operator and
    covariance share their modes, so the posterior has independent modes with
    :math:`v_k = \lambda_k s^2 / (h_k^2 \lambda_k + s^2)` and :math:`m_k = v_k h_k y_k / s^2`.
    """
    prior = GaussianPrior(torch.zeros(1, size, size), Stationary.power_law((size, size), channels=1))
    offsets = torch.arange(-(size // 2), (size + 1) // 2, dtype=F64)
    footprint = torch.exp(-(offsets / width).square() / 2)
    footprint /= footprint.sum()
    operator, noise = Convolution(torch.outer(footprint, footprint), (size, size)), GaussianNoise(std)
    generator = Generator().manual_seed(seed)
    truth = prior.sample(1, generator)
    y = noise.sample(operator(truth), generator)
    lam, h = prior.cov.eigenvalues, operator.spectrum.real  # type: ignore[attr-defined]
    v = lam * std**2 / (h.square() * lam + std**2)
    mean = hartley(v * h / std**2 * hartley(y[0].to(F64)))
    exact = GaussianPrior(mean.float(), Stationary(v, (1, size, size), 2))
    posterior = Posterior(prior, Likelihood(operator, noise, y))
    return ExactProblem("blur", posterior, exact, truth, distance="modes")
