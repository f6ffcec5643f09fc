r"""Scores of images of a compact source: alignment, similarity, sharpness lost to a beam, rings over members.

Closure quantities do not know where on the sky the source is: every score compares images after the shift that makes
their cross-correlation largest. "Blurred" means convolved with a Gaussian of 20 microarcseconds full width at half
maximum, about the resolution of the Event Horizon Telescope.

A member is **kept** if the misfit (mean squared whitened residual) of the closure phases and that of the log closure
amplitudes both lie between ``CHI2_LIMITS``. If fewer than half of the members are kept because their misfit is too
large, prior and data contradict each other, or the sampler has not converged: `verdict` says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from scidiff.inference import Likelihood
from scidiff.metrics import coverage, crps, psnr, spread_skill
from scidiff.operators.interferometry.likelihoods import chi2
from scidiff.problems.ring_shape import RingShape, measure_ring

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["BEAM", "CHI2_LIMITS", "align", "blurred", "correlation", "member_table", "similarity", "summary", "verdict"]

BEAM = 20.0
CHI2_LIMITS = (0.8, 1.5)
CLOSURES = ("closure_phase", "log_closure_amplitude")


def blurred(images: np.ndarray, pixel: float, beam: float = BEAM) -> np.ndarray:
    """Images (..., H, W) convolved with a Gaussian of the given full width at half maximum; dark outside."""
    from scipy.ndimage import gaussian_filter

    sigma = beam / (2 * np.sqrt(2 * np.log(2))) / pixel
    return gaussian_filter(images, sigma, mode="constant", axes=(-2, -1))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Normalised cross-correlation of two images of the same shape, 1 for equal ones up to scale and offset."""
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def align(images: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images (M, H, W) shifted onto a reference (H, W), and the shifts (M, 2) in pixels.

    The shift is that of the largest cross-correlation: to the pixel by FFT, then to a fraction by a parabola along each
    axis. Images are interpolated by cubic splines, dark outside, negative overshoots set to zero.
    """
    from scipy.ndimage import shift

    height, width = reference.shape
    size = (2 * height, 2 * width)
    target = np.fft.rfft2(reference, size).conj()
    moved, shifts = [], []
    for image in images:
        cross = np.fft.irfft2(np.fft.rfft2(image, size) * target, size)
        peak = np.unravel_index(int(cross.argmax()), size)
        place = []
        for axis, k in enumerate(peak):
            low, mid, high = (
                cross[tuple((k + d) % size[axis] if a == axis else p for a, p in enumerate(peak))] for d in (-1, 0, 1)
            )
            bend = low - 2 * mid + high
            fine = k + (0.5 * (low - high) / bend if bend < 0 else 0.0)
            place.append(-(fine - size[axis] if fine > size[axis] / 2 else fine))
        shifts.append(place)
        moved.append(np.clip(shift(image, place, order=3, mode="constant"), 0, None))
    return np.stack(moved), np.array(shifts)


def member_table(images: Tensor, likelihoods: tuple[Likelihood, ...], pixel: float) -> xr.Dataset:
    """Misfits per data product and ring of every member: dimension ``member``.

    Arguments:
        images: (M, 1, H, W), Jy per pixel.
        likelihoods: Of the observation; empty where it is not known.
        pixel: Microarcseconds.
    """
    import xarray as xr

    columns: dict[str, np.ndarray] = {}
    if likelihoods:
        with torch.no_grad():
            misfits = chi2(likelihoods, images.to(likelihoods[0].y.dtype.to_real()))
        columns = {f"chi2_{name}": value.double().numpy() for name, value in misfits.items()}
        inside = [
            (columns[f"chi2_{n}"] >= CHI2_LIMITS[0]) & (columns[f"chi2_{n}"] <= CHI2_LIMITS[1])
            for n in CLOSURES
            if f"chi2_{n}" in columns
        ]
        columns["kept"] = np.all(inside, 0) if inside else np.ones(len(images), bool)
    columns["flux"] = images.double().sum((1, 2, 3)).numpy()
    shapes: list[RingShape] = [measure_ring(image[0].double().numpy(), pixel) for image in images]
    for name in ("diameter", "width", "hollow", "dispersion", "gap", "angle", "asymmetry", "is_ring"):
        columns[name] = np.array([getattr(shape, name) for shape in shapes])
    units = {"diameter": "microarcsecond", "width": "microarcsecond", "angle": "degree", "flux": "Jy"}
    return xr.Dataset({k: (("member",), v, {"units": units.get(k, "1")}) for k, v in columns.items()})


def verdict(table: xr.Dataset) -> list[str]:
    """What the misfits of the members say about prior and data: a sentence, or none if all is well."""
    names = [name for name in CLOSURES if f"chi2_{name}" in table]
    if not names:
        return []
    worst = np.max([table[f"chi2_{name}"].values for name in names], 0)
    missed = int((worst > CHI2_LIMITS[1]).sum())
    if 2 * missed <= len(worst):
        return []
    medians = ", ".join(f"{name.replace('_', ' ')}s {float(table[f'chi2_{name}'].median()):.2f}" for name in names)
    return [
        f"{missed} of {len(worst)} members have a misfit above {CHI2_LIMITS[1]} (median chi2: {medians}): the prior "
        "cannot explain the data (is the source outside of it?), the errors are larger than stated, or the sampler "
        "needs more steps."
    ]


def summary(table: xr.Dataset) -> dict[str, float]:
    """Numbers over the members; those of the ring over the members kept that are rings (all, if none is kept)."""
    scores: dict[str, float] = {}
    for name in table.data_vars:
        if str(name).startswith("chi2_"):
            scores[str(name)] = float(table[name].mean())
    if "kept" in table:
        scores["kept"] = float(table["kept"].sum())
        scores["out_of_prior"] = float(bool(verdict(table)))
    good = (
        table["kept"].values if "kept" in table and bool(table["kept"].any()) else np.ones(table.sizes["member"], bool)
    )
    scores["ring_share"] = float(table["is_ring"].values[good].mean())
    rings = good & table["is_ring"].values
    for name in ("diameter", "width"):
        values = table[name].values[rings]
        scores[f"ring_{name}"] = float(values.mean()) if len(values) else float("nan")
        scores[f"ring_{name}_spread"] = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
    return scores


def similarity(images: np.ndarray, truth: np.ndarray, pixel: float) -> dict[str, float]:
    """Scores of members (M, H, W) against a truth (H, W): of their mean, and of the ensemble."""
    members, _ = align(images, truth)
    mean = members.mean(0)
    soft_mean, soft_truth = blurred(mean, pixel), blurred(truth, pixel)

    def decibels(a: np.ndarray, b: np.ndarray) -> float:
        return float(psnr(torch.as_tensor(a)[None], torch.as_tensor(b)[None]))

    scores = {
        "ncc": correlation(mean, truth),
        "psnr": decibels(mean, truth),
        "ncc_blurred": correlation(soft_mean, soft_truth),
        "psnr_blurred": decibels(soft_mean, soft_truth),
    }
    if len(members) > 1:
        x, y = torch.as_tensor(members)[:, None, None], torch.as_tensor(truth)[None, None]
        scores |= {
            "crps": float(crps(x, y).mean()),
            "spread_skill": float(spread_skill(x, y)),
            "coverage_90": float(coverage(x, y, 0.9)),
        }
    return scores


def select(result: Any, table: xr.Dataset) -> tuple[Any, int]:
    """The result with the members that are kept, and the number of those that were rejected."""
    good = np.flatnonzero(table["kept"].values)
    return result.isel(member=good), int(table.sizes["member"] - len(good))
