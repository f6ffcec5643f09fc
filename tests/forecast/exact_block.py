"""The exact conditional denoiser of a stirred field's next states: truth for forecasters that diffuse."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from scidiff.solvers.stochastic_transport import StochasticTransport

GRID = (3, 4)
LAW = StochasticTransport(GRID, diffusivity=1e-3, drag=0.2)


def block_mean(x: Tensor, horizon: int) -> Tensor:
    """Means of the next states of fields (B, *GRID): (B, horizon, *GRID)."""
    return torch.stack([LAW.mean(x, lead) for lead in range(1, horizon + 1)], 1)


def block_covariance(horizon: int) -> Tensor:
    """Covariance of the flattened next states, given the last one, float64: by A^k C_j for leads j and j + k."""
    n = math.prod(GRID)
    step = LAW.mean(torch.eye(n, dtype=torch.float64).reshape(n, *GRID)).reshape(n, n).mT
    found = torch.zeros(horizon, n, horizon, n, dtype=torch.float64)
    for j in range(horizon):
        part = LAW.covariance(j + 1).dense().double()
        for k in range(j, horizon):
            found[k, :, j], found[j, :, k] = part, part.mT
            part = step @ part
    return found.reshape(horizon * n, horizon * n)


class ExactDenoiser(nn.Module):
    """E[z | z + sigma eps, x_t] of one channel for the targets of `ConditionalDiffusion`; counts its calls."""

    def __init__(self, horizon: int, target: str, scale: Tensor) -> None:
        super().__init__()
        self.horizon, self.target, self.calls = horizon, target, 0
        self.scale = scale.double().reshape(-1, 1, 1).expand(horizon, *GRID)
        s = self.scale.flatten()
        self.values, self.vectors = torch.linalg.eigh(block_covariance(horizon) / (s[:, None] * s))

    def forward(self, z: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
        self.calls += 1
        x = condition[:, 0].double()
        mean = block_mean(x, self.horizon) - (x[:, None] if self.target == "residual" else 0)
        mean = (mean / self.scale).flatten(1)
        variance = sigma.double().square().reshape(-1, 1)
        gain = self.values / (self.values + variance)
        inside = ((z.double().flatten(1) - mean) @ self.vectors * gain) @ self.vectors.mT
        return (mean + inside).reshape(z.shape).to(z)
