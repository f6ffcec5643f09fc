r"""A linear inverse model: the leading patterns of a field follow a first-order autoregression with Gaussian noise.

With the k leading patterns (EOFs) :math:`E` of the training states, orthonormal for the area of the cells, and their
amplitudes :math:`z_t = E^T W (x_t - m)`,

.. math:: z_{t+1} = A z_t + \epsilon_t, \quad \epsilon_t \sim N(0, Q), \qquad
          A = C_1 C_0^{-1}, \quad Q = C_0' - A C_0 A^T,

where :math:`C_0, C_1` are the covariances of amplitudes at lag 0 and 1 (:math:`C_0'` at the later times), so A is the
regression of each state on the one before and Q the covariance of what it leaves. What the patterns leave of the field,
:math:`x - m - E z`, follows `DampedPersistence`, point by point. If the field is linear and Gaussian and k is all of
it, this is the exact predictive law up to errors of estimation.

References:
    Penland and Sardeshmukh, The optimal growth of tropical sea surface temperature anomalies, Journal of Climate 8,
    1995.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from scidiff.forecast.base import Correct, Forecaster, streams_of
from scidiff.forecast.fitting import check_horizon, training_states
from scidiff.forecast.persistence import DampedPersistence
from scidiff.rng import Streams

if TYPE_CHECKING:
    import xarray as xr

    from scidiff.forecast.state import StateSpec

__all__ = ["LinearInverseModel"]


class LinearInverseModel(Forecaster):
    r"""The formula of the module.

    Arguments:
        states: Training states (N, T, C, \*grid).
        horizon: Steps h.
        components: Number k of patterns; a share in (0, 1] takes as many as explain that part of the variance.
        weight: Area of the cells (\*grid), or None for equal cells.
    """

    mean: Tensor
    patterns: Tensor
    dual: Tensor
    propagator: Tensor
    noise: Tensor

    def __init__(
        self, states: Tensor, horizon: int, components: int | float = 20, weight: Tensor | None = None
    ) -> None:
        super().__init__()
        self.horizon = check_horizon(horizon)
        if states.ndim < 3 or states.shape[1] <= horizon:
            raise ValueError(f"states must be (N, T, C, *grid) with T above {horizon}, got {tuple(states.shape)}.")
        N, T = states.shape[:2]
        mean = states.mean((0, 1), dtype=torch.float64)
        weight = torch.ones(states.shape[3:]) if weight is None else weight
        root = (weight.double() / weight.double().mean()).sqrt().expand(states.shape[2:]).flatten()
        a = ((states.double() - mean).flatten(2) * root).flatten(0, 1)
        if len(a) < a.shape[1]:  # fewer states than points: only they can be patterns
            _, values, vectors = torch.linalg.svd(a, full_matrices=False)
            values, vectors = values.square() / len(a), vectors.T
        else:
            values, vectors = torch.linalg.eigh(a.T @ a / len(a))
            values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
        positive = int((values > 1e-12 * values[0]).sum())
        k = components
        if isinstance(components, float):
            if not 0 < components <= 1:
                raise ValueError(f"components is a whole number of patterns or a share in (0, 1], got {components}.")
            share = values.cumsum(0) / values.sum()
            k = int((share < components - 1e-12).sum()) + 1
        k = min(int(k), positive)
        if not 1 <= k < N * (T - 1):
            raise ValueError(f"{components} components need more than {k} pairs of states, got {N * (T - 1)}.")
        basis = vectors[:, :k]
        z = (a @ basis).unflatten(0, (N, T))
        before, after = z[:, :-1].flatten(0, 1), z[:, 1:].flatten(0, 1)
        A = torch.linalg.solve(before.T @ before, before.T @ after).T
        left = after - before @ A.T
        # Degrees of freedom: each amplitude was regressed on k others.
        values, turned = torch.linalg.eigh(left.T @ left / (len(left) - k))
        self.components = k
        self.register_buffer("mean", mean.float())
        self.register_buffer("patterns", (basis.T / root).unflatten(1, states.shape[2:]).float())
        self.register_buffer("dual", (basis.T * root).unflatten(1, states.shape[2:]).float())
        self.register_buffer("propagator", A.float())
        self.register_buffer("noise", (turned * values.clamp_min(0).sqrt()).float())
        rest = states - self._field(self._amplitudes(states.flatten(0, 1))).unflatten(0, (N, T))
        self.rest = DampedPersistence.of(rest, horizon) if k < positive else None

    @classmethod
    def fit(cls, data: xr.Dataset, spec: StateSpec, horizon: int, components: int | float = 20) -> LinearInverseModel:
        """From the training part of a Dataset."""
        return cls(training_states(data, spec, horizon), horizon, components, spec.area)

    @property
    def network_calls(self) -> int:
        return 0

    def _amplitudes(self, x: Tensor) -> Tensor:
        return (x - self.mean.to(x)).flatten(1) @ self.dual.to(x).flatten(1).T

    def _field(self, z: Tensor) -> Tensor:
        return self.mean.to(z) + (z @ self.patterns.to(z).flatten(1)).unflatten(1, self.mean.shape)

    def sample(
        self,
        state: Tensor,
        forcing: Tensor | None = None,
        *,
        generator: Generator | Streams | None = None,
        correct: Correct | None = None,
    ) -> Tensor:
        x, streams = state[:, -1], streams_of(generator, len(state))
        z = self._amplitudes(x)
        A, S = self.propagator.to(x), self.noise.to(x)
        rest = None if self.rest is None else self.rest.sample((x - self._field(z))[:, None], generator=streams)
        found = x.new_empty(len(x), self.horizon, *x.shape[1:])
        for step in range(self.horizon):
            z = z @ A.T + streams.randn((self.components,), x.device, x.dtype) @ S.T
            field = self._field(z)
            field = field if rest is None else field + rest[:, step]
            if correct is not None:
                changed = correct(field, float(step + 1))
                z, field = z + self._amplitudes(changed) - self._amplitudes(field), changed
            found[:, step] = field
        return found
