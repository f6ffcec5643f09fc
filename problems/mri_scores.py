r"""Scores of MRI reconstructions against a reference that may itself be measured.

Magnitude images are compared by PSNR (peak: the largest magnitude of the reference), SSIM and relative error; the
complex ensemble by CRPS, spread-skill ratio and 90 % coverage inside the head.

**A measured reference is noisy, and shares its noise with the observation.** It is the image of all samples: those the
ensemble was given, whose noise it has seen, and those held back. So the ensemble is turned into a prediction of the
reference, not of the truth: every member predicts the held-back samples, :math:`A_h x_m + n_m` with fresh noise, the
given ones are what they were, and the image of both together is compared with the reference. For an exact posterior
the reference is exchangeable with these predictions, so no tolerance has to be made up.

An exact truth (of a simulated case) is compared with the members themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from scidiff.metrics import coverage, crps, nrmse, psnr, spread_skill, ssim
from scidiff.operators.mri import fft2c
from scidiff.problems.base import stream
from scidiff.problems.mri_observation import combine, operator_of, tensor

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "data_misfit",
    "ensemble_scores",
    "head_region",
    "held_back_scores",
    "image_scores",
    "predicted_reference",
]


def head_region(image: Tensor) -> Tensor:
    """Pixels inside the head of a magnitude image (H, W): smoothed above a tenth of its 99th percentile, filled."""
    from scipy import ndimage

    size = max(3, round(min(image.shape) / 32))
    smooth = ndimage.uniform_filter(np.asarray(image, dtype=np.float64), size)
    bright = smooth > 0.1 * np.quantile(smooth, 0.99)
    found: Any = ndimage.label(ndimage.binary_fill_holes(bright))
    labels = found[0]
    sizes = np.bincount(labels.ravel())
    if len(sizes) == 1:
        return torch.ones(image.shape, dtype=torch.bool)
    sizes[0] = 0
    return torch.as_tensor(labels == sizes.argmax())


def magnitude(x: Tensor) -> Tensor:
    """Root sum of squares over sets of maps: (B, C, H, W) complex to (B, H, W)."""
    return x.abs().square().sum(1).sqrt()


def image_scores(estimate: Tensor, truth: Tensor) -> dict[str, float]:
    """PSNR in dB, SSIM and relative error of magnitudes; both (1, C, H, W) complex."""
    a, b = magnitude(estimate), magnitude(truth)
    scores = {"psnr": float(psnr(a, b)), "nrmse": float(nrmse(a, b))}
    if min(b.shape[-2:]) >= 11:
        scores["ssim"] = float(ssim(a, b))
    return scores


def ensemble_scores(samples: Tensor, truth: Tensor, where: Tensor, noise_std: float | None = None) -> dict[str, float]:
    """CRPS, spread-skill ratio, 90 % coverage inside ``where`` (H, W); samples (M, 1, C, H, W), truth (1, C, H, W)."""
    inside = where.expand(truth.shape)
    return {
        "crps": float(crps(samples, truth)[inside].mean()),
        "spread_skill": float(spread_skill(samples, truth, noise_std, inside)),
        "coverage_90": float(coverage(samples, truth, 0.9, noise_std, where=inside)),
    }


def predicted_reference(samples: Tensor, observation: xr.Dataset, seed: int = 0) -> Tensor:
    """What every member (M, 1, C, H, W) predicts the image of all samples to be, noise of those held back included."""
    maps = operator_of(observation).maps
    given = tensor(observation["kspace"])
    held = tensor(observation["held_back_mask"]).to(torch.bool)
    noise_std = float(observation["noise_std"])
    generator = stream("reference", seed)
    images = []
    for x in samples:
        kspace = fft2c((maps * x[0]).sum(1))
        noise = torch.view_as_complex(torch.randn(*kspace.shape, 2, generator=generator))
        images.append(combine(given + held * (kspace + noise_std * noise), maps))
    return torch.stack(images)


def data_misfit(images: Tensor, observation: xr.Dataset, held_back: bool = False) -> Tensor:
    """Squared residual over noise variance of images (B, C, H, W): (B,); on the data given or on those set aside."""
    prefix = "held_back_" if held_back else ""
    operator = operator_of(observation, tensor(observation[f"{prefix}mask"]).to(torch.bool))
    y = operator.sample(tensor(observation[f"{prefix}kspace"]))
    residual = torch.stack([(operator(x[None])[0] - y).abs().square().mean() / 2 for x in images])
    return residual / float(observation["noise_std"]) ** 2


def held_back_scores(samples: Tensor, observation: xr.Dataset) -> dict[str, float]:
    """How the ensemble (M, 1, C, H, W) predicts the samples set aside: the check that needs no reference image.

    ``held_back_chi2`` of the members and ``held_back_chi2_mean`` of their mean count the noise alone;
    ``held_back_coverage_90`` is the share of held-back numbers inside the 90 % interval of spread and noise together.
    """
    operator = operator_of(observation, tensor(observation["held_back_mask"]).to(torch.bool))
    noise_std = float(observation["noise_std"])
    y = operator.sample(tensor(observation["held_back_kspace"]))[None]
    predicted = torch.stack([operator(x) for x in samples])

    def chi2(z: Tensor) -> float:
        return float((z - y).abs().square().mean()) / (2 * noise_std**2)

    scores = {"held_back_chi2": chi2(predicted), "held_back_chi2_mean": chi2(predicted.mean(0))}
    if len(samples) > 1:
        scores["held_back_coverage_90"] = float(coverage(predicted, y, 0.9, noise_std))
    return scores
