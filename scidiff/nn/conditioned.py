r"""Conditions by concatenation, and guidance without a classifier.

A network for fields with C channels and conditions with K channels has C + K + 1 inputs: the field, the condition
:math:`c` (zero where it is withheld) and a channel that is 1 where it is given. Rows trained without their condition
teach the same network the unconditional law, and

.. math:: F_w = F(x, \varnothing) + w\,(F(x, c) - F(x, \varnothing))

is the conditional network for :math:`w = 1`. The denoiser is affine in :math:`F`, so it is combined the same way.
For :math:`w \ne 1` it is the denoiser of no law: pictures get sharper, ensembles too narrow.

References:
    Ho & Salimans, Classifier-free diffusion guidance, 2022, arXiv:2207.12598 (whose w is ours minus 1).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["Conditioned", "joined"]


def joined(
    network: Callable[[Tensor, Tensor], Tensor], condition: Tensor, present: Tensor, x: Tensor, label: Tensor
) -> Tensor:
    r"""The network on fields (B, C, \*grid) with conditions (B, K, \*grid), given where ``present`` (B,) is 1."""
    flag = present.to(x).reshape(-1, *(1,) * (x.ndim - 1))
    return network(torch.cat([x, condition.to(x) * flag, flag.expand_as(x[:, :1])], dim=1), label)


class Conditioned(nn.Module):
    r"""A conditional network with its condition filled in: a network of fields alone.

    Arguments:
        network: With C + K + 1 inputs.
        condition: (K, \*grid), or (B, K, \*grid) with one per row.
        guidance: The weight :math:`w`; 0 is the unconditional law, 1 the conditional one.
    """

    def __init__(self, network: nn.Module, condition: Tensor, guidance: float = 1.0) -> None:
        super().__init__()
        self.network, self.guidance = network, float(guidance)
        self.condition: Tensor
        self.register_buffer("condition", condition, persistent=False)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        r"""(B, C, \*grid), (B,) -> (B, C, \*grid)."""
        c = self.condition if self.condition.ndim == x.ndim else self.condition[None]
        if c.shape[2:] != x.shape[2:] or c.shape[0] not in (1, x.shape[0]):
            raise ValueError(f"the condition has shape {tuple(c.shape)}, the field {tuple(x.shape)}; grids must agree.")
        c, ones = c.expand(x.shape[0], *c.shape[1:]), x.new_ones(x.shape[0])
        if self.guidance == 1:
            return joined(self.network, c, ones, x, label)
        without = joined(self.network, c, 0 * ones, x, label)
        if self.guidance == 0:
            return without
        return without + self.guidance * (joined(self.network, c, ones, x, label) - without)
