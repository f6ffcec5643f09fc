r"""Where noise levels are drawn while training: laws of :math:`\ln\sigma`.

A time variable :math:`t` uniform on an interval and a schedule :math:`\sigma(t)` are a law of :math:`\ln\sigma` too,
with density :math:`|dt / d\ln\sigma|`; so every choice of the literature is one of these classes:

=============  ==============================================  ===========================================
class          :math:`\sigma`                                  origin
=============  ==============================================  ===========================================
`LogNormal`    :math:`e^{m + s z}`                             EDM; logit-normal times of rectified flows
`LogUniform`   :math:`\sigma_0 (\sigma_1/\sigma_0)^t`          variance exploding, VDM's linear schedule
`Cosine`       :math:`\tan(\pi t / 2)`                         improved DDPM in continuous time
`LinearVP`     :math:`\sqrt{e^{\int\beta} - 1}`                VP-SDE, DDPM in continuous time
`Straight`     :math:`t / (1 - t)`                             rectified flow with uniform times
=============  ==============================================  ===========================================

References:
    Karras et al., Elucidating the design space of diffusion-based generative models, 2022, arXiv:2206.00364.
    Nichol & Dhariwal, Improved denoising diffusion probabilistic models, 2021, arXiv:2102.09672.
    Song et al., Score-based generative modeling through stochastic differential equations, 2021, arXiv:2011.13456.
    Esser et al., Scaling rectified flow transformers for high-resolution image synthesis, 2024, arXiv:2403.03206.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

__all__ = ["Cosine", "Levels", "LinearVP", "LogNormal", "LogUniform", "Straight", "log_normal", "logit_normal"]


class Levels(Protocol):
    """A law of noise levels."""

    def draw(self, generator: Generator) -> Tensor:
        """One noise level, a scalar."""
        ...

    def density(self, sigma: Tensor) -> Tensor:
        r"""Density of :math:`\ln\sigma` at each of the levels, same shape."""
        ...


def log_normal(z: Tensor, mean: float = -1.2, std: float = 1.2) -> Tensor:
    """Noise levels ``exp(mean + std z)`` from standard normal ``z`` (B,)."""
    return (mean + std * z).exp()


@dataclass(frozen=True)
class LogNormal:
    r""":math:`\ln\sigma \sim N(m, s^2)`, EDM table 1 with its constants for images."""

    mean: float = -1.2
    std: float = 1.2

    def draw(self, generator: Generator) -> Tensor:
        return log_normal(torch.randn((), generator=generator), self.mean, self.std)

    def density(self, sigma: Tensor) -> Tensor:
        z = (sigma.log() - self.mean) / self.std
        return (-0.5 * z.square()).exp() / (self.std * math.sqrt(2 * math.pi))


def logit_normal(mean: float = 0.0, std: float = 1.0, shift: float = 1.0) -> LogNormal:
    r"""Times :math:`t` of a rectified flow with :math:`\mathrm{logit}\,t \sim N(m, s^2)`, arXiv:2403.03206 section 3.1.

    There :math:`\sigma = t/(1-t)`, so :math:`\ln\sigma = \mathrm{logit}\,t` is normal. A ``shift`` of the times for
    larger grids (eq. 23) multiplies every level.
    """
    return LogNormal(mean + math.log(shift), std)


class _Times:
    """Uniform times on [first, last] and a schedule; subclasses give sigma(t) and dt / dln(sigma)."""

    first: float
    last: float

    def draw(self, generator: Generator) -> Tensor:
        t = torch.rand((), generator=generator, dtype=torch.float64)
        return self.level(self.first + (self.last - self.first) * t).float()

    def level(self, t: Tensor) -> Tensor:
        raise NotImplementedError

    def rate(self, sigma: Tensor) -> Tensor:
        raise NotImplementedError

    def density(self, sigma: Tensor) -> Tensor:
        return self.rate(sigma) / (self.last - self.first)


@dataclass(frozen=True)
class LogUniform(_Times):
    r""":math:`\ln\sigma` uniform between two levels."""

    low: float = 0.002
    high: float = 80.0
    first: float = 0.0
    last: float = 1.0

    def level(self, t: Tensor) -> Tensor:
        return self.low * (self.high / self.low) ** t

    def rate(self, sigma: Tensor) -> Tensor:
        return torch.full_like(sigma, 1 / math.log(self.high / self.low))


@dataclass(frozen=True)
class Cosine(_Times):
    r""":math:`\bar\alpha = \cos^2(\pi t/2)`, that is :math:`\sigma = \tan(\pi t/2)`."""

    first: float = 1e-3
    last: float = 0.99

    def level(self, t: Tensor) -> Tensor:
        return (math.pi / 2 * t).tan()

    def rate(self, sigma: Tensor) -> Tensor:
        return 2 / math.pi * sigma / (1 + sigma.square())


@dataclass(frozen=True)
class LinearVP(_Times):
    r""":math:`\beta = \beta_0 + (\beta_1 - \beta_0) t`, :math:`1 + \sigma^2 = e^{\int_0^t \beta}` (eq. 33)."""

    low: float = 0.1
    high: float = 20.0
    first: float = 1e-3
    last: float = 1.0

    def level(self, t: Tensor) -> Tensor:
        return (self.low * t + (self.high - self.low) / 2 * t.square()).expm1().sqrt()

    def rate(self, sigma: Tensor) -> Tensor:
        integral = sigma.square().log1p()
        beta = (self.low**2 + 2 * (self.high - self.low) * integral).sqrt()  # at the time with this integral
        return 2 * sigma.square() / (beta * (1 + sigma.square()))


@dataclass(frozen=True)
class Straight(_Times):
    r""":math:`u_t = (1 - t) u_0 + t\epsilon`, that is :math:`\sigma = t / (1 - t)`, with uniform :math:`t`."""

    first: float = 1e-3
    last: float = 0.99

    def level(self, t: Tensor) -> Tensor:
        return t / (1 - t)

    def rate(self, sigma: Tensor) -> Tensor:
        return sigma / (1 + sigma).square()
