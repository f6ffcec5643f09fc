r"""Decreasing sequences of noise levels :math:`\sigma_0 > \sigma_1 > \dots > \sigma_{n-1} > \sigma_n = 0`.

Noise levels are standard deviations of variance-exploding noise, :math:`u_\sigma = u + \sigma\epsilon`, for a state of
about unit variance. Every function takes the number of steps ``n`` first and returns ``n + 1`` values in float64; the
last is zero. A level of a variance-preserving process with :math:`\bar\alpha` is
:math:`\sigma = \sqrt{(1 - \bar\alpha) / \bar\alpha}`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["Schedule", "cosine", "describe", "karras", "log_linear", "uniform", "vp_linear"]

Schedule = Callable[[int], Tensor]
"""``schedule(n)``: n + 1 decreasing noise levels, the last zero. Use `functools.partial` to set other arguments."""


def _ramp(n: int, sigma_min: float, sigma_max: float) -> Tensor:
    """Numbers 0, 1/(n-1), ..., 1 after checking the range of noise levels."""
    if n < 1:
        raise ValueError(f"a schedule needs at least one step, got n={n}.")
    if not 0 < sigma_min < sigma_max < math.inf:
        raise ValueError(f"noise levels must satisfy 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}.")
    return torch.linspace(0, 1, n, dtype=torch.float64)


def _end(sigma: Tensor) -> Tensor:
    return torch.cat([sigma, sigma.new_zeros(1)])


def karras(n: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Tensor:
    r"""Levels evenly spaced in :math:`\sigma^{1/\rho}`.

    .. math::
        \sigma_i = \Big(\sigma_{max}^{1/\rho}
            + \tfrac{i}{n-1} \big(\sigma_{min}^{1/\rho} - \sigma_{max}^{1/\rho}\big)\Big)^\rho, \quad i = 0 \dots n-1

    Defaults and equation (5) of the reference.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), arXiv:2206.00364.
    """
    ramp = _ramp(n, sigma_min, sigma_max)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return _end((high + ramp * (low - high)) ** rho)


def cosine(n: int, sigma_min: float = 0.002, sigma_max: float = 80.0, s: float = 0.008) -> Tensor:
    r"""Levels evenly spaced in the time :math:`t` of the cosine process, between the two given levels.

    .. math::
        \bar\alpha(t) = \frac{f(t)}{f(0)}, \quad f(t) = \cos^2\Big(\frac{t + s}{1 + s}\,\frac{\pi}{2}\Big), \quad
        \sigma = \sqrt{(1 - \bar\alpha) / \bar\alpha}

    The published process ends at an infinite :math:`\sigma`; here it starts where :math:`\sigma = \sigma_{max}`.

    References:
        Improved Denoising Diffusion Probabilistic Models (Nichol and Dhariwal, 2021), arXiv:2102.09672.
    """
    ramp = _ramp(n, sigma_min, sigma_max)
    start = s / (1 + s) * math.pi / 2
    high, low = (math.acos(math.cos(start) / math.hypot(1, sigma)) for sigma in (sigma_max, sigma_min))
    angle = high + ramp * (low - high)
    return _end(((math.cos(start) / torch.cos(angle)) ** 2 - 1).sqrt())


def log_linear(n: int, sigma_min: float = 0.002, sigma_max: float = 80.0) -> Tensor:
    r"""A geometric sequence, :math:`\sigma_i = \sigma_{max} (\sigma_{min} / \sigma_{max})^{i/(n-1)}`.

    References:
        Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021),
        arXiv:2011.13456, the variance-exploding process.
    """
    return _end(sigma_max * (sigma_min / sigma_max) ** _ramp(n, sigma_min, sigma_max))


def uniform(n: int, sigma_min: float = 0.002, sigma_max: float = 80.0) -> Tensor:
    r"""An arithmetic sequence, :math:`\sigma_i = \sigma_{max} + \tfrac{i}{n-1}(\sigma_{min} - \sigma_{max})`."""
    return _end(sigma_max + _ramp(n, sigma_min, sigma_max) * (sigma_min - sigma_max))


def vp_linear(n: int = 1000, total: int = 1000, beta_min: float = 1e-4, beta_max: float = 0.02) -> Tensor:
    r"""The levels of DDPM with linear :math:`\beta_t`, or ``n`` of its ``total`` levels evenly spaced in time.

    .. math::
        \bar\alpha_t = \prod_{k \le t} (1 - \beta_k), \quad \beta_1 \dots \beta_T \text{ evenly spaced}, \quad
        \sigma_t = \sqrt{(1 - \bar\alpha_t) / \bar\alpha_t}

    With the published constants the levels run from 157.4 to 0.0100.

    References:
        Denoising Diffusion Probabilistic Models (Ho, Jain and Abbeel, 2020), arXiv:2006.11239, section 4.
    """
    if not 1 <= n <= total:
        raise ValueError(f"n must lie between 1 and total={total}, got {n}.")
    if not 0 < beta_min <= beta_max < 1:
        raise ValueError(f"beta must satisfy 0 < beta_min <= beta_max < 1, got {beta_min} and {beta_max}.")
    beta = torch.linspace(beta_min, beta_max, total, dtype=torch.float64)
    log_alpha = torch.log1p(-beta).cumsum(0)
    keep = torch.linspace(total - 1, 0, n, dtype=torch.float64).round().long()
    return _end(torch.expm1(-log_alpha[keep]).sqrt())


def describe(method: Any) -> str:
    """A dataclass as ``Name(field=value, ...)`` with schedules by name, equal from one run of Python to the next."""

    def text(value: Any) -> str:
        if isinstance(value, functools.partial):
            inside = [text(value.func), *map(repr, value.args), *(f"{k}={v!r}" for k, v in value.keywords.items())]
            return f"partial({', '.join(inside)})"
        return getattr(value, "__name__", None) or repr(value)

    fields = (f"{f.name}={text(getattr(method, f.name))}" for f in dataclasses.fields(method))
    return f"{type(method).__name__}({', '.join(fields)})"
