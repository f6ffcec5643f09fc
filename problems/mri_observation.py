r"""From raw k-space to an observation: what is kept, how noisy it is, and which coil maps explain it.

Steps, in this order:

1. An undersampling mask is drawn and the samples outside it are set aside (``held_back_kspace``), to validate with.
2. The noise covariance of the coils is estimated from the scan itself, and the coils are mixed so that their noise is
   white with one standard deviation ``noise_std`` (prewhitening). The units stay those of the scan.
3. Coil maps are estimated by ESPIRiT from the fully sampled centre of what is kept.
4. The image's scale, the 99th percentile of its magnitude, is estimated from a regularised least-squares fit.
5. Where the scan is fully sampled, the image that all samples give with these maps becomes the ``reference``:
   :math:`x = (S^H S)^{-1} S^H F^{-1} k`, itself noisy. With maps of unit norm its noise is ``noise_std`` per component.

Variables of the observation: ``kspace`` (coil, ky, kx) and ``mask`` (ky, kx); ``held_back_kspace`` and
``held_back_mask``, if any; ``coil_maps`` (coil, set, y, x); ``zero_filled``; ``reference``, if known; the scalars
``noise_std``, ``image_scale``, ``forward_chi2``, ``forward_fit_chi2``; ``whitening`` (coil, receiver).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from scidiff.errors import InputError
from scidiff.operators.mri import CartesianMRI, espirit, estimate_noise, held_back_chi2, masks, prewhiten
from scidiff.problems.base import require, stream
from scidiff.problems.baselines import least_squares, zero_filled

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Sampling", "combine", "image_array", "observation_from_kspace", "operator_of", "tensor"]

CHI2_LIMIT = 1.3  # above it the forward model does not explain the scan: a sampler would invent structure
SECOND_SET_GAIN = 0.9  # a second set of maps must lower chi2 below this share of the first to be worth its freedom


@dataclass(frozen=True)
class Sampling:
    """Which samples are kept.

    Attributes:
        acceleration: Points of the full grid per point kept, at least 1.
        pattern: ``"random"`` or ``"uniform"`` lines, or ``"poisson"`` points.
        calibration: Share of lines (of each side, for points) that is fully sampled in the middle.
        seed: Seed of the pattern.
        validation: Share of the points set aside where a scan is accelerated already and the pattern drops nothing.
        lines: Direction across which lines are dropped, ``"ky"`` or ``"kx"``; ``"auto"`` takes the phase encoding that
            the file states, else ky.
    """

    acceleration: float
    pattern: str
    calibration: float
    seed: int
    validation: float = 0.0
    lines: str = "auto"

    def draw(self, shape: tuple[int, int], phase_encoding: str = "ky") -> Tensor:
        """A mask (H, W) for a fully sampled scan."""
        generator = stream("mask", self.seed)
        axis = {"ky": -2, "kx": -1}[phase_encoding if self.lines == "auto" else self.lines]
        if self.acceleration == 1:
            return torch.ones(shape, dtype=torch.bool)
        if self.pattern == "random":
            return masks.random(shape, self.acceleration, self.calibration, axis, generator=generator)
        if self.pattern == "uniform":
            return masks.uniform(shape, self.acceleration, self.calibration, axis)
        return masks.poisson_disc(shape, self.acceleration, self.calibration, generator=generator)

    def keep(self, measured: Tensor, phase_encoding: str = "ky") -> tuple[Tensor, str]:
        """The part of the measured points that is kept, and a remark where the scan is not fully sampled."""
        share = float(measured.float().mean())
        try:
            drawn = self.draw(tuple(measured.shape), phase_encoding)  # type: ignore[arg-type]
        except ValueError as error:
            raise InputError(f"no undersampling mask for k-space of shape {tuple(measured.shape)}: {error}") from error
        if share == 1:
            return drawn, ""
        remark = f"the scan is not fully sampled: {share:.1%} of k-space was measured ({1 / share:.1f}x accelerated)"
        if share * self.acceleration <= 1.02:
            kept = self._set_aside(measured)
            share_kept = f"all but {self.validation:.0%}, set aside for validation," if self.validation else "all of it"
            return kept, f"{remark}, less than acceleration={self.acceleration:g} asks for; {share_kept} is kept."
        kept = measured & drawn
        if self.acceleration > 1:
            total = kept.numel() / max(int(kept.sum()), 1)
            remark += f"; with acceleration={self.acceleration:g} on top, {total:.1f}x in all"
        return kept, remark + "; there is no reference image."

    def _set_aside(self, measured: Tensor) -> Tensor:
        """The measured points less a random share of those outside the calibration region."""
        outside = measured.clone()
        outside[masks.calibration_region(measured)] = False
        count = round(self.validation * int(measured.sum()))
        candidates = outside.flatten().nonzero()[:, 0]
        order = torch.randperm(len(candidates), generator=stream("validation", self.seed))
        kept = measured.flatten().clone()
        kept[candidates[order[:count]]] = False
        return kept.reshape(measured.shape)


def tensor(array: xr.DataArray) -> Tensor:
    """The values as a tensor of their own."""
    return torch.as_tensor(np.array(array.values))


def operator_of(observation: xr.Dataset, mask: Tensor | None = None) -> CartesianMRI:
    """The forward model of an observation, or of another mask with the same maps."""
    maps = tensor(observation["coil_maps"].transpose("coil", "set", "y", "x"))
    return CartesianMRI(maps, tensor(observation["mask"]) if mask is None else mask)


def combine(kspace: Tensor, maps: Tensor) -> Tensor:
    """The least-squares image (1, C, H, W) of fully sampled k-space (J, H, W), maps (J, C, H, W)."""
    full = CartesianMRI(maps, torch.ones(kspace.shape[-2:], dtype=torch.bool))
    ridge = 1e-6 if full.sets > 1 else 0.0  # weights of a second set may be zero
    return least_squares(full, full.sample(kspace)[None], ridge, iterations=30)


def image_array(values: Tensor, data: xr.Dataset, name: str, long_name: str) -> xr.DataArray:
    """An image (1, C, H, W) with the coordinates of a scan: (y, x), or (set, y, x) for several sets of maps."""
    import xarray as xr

    voxel = data.attrs.get("voxel_size")
    size = [1.0, 1.0] if voxel is None else [float(v) for v in voxel]
    attrs = {"units": "pixel" if voxel is None else "mm"}
    coords: dict[str, Any] = {
        dim: (dim, (np.arange(n) - n // 2) * step, attrs)
        for dim, n, step in zip(("y", "x"), values.shape[-2:], size, strict=True)
    }
    image = values[0].cpu().numpy()
    dims: tuple[str, ...] = ("set", "y", "x")
    if len(image) == 1:
        image, dims = image[0], ("y", "x")
    units = data["kspace"].attrs.get("units", "a.u.")
    return xr.DataArray(image, coords, dims, name, {"units": units, "long_name": long_name})


def observation_from_kspace(
    data: xr.Dataset, sampling: Sampling, sets: int | str = "auto", clean: Tensor | None = None
) -> tuple[xr.Dataset, Tensor | None]:
    """The observation of a scan, and the true image where the noiseless k-space is known.

    Arguments:
        data: ``kspace`` (coil, ky, kx) and ``mask`` (ky, kx), as `scidiff.datasets.read_kspace` gives them.
        sampling: Which samples to keep.
        sets: Sets of coil maps, or ``"auto"``: two where one leaves chi2 above 1.3 and two are clearly better.
        clean: Noiseless k-space (coil, ky, kx) of a simulated scan; the truth is its image under the estimated maps.

    Raises:
        InputError: if noise or coil maps cannot be estimated from what is kept.
    """
    import xarray as xr

    raw = tensor(require(data, "kspace", ("coil", "ky", "kx"), "the scan")).to(torch.complex64)
    measured = torch.ones(raw.shape[-2:], dtype=torch.bool)
    if "mask" in data:
        measured = tensor(require(data, "mask", ("ky", "kx"), "the scan")).to(torch.bool)
    try:
        mask, remark = sampling.keep(measured, data.attrs.get("phase_encoding", "ky"))
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"the scan cannot be modelled: {error}") from error
    if not bool(mask.any()):
        raise InputError("the mask samples nothing: no measured point of k-space is kept; lower the acceleration.")
    try:
        covariance = estimate_noise(raw, measured).covariance
        noise_std = float(covariance.diagonal().real.mean().sqrt())
        identity = torch.eye(len(raw), dtype=torch.complex128)
        white, whitening = prewhiten(covariance, raw * measured, identity)
        chosen, check = _maps(white * mask, mask, sets, sampling.seed)
    except ValueError as error:
        raise InputError(f"the scan cannot be modelled: {error}") from error

    scale = float(torch.quantile(check.image.abs().square().sum(0).sqrt().flatten(), 0.99)) * noise_std
    kept = noise_std * white * mask
    model = CartesianMRI(chosen, mask)
    units = data["kspace"].attrs.get("units", "a.u.")
    axes = {dim: data[dim] for dim in ("ky", "kx") if dim in data.coords}

    def number(value: float, long_name: str, units: str = "1") -> tuple[tuple[()], float, dict[str, str]]:
        return (), value, {"long_name": long_name, "units": units}

    out = xr.Dataset(
        {
            "kspace": (("coil", "ky", "kx"), kept.numpy(), {"units": units, "long_name": "k-space, prewhitened"}),
            "mask": (("ky", "kx"), mask.numpy(), {"long_name": "points kept"}),
            "coil_maps": (("coil", "set", "y", "x"), chosen.numpy(), {"units": "1", "long_name": "coil sensitivities"}),
            "whitening": (
                ("coil", "receiver"),
                (noise_std * whitening).to(torch.complex64).numpy(),
                {"units": "1", "long_name": "mixing of the receivers that makes their noise white"},
            ),
            "noise_std": number(noise_std, "noise of k-space per real component", units),
            "image_scale": number(scale, "99th percentile of the magnitude of a least-squares image", units),
            "forward_chi2": number(check.held_back, "chi2 of predicted samples over that of a perfect model"),
            "forward_fit_chi2": number(check.fit, "chi2 of a least-squares fit per degree of freedom"),
        },
        axes,
        {k: v for k, v in data.attrs.items()},
    )
    seen = zero_filled(model, model.sample(kept)[None])
    out["zero_filled"] = image_array(seen, data, "zero_filled", "zero-filled image, coils combined")
    out = out.assign_coords({"y": out["zero_filled"]["y"], "x": out["zero_filled"]["x"]})
    if remark:
        out.attrs["remark"] = remark
    dropped = measured & ~mask
    if bool(dropped.any()):
        aside = noise_std * white * dropped
        about = {"units": units, "long_name": "k-space set aside, prewhitened"}
        out["held_back_kspace"] = (("coil", "ky", "kx"), aside.numpy(), about)
        out["held_back_mask"] = (("ky", "kx"), dropped.numpy(), {"long_name": "points set aside"})
        if bool(measured.all()) and clean is None:
            image = combine(noise_std * white, chosen)
            reference = image_array(image, data, "reference", "image of the fully sampled scan")
            out["reference"] = reference.assign_attrs(noise_std=noise_std)
    truth = None
    if clean is not None:
        truth = combine(noise_std * prewhiten(covariance, clean.to(torch.complex64))[0], chosen)
    return out, truth


def _maps(white: Tensor, mask: Tensor, sets: int | str, seed: int) -> tuple[Tensor, Any]:
    """Coil maps (J, C, H, W) from whitened k-space of unit noise, and the check of the forward model with them."""

    def attempt(count: int) -> tuple[Tensor, Any]:
        maps = espirit(white, mask, sets=count, noise=1.0).maps.to(torch.complex64)
        return maps, held_back_chi2(white, mask, maps, generator=stream("check", seed))

    if sets != "auto":
        return attempt(int(sets))
    first = attempt(1)
    if first[1].held_back <= CHI2_LIMIT or len(white) < 2:
        return first
    second = attempt(2)
    return second if second[1].held_back < SECOND_SET_GAIN * first[1].held_back else first
