r"""Moving average of weights with a power-function profile.

.. math:: \bar\theta_t = \beta_t \bar\theta_{t-1} + (1 - \beta_t)\theta_t, \qquad \beta_t = (1 - 1/t)^{\gamma + 1}

The average reaches back over a fixed *fraction* of the training so far (about 10 % for gamma = 6.94, 5 % for 16.97),
so it needs no tuning to the length of a run and forgets the first steps by itself.

References:
    Karras et al., Analyzing and improving the training dynamics of diffusion models, 2024, arXiv:2312.02696, eq. 2.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

__all__ = ["PowerEMA"]


class PowerEMA:
    """Keeps an averaged copy of a network.

    Arguments:
        network: The network being trained.
        gamma: Exponent of the profile.
    """

    def __init__(self, network: nn.Module, gamma: float = 16.97) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.gamma = gamma

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Takes the weights after optimiser step number ``step``, counted from 1."""
        beta = (1 - 1 / step) ** (self.gamma + 1)
        ours, theirs = ([p.detach() for p in net.parameters()] for net in (self.network, network))
        torch._foreach_lerp_(ours, theirs, 1 - beta)
        for mine, other in zip(self.network.buffers(), network.buffers(), strict=True):
            mine.copy_(other)
