r"""The continuous-time bound with a learned monotone schedule (variational diffusion models).

With :math:`\gamma(t) = \ln\sigma^2` increasing from :math:`\gamma_0` to :math:`\gamma_1` on [0, 1],

.. math:: L = \tfrac12 E_{t \sim U(0,1),\,\epsilon}\; \gamma'(t)\, e^{-\gamma(t)}\, \|D(u + \sigma\epsilon,
          \sigma) - u\|^2 / n .

The integral depends on the end points only: the schedule between them cannot change the bound, but it changes the
variance of its estimate, and is trained to make that small. One backward pass does both: the gradient that reaches the
schedule is multiplied by :math:`2 L_i` in each row, which makes it the gradient of :math:`E L_i^2`.

End points are fixed (the paper learns them for images of 256 grey levels; a continuous field has no such scale).

References:
    Kingma, Salimans, Poole & Ho, Variational diffusion models, 2021, arXiv:2107.00630, eq. 17 and 18, appendix D for
    the network, section 5.2 and appendix I.2 for the variance.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from scidiff.priors.diffusion import Network, precondition

__all__ = ["ELBOLoss", "MonotoneSchedule"]


class MonotoneSchedule(nn.Module):
    r"""An increasing function of t with given ends: a line plus sigmoids with positive weights.

    Arguments:
        low, high: Noise levels at t = 0 and t = 1.
        features: Number of sigmoids.
    """

    def __init__(self, low: float = 0.002, high: float = 80.0, features: int = 64) -> None:
        super().__init__()
        if not 0 < low < high:
            raise ValueError(f"levels must satisfy 0 < low < high, got {low} and {high}.")
        self.low, self.high = 2 * math.log(low), 2 * math.log(high)
        self.steepness = nn.Parameter(torch.full((features,), 10.0))
        self.centre = nn.Parameter(torch.linspace(0, 1, features))
        self.height = nn.Parameter(torch.full((features,), -6.0))  # softplus: near zero, so the line dominates

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r""":math:`\gamma(t)` and :math:`\gamma'(t)`, each of the shape of ``t``."""
        k, h = F.softplus(self.steepness), F.softplus(self.height)

        def line(t: Tensor) -> Tensor:
            return t + (torch.sigmoid(k * (t[..., None] - self.centre)) * h).sum(-1)

        s = torch.sigmoid(k * (t[..., None] - self.centre))
        slope = 1 + (h * k * s * (1 - s)).sum(-1)
        first, last = line(torch.zeros_like(t)), line(torch.ones_like(t))
        scale = (self.high - self.low) / (last - first)
        return self.low + scale * (line(t) - first), scale * slope


class ELBOLoss(nn.Module):
    """The bound per row in nats per number, without its two end terms, which do not depend on the network.

    Arguments:
        schedule: The learned schedule.
    """

    def __init__(self, schedule: MonotoneSchedule | None = None) -> None:
        super().__init__()
        self.schedule = MonotoneSchedule() if schedule is None else schedule

    def draw(self, generator: Generator) -> Tensor:
        """A time, uniform on [0, 1)."""
        return torch.rand((), generator=generator)

    def forward(self, network: Network, u: Tensor, time: Tensor, eps: Tensor) -> Tensor:
        """One number per row, (B,)."""
        gamma, slope = self.schedule(time)
        rows: list[Tensor] = []
        for part in (gamma, slope):
            if part.requires_grad:
                part.register_hook(lambda g: 2 * rows[0] * g)
        sigma = (gamma / 2).exp()
        s = sigma.reshape(-1, *(1,) * (u.ndim - 1))
        error = precondition(network, u + s * eps, sigma).to(torch.promote_types(u.dtype, torch.float32)) - u
        value = 0.5 * slope * (-gamma).exp() * error.square().flatten(1).mean(1)
        rows.append(value.detach())
        return value
