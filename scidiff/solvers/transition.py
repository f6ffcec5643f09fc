r"""A deterministic map with Gaussian noise after it: the transition of a Markov chain.

.. math:: x_{n+1} = M(x_n) + \sqrt{q}\,\epsilon_n, \qquad \epsilon_n \sim N(0, 1)
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

__all__ = ["Transition"]


class Transition:
    r"""The transition of the module's formula on states (..., d).

    Arguments:
        mean: The map :math:`M`, for example `scidiff.solvers.rk4` of a right-hand side; acts on the last axis.
        variance: :math:`q`, of every number of the state; positive.
    """

    def __init__(self, mean: Callable[[Tensor], Tensor], variance: float) -> None:
        if not variance > 0:
            raise ValueError(f"the variance of a transition must be positive, got {variance}.")
        self.mean, self.variance = mean, float(variance)

    def sample(self, x: Tensor, generator: Generator) -> Tensor:
        """The next state of each in ``x`` (..., d), drawn."""
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        return self.mean(x) + math.sqrt(self.variance) * noise

    def log_prob(self, after: Tensor, before: Tensor) -> Tensor:
        """Log density of the states ``after`` (..., d) given those before: (...)."""
        r = after - self.mean(before)
        return -0.5 * (r.square() / self.variance + math.log(2 * math.pi * self.variance)).sum(-1)

    def trajectory(self, x: Tensor, steps: int, generator: Generator) -> Tensor:
        """The states ``x`` (..., d) and ``steps`` after them, (..., steps + 1, d)."""
        found = [x]
        for _ in range(steps):
            found.append(self.sample(found[-1], generator))
        return torch.stack(found, -2)
