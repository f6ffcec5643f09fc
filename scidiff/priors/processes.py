r"""Forward processes: how data turn into noise, with the clock and the scale of each.

.. math:: x_t = \alpha(t)\,w_0 + s(t)\,\epsilon, \qquad \sigma(t) = s(t) / \alpha(t) .

:math:`x_t / \alpha = w_0 + \sigma\epsilon` is the variance-exploding state of scidiff, so a process is no more than a
clock :math:`t(\sigma)` and a scale :math:`\alpha(\sigma)`. Clocks are written without cancellation at either end.

References:
    Score-based generative modeling through stochastic differential equations (Song et al., 2021), arXiv:2011.13456
    (VP, VE, sub-VP). Denoising diffusion probabilistic models (Ho, Jain and Abbeel, 2020), arXiv:2006.11239. Improved
    denoising diffusion probabilistic models (Nichol and Dhariwal, 2021), arXiv:2102.09672 (cosine). Elucidating the
    design space of diffusion-based generative models (Karras et al., 2022), arXiv:2206.00364. Flow straight and fast
    (Liu, Gong and Liu, 2023), arXiv:2209.03003. Stochastic interpolants (Albergo, Boffi and Vanden-Eijnden, 2023),
    arXiv:2303.08797.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["EDM", "VE", "Cosine", "Discrete", "Flow", "Process", "SubVP", "Trigonometric", "VPLinear"]


class Process(ABC):
    r"""A forward process :math:`x_t = \alpha(t) w_0 + s(t)\epsilon`, known by three functions of tensors (B,).

    Noise levels :math:`\sigma = s / \alpha` are those of the network's coordinates.
    """

    @property
    @abstractmethod
    def sigma_range(self) -> tuple[float, float]:
        """Smallest and largest noise level on which networks of this process are trained."""

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        r"""Factor of the data, :math:`\alpha(t)`."""

    @abstractmethod
    def std(self, t: Tensor) -> Tensor:
        r"""Factor of the noise, :math:`s(t)`."""

    @abstractmethod
    def time(self, sigma: Tensor) -> Tensor:
        r"""The time at which :math:`s / \alpha` equals ``sigma``."""

    def scaling(self, sigma: Tensor) -> Tensor:
        r""":math:`\alpha` as a function of the noise level."""
        return self.alpha(self.time(sigma))

    @abstractmethod
    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""The derivatives :math:`\dot\alpha(t)` and :math:`\dot s(t)`."""


def _range(low: float, high: float) -> tuple[float, float]:
    if not 0 < low < high:
        raise ValueError(f"noise levels must satisfy 0 < smallest < largest, got {low} and {high}.")
    return low, high


def _between(process: Process, start: float, end: float) -> tuple[float, float]:
    """Noise levels at two times."""
    t = torch.tensor([start, end], dtype=torch.float64)
    low, high = (process.std(t) / process.alpha(t)).tolist()
    return _range(low, high)


class _Preserving(Process):
    r""":math:`\alpha^2 + s^2 = 1`, hence :math:`\alpha = 1/\sqrt{1 + \sigma^2}` whatever the clock."""

    def scaling(self, sigma: Tensor) -> Tensor:
        return torch.rsqrt(1 + sigma.square())

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        rate = self.alpha_rate(t)
        return rate, -self.alpha(t) * rate / self.std(t)

    @abstractmethod
    def alpha_rate(self, t: Tensor) -> Tensor:
        r"""The derivative :math:`\dot\alpha(t)`."""


@dataclass(frozen=True)
class VPLinear(_Preserving):
    r"""Variance preserving at a linear rate: :math:`\alpha = e^{-B/2}, B = \beta_0 t + (\beta_1-\beta_0) t^2/2`.

    Arguments:
        beta_min: Rate :math:`\beta_0` at time 0.
        beta_max: Rate :math:`\beta_1` at time 1.
        start: Smallest time of training; Song et al., appendix C, stop there.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    start: float = 1e-5

    @property
    def sigma_range(self) -> tuple[float, float]:
        return _between(self, self.start, 1.0)

    def _integral(self, t: Tensor) -> Tensor:
        return self.beta_min * t + (self.beta_max - self.beta_min) * t.square() / 2

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-self._integral(t) / 2)

    def std(self, t: Tensor) -> Tensor:
        return (-torch.expm1(-self._integral(t))).sqrt()

    def alpha_rate(self, t: Tensor) -> Tensor:
        return -(self.beta_min + (self.beta_max - self.beta_min) * t) / 2 * self.alpha(t)

    def time(self, sigma: Tensor) -> Tensor:
        return self._clock(torch.log1p(sigma.square()))

    def _clock(self, integral: Tensor) -> Tensor:
        """Solves B(t) = integral without cancellation."""
        slope = self.beta_max - self.beta_min
        return 2 * integral / (self.beta_min + (self.beta_min**2 + 2 * slope * integral).sqrt())


@dataclass(frozen=True)
class SubVP(VPLinear):
    r"""Song's sub-VP process: the :math:`\alpha` of `VPLinear`, less noise, :math:`s = 1 - \alpha^2`.

    :math:`\sigma = (1 - \alpha^2)/\alpha` gives :math:`\alpha = 2 / (\sigma + \sqrt{\sigma^2 + 4})`.
    """

    def std(self, t: Tensor) -> Tensor:
        return -torch.expm1(-self._integral(t))

    def scaling(self, sigma: Tensor) -> Tensor:
        return 2 / (sigma + (sigma.square() + 4).sqrt())

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        rate = self.alpha_rate(t)
        return rate, -2 * self.alpha(t) * rate

    def time(self, sigma: Tensor) -> Tensor:
        return self._clock(2 * torch.asinh(sigma / 2))  # -2 ln alpha


@dataclass(frozen=True)
class Cosine(_Preserving):
    r"""Variance preserving: :math:`\alpha = \cos\varphi(t)/\cos\varphi(0)`, :math:`\varphi = \frac{t+o}{1+o}\frac\pi2`.

    Arguments:
        offset: The small ``o`` (Nichol and Dhariwal's s, equation 17).
        start: Smallest time of training.
        end: Largest time of training; at t = 1 no data are left and sigma is infinite.
    """

    offset: float = 0.008
    start: float = 1e-5
    end: float = 0.9946  # where DPM-Solver stops, arXiv:2206.00927, appendix D.4

    @property
    def sigma_range(self) -> tuple[float, float]:
        return _between(self, self.start, self.end)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.cos(self._angle(t)) / math.cos(self._first)

    def std(self, t: Tensor) -> Tensor:
        # cos(a)^2 - cos(b)^2 = sin(b - a) sin(b + a): no cancellation at small times
        angle = self._angle(t)
        moved = t / (1 + self.offset) * math.pi / 2
        return (torch.sin(moved) * torch.sin(angle + self._first)).sqrt() / math.cos(self._first)

    def alpha_rate(self, t: Tensor) -> Tensor:
        return -torch.sin(self._angle(t)) / math.cos(self._first) * math.pi / 2 / (1 + self.offset)

    def time(self, sigma: Tensor) -> Tensor:
        # tan(angle)^2 from cos(angle) = cos(first) / sqrt(1 + sigma^2)
        tangent = (sigma.square() + math.sin(self._first) ** 2).sqrt() / math.cos(self._first)
        return torch.atan(tangent) / (math.pi / 2) * (1 + self.offset) - self.offset

    @property
    def _first(self) -> float:
        return self.offset / (1 + self.offset) * math.pi / 2

    def _angle(self, t: Tensor) -> Tensor:
        return (t + self.offset) / (1 + self.offset) * math.pi / 2


@dataclass(frozen=True)
class VE(Process):
    r"""Variance exploding, :math:`\alpha = 1`, :math:`s = \sigma_{min}(\sigma_{max}/\sigma_{min})^t`.

    Arguments:
        sigma_min: Noise level at time 0.
        sigma_max: Noise level at time 1.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    @property
    def sigma_range(self) -> tuple[float, float]:
        return _range(self.sigma_min, self.sigma_max)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def std(self, t: Tensor) -> Tensor:
        return self.sigma_min * torch.exp(t * math.log(self.sigma_max / self.sigma_min))

    def time(self, sigma: Tensor) -> Tensor:
        return torch.log(sigma / self.sigma_min) / math.log(self.sigma_max / self.sigma_min)

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(t), self.std(t) * math.log(self.sigma_max / self.sigma_min)


@dataclass(frozen=True)
class EDM(Process):
    r"""Variance exploding with the noise level as time, :math:`\alpha = 1`, :math:`s = t`.

    Arguments:
        sigma_min: Smallest noise level of training.
        sigma_max: Largest noise level of training.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0

    @property
    def sigma_range(self) -> tuple[float, float]:
        return _range(self.sigma_min, self.sigma_max)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def std(self, t: Tensor) -> Tensor:
        return t

    def time(self, sigma: Tensor) -> Tensor:
        return sigma

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(t), torch.ones_like(t)


@dataclass(frozen=True)
class _Interpolant(Process):
    """Straight or circular way from data to noise.

    Arguments:
        data_at: Time at which the state is data, 0 or 1; noise is at the other end. Velocities change sign with it.
        start: Distance in time from the data within which nothing was trained.
        end: Distance in time from the data beyond which nothing was trained; noise is at distance 1.
    """

    data_at: int = 0
    start: float = 1e-3
    end: float = 0.999

    def __post_init__(self) -> None:
        if self.data_at not in (0, 1):
            raise ValueError(f"data_at must be 0 or 1, got {self.data_at}.")

    @property
    def sigma_range(self) -> tuple[float, float]:
        return _between(self, *((1 - self.start, 1 - self.end) if self.data_at else (self.start, self.end)))

    def _away(self, t: Tensor) -> Tensor:
        """Distance of a time from the data; its own inverse."""
        return 1 - t if self.data_at else t


class Flow(_Interpolant):
    r"""Rectified flow, the linear interpolant: :math:`\alpha = 1 - r`, :math:`s = r` at distance r from the data."""

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - self._away(t)

    def std(self, t: Tensor) -> Tensor:
        return self._away(t)

    def scaling(self, sigma: Tensor) -> Tensor:
        return 1 / (1 + sigma)

    def time(self, sigma: Tensor) -> Tensor:
        return 1 / (1 + sigma) if self.data_at else sigma / (1 + sigma)

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        one = torch.ones_like(t)
        return (one, -one) if self.data_at else (-one, one)


class Trigonometric(_Preserving, _Interpolant):
    r"""The circular interpolant: :math:`\alpha = \cos(\pi r/2)`, :math:`s = \sin(\pi r/2)`."""

    def alpha(self, t: Tensor) -> Tensor:
        return torch.cos(self._away(t) * math.pi / 2)

    def std(self, t: Tensor) -> Tensor:
        return torch.sin(self._away(t) * math.pi / 2)

    def alpha_rate(self, t: Tensor) -> Tensor:
        rate = -torch.sin(self._away(t) * math.pi / 2) * math.pi / 2
        return -rate if self.data_at else rate

    def time(self, sigma: Tensor) -> Tensor:
        return self._away(torch.atan(sigma) * 2 / math.pi)


class Discrete(_Preserving):
    r"""The process of DDPM: K variance-preserving levels, :math:`\bar\alpha_k = \prod_{j \le k}(1 - \beta_j)`.

    Time is the index k = 0 ... K-1 of the level, which networks expect as their label. Between two levels it is
    interpolated linearly in :math:`\ln\sigma`. Networks with sinusoidal features of time (all that are common) take
    such fractional labels; ``ConvertedPrior(..., label=torch.round)`` gives them whole ones, with an error of first
    order in the distance between levels. At the K levels both are exact.

    Arguments:
        beta: The rates :math:`\beta_k`, (K,), each in (0, 1).
    """

    def __init__(self, beta: Tensor) -> None:
        beta = torch.as_tensor(beta, dtype=torch.float64)
        if beta.ndim != 1 or len(beta) < 2 or not bool(((beta > 0) & (beta < 1)).all()):
            raise ValueError(
                "beta must hold two rates or more, each in (0, 1): levels must rise and the last keep some data."
            )
        self.beta = beta
        self.log_sigma = torch.expm1(-torch.log1p(-beta).cumsum(0)).log() / 2

    def __repr__(self) -> str:
        return f"Discrete(levels={len(self.beta)}, sigma={self.sigma_range[0]:.4g}...{self.sigma_range[1]:.4g})"

    @classmethod
    def linear(cls, steps: int = 1000, beta_min: float = 1e-4, beta_max: float = 0.02) -> Discrete:
        """DDPM's linear rates; defaults of Ho, Jain and Abbeel, 2020, arXiv:2006.11239, section 4."""
        return cls(torch.linspace(beta_min, beta_max, steps, dtype=torch.float64))

    @classmethod
    def cosine(cls, steps: int = 1000, offset: float = 0.008, beta_max: float = 0.999) -> Discrete:
        """Rates of the cosine process, cut at ``beta_max`` (Nichol and Dhariwal, section 3.2)."""
        angle = (torch.arange(steps + 1, dtype=torch.float64) / steps + offset) / (1 + offset) * math.pi / 2
        level = torch.cos(angle).square()
        return cls((1 - level[1:] / level[:-1]).clamp_max(beta_max))

    @property
    def sigma_range(self) -> tuple[float, float]:
        return math.exp(float(self.log_sigma[0])), math.exp(float(self.log_sigma[-1]))

    def alpha(self, t: Tensor) -> Tensor:
        return self.scaling(self._sigma(t))

    def std(self, t: Tensor) -> Tensor:
        sigma = self._sigma(t)
        return sigma * self.scaling(sigma)

    def alpha_rate(self, t: Tensor) -> Tensor:
        k, levels = self._below(t), self.log_sigma.to(t.device)
        sigma = self._sigma(t)
        return -sigma.square() * (levels[k + 1] - levels[k]) * self.scaling(sigma) ** 3

    def _below(self, t: Tensor) -> Tensor:
        return t.floor().long().clamp(0, len(self.beta) - 2)

    def _sigma(self, t: Tensor) -> Tensor:
        k, levels = self._below(t), self.log_sigma.to(t.device)
        return torch.exp(levels[k] + (t - k) * (levels[k + 1] - levels[k]))

    def time(self, sigma: Tensor) -> Tensor:
        levels, wanted = self.log_sigma.to(sigma.device), sigma.log().to(torch.float64)
        k = (torch.searchsorted(levels, wanted.contiguous(), right=True) - 1).clamp(0, len(levels) - 2)
        return k + (wanted - levels[k]) / (levels[k + 1] - levels[k])
