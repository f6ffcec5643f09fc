r"""Coil sensitivities from the fully sampled centre of k-space, by ESPIRiT.

Patches of k-space, k x k points of all J coils side by side, live in a small subspace, because every coil sees the same
image through a smooth map. With P the projector on that subspace, the operator "project every patch, put it back,
average" is a convolution in k-space, hence at every pixel r a J x J matrix

.. math:: G(r)_{ij} = \frac{1}{k^2} \sum_{p, q} P_{(i,p),(j,q)} \, e^{2 \pi i (p - q) \cdot r / N}

whose eigenvectors of eigenvalue one are the sensitivities at that pixel: one vector where one set of maps explains the
data, two where the object folds over a field of view smaller than itself, none in the air.

References:
    ESPIRiT -- an eigenvalue approach to autocalibrating parallel MRI: where SENSE meets GRAPPA. Uecker, Lai, Murphy,
    Virtue, Elad, Pauly, Vasanawala, Lustig, 2014, Magn. Reson. Med. 71.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scidiff.operators.mri.masks import calibration_region

__all__ = ["CoilMaps", "calibration_block", "calibration_gram", "espirit"]


@dataclass(frozen=True)
class CoilMaps:
    """Sensitivities and how well they explain the calibration data.

    Attributes:
        maps: (J, C, H, W) complex; C sets of maps, each of unit norm over coils where not cropped or weighted down.
        eigenvalues: (C, H, W) real in [0, 1]; near one where the set is needed to explain the data.
    """

    maps: Tensor
    eigenvalues: Tensor


def calibration_block(kspace: Tensor, mask: Tensor | None = None, size: tuple[int, int] | None = None) -> Tensor:
    """The fully sampled centre of k-space (J, H, W): the largest centred rectangle, cut to ``size`` when given.

    Raises:
        ValueError: If the mask has no fully sampled centre, or one smaller than ``size``.
    """
    if kspace.ndim != 3 or not kspace.is_complex():
        raise ValueError(f"kspace must be complex (coils, H, W), got {kspace.dtype} of shape {tuple(kspace.shape)}.")
    mask = kspace.abs().sum(0) > 0 if mask is None else mask
    rows, cols = calibration_region(mask)
    if size is not None:
        found = (rows.stop - rows.start, cols.stop - cols.start)
        if found[0] < size[0] or found[1] < size[1]:
            raise ValueError(
                f"the fully sampled centre has {found[0]} x {found[1]} points, fewer than {size} asked for."
            )
        starts = [n // 2 - s // 2 for n, s in zip(mask.shape, size, strict=True)]
        rows, cols = (slice(a, a + s) for a, s in zip(starts, size, strict=True))
    return kspace[:, rows, cols]


def calibration_gram(block: Tensor, kernel: int) -> tuple[Tensor, int]:
    """Mean outer product of all k x k patches of a calibration block (J, h, w): (J k k, J k k), and their number.

    Raises:
        ValueError: If the block is too small to hold more than a few patches.
    """
    coils, height, width = block.shape
    if min(height, width) < kernel + 1:
        raise ValueError(
            f"a calibration block of {height} x {width} points is too small for {kernel} x {kernel} kernels; "
            "sample a larger centre (a larger share `calibration`) or lower `kernel`."
        )
    patches = block.to(torch.complex128).unfold(1, kernel, 1).unfold(2, kernel, 1)
    patches = patches.permute(1, 2, 0, 3, 4).reshape(-1, coils * kernel * kernel)
    return patches.mT @ patches.conj() / len(patches), len(patches)


def espirit(
    kspace: Tensor,
    mask: Tensor | None = None,
    sets: int = 1,
    kernel: int = 6,
    noise: float = 1.0,
    threshold: float | None = None,
    crop: float | None = None,
    calibration: tuple[int, int] | None = None,
    soft: tuple[float, float] | None = (0.7, 0.95),
) -> CoilMaps:
    r"""Estimates coil sensitivities.

    By default maps are not cropped: the first set has unit norm at every pixel, in the air too, so that the model can
    put noise, ringing and ghosts where they were measured. Cropped maps cannot, and the misfit of what they cannot
    explain lands on the object. Further sets enter with a weight that rises smoothly from 0 to 1 as their eigenvalue
    goes through ``soft``, so that pixels explained by one set do not get free parameters.

    Arguments:
        kspace: Centred k-space, (J, H, W) complex, zero where not measured; prewhitened, see `prewhiten`.
        mask: Measured points, (H, W) boolean; by default all that are not zero in every coil.
        sets: Number C of sets of maps.
        kernel: Side k of the patches.
        noise: Standard deviation per real component of the noise; 1 for prewhitened data. Every direction of the
            subspace is weighted by ``1 - noise power / power``. On synthetic scans this is within 5 % of the best hard
            threshold at every noise level and size of the centre, while a fixed threshold fails at some.
        threshold: When given, singular values below ``threshold`` times the largest are noise, all others signal, as
            in the paper; ``noise`` is not used.
        crop: When given, maps are set to zero where their eigenvalue is below it.
        calibration: Size of the centre to use; by default all that is fully sampled.
        soft: Eigenvalues between which sets after the first fade in; None keeps them everywhere.

    Raises:
        ValueError: If there is no usable calibration region, ``sets`` exceeds the number of coils, or the data do not
            fit the noise: no direction stands out of it, or all do.
    """
    block = calibration_block(kspace, mask, calibration)
    coils, height, width = kspace.shape
    if not 1 <= sets <= coils:
        raise ValueError(f"sets must be between 1 and the number of coils {coils}, got {sets}.")
    gram, _ = calibration_gram(block, kernel)
    power, vectors = torch.linalg.eigh(gram)
    if not float(power[-1]) > 0:
        raise ValueError("the calibration region holds only zeros.")
    if threshold is None:
        weights = (1 - 2 * noise**2 / power.clamp_min(1e-300)).clamp_min(0)
    else:
        weights = (power > threshold**2 * power[-1]).double()
    share = float(weights.mean())
    if not 0 < share < 0.95:
        level = f"noise={noise:g}" if threshold is None else f"threshold={threshold:g}"
        found = (
            "nothing in the calibration region is signal" if share == 0 else "all of the calibration region is signal"
        )
        raise ValueError(f"with {level} {found}; prewhiten the k-space (estimate_noise, prewhiten) and use noise=1.")
    projector = (vectors * weights) @ vectors.mH
    lags = _correlate(projector.reshape(coils, kernel, kernel, coils, kernel, kernel))
    maps, eigenvalues = _eigenmaps(lags, height, width, sets)
    maps = _align_phase(maps, block)
    if sets > 1 and soft is not None:
        ramp = ((eigenvalues[1:] - soft[0]) / (soft[1] - soft[0])).clamp(0, 1)
        maps[:, 1:] *= ramp * ramp * (3 - 2 * ramp)
    if crop is not None:
        maps = maps * (eigenvalues > crop)
    return CoilMaps(maps.to(kspace.dtype), eigenvalues.to(kspace.real.dtype))


def _correlate(projector: Tensor) -> Tensor:
    """Sums a projector (J, k, k, J, k, k) over pairs of points with equal distance d: (J, J, 2k - 1, 2k - 1) / k^2."""
    coils, kernel = projector.shape[:2]
    lags = projector.new_zeros(coils, coils, 2 * kernel - 1, 2 * kernel - 1)
    for p in range(kernel):
        for q in range(kernel):
            # Point (p, q) of one patch against all points (r, s) of the other: distances p - r, q - s.
            part = projector[:, p, q].flip(2, 3)
            lags[:, :, p : p + kernel, q : q + kernel] += part
    return lags / kernel**2


def _eigenmaps(lags: Tensor, height: int, width: int, sets: int, limit: int = 2**22) -> tuple[Tensor, Tensor]:
    """Largest eigenvectors (J, C, H, W) and eigenvalues (C, H, W) of G at every pixel, some rows at a time."""
    coils, reach = lags.shape[0], lags.shape[-1] // 2
    distance = torch.arange(-reach, reach + 1, dtype=torch.float64, device=lags.device)

    def wave(size: int) -> Tensor:
        position = torch.arange(size, dtype=torch.float64, device=lags.device) - size // 2
        turns = 2 * torch.pi * distance[:, None] * position / size
        return torch.polar(torch.ones_like(turns), turns)

    along = torch.einsum("ijab,bw->ijaw", lags, wave(width))
    down = wave(height)
    maps = lags.new_empty(coils, sets, height, width)
    eigenvalues = lags.real.new_empty(sets, height, width)
    rows = max(1, limit // (coils * coils * width))
    for start in range(0, height, rows):
        part = slice(start, start + rows)
        matrix = torch.einsum("ijaw,ah->hwij", along, down[:, part])
        values, vectors = torch.linalg.eigh(matrix)
        eigenvalues[:, part] = values[..., -sets:].flip(-1).permute(2, 0, 1)
        maps[:, :, part] = vectors[..., -sets:].flip(-1).permute(2, 3, 0, 1)
    return maps, eigenvalues.clamp(0, 1)


def _align_phase(maps: Tensor, block: Tensor) -> Tensor:
    """Rotates every pixel so that a virtual body coil, the main component of the calibration data, has phase zero."""
    data = block.to(torch.complex128).flatten(1)
    _, vectors = torch.linalg.eigh(data @ data.mH)
    for column in range(maps.shape[1]):
        body = vectors[:, -1 - min(column, len(vectors) - 1)]
        seen = torch.einsum("j,jhw->hw", body.conj(), maps[:, column])
        maps[:, column] *= torch.polar(torch.ones_like(seen.real), -seen.angle())
    return maps
