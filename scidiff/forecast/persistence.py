r"""Persistence, and persistence that fades to the climate with a spread that grows to the climate's.

`DampedPersistence` treats every point as a stationary Gaussian series with mean :math:`m`, variance :math:`v` and
correlations :math:`r_j` over j steps, all estimated from training data. Given :math:`x_t`,

.. math:: x_{t+j} \sim N\big(m + r_j (x_t - m),\; v (1 - r_j^2)\big), \qquad
          \mathrm{cov}(x_{t+i}, x_{t+j} \mid x_t) = v (r_{|i-j|} - r_i r_j).

The law of a point is right at all leads together where the series is Gaussian; points are drawn independently of each
other, so a member is no plausible map.

References:
    Murphy, Skill scores based on the mean square error and their relationships to the correlation coefficient, Monthly
    Weather Review 116, 1988 (damped persistence as reference forecast).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from scidiff.forecast.base import Correct, Forecaster, streams_of
from scidiff.forecast.fitting import check_horizon, lagged, training_states
from scidiff.rng import Streams

if TYPE_CHECKING:
    import xarray as xr

    from scidiff.forecast.state import StateSpec

__all__ = ["DampedPersistence", "Persistence", "corrected"]


def corrected(states: Tensor, correct: Correct | None) -> Tensor:
    r"""Every predicted state of (B, h, C, \*grid) after its correction, for forecasters that make them all at once."""
    if correct is None:
        return states
    return torch.stack([correct(states[:, j], float(j + 1)) for j in range(states.shape[1])], 1)


class Persistence(Forecaster):
    """The last state again, at every lead; the same for all members.

    Arguments:
        horizon: Steps h.
    """

    stochastic = False

    def __init__(self, horizon: int) -> None:
        super().__init__()
        self.horizon = check_horizon(horizon)

    @classmethod
    def fit(cls, data: xr.Dataset, spec: StateSpec, horizon: int) -> Persistence:
        """Learns nothing; like the other baselines."""
        return cls(horizon)

    @property
    def network_calls(self) -> int:
        return 0

    def sample(
        self,
        state: Tensor,
        forcing: Tensor | None = None,
        *,
        generator: Generator | Streams | None = None,
        correct: Correct | None = None,
    ) -> Tensor:
        last = state[:, -1:]
        return corrected(last.expand(-1, self.horizon, *last.shape[2:]).clone(), correct)


class DampedPersistence(Forecaster):
    r"""The formula of the module.

    Arguments:
        mean, variance: :math:`m` and :math:`v` of every point, (C, \*grid).
        correlation: :math:`r_0 = 1, r_1 \dots r_h`, (h + 1, C, \*grid).
    """

    mean: Tensor
    memory: Tensor
    root: Tensor

    def __init__(self, mean: Tensor, variance: Tensor, correlation: Tensor) -> None:
        super().__init__()
        self.horizon = h = check_horizon(len(correlation) - 1)
        if mean.shape != variance.shape or correlation.shape[1:] != mean.shape or bool((variance < 0).any()):
            raise ValueError(
                "mean and variance are (C, *grid), variance not negative, correlation (h + 1, C, *grid); got "
                f"{tuple(mean.shape)}, {tuple(variance.shape)} and {tuple(correlation.shape)}."
            )
        r, v = correlation.double(), variance.double()
        lags = (torch.arange(h)[:, None] - torch.arange(h)).abs()
        r = torch.where(v > 0, r, torch.zeros_like(r))
        between = torch.where(v > 0, correlation.double(), torch.zeros_like(v))[lags.flatten()].unflatten(0, (h, h))
        covariance = v * (between - r[1:, None] * r[None, 1:])
        covariance = covariance.movedim((0, 1), (-2, -1))
        values, vectors = torch.linalg.eigh(covariance)
        root = vectors * values.clamp_min(0).sqrt()[..., None, :]
        # What estimates of correlations that fit no series take away or add is put back on the diagonal: each lead
        # has its own variance exactly.
        wanted = torch.diagonal(covariance, dim1=-2, dim2=-1).clamp_min(0)
        made = root.square().sum(-1)
        root = root * torch.where(made > 0, wanted / made.clamp_min(1e-300), 1).sqrt()[..., None]
        self.register_buffer("mean", mean.float())
        self.register_buffer("memory", r[1:].float())
        self.register_buffer("root", root.movedim((-2, -1), (0, 1)).float())

    @classmethod
    def fit(cls, data: xr.Dataset, spec: StateSpec, horizon: int) -> DampedPersistence:
        """From the training part of a Dataset."""
        return cls.of(training_states(data, spec, horizon), horizon)

    @classmethod
    def of(cls, states: Tensor, horizon: int) -> DampedPersistence:
        r"""From states (N, T, C, \*grid)."""
        return cls(*lagged(states, check_horizon(horizon)))

    @property
    def network_calls(self) -> int:
        return 0

    def std(self, lead: int) -> Tensor:
        r"""Standard deviation of the law at a lead, (C, \*grid)."""
        return self.root[lead - 1].square().sum(0).sqrt()

    def sample(
        self,
        state: Tensor,
        forcing: Tensor | None = None,
        *,
        generator: Generator | Streams | None = None,
        correct: Correct | None = None,
    ) -> Tensor:
        x, streams = state[:, -1], streams_of(generator, len(state))
        noise = streams.randn((self.horizon, *x.shape[1:]), x.device, x.dtype)
        mean, memory, root = self.mean.to(x), self.memory.to(x), self.root.to(x)
        expected = mean + memory * (x - mean)[:, None]
        return corrected(expected + torch.einsum("ij...,bj...->bi...", root, noise), correct)
