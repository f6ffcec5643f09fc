r"""How noisy a scan is, from the scan itself, and whitening.

Receiver noise is complex Gaussian, white over k-space and correlated between coils. Its covariance is kept as

.. math:: \Sigma = \tfrac12 E[n n^H] \qquad (J, J) \text{ complex Hermitian},

so that the diagonal is the variance **per real component** of each coil. Whitening multiplies by the inverse of the
Cholesky factor, :math:`L^{-1}` with :math:`\Sigma = L L^H`: whitened data have unit variance per real component.

Noise is read where there is no signal: in the outermost measured points of k-space and, when all of k-space was
measured, in the corners of the image. Whatever signal is left there only adds, so the smaller estimate is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from scidiff.operators.mri.encoding import ifft2c
from scidiff.operators.mri.espirit import calibration_block, calibration_gram
from scidiff.rng import explicit

__all__ = ["NoiseEstimate", "calibration_noise", "corner_covariance", "estimate_noise", "outer_covariance", "prewhiten"]


@dataclass(frozen=True)
class NoiseEstimate:
    """Noise of a scan.

    Attributes:
        covariance: (J, J) complex Hermitian, half the mean outer product: its diagonal is per real component.
        samples: Complex samples per coil it was made of; the relative standard error of a variance is 1/sqrt(samples).
        source: ``"k-space"`` (outermost points) or ``"image"`` (air corners).
        candidates: Root mean variance over coils of every estimate that was possible, by source.
    """

    covariance: Tensor
    samples: int
    source: str
    candidates: dict[str, float] = field(default_factory=dict)

    @property
    def std(self) -> Tensor:
        """Standard deviation per real component of each coil, (J,)."""
        return self.covariance.diagonal().real.sqrt()


def estimate_noise(
    kspace: Tensor, mask: Tensor | None = None, fraction: float = 0.05, corner: float = 0.1
) -> NoiseEstimate:
    """Noise covariance of a scan from its own empty corners.

    Arguments:
        kspace: Centred k-space, (J, H, W) complex.
        mask: Measured points, (H, W) boolean; by default all that are not zero in every coil.
        fraction: Share of the measured points, the outermost ones, taken as noise.
        corner: Side of the four corners of the image taken as air, as a share of its sides (fully sampled scans only).

    Raises:
        ValueError: If fewer than 4 samples per coil are left, or the noise is singular (a dead or doubled coil).
    """
    mask = _measured(kspace, mask)
    found = {"k-space": outer_covariance(kspace, mask & (kspace.abs().sum(0) > 0), fraction)}
    if bool(mask.all()):
        found["image"] = corner_covariance(kspace, corner)
    level = {name: float(cov.diagonal().real.mean().sqrt()) for name, (cov, _) in found.items()}
    source = min(level, key=lambda name: level[name])
    covariance, samples = found[source]
    if samples < 4 * len(kspace):
        raise ValueError(
            f"{samples} noise samples are too few for the covariance of {len(kspace)} coils (4 per coil are needed); "
            "raise `fraction` or give the noise covariance of a noise scan."
        )
    spectrum = torch.linalg.eigvalsh(covariance)
    if not bool(spectrum[0] > 1e-6 * spectrum[-1]):
        raise ValueError(
            "the noise covariance is singular: a coil is empty or a combination of others. Remove it from the k-space."
        )
    return NoiseEstimate(covariance, samples, source, level)


def outer_covariance(kspace: Tensor, mask: Tensor, fraction: float = 0.05) -> tuple[Tensor, int]:
    """Covariance (J, J) of the outermost share of the measured points of k-space (J, H, W), and their number."""
    height, width = mask.shape
    rows = (torch.arange(height, device=mask.device) - height // 2) / (height / 2)
    cols = (torch.arange(width, device=mask.device) - width // 2) / (width / 2)
    radius = torch.hypot(rows[:, None], cols[None, :])[mask]
    count = max(1, round(fraction * len(radius)))
    outer = kspace[:, mask][:, radius.topk(count).indices]
    return _covariance(outer), count


def corner_covariance(kspace: Tensor, corner: float = 0.1) -> tuple[Tensor, int]:
    """Covariance (J, J) of the four corners of the image of a fully sampled k-space (J, H, W), and their pixels."""
    image = ifft2c(kspace)
    h, w = (max(1, round(corner * n)) for n in image.shape[-2:])
    pixels = torch.cat(
        [image[:, a, b].flatten(1) for a in (slice(0, h), slice(-h, None)) for b in (slice(0, w), slice(-w, None))], 1
    )
    return _covariance(pixels), pixels.shape[1]


def calibration_noise(
    kspace: Tensor, mask: Tensor | None = None, kernel: int = 4, draws: int = 8, generator: Generator | None = None
) -> float:
    r"""Noise level of **prewhitened** data from the smallest singular values of the calibration matrix: 1 if right.

    The lowest quarter of the eigenvalues of the calibration matrix is noise, but not equal to its variance (few,
    overlapping patches). So noise of variance one is added to the data: those eigenvalues grow by the factor
    :math:`(s^2 + 1) / s^2`, which gives the level s. Exact up to the change of the signal subspace.

    Arguments:
        kspace: Prewhitened centred k-space, (J, H, W).
        mask: Measured points, (H, W).
        kernel: Side of the patches; J * kernel^2 should stay below the number of patches.
        draws: Realisations of added noise that are averaged.
        generator: Source of randomness.
    """
    block = calibration_block(kspace, mask).to(torch.complex128)

    def floor(data: Tensor) -> float:
        power = torch.linalg.eigvalsh(calibration_gram(data, kernel)[0])
        return float(power[: len(power) // 4].mean())

    alone = floor(block)
    scale = 2**0.5  # complex normal numbers of torch have variance one, hence one half per real component
    added = [
        floor(
            block + scale * torch.randn(block.shape, generator=explicit(generator), dtype=block.dtype).to(block.device)
        )
        for _ in range(draws)
    ]
    ratio = sum(added) / draws / alone
    return (1 / max(ratio - 1, 1e-12)) ** 0.5


def prewhiten(covariance: Tensor, *arrays: Tensor) -> tuple[Tensor, ...]:
    """Multiplies arrays whose first dimension is the coils, k-space and maps alike, by the inverse Cholesky factor.

    Raises:
        ValueError: If the covariance is not positive definite or has another number of coils.
    """
    factor, info = torch.linalg.cholesky_ex(covariance.to(torch.complex128))
    if int(info) != 0:
        raise ValueError("the noise covariance is not positive definite; it needs more samples than coils.")
    whitened = []
    for array in arrays:
        if array.shape[0] != len(covariance):
            raise ValueError(
                f"the first dimension must be the {len(covariance)} coils, got shape {tuple(array.shape)}."
            )
        flat = torch.linalg.solve_triangular(factor, array.flatten(1).to(torch.complex128), upper=False)
        whitened.append(flat.reshape(array.shape).to(array.dtype))
    return tuple(whitened)


def _covariance(samples: Tensor) -> Tensor:
    samples = samples.to(torch.complex128)
    return samples @ samples.mH / (2 * samples.shape[1])


def _measured(kspace: Tensor, mask: Tensor | None) -> Tensor:
    if kspace.ndim != 3 or not kspace.is_complex():
        raise ValueError(f"kspace must be complex (coils, H, W), got {kspace.dtype} of shape {tuple(kspace.shape)}.")
    mask = kspace.abs().sum(0) > 0 if mask is None else mask
    if not bool(mask.any()):
        raise ValueError("the mask samples nothing; there is no noise to read.")
    return mask
