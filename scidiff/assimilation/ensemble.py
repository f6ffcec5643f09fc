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
    functions in two and three dimensions, Gaspari and Cohn, 1999, equation (4.10). Efficient data assimilation for
    spatiotemporal chaos: a local ensemble transform Kalman filter, Hunt, Kostelich and Szunyogh, 2007.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from scidiff.assimilation.observations import Observations
from scidiff.assimilation.state_space import StateSpace
from scidiff.errors import NumericalError
from scidiff.rng import explicit

__all__ = ["ETKF", "EnKF", "gaspari_cohn", "periodic_distance"]

Change = Callable[[Tensor], Tensor]


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

    def local(self, Z: Tensor, y: Tensor, colour: Tensor, generator: Generator) -> Change:
        """The analysis with localisation: what it does to states (N, d), now or earlier."""
        raise NotImplementedError

    def analysis(self, Z: Tensor, y: Tensor, colour: Tensor, generator: Generator) -> Change:
        """What an observation does to states (N, d), now or earlier."""
        if getattr(self, "localisation", None) is not None:
            return self.local(Z, y, colour, generator)
        W = self.mixing(Z, y, colour, generator)
        return lambda x: x + W @ (x - x.mean(0))

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
                change = self.analysis(Z, y[0].flatten().to(x), colour, generator)
                x = change(x)
                if not bool(x.isfinite().all()):
                    raise NumericalError(f"{type(self).__name__}: the analysis at step {t} is not finite.")
                if self.smooth:
                    history = [change(past) for past in history]
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


def periodic_distance(grid: Sequence[int], points: Tensor) -> Tensor:
    r"""Distances (n, m) in grid spacings from all points of a periodic grid, rows slowest, to m points (m, dims)."""
    axes = [torch.arange(n, dtype=torch.float64) for n in grid]
    places = torch.cartesian_prod(*axes).reshape(-1, len(axes))
    apart = (places[:, None] - points.to(torch.float64)).abs()
    sides = torch.tensor([float(n) for n in grid], dtype=torch.float64)
    apart = apart % sides
    return torch.minimum(apart, sides - apart).square().sum(-1).sqrt()


@dataclass(frozen=True)
class EnKF(_EnsembleFilter):
    r"""The stochastic ensemble Kalman filter (smoother).

    With localisation the gain of a state, now or earlier, is
    :math:`(\rho_x \circ X'^\top Y') (\rho_y \circ Y'^\top Y' + (N-1) R)^{-1}`.

    Arguments:
        localisation: Tapers :math:`\rho_x` (d, m) between state and measurement and :math:`\rho_y` (m, m) between
            measurements, see `gaspari_cohn` and `periodic_distance`. Earlier states take the same ones: what moves far
            between two observations is cut off.
    """

    localisation: tuple[Tensor, Tensor] | None = None

    def _innovation(self, Z: Tensor, y: Tensor, colour: Tensor, generator: Generator) -> Tensor:
        e = torch.randn(Z.shape, generator=generator, dtype=Z.dtype) @ colour
        return y + (e - e.mean(0)) - Z

    def mixing(self, Z: Tensor, y: Tensor, colour: Tensor, generator: Generator) -> Tensor:
        A, n = Z - Z.mean(0), len(Z) - 1
        innovation = self._innovation(Z, y, colour, generator)
        return innovation @ torch.linalg.solve(A.mT @ A / n + colour.mT @ colour, A.mT) / n

    def local(self, Z: Tensor, y: Tensor, colour: Tensor, generator: Generator) -> Change:
        taper, between = (v.to(Z) for v in self.localisation or ())
        A, n = Z - Z.mean(0), len(Z) - 1
        if between.shape != (Z.shape[1], Z.shape[1]):
            raise ValueError(
                f"localisation between measurements must be ({Z.shape[1]}, {Z.shape[1]}), got {tuple(between.shape)}."
            )
        S = between * (A.mT @ A) / n + colour.mT @ colour
        weights = torch.linalg.solve(S, self._innovation(Z, y, colour, generator).mT)  # (m, N)

        def change(x: Tensor) -> Tensor:
            _check(taper, x, Z)
            return x + ((taper * ((x - x.mean(0)).mT @ A) / n) @ weights).mT

        return change


@dataclass(frozen=True)
class ETKF(_EnsembleFilter):
    r"""The ensemble transform Kalman filter (smoother): no noise is added to the data.

    With localisation every number of the state has its own transform, in which the precision of a measurement is
    multiplied by its taper (the local ensemble transform Kalman filter); the noise must then be independent.

    Arguments:
        localisation: Taper (d, m) between state and measurement, see `gaspari_cohn`.
    """

    localisation: Tensor | None = None

    def mixing(self, Z: Tensor, y: Tensor, colour: Tensor, generator: Generator) -> Tensor:
        both = torch.cat([Z - Z.mean(0), (y - Z.mean(0))[None]])
        white = torch.linalg.solve(colour.mT, both.mT).mT
        return self._transform(white[:-1], white[-1])

    def _transform(self, A: Tensor, v: Tensor) -> Tensor:
        """The mixing (..., N, N) for whitened anomalies (..., N, m) and innovations (..., m)."""
        count = A.shape[-2]
        n = count - 1
        values, vectors = torch.linalg.eigh(A @ A.mT)
        values = values.clamp_min(0.0)
        w = (vectors.mT @ (A @ v[..., None]))[..., 0] / (n + values)
        w = (vectors @ w[..., None])[..., 0]
        T = vectors @ ((n / (n + values)).sqrt()[..., None] * vectors.mT)
        return T + w[..., None, :] - torch.eye(count, dtype=A.dtype)

    def local(self, Z: Tensor, y: Tensor, colour: Tensor, generator: Generator) -> Change:
        assert self.localisation is not None
        taper, size = self.localisation.to(Z), colour.diagonal()
        if bool((colour - torch.diag(size)).abs().max() > 1e-12 * size.abs().max()):
            raise ValueError("localisation of the ETKF needs noise that is independent from number to number.")
        A, v = (Z - Z.mean(0)) / size, (y - Z.mean(0)) / size
        kinds, which = torch.unique(taper, dim=0, return_inverse=True)  # channels of a place share a transform
        W = torch.cat([self._transform(t[:, None].sqrt() * A, t.sqrt() * v) for t in kinds.split(64)])

        def change(x: Tensor) -> Tensor:
            _check(taper, x, Z)
            out, centred = torch.empty_like(x), x - x.mean(0)
            for first in range(0, x.shape[1], 256):
                part = slice(first, first + 256)
                out[:, part] = x[:, part] + torch.einsum("dij,jd->id", W[which[part]], centred[:, part])
            return out

        return change


def _check(taper: Tensor, x: Tensor, Z: Tensor) -> None:
    if tuple(taper.shape) != (x.shape[1], Z.shape[1]):
        raise ValueError(f"localisation must be ({x.shape[1]}, {Z.shape[1]}), got {tuple(taper.shape)}.")
