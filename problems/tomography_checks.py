r"""Does a parallel-beam scan fit its forward model, and does an ensemble predict the views that were set aside?

Three checks need no reconstruction. The integral of a projection does not depend on its angle, and its centre of mass
moves on a sinusoid about the axis of rotation (the first two of the consistency conditions of the Radon transform); at
both ends of the detector there is nothing but air, unless the object is larger than what the detector sees.

References:
    The Radon transform on Euclidean spaces, compact two-point homogeneous spaces and Grassmann manifolds. Helgason,
    1965.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from scidiff.metrics import coverage
from scidiff.problems.base import samples_of, stream
from scidiff.problems.baselines import least_squares
from scidiff.problems.tomography_scan import Seen, numbers, projector
from scidiff.problems.tomography_tv import Whitened

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["checks", "held_back_scores", "moments"]

CHI2_LIMIT, MASS_LIMIT, EDGE_LIMIT, CENTRE_LIMIT, FEW_PHOTONS = 1.5, 0.02, 0.05, 1.0, 20.0


def moments(sinogram: np.ndarray, angles: np.ndarray) -> tuple[float, float]:
    """Relative standard deviation of the integrals of the projections, and the axis that centres of mass turn about.

    Arguments:
        sinogram: (angle, bin).
        angles: In degrees.

    Returns:
        The two numbers; the second in bins, NaN from fewer than 4 views.
    """
    mass = sinogram.sum(1)
    if not mass.mean() > 0:
        return float("nan"), float("nan")
    spread = float(mass.std() / mass.mean())
    if len(angles) < 4 or not (mass > 0).all():
        return spread, float("nan")
    theta = np.deg2rad(angles)
    first = (sinogram * np.arange(sinogram.shape[1])).sum(1) / mass
    design = np.stack([np.ones_like(theta), np.cos(theta), np.sin(theta)], 1)
    return spread, float(np.linalg.lstsq(design, first, rcond=None)[0][0])


def checks(observation: xr.Dataset, operator: Seen, likelihood: str) -> dict[str, Any]:
    """Numbers and warnings.

    ``forward_fit_chi2``: squared residual over noise variance of a least-squares fit, per reading; far below 1 where
    there are more pixels than readings, above 1 where no field explains the readings. ``mass_spread``, ``mass_centre``:
    see `moments`. ``edge``: mean line integral at the ends of the detector, over the largest of the mean projection.
    ``photons``: the fewest a valid reading counted (fifth percentile).
    """
    y, std = numbers(observation["sinogram"]), numbers(observation["noise_std"])
    valid = torch.from_numpy(np.array(observation["valid"].values, dtype=bool))
    fit = least_squares(Whitened(operator, std), (y / std)[None, None], iterations=40)
    residual = ((operator(fit)[0, 0] - y) / std)[valid]
    values = y.numpy().astype(np.float64)
    angles = np.asarray(observation["angle"].values, dtype=float)
    spread, axis = moments(values, angles)
    bins = values.shape[1]
    few = max(1, bins // 50)
    profile = values.mean(0)
    edge = float(max(profile[:few].mean(), profile[-few:].mean()) / max(profile.max(), 1e-12))
    centre = float(observation["centre"])
    found: dict[str, Any] = {
        "views": len(angles),
        "bins": bins,
        "noise_std": float(std[valid].square().mean().sqrt()),
        "fraction_valid": float(valid.double().mean()),
        "water": float(observation["water"]),
        "centre": centre,
        "forward_fit_chi2": float(residual.double().square().mean()),
        "mass_spread": spread,
        "mass_centre": axis,
        "edge": edge,
    }
    warnings = []
    if "counts" in observation:
        found["photons"] = float(np.quantile(observation["counts"].values[observation["valid"].values], 0.05))
        if found["photons"] < FEW_PHOTONS and likelihood == "gaussian":
            warnings.append(
                f"some readings counted only {found['photons']:.0f} photons, whose logarithm is biased and not "
                "Gaussian; use likelihood='poisson'."
            )
    if found["forward_fit_chi2"] > CHI2_LIMIT:
        warnings.append(
            f"forward_fit_chi2 is {found['forward_fit_chi2']:.2f}, above {CHI2_LIMIT}: no field explains the line "
            "integrals to their noise. Is the centre right, are there zingers, is the beam steady?"
        )
    if edge > EDGE_LIMIT:
        warnings.append(
            f"at the ends of the detector the object is still there ({edge:.0%} of the largest mean line integral): "
            "it is truncated, and what lies outside appears as a bright rim."
        )
    elif spread > MASS_LIMIT:
        warnings.append(
            f"the integral of the projections varies by {spread:.1%}, which it cannot: the beam drifts (air=...) or "
            "the object leaves the detector."
        )
    if abs(axis - centre) > CENTRE_LIMIT and edge <= EDGE_LIMIT and np.ptp(angles) > 90:
        warnings.append(
            f"the centres of mass turn about bin {axis:.1f}, but the centre of rotation is {centre:.1f}; give "
            "centre=..."
        )
    return {**found, "warnings": warnings}


def held_back_scores(
    result: xr.Dataset,
    field: str,
    reference: xr.DataArray | None,
    region: Callable[[Tensor, Any], Tensor | None],
    seed: int,
) -> dict[str, float]:
    """How members predict the views set aside, and the picture that all views together give.

    ``held_back_chi2`` of the members and ``held_back_chi2_mean`` of their mean count the noise alone;
    ``held_back_coverage_90`` is the share of readings inside the 90 % interval of spread and noise together.
    ``coverage_90``: every member predicts the views set aside, with fresh noise; the filtered backprojection of these
    and the given ones is compared with the reference. For an exact posterior it is one more such picture.
    """
    import xarray as xr

    shape = (1, result.sizes["y"], result.sizes["x"])
    samples = samples_of(result, field, shape).to(torch.float32)
    y, std = numbers(result["held_sinogram"]), numbers(result["held_noise_std"])
    valid = torch.from_numpy(np.array(result["held_valid"].values, dtype=bool))
    operator = Seen(projector(result, "held_"), valid)
    with torch.no_grad():
        predicted = torch.stack([operator(x)[0, 0] for x in samples])

    def chi2(z: Tensor) -> float:
        return float((((z - y) / std)[..., valid]).double().square().mean())

    scores = {"held_back_chi2": chi2(predicted), "held_back_chi2_mean": chi2(predicted.mean(0))}
    if len(samples) < 2:
        return scores
    scores["held_back_coverage_90"] = float(coverage(predicted[:, None, valid], y[valid][None], 0.9, std[valid][None]))
    if reference is not None:
        generator = stream("reference", seed)
        order = np.argsort(np.concatenate([result["angle"].values, result["held_angle"].values]), kind="stable")
        setting = xr.Dataset({"centre": result["centre"]})
        angles = np.concatenate([result["angle"].values, result["held_angle"].values])[order]
        setting = setting.assign_coords({d: result[d] for d in ("y", "x", "bin")} | {"angle": ("angle", angles)})
        everywhere = torch.cat([torch.from_numpy(np.array(result["valid"].values, dtype=bool)), valid])[order]
        whole = Seen(projector(setting), everywhere)
        given = numbers(result["sinogram"])
        pictures = []
        for z in predicted:
            drawn = torch.where(valid, z + std * torch.randn(z.shape, generator=generator), 0.0)
            pictures.append(whole.fbp(torch.cat([given, drawn])[order][None, None]))
        truth = numbers(reference)[None, None]
        where = region(truth, result)
        scores["coverage_90"] = float(coverage(torch.stack(pictures), truth, 0.9, where=where))
    return scores
