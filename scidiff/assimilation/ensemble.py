r"""Ensemble Kalman filters: N states carried by the model, moved by their own covariances at each observation.

With the ensemble :math:`X = \bar x + X'`, its measurement :math:`Y = \bar y + Y'` and the noise covariance R, both
filters are a mixing of anomalies, :math:`X^a = \bar x + X' T` with an (N, N) matrix T:

- `EnKF` (stochastic): every member sees the data with its own noise,
  :math:`X^a = X + X' W`, :math:`W = \frac{Y'^\top}{N-1} S^{-1} (y + \epsilon - Y)`,
  :math:`S = \frac{Y' Y'^\top}{N-1} + R`;
- `ETKF` (deterministic): mean weights :math:`w = \tilde P\, Y'^\top R^{-1} (y - \bar y)` and anomalies
  :math:`X' [(N-1) \tilde P]^{1/2}`, :math:`\tilde P = [(N-1) I + Y'^\top R^{-1} Y']^{-1}`.

The same T applied to earlier states makes the filter a smoother. **Exact** only for linear Gaussian models and
:math:`N \to \infty`; with few members, spurious covariances lose spread, which inflation (anomalies times a factor
after each analysis) and localisation (covariances times a taper that falls with distance) repair by hand.

References:
    The ensemble Kalman filter: theoretical formulation and practical implementation, Evensen, 2003. Adaptive sampling
    with the ensemble transform Kalman filter, Bishop, Etherton and Majumdar, 2001. Construction of correlation
    functions in two and three dimensions, Gaspari and Cohn, 1999, equation (4.10).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from scidiff.assimilation.observations import Observations
from scidiff.assimilation.state_space import StateSpace
from scidiff.errors import NumericalError
from scidiff.rng import explicit

__all__ = ["ETKF", "EnKF", "gaspari_cohn"]


def gaspari_cohn(distance: Tensor, radius: float) -> Tensor:
    """A taper of compact support: 1 at distance 0, 0 from ``2 * radius`` on, smooth and positive definite."""
    if not radius > 0:
        raise ValueError(f"radius must be positive, got {radius}.")
    r = distance.abs() / radius
    near = 1 - 5 / 3 * r**2 + 5 / 8 * r**3 + r**4 / 2 - r**5 / 4
    far = 4 - 5 * r + 5 / 3 * r**2 + 5 / 8 * r**3 - r**4 / 2 + r**5 / 12 - 2 / (3 * r.clamp_min(1.0))
    return torch.where(r <= 1, near, torch.where(r < 2, far, 0.0))


@dataclass(frozen=True)
class _EnsembleFilter(ABC):
    """The loop of both filters.

    Arguments:
        members: Ensemble size N, at least 2.
        inflation: Factor on the anomalies after each analysis, at least 1.
        smooth: Whether an observation also moves the states before it. With False each state only knows the
            observations up to it.
    """

    members: int = 256
    inflation: float = 1.0
    smooth: bool = True

    def __post_init__(self) -> None:
        if self.members < 2:
            raise ValueError(f"members must be at least 2, got {self.members}.")
        if not self.inflation >= 1:
            raise ValueError(f"inflation must be at least 1, got {self.inflation}.")

    @abstractmethod
    def mixing(self, Z: Tensor, y: Tensor, colour: Tensor, generator: Generator) -> Tensor:
        """The matrix W (N, N) of :math:`X^a = X + X' W`, transposed: ``Z`` (N, m) measured members, ``y`` (m,),
        ``colour`` (m, m) with R = colour' colour.
        """

    def update(self, x: Tensor, Z: Tensor, y: Tensor, colour: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Members (N, d) after the analysis, and the mixing (N, N)."""
        W = self.mixing(Z, y, colour, generator)
        return x + W @ (x - x.mean(0)), W

    def __call__(
        self, model: StateSpace, observations: Observations, length: int, generator: Generator | None = None
    ) -> Tensor:
        r"""Runs the filter for one observed trajectory (B = 1).

        Returns:
            Trajectories (N, C, L, \*grid), float64. As draws they are joint in time only with ``smooth``.

        Raises:
            ValueError: more than one trajectory, or noise that is not Gaussian.
            NumericalError: the model or the analysis left the finite numbers.
        """
        generator = explicit(generator)
        x = model.start(self.members, generator).to(torch.float64)
        colour = noise_root(observations)
        history: list[Tensor] = []
        for t in range(length):
            if t:
                x = model.advance(x, generator, t)
            y = observations.of(t)
            if y is not None:
                Z = model.observed(observations.operator, x)
                x, W = self.update(x, Z, y[0].flatten().to(x), colour, generator)
                if not bool(x.isfinite().all()):
                    raise NumericalError(f"{type(self).__name__}: the analysis at step {t} is not finite.")
                if self.smooth:
                    history = [past + W @ (past - past.mean(0)) for past in history]
                x = x.mean(0) + self.inflation * (x - x.mean(0))
            history.append(x)
        return model.fields(torch.stack(history, 1))


def noise_root(observations: Observations) -> Tensor:
    """The matrix c (m, m) that colours rows of white numbers, e @ c: R = c' c; float64.

    Raises:
        ValueError: more than one trajectory.
        TypeError: noise that is not Gaussian.
    """
    if len(observations.y) != 1:
        raise ValueError(f"one observed trajectory at a time, got {len(observations.y)}; use observations.row(b).")
    color = getattr(observations.noise, "color", None)
    if color is None:
        raise TypeError(f"this method needs Gaussian noise, got {type(observations.noise).__name__}.")
    shape = observations.y.shape[2:]
    eye = torch.eye(shape.numel(), dtype=torch.float64)
    return color(eye.reshape(-1, *shape)).flatten(1)


@dataclass(frozen=True)
class EnKF(_EnsembleFilter):
    """The stochastic ensemble Kalman filter (smoother).

    Arguments:
        localisation: Tapers (d, m) between state and measurement and (m, m) between measurements, see `gaspari_cohn`;
            the filter then only, ``smooth=False``.
    """

    localisation: tuple[Tensor, Tensor] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.localisation is not None and self.smooth:
            raise ValueError("localisation is for the filter: set smooth=False.")

    def _innovation(self, Z: Tensor, y: Tensor, colour: Tensor, generator: Generator) -> Tensor:
        e = torch.randn(Z.shape, generator=generator, dtype=Z.dtype) @ colour
        return y + (e - e.mean(0)) - Z

    def mixing(self, Z: Tensor, y: Tensor, colour: Tensor, generator: Generator) -> Tensor:
        A, n = Z - Z.mean(0), len(Z) - 1
        innovation = self._innovation(Z, y, colour, generator)
        return innovation @ torch.linalg.solve(A.mT @ A / n + colour.mT @ colour, A.mT) / n

    def update(self, x: Tensor, Z: Tensor, y: Tensor, colour: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        if self.localisation is None:
            return super().update(x, Z, y, colour, generator)
        taper, between = (v.to(x) for v in self.localisation)
        A, n = Z - Z.mean(0), len(Z) - 1
        if tuple(taper.shape) != (x.shape[1], Z.shape[1]) or tuple(between.shape) != (Z.shape[1], Z.shape[1]):
            raise ValueError(
                f"localisation must be ({x.shape[1]}, {Z.shape[1]}) and ({Z.shape[1]}, {Z.shape[1]}), "
                f"got {tuple(taper.shape)} and {tuple(between.shape)}."
            )
        S = between * (A.mT @ A) / n + colour.mT @ colour
        K = torch.linalg.solve(S, (taper * ((x - x.mean(0)).mT @ A) / n).mT)
        return x + self._innovation(Z, y, colour, generator) @ K, torch.zeros(0)


@dataclass(frozen=True)
class ETKF(_EnsembleFilter):
    """The ensemble transform Kalman filter (smoother): no noise is added to the data."""

    def mixing(self, Z: Tensor, y: Tensor, colour: Tensor, generator: Generator) -> Tensor:
        n, count = len(Z) - 1, len(Z)
        both = torch.cat([Z - Z.mean(0), (y - Z.mean(0))[None]])
        white = torch.linalg.solve(colour.mT, both.mT).mT
        A, v = white[:-1], white[-1]
        values, vectors = torch.linalg.eigh(A @ A.mT)
        values = values.clamp_min(0.0)
        w = vectors @ ((vectors.mT @ (A @ v)) / (n + values))
        T = vectors @ ((n / (n + values)).sqrt()[:, None] * vectors.mT)
        return T + w[None, :] - torch.eye(count, dtype=Z.dtype)
