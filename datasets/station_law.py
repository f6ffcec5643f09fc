r"""The law of daily temperatures at stations: a seasonal mean with trends, and a Gaussian field around it.

.. math:: T(s, t) = \sum_{k,l} \beta_{kl}\, h_k(t)\, g_l(s) + f_t(s) + n, \qquad
    \mathrm{Cov}(f_t(s), f_t(s')) = \tau^2\, M_\nu(d(s, s') / \ell), \quad n \sim N(0, \eta^2)

with harmonics :math:`h` of the year (mean, one and two waves), trends :math:`g = (1, \text{latitude},
\text{longitude})`, great-circle distance d in km, Matern's correlation :math:`M_{1/2}(r) = e^{-r}` or
:math:`M_{3/2}(r) = (1 + \sqrt3 r) e^{-\sqrt3 r}`, and :math:`\tau, \ell, \eta` (standard deviation, length, nugget) of
each of the four seasons. The nugget is what differs from station to station: the instrument, its surroundings, weather
smaller than the network. Days are treated as independent given the mean.

`StationLaw.fit` takes least squares for :math:`\beta` and maximum likelihood for :math:`\tau, \ell, \eta`.

References:
    Interpolation of Spatial Data: Some Theory for Kriging, Stein, 1999 (the covariance and its likelihood).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from scidiff.errors import InputError
from scidiff.linalg.sphere import great_circle

__all__ = ["SEASONS", "StationLaw", "season_of"]

SEASONS = ("winter", "spring", "summer", "autumn")
ENOUGH = 20
"""Fewest days of a season that a covariance is estimated from."""


def season_of(time: Any) -> int:
    """0 to 3 from December on, for the northern winter to autumn."""
    month = int(np.datetime64(time, "M").astype(int) % 12)
    return (month + 1) % 12 // 3


def harmonics(time: np.ndarray) -> np.ndarray:
    """Mean and two waves of the year, (T, 5)."""
    day = (time.astype("datetime64[D]") - time.astype("datetime64[Y]")).astype(float)
    w = 2 * math.pi * day / 365.25
    return np.stack([np.ones_like(w), np.cos(w), np.sin(w), np.cos(2 * w), np.sin(2 * w)], 1)


def trends(lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    """Constant, latitude and longitude in tens of degrees from 39 N, 90 W, (n, 3)."""
    return np.stack([np.ones_like(lat), (lat - 39.0) / 10, (lon + 90.0) / 10], 1)


@dataclass(frozen=True)
class StationLaw:
    """Mean and covariance of daily temperature in kelvin, see the module.

    Arguments:
        mean: beta (5, 3) in kelvin.
        std, length, nugget: One per season; K, km, K.
        smoothness: 0.5 or 1.5.
    """

    mean: np.ndarray
    std: tuple[float, ...]
    length: tuple[float, ...]
    nugget: tuple[float, ...]
    smoothness: float = 0.5

    def __post_init__(self) -> None:
        if self.smoothness not in (0.5, 1.5):
            raise ValueError(f"smoothness must be 0.5 (exponential) or 1.5, got {self.smoothness}.")

    @classmethod
    def typical(cls, smoothness: float = 0.5) -> StationLaw:
        """Round numbers near those of the central United States, for simulations where no data are at hand."""
        mean = np.zeros((5, 3))
        mean[0] = [290.0, -7.0, 0.0]  # warmer in the south
        mean[1] = [-12.0, -3.0, 0.0]  # colder in January, the more so in the north
        return cls(mean, (6.0, 6.0, 4.0, 6.0), (900.0, 900.0, 700.0, 900.0), (1.0, 1.0, 1.0, 1.0), smoothness)

    def climatology(self, lat: np.ndarray, lon: np.ndarray, time: Any) -> np.ndarray:
        """Mean (T, n) at places on days, in kelvin."""
        return harmonics(np.atleast_1d(time)) @ self.mean @ trends(np.asarray(lat), np.asarray(lon)).T

    def covariance(
        self, lat: np.ndarray, lon: np.ndarray, lat2: np.ndarray, lon2: np.ndarray, season: int
    ) -> np.ndarray:
        """Covariance (n, k) of the field between places, in squared kelvin, without the nugget."""
        d = great_circle(np.asarray(lat)[:, None], np.asarray(lon)[:, None], lat2, lon2)
        return (self.std[season] ** 2 * correlation(d / self.length[season], self.smoothness)).numpy()

    @classmethod
    def fit(cls, data: xr.Dataset, smoothness: float = 0.5, every: int = 3) -> StationLaw:
        """The law of the stations of `scidiff.datasets.read_stations`.

        Arguments:
            data: ``temperature`` (time, station) in kelvin with ``station_lat`` and ``station_lon``.
            smoothness: Of the covariance.
            every: The likelihood of the covariance takes every n-th day, since neighbours resemble each other.

        Raises:
            InputError: fewer than 20 days of a season on which all well-kept stations reported.
        """
        cls(np.zeros((5, 3)), (), (), (), smoothness)  # validates
        y, time = np.asarray(data["temperature"].values, float), data["time"].values
        lat, lon = (np.asarray(data[name].values, float) for name in ("station_lat", "station_lon"))
        seen = np.isfinite(y)
        design = np.einsum("tk,nl->tnkl", harmonics(time), trends(lat, lon))
        beta = np.linalg.lstsq(design[seen].reshape(-1, 15), y[seen], rcond=None)[0].reshape(5, 3)
        residual = y - np.einsum("tnkl,kl->tn", design, beta)
        d = great_circle(lat[:, None], lon[:, None], lat, lon).numpy()
        seasons = np.array([season_of(t) for t in time])
        found = []
        for season, name in enumerate(SEASONS):
            days = np.flatnonzero(seasons == season)[::every]
            kept = np.isfinite(residual[days]).mean(0) > 0.8 if len(days) else np.zeros(len(lat), bool)
            rows = residual[np.ix_(days, np.flatnonzero(kept))]
            rows = rows[np.isfinite(rows).all(1)]
            if len(rows) < ENOUGH or rows.shape[1] < 3:
                raise InputError(
                    f"{len(rows)} days of {name} on which {int(kept.sum())} stations all reported are too few to "
                    f"estimate a covariance, expected {ENOUGH} days; give more years, or every=1."
                )
            found.append(_most_likely(d[np.ix_(kept, kept)], rows.T @ rows / len(rows), smoothness))
        std, length, nugget = (tuple(float(p[i]) for p in found) for i in range(3))
        return cls(beta, std, length, nugget, smoothness)

    def log_likelihood(self, data: xr.Dataset) -> float:
        """Mean log density per reported value, days taken as independent; for comparing laws on other years."""
        lat, lon = (np.asarray(data[name].values, float) for name in ("station_lat", "station_lon"))
        total, count = 0.0, 0
        covs = [self.covariance(lat, lon, lat, lon, s) + self.nugget[s] ** 2 * np.eye(len(lat)) for s in range(4)]
        for y, time in zip(np.asarray(data["temperature"].values, float), data["time"].values, strict=True):
            k = np.isfinite(y)
            r = y[k] - self.climatology(lat[k], lon[k], time)[0]
            lower = np.linalg.cholesky(covs[season_of(time)][np.ix_(k, k)])
            white = np.linalg.solve(lower, r)
            total -= (
                0.5 * float(white @ white) + float(np.log(np.diag(lower)).sum()) + 0.5 * len(r) * math.log(2 * math.pi)
            )
            count += len(r)
        return total / count


def _most_likely(distances: np.ndarray, scatter: np.ndarray, smoothness: float) -> np.ndarray:
    """Standard deviation, length and nugget that maximise the likelihood of mean squares ``scatter`` (n, n)."""
    from scipy.optimize import minimize

    d, s = torch.from_numpy(distances), torch.from_numpy(scatter)

    def misfit(logs: np.ndarray) -> tuple[float, np.ndarray]:
        p = torch.from_numpy(logs).requires_grad_()
        std, length, nugget = p.exp()
        cov = std**2 * correlation(d / length, smoothness) + nugget**2 * torch.eye(len(d), dtype=d.dtype)
        lower = torch.linalg.cholesky(cov)
        value = 2 * lower.diagonal().log().sum() + torch.cholesky_solve(s, lower).diagonal().sum()
        value.backward()
        return float(value.detach()), np.asarray(p.grad)

    start = np.log([math.sqrt(float(np.diag(scatter).mean())), 800.0, 1.0])
    bounds = [(start[0] - 3, start[0] + 3), (math.log(1.0), math.log(1e5)), (start[0] - 7, start[0] + 1)]
    return np.exp(minimize(misfit, start, jac=True, method="L-BFGS-B", bounds=bounds).x)


def correlation(r: Tensor, smoothness: float) -> Tensor:
    """Matern's correlation of order 1/2 or 3/2 at the distances ``r`` in units of the length."""
    if smoothness == 0.5:
        return torch.exp(-r)
    return (1 + math.sqrt(3) * r) * torch.exp(-math.sqrt(3) * r)
