r"""Denoising losses: one squared error, weighted by noise level.

.. math:: L = E_{\sigma, \epsilon}\; w(\sigma)\, \| D(u + \sigma\epsilon, \sigma) - u \|^2 / n

With :math:`x = \alpha(u + \sigma\epsilon)` every parametrisation predicts an affine function of :math:`D` and
:math:`x`, so its squared error is a weight:

================  =======================================  ====================================================
weight            :math:`w(\sigma)`                        squared error of
================  =======================================  ====================================================
`edm`             :math:`(1+\sigma^2)/\sigma^2`            EDM's network output; v of a VP process
`simple`          :math:`1/\sigma^2`                       eps: DDPM's simple loss
`velocity`        :math:`(1+\sigma)^2/\sigma^2`            :math:`\epsilon - u` of a rectified flow
`MinSNR`          :math:`\min(1/\sigma^2, \gamma)`         u, signal-to-noise ratio capped
`Likelihood`      :math:`1/(\sigma^2 p(\ln\sigma))`        the score times :math:`g(t)`: a bound of :math:`-\log p`
================  =======================================  ====================================================

All have the posterior mean as their minimiser; they differ in what a network of finite size spends itself on.
`Likelihood` divides by the density of the levels, so its expectation is :math:`\int d\ln\sigma\, E\|D-u\|^2/(n
\sigma^2)` whatever law draws them.

References:
    Karras et al., Elucidating the design space of diffusion-based generative models, 2022, arXiv:2206.00364, eq. 8
    and table 1. Ho et al., Denoising diffusion probabilistic models, 2020, arXiv:2006.11239, eq. 14. Salimans & Ho,
    Progressive distillation, 2022, arXiv:2202.00512, section 4. Liu et al., Flow straight and fast, 2022,
    arXiv:2209.03003. Hang et al., Efficient diffusion training via min-SNR weighting, 2023, arXiv:2303.09556.
    Song et al., Maximum likelihood training of score-based diffusion models, 2021, arXiv:2101.09258.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Generator, Tensor, nn

from scidiff.priors.diffusion import Network, precondition
from scidiff.training.levels import Levels, LogNormal, log_normal

__all__ = ["DenoisingLoss", "Likelihood", "Loss", "MinSNR", "edm", "edm_loss", "log_normal", "simple", "velocity"]


class Loss(Protocol):
    """What the training loop minimises; one that is an `nn.Module` has parameters that are trained too."""

    def draw(self, generator: Generator) -> Tensor:
        """The random time of one row, a scalar; the loss knows what it means.

        A loss of windows in time (with an attribute ``windows = True``) draws several numbers, and noise is its own.
        """
        ...

    def __call__(self, network: Network, u: Tensor, time: Tensor, eps: Tensor) -> Tensor:
        r"""One number per row, (B,); ``u``, ``eps`` (B, C, \*grid), ``time`` (B,)."""
        ...


def edm(sigma: Tensor) -> Tensor:
    """The network's own output error counts equally at every level."""
    return (1 + sigma.square()) / sigma.square()


def simple(sigma: Tensor) -> Tensor:
    """Squared error of the noise."""
    return 1 / sigma.square()


def velocity(sigma: Tensor) -> Tensor:
    r"""Squared error of the velocity :math:`\epsilon - u` of a rectified flow."""
    return ((1 + sigma) / sigma).square()


@dataclass(frozen=True)
class MinSNR:
    r"""Squared error of the field times a capped signal-to-noise ratio; :math:`\gamma = 5` is the paper's choice."""

    gamma: float = 5.0

    def __call__(self, sigma: Tensor) -> Tensor:
        return (1 / sigma.square()).clamp_max(self.gamma)


@dataclass(frozen=True)
class Likelihood:
    """The weight of the variational bound, whatever law draws the levels."""

    levels: Levels

    def __call__(self, sigma: Tensor) -> Tensor:
        return 1 / (sigma.square() * self.levels.density(sigma))


@dataclass(frozen=True)
class DenoisingLoss:
    """A weight and a law of noise levels; the default is EDM's."""

    weight: Callable[[Tensor], Tensor] = edm
    levels: Levels = field(default_factory=LogNormal)

    def draw(self, generator: Generator) -> Tensor:
        return self.levels.draw(generator)

    def __call__(self, network: Network, u: Tensor, time: Tensor, eps: Tensor) -> Tensor:
        s = time.reshape(-1, *(1,) * (u.ndim - 1))
        error = precondition(network, u + s * eps, time).to(torch.promote_types(u.dtype, torch.float32)) - u
        return self.weight(time) * error.square().flatten(1).mean(1)


def edm_loss(network: nn.Module, u: Tensor, sigma: Tensor, eps: Tensor) -> Tensor:
    r"""EDM's weighted squared error per row: (B,). ``u``, ``eps`` (B, C, \*grid), ``sigma`` (B,)."""
    return DenoisingLoss()(network, u, sigma, eps)
