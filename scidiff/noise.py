r"""Laws of a measurement ``y`` given the noiseless one ``z``, both (B, \*Y).

Gaussian noises offer ``whiten(r)``, which turns a residual ``r = y - z`` into one with unit variance per real
number. Whitening is linear; ``whiten_adjoint`` is its adjoint; both in turn apply the inverse covariance.
Complex measurements: every standard deviation is per real component, so that :math:`E|n|^2 = 2\,\mathrm{std}^2`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Generator, Tensor

from scidiff.linalg import Covariance, Dense
from scidiff.rng import explicit

__all__ = ["CoilNoise", "GaussianNoise", "PoissonNoise"]


def _randn_like(z: Tensor, generator: Generator | None) -> Tensor:
    """Normal numbers with unit variance per real component, drawn on the generator's device."""
    real = torch.view_as_real(z) if z.is_complex() else z
    device = generator.device if generator is not None else z.device
    e = torch.randn(real.shape, generator=explicit(generator), dtype=real.dtype, device=device).to(z.device)
    return torch.view_as_complex(e) if z.is_complex() else e


def _squared_norm(w: Tensor) -> Tensor:
    """Sum of squares of all real components of each row."""
    return (torch.view_as_real(w) if w.is_complex() else w).flatten(1).square().sum(-1)


def _numbers(y: Tensor) -> int:
    """Real numbers in one row."""
    return math.prod(y.shape[1:]) * (2 if y.is_complex() else 1)


class _Gaussian(ABC):
    """What Gaussian laws share: everything follows from the square root of the covariance."""

    @abstractmethod
    def whiten(self, r: Tensor) -> Tensor: ...

    @abstractmethod
    def whiten_adjoint(self, r: Tensor) -> Tensor: ...

    @abstractmethod
    def color(self, e: Tensor) -> Tensor: ...

    @abstractmethod
    def _logdet(self, y: Tensor) -> Tensor:
        """Log determinant of the covariance of all real numbers of a row, () or (B,)."""

    def sample(self, z: Tensor, generator: Generator | None = None) -> Tensor:
        r"""Draws ``y = z + n``, (B, \*Y)."""
        return z + self.color(_randn_like(z, generator))

    def log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        """Log density of ``y`` given ``z``: (B,)."""
        constant = _numbers(y) * math.log(2 * math.pi) + self._logdet(y)
        return -0.5 * (_squared_norm(self.whiten(y - z)) + constant)

    def score(self, y: Tensor, z: Tensor) -> Tensor:
        r"""Gradient of ``log_prob`` with respect to ``z``, :math:`\Sigma^{-1}(y - z)`, (B, \*Y)."""
        return self.whiten_adjoint(self.whiten(y - z))


class GaussianNoise(_Gaussian):
    r"""Additive Gaussian noise, :math:`y = z + n`, :math:`n \sim \mathcal{N}(0, \Sigma)`.

    Arguments:
        std: In the units of ``y``, per real component: one standard deviation; a tensor of them that broadcasts
            to (\*Y) (independent, unequal noise); or a `Covariance` :math:`\Sigma` of the flattened ``y``
            (correlated noise).

    Raises:
        ValueError: if a standard deviation is not positive and finite.
    """

    def __init__(self, std: float | Tensor | Covariance) -> None:
        if not isinstance(std, Covariance):
            values = torch.as_tensor(std)
            if values.is_complex():
                raise TypeError("std must be real: standard deviations of complex noise are per real component.")
            if not bool((values > 0).all()) or not bool(torch.isfinite(values).all()):
                raise ValueError(
                    f"std must be positive and finite, got a minimum of {float(values.min()):.3g}; "
                    "leave out entries without information with Mask instead."
                )
            std = std if isinstance(std, Tensor) else float(std)
        self.std = std

    def __repr__(self) -> str:
        std = f"tensor of shape {tuple(self.std.shape)}" if isinstance(self.std, Tensor) else self.std
        return f"GaussianNoise({std})"

    def _scale(self, r: Tensor) -> float | Tensor:
        return self.std.to(r.device, r.dtype.to_real()) if isinstance(self.std, Tensor) else self.std  # type: ignore[return-value]

    def whiten(self, r: Tensor) -> Tensor:
        r"""Residual (B, \*Y) with unit variance per real component."""
        return self.std.whiten(r) if isinstance(self.std, Covariance) else r / self._scale(r)

    def whiten_adjoint(self, r: Tensor) -> Tensor:
        """Adjoint of `whiten`."""
        return self.std.whiten_adjoint(r) if isinstance(self.std, Covariance) else r / self._scale(r)

    def color(self, e: Tensor) -> Tensor:
        """Inverse of `whiten`: gives white numbers the covariance of the noise."""
        return self.std.sqrt_matmul(e) if isinstance(self.std, Covariance) else e * self._scale(e)

    def _logdet(self, y: Tensor) -> Tensor:
        components = 2 if y.is_complex() else 1
        if isinstance(self.std, Covariance):
            return (components * self.std.logdet()).to(y.device, y.dtype.to_real())
        if isinstance(self.std, Tensor):
            logs = self._scale(y).log().expand(y.shape)  # type: ignore[union-attr]
            return 2 * components * logs.flatten(1).sum(-1)
        return torch.tensor(2 * math.log(self.std) * _numbers(y), device=y.device, dtype=y.dtype.to_real())


class CoilNoise(_Gaussian):
    r"""Noise correlated across receivers and white over everything else, :math:`n_k \sim \mathcal{CN}` per sample k.

    The covariance is per real component: :math:`E[n_k n_k^H] = 2\Sigma`, so that ``CoilNoise(std**2 * eye)`` is
    ``GaussianNoise(std)``. ``whiten`` multiplies by :math:`\Sigma^{-1/2}` (Hermitian root): prewhitening in MRI.

    Arguments:
        cov: :math:`\Sigma`, Hermitian (complex ``y``) or symmetric, (C, C).
        dim: Dimension of ``y`` (B, \*Y) that runs over receivers; 1 by default.

    Raises:
        ValueError: if the covariance is not Hermitian positive definite.
    """

    def __init__(self, cov: Tensor, dim: int = 1) -> None:
        self.cov = Dense(cov)
        if self.cov._singular():
            raise ValueError("the receiver covariance is singular: a receiver is silent or a combination of others.")
        if dim == 0:
            raise ValueError("dim=0 runs over independent measurements; receivers are in a later dimension.")
        self.dim = dim

    @classmethod
    def from_samples(cls, samples: Tensor, dim: int = 1) -> CoilNoise:
        r"""Estimates :math:`\Sigma = \frac{1}{2N}\sum_k n_k n_k^H` (factor 1/N for real ones) from noise alone.

        Arguments:
            samples: Noise without signal, zero mean, (N, C) with N > C.
            dim: Dimension of ``y`` that runs over receivers.
        """
        if samples.ndim != 2 or samples.shape[0] <= samples.shape[1]:
            raise ValueError(f"samples must be (N, C) with N > C, got {tuple(samples.shape)}.")
        wide = samples.to(torch.complex128 if samples.is_complex() else torch.float64)
        return cls(wide.mT @ wide.conj() / (len(wide) * (2 if samples.is_complex() else 1)), dim)

    def _along(self, name: str, r: Tensor) -> Tensor:
        rows = r.movedim(self.dim, -1)
        if rows.shape[-1] != self.cov.size:
            raise ValueError(f"dimension {self.dim} of {tuple(r.shape)} must run over {self.cov.size} receivers.")
        return getattr(self.cov, name)(rows.reshape(-1, self.cov.size)).reshape(rows.shape).movedim(-1, self.dim)

    def whiten(self, r: Tensor) -> Tensor:
        r"""Residual (B, \*Y) with unit variance per real component, uncorrelated across receivers."""
        return self._along("whiten", r)

    def whiten_adjoint(self, r: Tensor) -> Tensor:
        """Adjoint of `whiten`."""
        return self._along("whiten_adjoint", r)

    def color(self, e: Tensor) -> Tensor:
        """Inverse of `whiten`."""
        return self._along("sqrt_matmul", e)

    def _logdet(self, y: Tensor) -> Tensor:
        numbers = _numbers(y) // self.cov.size
        return (numbers * self.cov.logdet()).to(y.device, y.dtype.to_real())


class PoissonNoise:
    r"""Counting noise, :math:`y = g\,k`, :math:`k \sim \mathrm{Poisson}(z / g)`: mean ``z``, variance ``g z``.

    Arguments:
        gain: :math:`g > 0`, units of ``y`` per count; one number or a tensor that broadcasts to (\*Y).

    ``log_prob`` is the log probability of the counts; it continues smoothly to counts that are not whole numbers.
    """

    def __init__(self, gain: float | Tensor = 1.0) -> None:
        values = torch.as_tensor(gain)
        if not bool((values > 0).all()) or not bool(torch.isfinite(values).all()):
            raise ValueError(f"gain must be positive and finite, got {float(values.min()):.3g}.")
        self.gain = gain

    def __repr__(self) -> str:
        return f"PoissonNoise({self.gain})"

    def _gain(self, z: Tensor) -> float | Tensor:
        return self.gain.to(z.device, z.dtype) if isinstance(self.gain, Tensor) else self.gain

    def sample(self, z: Tensor, generator: Generator | None = None) -> Tensor:
        r"""Draws ``y`` given ``z >= 0``, (B, \*Y)."""
        if z.is_complex() or bool((z < 0).any()):
            raise ValueError("Poisson noise needs real noiseless values z >= 0; make the operator's output positive.")
        rate = z / self._gain(z)
        device = generator.device if generator is not None else z.device
        return torch.poisson(rate.to(device), generator=explicit(generator)).to(z.device) * self._gain(z)

    def log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        """Log probability of the counts ``y / gain``, (B,); minus infinity where ``z < 0`` or ``z = 0 < y``."""
        gain = self._gain(y)
        counts, rate = y / gain, z / gain
        inside = rate >= 0
        rate = torch.where(inside, rate, 1.0)
        log = torch.xlogy(counts, rate) - rate - torch.lgamma(counts + 1)
        return torch.where(inside, log, -torch.inf).flatten(1).sum(-1)

    def score(self, y: Tensor, z: Tensor) -> Tensor:
        r"""Gradient of ``log_prob`` with respect to ``z``, :math:`(y / z - 1) / g`, (B, \*Y)."""
        return torch.where(y == 0, -torch.ones_like(z), y / z - 1) / self._gain(z)

    def variance(self, z: Tensor) -> Tensor:
        r"""Variance of ``y``, :math:`g z`, (B, \*Y)."""
        return self._gain(z) * z
