r"""Self-attention over all grid points of a level.

Every point asks every other: the network is no longer local, its answer on a window is not its answer on the whole
field, and the cost grows with the square of the number of points. There is no position in it, so that any grid fits
and circular shifts commute. Heads have about 64 channels.

References:
    Vaswani et al., Attention is all you need, 2017, arXiv:1706.03762. Dhariwal & Nichol, Diffusion models beat GANs on
    image synthesis, 2021, arXiv:2105.05233, section 3.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Attention", "attend", "heads"]


def heads(channels: int) -> int:
    """Number of heads: the largest divisor of the channels that leaves at least 64 of them, else one."""
    return max(h for h in range(1, channels + 1) if channels % h == 0 and (h == 1 or channels // h >= 64))


def attend(q: Tensor, k: Tensor, v: Tensor, count: int) -> Tensor:
    r"""Softmax attention of (B, C, \*grid) tensors with ``count`` heads."""
    a, b, c = (t.flatten(2).unflatten(1, (count, -1)).transpose(2, 3) for t in (q, k, v))
    return F.scaled_dot_product_attention(a, b, c).transpose(2, 3).reshape(q.shape)


class Attention(nn.Module):
    """Residual attention; starts as the identity.

    Arguments:
        channels: Of input and output.
        norm: Normalisation before it.
        conv: The convolution class of the grid.
    """

    def __init__(self, channels: int, norm: nn.Module, conv: type[nn.Module]) -> None:
        super().__init__()
        self.norm, self.count = norm, heads(channels)
        self.qkv, self.out = conv(channels, 3 * channels, 1), conv(channels, channels, 1)
        nn.init.zeros_(self.out.weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        r"""(B, C, \*grid) -> the same shape."""
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=1)
        return x + self.out(attend(q, k, v, self.count))
