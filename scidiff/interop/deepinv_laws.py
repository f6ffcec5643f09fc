r"""Laws of noise that deepinv draws from and scidiff has no class for: density, draws, and mean and variance if finite.

Every law is of measurements ``y`` given noiseless ones ``z``, both (B, \*Y), independent between entries unless it says
otherwise. ``log_prob`` is differentiable in ``z`` where the density is.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Generator, Tensor

from scidiff.rng import explicit

__all__ = [
    "FisherTippettNoise",
    "GammaNoise",
    "LaplaceNoise",
    "LogPoissonNoise",
    "PoissonGaussianNoise",
    "RicianNoise",
    "UniformGaussianNoise",
    "UniformNoise",
]


def _positive(name: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value}.")
    return float(value)


def _draws(generator: Generator | None, z: Tensor, uniform: bool = False) -> Tensor:
    g = explicit(generator)
    make = torch.rand if uniform else torch.randn
    return make(z.shape, generator=g, dtype=z.dtype, device=g.device).to(z.device)


def _counts(rate: Tensor, generator: Generator | None) -> Tensor:
    if bool((rate < 0).any()):
        raise ValueError("counts need noiseless values that are not negative; make the operator's output positive.")
    g = explicit(generator)
    return torch.poisson(rate.to(g.device), generator=g).to(rate.device)


class _Independent(ABC):
    """A law of independent entries."""

    @abstractmethod
    def entries(self, y: Tensor, z: Tensor) -> Tensor:
        """Log density of every entry."""

    def log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        """Log density of ``y`` given ``z``: (B,)."""
        return self.entries(y, z).flatten(1).sum(-1)

    def score(self, y: Tensor, z: Tensor) -> Tensor:
        r"""Gradient of ``log_prob`` with respect to ``z``, (B, \*Y)."""
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            return torch.autograd.grad(self.log_prob(y, leaf).sum(), leaf)[0]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v}' for k, v in vars(self).items())})"


class PoissonGaussianNoise(_Independent):
    r"""Counts with electronic noise, :math:`y = g k + s\epsilon`, :math:`k \sim \mathrm{Poisson}(z / g)`.

    The density is the sum over the counts that matter: those within 10 standard deviations of ``y / g``.

    Arguments:
        gain: :math:`g`.
        std: :math:`s`.
    """

    def __init__(self, gain: float, std: float) -> None:
        self.gain, self.std = _positive("gain", gain), _positive("std", std)

    def sample(self, z: Tensor, generator: Generator | None = None) -> Tensor:
        g = explicit(generator)
        return self.gain * _counts(z / self.gain, g) + self.std * _draws(g, z)

    def entries(self, y: Tensor, z: Tensor) -> Tensor:
        reach = math.ceil(10 * self.std / self.gain) + 1
        k = (y / self.gain).round()[..., None] + torch.arange(-reach, reach + 1, dtype=y.dtype, device=y.device)
        inside = (z > 0)[..., None]
        rate = torch.where(inside, z[..., None] / self.gain, 1.0)
        counted = torch.where(k < 0, -torch.inf, torch.xlogy(k, rate) - rate - torch.lgamma(k.clamp_min(0) + 1))
        at_zero = torch.where(k == 0, 0.0, -torch.inf)
        counted = torch.where(inside, counted, torch.where((z == 0)[..., None], at_zero, -torch.inf))
        gauss = -0.5 * ((y[..., None] - self.gain * k) / self.std).square()
        return torch.logsumexp(counted + gauss, -1) - math.log(self.std * math.sqrt(2 * math.pi))

    def variance(self, z: Tensor) -> Tensor:
        r"""Variance of ``y``, :math:`g z + s^2`, (B, \*Y)."""
        return self.gain * z + self.std**2


class LogPoissonNoise(_Independent):
    r"""Line integrals from counts, :math:`y = -\log(k / N_0)/\mu`, :math:`k \sim \mathrm{Poisson}(N_0 e^{-\mu z})`.

    ``log_prob`` is that of the counts. A ray of which no photon arrives is infinite; leave it out of the data.

    Arguments:
        photons: :math:`N_0`.
        mu: :math:`\mu`.
    """

    def __init__(self, photons: float, mu: float) -> None:
        self.photons, self.mu = _positive("photons", photons), _positive("mu", mu)

    def sample(self, z: Tensor, generator: Generator | None = None) -> Tensor:
        return -(_counts(self.photons * (-self.mu * z).exp(), generator) / self.photons).log() / self.mu

    def entries(self, y: Tensor, z: Tensor) -> Tensor:
        k = self.photons * (-self.mu * y).exp()
        return k * (math.log(self.photons) - self.mu * z) - self.photons * (-self.mu * z).exp() - torch.lgamma(k + 1)


class GammaNoise(_Independent):
    r"""Speckle, :math:`y \sim \mathrm{Gamma}(\ell, z/\ell)`: mean ``z``, variance :math:`z^2/\ell`.

    Arguments:
        looks: Shape :math:`\ell`.
    """

    def __init__(self, looks: float) -> None:
        self.looks = _positive("looks", looks)

    def sample(self, z: Tensor, generator: Generator | None = None) -> Tensor:
        g = explicit(generator)
        shape = torch.full_like(z, self.looks, device=g.device)
        return torch._standard_gamma(shape, generator=g).to(z.device) * z / self.looks

    def entries(self, y: Tensor, z: Tensor) -> Tensor:
        a = self.looks
        return a * (math.log(a) - z.log()) + (a - 1) * y.log() - a * y / z - math.lgamma(a)

    def variance(self, z: Tensor) -> Tensor:
        r"""Variance of ``y``, (B, \*Y)."""
        return z.square() / self.looks


class FisherTippettNoise(_Independent):
    r"""Logarithm of speckle: :math:`e^y \sim \mathrm{Gamma}(\ell, e^z/\ell)`.

    Arguments:
        looks: Shape :math:`\ell`.
    """

    def __init__(self, looks: float) -> None:
        self.looks = _positive("looks", looks)

    def sample(self, z: Tensor, generator: Generator | None = None) -> Tensor:
        return GammaNoise(self.looks).sample(z.exp(), generator).log()

    def entries(self, y: Tensor, z: Tensor) -> Tensor:
        a = self.looks
        return a * math.log(a) - math.lgamma(a) + a * (y - z) - a * (y - z).exp()


class RicianNoise(_Independent):
    r"""Modulus of a complex Gaussian, :math:`y = |z + s\epsilon|`, ``s`` per real component.

    Arguments:
        std: :math:`s`.
    """

    def __init__(self, std: float) -> None:
        self.std = _positive("std", std)

    def sample(self, z: Tensor, generator: Generator | None = None) -> Tensor:
        g = explicit(generator)
        return torch.hypot(z + self.std * _draws(g, z), self.std * _draws(g, z))

    def entries(self, y: Tensor, z: Tensor) -> Tensor:
        t = y * z / self.std**2
        bessel = torch.special.i0e(t).log() + t.abs()
        density = (y / self.std**2).log() - (y.square() + z.square()) / (2 * self.std**2) + bessel
        return torch.where(y > 0, density, -torch.inf)


class LaplaceNoise(_Independent):
    r"""Additive, density :math:`e^{-|y - z|/b}/2b`.

    Arguments:
        width: :math:`b`.
    """

    def __init__(self, width: float) -> None:
        self.width = _positive("width", width)

    def sample(self, z: Tensor, generator: Generator | None = None) -> Tensor:
        u = _draws(generator, z, uniform=True) - 0.5
        return z - self.width * u.sign() * torch.log1p(-2 * u.abs())

    def entries(self, y: Tensor, z: Tensor) -> Tensor:
        return -(y - z).abs() / self.width - math.log(2 * self.width)

    def variance(self, z: Tensor) -> Tensor:
        r"""Variance of ``y``, (B, \*Y)."""
        return torch.full_like(z, 2 * self.width**2)


class UniformNoise(_Independent):
    r"""Additive, uniform in :math:`[-a, a]`: every field within reach explains the data equally well.

    Arguments:
        width: :math:`a`.
    """

    def __init__(self, width: float) -> None:
        self.width = _positive("width", width)

    def sample(self, z: Tensor, generator: Generator | None = None) -> Tensor:
        return z + self.width * (2 * _draws(generator, z, uniform=True) - 1)

    def entries(self, y: Tensor, z: Tensor) -> Tensor:
        inside = (y - z).abs() <= self.width * (1 + 1e-6)
        return torch.where(inside, 0 * z - math.log(2 * self.width), -torch.inf)


class UniformGaussianNoise:
    r"""Gaussian noise of unknown strength for each row, :math:`y = z + s\epsilon`, :math:`s \sim \mathcal{U}(a, b)`.

    With :math:`R = |y - z|^2` over the n numbers of a row the density is the integral over s of
    :math:`(2\pi s^2)^{-n/2}e^{-R/2s^2}/(b - a)`, by Gauss-Legendre quadrature over :math:`\log s`, in
    which the integrand is log-concave, where it is not negligible.

    Arguments:
        low: :math:`a`, positive or zero.
        high: :math:`b`.
    """

    def __init__(self, low: float, high: float) -> None:
        if not 0 <= low < high < math.inf:
            raise ValueError(f"expected 0 <= low < high, got {low} and {high}.")
        self.low, self.high = float(low), float(high)

    def __repr__(self) -> str:
        return f"UniformGaussianNoise({self.low}, {self.high})"

    def sample(self, z: Tensor, generator: Generator | None = None) -> Tensor:
        g = explicit(generator)
        u = torch.rand(len(z), *[1] * (z.ndim - 1), generator=g, dtype=z.dtype, device=g.device).to(z.device)
        return z + (self.low + (self.high - self.low) * u) * _draws(g, z)

    def _over_strengths(self, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log weights and log densities at strengths s, and s, each (B, k)."""
        n = math.prod(y.shape[1:])
        R = (y - z).flatten(1).square().sum(-1, keepdim=True).double()
        low, high = math.log(max(self.low, 1e-9 * self.high)), math.log(self.high)
        fixed = R.detach()
        peak = (0.5 * (fixed / max(n - 1, 1e-3)).log()).clamp(low, high)

        def height(t: Tensor, r: Tensor = fixed) -> Tensor:
            return -(n - 1) * t - 0.5 * r * (-2 * t).exp()

        def where_negligible(end: float) -> Tensor:
            near, far = peak, torch.full_like(peak, end)
            for _ in range(40):  # concave in t, so that bisection finds the point
                middle = (near + far) / 2
                inside = height(middle) > height(peak) - 40
                near, far = torch.where(inside, middle, near), torch.where(inside, far, middle)
            return far

        a, b = where_negligible(low), where_negligible(high)
        nodes, weights = _legendre(64, y.device)
        t = (a + b) / 2 + (b - a) / 2 * nodes
        density = height(t, R) - 0.5 * n * math.log(2 * math.pi)
        return (weights * (b - a) / 2 / (self.high - self.low)).log(), density, t.exp()

    def log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        """Log density of ``y`` given ``z``: (B,)."""
        weight, density, _ = self._over_strengths(y, z)
        return torch.logsumexp(weight + density, -1).to(y.dtype)

    def score(self, y: Tensor, z: Tensor) -> Tensor:
        r"""Gradient of ``log_prob`` with respect to ``z``: :math:`E[1/s^2 | y, z]\,(y - z)`, (B, \*Y)."""
        weight, density, s = self._over_strengths(y, z)
        precision = ((weight + density).softmax(-1) / s.square()).sum(-1)
        return precision.reshape(-1, *[1] * (y.ndim - 1)).to(y.dtype) * (y - z)


def _legendre(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Nodes and weights of Gauss-Legendre quadrature on [-1, 1] (eigenvalues of the Jacobi matrix)."""
    k = torch.arange(1, count, dtype=torch.float64)
    off = k / (4 * k.square() - 1).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return nodes.to(device), (2 * vectors[0].square()).to(device)
