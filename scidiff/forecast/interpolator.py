r"""The two networks of DYffusion, as maps between states: `Interpolator` and `Predictor`.

.. math:: \hat x_{t+i} = I_\phi(x_t, x_{t+h}, i \mid \xi), \qquad \hat x_{t+h} = F_\theta(x, i \mid \cdot)

Random numbers :math:`\xi` (masks or noise) come from the streams given with the call; no streams, no randomness.
With ``residual`` the network adds to a guess that costs nothing: the straight line between the two states for
:math:`I`, the state itself for :math:`F`. The published networks predict the state outright (``residual=False``).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scidiff.nn.stochastic import Draws

__all__ = ["Interpolator", "Predictor"]


def _column(time: Tensor, like: Tensor) -> Tensor:
    return time.to(like).reshape(-1, *(1,) * (like.ndim - 1))


class Interpolator(nn.Module):
    r"""A state between two others: :math:`I_\phi(x_t, x_{t+h}, i \mid \xi)`.

    Arguments:
        network: ``network(x, time, streams)`` with (window + 1) C + K inputs and C outputs.
        horizon: Steps h between the two states.
        window: Past states it is given.
        residual: Add the network to the straight line between the states.
    """

    parts = ("network",)

    def __init__(self, network: nn.Module, horizon: int, window: int = 1, residual: bool = True) -> None:
        super().__init__()
        if horizon < 2:
            raise ValueError(f"between states {horizon} step apart there is nothing to interpolate; take horizon >= 2.")
        self.network, self.horizon, self.window, self.residual = network, horizon, window, residual
        self.frozen = False

    @property
    def config(self) -> dict[str, object]:
        """The arguments besides the network."""
        return {"horizon": self.horizon, "window": self.window, "residual": self.residual}

    def freeze(self) -> Interpolator:
        """Fixes weights and the statistics of norms for good: `train` no longer reaches them. Masks stay on."""
        self.requires_grad_(False)
        self.frozen = True
        return self.train(False)

    def train(self, mode: bool = True) -> Interpolator:
        """Training mode, unless frozen."""
        return super().train(mode and not self.frozen)

    def forward(
        self, past: Tensor, end: Tensor, time: Tensor, streams: Draws | None = None, forcing: Tensor | None = None
    ) -> Tensor:
        r"""Draws states ``time`` steps after the last of the past.

        Arguments:
            past: (B, window C, \*grid), oldest first.
            end: (B, C, \*grid), h steps after the last of them.
            time: (B,) in steps, fractions allowed.
            streams: Of the rows; None for the network without its randomness.
            forcing: (B, K, \*grid).
        """
        parts = [past, end] if forcing is None else [past, end, forcing]
        x = self.network(torch.cat(parts, dim=1), time, streams)
        if not self.residual:
            return x
        return x + torch.lerp(past[:, -end.shape[1] :], end, _column(time / self.horizon, end))


class Predictor(nn.Module):
    r"""A later state from one: :math:`F_\theta(x, i \mid \text{conditions})`.

    Arguments:
        network: ``network(x, time, streams)``; its outputs are one state, or several one after the other.
        residual: Add the network to the state ``x``.
    """

    parts = ("network",)

    def __init__(self, network: nn.Module, residual: bool = True) -> None:
        super().__init__()
        self.network, self.residual = network, residual

    @property
    def config(self) -> dict[str, object]:
        """The arguments besides the network."""
        return {"residual": self.residual}

    def forward(
        self, x: Tensor, time: Tensor, streams: Draws | None = None, conditions: Tensor | None = None
    ) -> Tensor:
        r"""(B, C, \*grid), times (B,), conditions (B, K, \*grid) -> (B, n C, \*grid)."""
        y = self.network(x if conditions is None else torch.cat([x, conditions], dim=1), time, streams)
        if not self.residual:
            return y
        return y + x if y.shape == x.shape else y + x.repeat(1, y.shape[1] // x.shape[1], *(1,) * (x.ndim - 2))
