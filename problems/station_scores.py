r"""Estimates at a place from values at stations, and scores of predictions of a value :math:`y = x + n`.

A Gaussian prediction :math:`N(\mu, s^2)` has with :math:`z = (y - \mu)/s` the score

.. math:: \mathrm{CRPS} = s\,\big(z\,(2\Phi(z) - 1) + 2\varphi(z) - 1/\sqrt\pi\big),

the area between its distribution function and the step at y; for a single guess that area is :math:`|y - \mu|`.

References:
    Calibrated Probabilistic Forecasting Using Ensemble Model Output Statistics and Minimum CRPS Estimation,
    Gneiting, Raftery, Westveld and Goldman, 2005, Monthly Weather Review 133 (the closed form).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.special import ndtr

from scidiff.linalg.sphere import great_circle
from scidiff.metrics import coverage, spread_skill

__all__ = ["gaussian_crps", "gaussian_scores", "inverse_distance", "nearest", "sample_scores"]

QUANTILE_90 = 1.6448536269514722


def distances(lat: np.ndarray, lon: np.ndarray, lat2: np.ndarray, lon2: np.ndarray) -> np.ndarray:
    """Great-circle distances (k, n) in km from places (k,) to stations (n,)."""
    return great_circle(np.asarray(lat2)[:, None], np.asarray(lon2)[:, None], lat, lon).numpy()


def nearest(lat: np.ndarray, lon: np.ndarray, y: np.ndarray, lat2: np.ndarray, lon2: np.ndarray) -> np.ndarray:
    """The value of the nearest station, (k,)."""
    return y[distances(lat, lon, lat2, lon2).argmin(1)]


def inverse_distance(
    lat: np.ndarray, lon: np.ndarray, y: np.ndarray, lat2: np.ndarray, lon2: np.ndarray, power: float = 2.0
) -> np.ndarray:
    """Means of all stations, weighted with a power of the inverse distance (Shepard), (k,)."""
    weight = np.maximum(distances(lat, lon, lat2, lon2), 1e-6) ** -power
    return weight @ y / weight.sum(1)


def gaussian_crps(mean: np.ndarray, std: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Continuous ranked probability score of Gaussian predictions, see the module."""
    z = (y - mean) / std
    density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    return std * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / math.sqrt(math.pi))


def gaussian_scores(mean: np.ndarray, std: np.ndarray | None, y: np.ndarray) -> dict[str, float]:
    """RMSE, CRPS and, where the prediction has a spread, 90 % coverage and spread-skill ratio."""
    error = y - mean
    rmse = math.sqrt(float((error**2).mean()))
    if std is None:
        return {"rmse": rmse, "crps": float(np.abs(error).mean())}
    return {
        "rmse": rmse,
        "crps": float(gaussian_crps(mean, std, y).mean()),
        "coverage_90": float((np.abs(error) <= QUANTILE_90 * std).mean()),
        "spread_skill": math.sqrt(float((std**2).mean())) / rmse,
    }


def sample_scores(samples: np.ndarray, y: np.ndarray, noise_std: np.ndarray) -> dict[str, float]:
    """The scores of members (M, k) that predict values y (k,) which carry noise.

    The CRPS is that of the mixture of normals around the members, with fair weights for pairs, in closed form.
    """
    x, truth = torch.from_numpy(samples)[:, None], torch.from_numpy(np.asarray(y, float))[None]
    scores = {"rmse": math.sqrt(float(((samples.mean(0) - y) ** 2).mean()))}
    if len(samples) > 1:
        noise = torch.from_numpy(noise_std)
        scores["crps"] = float(mixture_crps(samples, y, noise_std).mean())
        scores["coverage_90"] = float(coverage(x, truth, 0.9, noise_std=noise))
        scores["spread_skill"] = float(spread_skill(x, truth, noise_std=noise))
    return scores


def mixture_crps(samples: np.ndarray, y: np.ndarray, std: np.ndarray) -> np.ndarray:
    r"""CRPS (k,) of members plus normal noise: :math:`E|x + n - y| - \frac12 E|x + n - x' - n'|` over members."""

    def folded(gap: np.ndarray, s: np.ndarray) -> np.ndarray:  # E |gap + s e|
        z = gap / s
        return gap * (2 * ndtr(z) - 1) + 2 * s * np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)

    m = len(samples)
    pairs = folded(samples[:, None] - samples[None], math.sqrt(2) * std).sum((0, 1))
    same = m * math.sqrt(2) * std * math.sqrt(2 / math.pi)  # a member and itself, with two draws of the noise
    return folded(samples - y, std).mean(0) - 0.5 * (pairs - same) / (m * (m - 1))
