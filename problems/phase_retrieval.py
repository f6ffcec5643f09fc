r"""Phase retrieval: a field from the intensity of its diffraction pattern, or of several behind known masks.

.. math:: y = |F P x| + n, \quad n \sim N(0, s^2) \qquad\text{or}\qquad y \sim \mathrm{Poisson}(|F P (m_k x)|^2 + b)

(`scidiff.operators.phase_retrieval`). The posterior of one unmasked pattern has several equal modes: the data know
neither the sign or phase of the field, nor its place in the frame, nor whether it is rotated by 180 degrees. Members
are brought together with the truth (`scidiff.problems.alignment`) before they are scored; without a truth they should
be looked at one by one, or aligned with one another.

Simulated cases begin with a field on a grid twice as fine. The detector sees the low frequencies of its transform; the
truth is what of the fine field lies below the highest frequency of the reconstruction's grid, inside the frame; behind
masks, whose pixels are squares, it is the mean over each of them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Generator, Tensor

from scidiff.errors import InputError
from scidiff.inference import Ensemble, Posterior
from scidiff.noise import GaussianNoise, PoissonNoise
from scidiff.operators import CodedDiffraction, FourierMagnitude
from scidiff.problems.alignment import align
from scidiff.problems.base import samples_of, stream
from scidiff.problems.imaging import GridProblem, axes, tensor
from scidiff.problems.phase_baselines import alternating_projections, amplitude_flow, misfit
from scidiff.protocols import Noise, Prior

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["SUCCESS", "PhaseRetrieval", "diffract"]

SUCCESS = 25.0
"""PSNR in dB after alignment from which on a start counts as a success."""

_HW = (-2, -1)


class PhaseRetrieval(GridProblem):
    """A picture from diffraction patterns without phase.

    Arguments:
        shape: Height and width of the field.
        masks: Number of known random phase masks, one pattern each; 0 is one pattern of the field itself.
        oversampling: Sides of the detector over those of the field; None takes 2 without masks and 1 with them.
        noise: Standard deviation of the noise of the amplitude, in units of the root mean square amplitude.
        photons: Mean number of photons per pixel of the field in each pattern. If given, counts are measured, not
            amplitudes, and ``noise`` is not used.
        stray: Photons of stray light per pixel of the detector, known; with ``photons`` only.
        positive: Whether the field is known not to be negative; used by the classical methods.
        source: What simulated cases show: "picture" (windows of a photograph that the bundled prior of pictures has not
            seen), "rings" (`scidiff.datasets.rings`), or "prior" (draws of a prior that has ``sample``, interpolated).
        starts: Number of starts of the classical method.
        prior: A prior of real fields (1, height, width); the name of a bundled one, or a ``.safetensors`` file.
        seed: Seed of masks, of simulated cases, and of the classical starts.
    """

    name, field, long_name = "phase-retrieval", "image", "image"
    measured, measured_long_name = "pattern", "diffraction pattern"
    default_sampler = "dps"

    def __init__(
        self,
        shape: tuple[int, int] = (64, 64),
        masks: int = 0,
        oversampling: float | None = None,
        noise: float = 0.05,
        photons: float | None = None,
        stray: float = 0.1,
        positive: bool = True,
        source: str = "picture",
        starts: int = 20,
        prior: str | os.PathLike[str] | Prior = "patches",
        seed: int = 0,
    ) -> None:
        super().__init__(locals(), prior, noise, seed)
        shape = (int(shape[0]), int(shape[1])) if len(shape) == 2 else shape
        if len(shape) != 2 or min(shape) < 4:
            raise ValueError(f"shape must be (height, width) of at least 4 pixels each, got {shape}.")
        if masks < 0 or starts < 1:
            raise ValueError(f"expected masks >= 0 and starts >= 1, got {masks} and {starts}.")
        if photons is not None and not photons > 0:
            raise ValueError(f"photons must be positive, got {photons}.")
        if not stray >= 0:
            raise ValueError(f"stray must not be negative, got {stray}.")
        if source not in ("picture", "rings", "prior"):
            raise ValueError(f"source must be 'picture', 'rings' or 'prior', got {source!r}.")
        factor = (1.0 if masks else 2.0) if oversampling is None else float(oversampling)
        self.shape, self.masks, self.oversampling, self.photons = shape, int(masks), factor, photons
        self.stray, self.positive, self.source, self.starts = float(stray), positive, source, int(starts)
        self.measured_dims = ("mask", "fy", "fx") if masks else ("fy", "fx")
        self.non_negative = photons is not None
        FourierMagnitude(shape, factor)  # validates oversampling
        if photons is not None:
            self.measured_units, self.measured_long_name = "count", "photons per pixel of the detector"

    # The instrument

    def operator(self, observation: xr.Dataset) -> FourierMagnitude | CodedDiffraction:
        """Amplitudes in units of the field, or intensities in their square."""
        factor = float(observation["oversampling"])
        power: Any = 1 if self.photons is None else 2
        stray = 0.0 if self.photons is None else self.stray / float(observation["photon_scale"])
        if not self.masks:
            return FourierMagnitude(self.shape, factor, power, stray)
        phase = tensor(observation["mask_phase"]).double()
        return CodedDiffraction(torch.polar(torch.ones_like(phase), phase), factor, power, stray, fill=1.0)

    def noise_of(self, observation: xr.Dataset) -> Noise:
        if self.photons is None:
            return GaussianNoise(float(observation["noise_std"]))
        return PoissonNoise(1 / float(observation["photon_scale"]))

    def measurement(self, observation: xr.Dataset) -> Tensor:
        y = super().measurement(observation)
        return y if self.photons is None else y / float(observation["photon_scale"])

    def setting(self, truth: xr.DataArray) -> xr.Dataset:
        return self._setting(tensor(truth)[None, None])

    def _setting(self, x: Tensor) -> xr.Dataset:
        """All but the pattern, for a field of this size and strength."""
        import xarray as xr

        coords: dict[str, Any] = {**axes(self.dims, self.shape)}
        factor = self.oversampling
        padded = FourierMagnitude(self.shape, factor).padded
        coords |= {
            d: (d, np.fft.fftfreq(n), {"units": "pixel-1", "long_name": "spatial frequency"})
            for d, n in zip(("fy", "fx"), padded, strict=True)
        }
        data: dict[str, Any] = {"oversampling": ((), factor, {"units": "1"})}
        energy = float(x.double().square().sum())
        if self.masks:
            turns = torch.rand(self.masks, *self.shape, generator=stream("masks", self.seed), dtype=torch.float64)
            attrs = {"units": "radian", "long_name": "phase shift of the masks"}
            data["mask_phase"] = (("mask", "y", "x"), (2 * torch.pi * turns).float().numpy(), attrs)
        if self.photons is None:
            std = float(self.noise or 0) * (energy / np.prod(padded)) ** 0.5
            attrs = {"units": self.measured_units, "long_name": "standard deviation of the noise"}
            data["noise_std"] = ((), std, attrs)
        else:
            scale = self.photons * float(np.prod(self.shape)) / energy
            data["photon_scale"] = ((), scale, {"units": "1", "long_name": "photons per squared unit of the field"})
        return xr.Dataset(data, coords)

    def complete(self, observation: xr.Dataset, what: str) -> xr.Dataset:
        """Adds coordinates, noise and oversampling where a file holds the pattern alone, and checks sizes."""
        sizes = observation[self.measured].sizes
        padded = (sizes["fy"], sizes["fx"])
        if "oversampling" not in observation:
            observation = observation.assign(oversampling=((), self.oversampling, {"units": "1"}))
        expected = FourierMagnitude(self.shape, float(observation["oversampling"])).padded
        if padded != expected:
            raise InputError(f"{what}: the pattern has {padded} pixels, but {self.shape} with this oversampling needs "
                             f"{expected}; set shape or oversampling.")  # fmt: skip
        if self.masks:
            if "mask_phase" not in observation:
                raise InputError(f"{what}: expected 'mask_phase' (mask, y, x) in radians beside the patterns.")
            shape = (sizes["mask"], *self.shape)
            if observation["mask_phase"].shape != shape:
                raise InputError(f"{what}: 'mask_phase' has shape {observation['mask_phase'].shape}, expected {shape}.")
        for dim, axis in axes(self.dims, self.shape).items():
            if dim not in observation.coords:
                observation = observation.assign_coords({dim: axis})
        values = np.asarray(observation[self.measured].values, dtype=float)
        if self.photons is not None and "photon_scale" not in observation:
            raise InputError(f"{what}: counts need 'photon_scale', photons per squared unit of the field.")
        if self.photons is None and "noise_std" not in observation:
            std = float(self.noise or 0) * float(np.sqrt((values**2).mean()))
            observation = observation.assign(noise_std=((), std, {"units": self.measured_units}))
        return observation

    def field_coords(self, observation: xr.Dataset) -> dict[str, Any]:
        return {dim: observation[dim] for dim in self.dims}

    def posterior(self, observation: xr.Dataset) -> Posterior:
        found = super().posterior(observation)
        with torch.no_grad():
            field = found.prior.decode(torch.zeros(1, *(found.shape or ())))
        if field.is_complex():
            raise InputError("the prior has complex fields; this problem is one of real fields.")
        return found

    # Cases

    def simulate(self, index: int, generator: Generator) -> tuple[xr.DataArray, xr.Dataset]:
        import xarray as xr

        fine = self._fine(generator)[None, None]
        phases = None
        if self.masks:
            setting = self._setting(torch.ones(1, 1, *self.shape))
            phases = tensor(setting["mask_phase"]).double()
        wave, x = diffract(fine, self.shape, self.oversampling, phases)
        setting = self._setting(x)
        if self.photons is None:
            z = wave.abs()
        else:
            z = wave.abs().square() + self.stray / float(setting["photon_scale"])
        y = self.noise_of(setting).sample(z.float(), generator)
        truth = xr.DataArray(
            x[0, 0].float().numpy(), axes(self.dims, self.shape), self.dims,
            attrs={"units": self.units, "long_name": self.long_name},
        )  # fmt: skip
        return truth, self.with_measurement(setting, self.to_array(y))

    def with_measurement(self, setting: xr.Dataset, values: np.ndarray) -> xr.Dataset:
        if self.photons is not None and "photon_scale" in setting:
            values = (values * float(setting["photon_scale"])).round()  # the operator gives squares of the field
        return super().with_measurement(setting, values)

    def _fine(self, generator: Generator) -> Tensor:
        """A field (2 H, 2 W), float64."""
        height, width = self.shape
        if self.source == "rings":
            from scidiff.datasets.rings import ring_image

            return 4 * ring_image((2 * height, 2 * width), generator)  # per pixel of the coarse grid
        if self.source == "picture":
            from scidiff.datasets.patches import _read
            from scidiff.datasets.simulator import window

            image = _read("chelsea")
            return image[window(image.shape, (2 * height, 2 * width), generator, "the picture")].double()
        sample: Any = getattr(self.prior, "sample", None)
        if sample is None:
            raise ValueError(f"source='prior' needs a prior with `sample`; {type(self.prior).__name__} has none.")
        return interpolate(sample(1, generator)[0, 0].double())

    # Comparisons

    def classical(self, operator: Any, y: Tensor, observation: xr.Dataset) -> dict[str, Tensor]:
        """With masks ``amplitude_flow``; else the best start of ``hio`` and of ``error_reduction``."""
        generator = stream("starts", self.seed)
        if self.masks:
            return {
                "amplitude_flow": amplitude_flow(
                    operator, y, real=True, positive=self.positive, generator=generator
                ).best
            }
        return {
            name: alternating_projections(
                operator, y, self.starts, steps, real=True, positive=self.positive, generator=generator
            ).best
            for name, steps in (("hio", 400), ("error_reduction", 0))
        }

    def aligned(self, samples: Tensor, truth: Tensor) -> Tensor:
        free = self.masks == 0
        sign = not self.positive or bool((samples.mean() < 0) != (truth.mean() < 0))
        return align(samples[:, 0], truth[0][None] if truth.ndim == 5 else truth, sign, free, free)[:, None]

    def check(self, observation: xr.Dataset) -> dict[str, Any]:
        """Also ``residual``: relative misfit of the amplitudes of the best classical answer, beside ``noise``."""
        found = super().check(observation)
        operator, y = self.operator(observation), self.measurement(observation)
        best = next(iter(self.classical(operator, y, observation).values()))
        found["residual"] = float(misfit(operator, best.to(y.dtype), y))
        if self.photons is None:
            found["noise_level"] = float(observation["noise_std"]) / float(y.square().mean().sqrt())
            if found["residual"] > 3 * found["noise_level"]:
                found["warnings"].append(
                    f"the best classical answer misses the amplitudes by {found['residual']:.2g} of their size, the "
                    f"noise is {found['noise_level']:.2g}: wrong frame or oversampling, or too few starts."
                )
        return found

    def evaluate(self, ensemble: Ensemble | xr.Dataset, truth: xr.Dataset | None = None) -> xr.Dataset:
        """Scores after alignment; also ``success_rate`` and the median and best PSNR over members taken singly."""
        scores = super().evaluate(ensemble, truth)
        if truth is None:
            return scores
        x = tensor(self.truth_array(truth))[None, None]
        each = self.member_psnr(samples_of(ensemble, self.field, (1, *self.shape)), x)
        found = {
            "success_rate": (each >= SUCCESS).double().mean(),
            "psnr_median": each.median(),
            "psnr_best": each.max(),
        }
        return scores.assign(
            {k: ((), float(v), {"units": "1" if k == "success_rate" else "dB"}) for k, v in found.items()}
        )

    def member_psnr(self, samples: Tensor, truth: Tensor) -> Tensor:
        """PSNR of every member (M, 1, 1, H, W) by itself after alignment, range of values of the truth: (M,)."""
        moved = self.aligned(samples, truth.to(samples.dtype))[:, 0]
        error = (moved - truth).square().flatten(1).mean(1).sqrt()
        return 20 * torch.log10(float(truth.max() - truth.min()) / error)


def diffract(
    fine: Tensor, shape: tuple[int, int], oversampling: float, phases: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """What the detector sees of a field on a finer grid, and that field on the grid of the reconstruction.

    Arguments:
        fine: (B, 1, f H, f W) with an integer f; values per area of one coarse pixel.
        shape: H and W.
        oversampling: Sides of the detector over H and W.
        phases: Phases of masks (K, H, W), constant over each coarse pixel.

    Returns:
        Waves at the detector, (B, 1, fy, fx) or (B, 1, K, fy, fx), in the normalisation of the operators, up to the
        phase of half a fine pixel; and the field (B, 1, H, W), without masks what lies below the highest frequency of
        the coarse grid, with masks the means over its pixels.
    """
    factor = fine.shape[-1] // shape[-1]
    padded = FourierMagnitude(shape, oversampling).padded
    if phases is None:
        centre = torch.fft.fft2(fine, s=[factor * 2 * n for n in shape]) / factor**2
        whole = torch.fft.ifft2(_low(centre, [2 * n for n in shape]))
        x = whole.real[..., : shape[0], : shape[1]]
    else:
        x = torch.nn.functional.avg_pool2d(fine[:, 0], factor)[:, None]
        mask = torch.polar(torch.ones_like(phases), phases)
        fine = fine[:, :, None] * mask.repeat_interleave(factor, -1).repeat_interleave(factor, -2)
    wave = _low(torch.fft.fft2(fine, s=[factor * n for n in padded]), padded) / factor**2
    if phases is not None:  # square fine pixels too
        for dim, n in zip(_HW, padded, strict=True):
            response = torch.sinc(torch.fft.fftfreq(n, dtype=torch.float64) / factor)
            wave = wave * (response[:, None] if dim == -2 else response)
    return wave / (padded[0] * padded[1]) ** 0.5, x.contiguous()


def _low(spectrum: Tensor, sides: Sequence[int]) -> Tensor:
    """The entries of a transform whose frequencies a smaller grid has, zero frequency first."""
    for dim, n in zip(_HW, sides, strict=True):
        keep = (torch.fft.fftfreq(n) * n).round().long() % spectrum.shape[dim]
        spectrum = spectrum.index_select(dim, keep)
    return spectrum


def interpolate(x: Tensor) -> Tensor:
    """A field (H, W) on a grid twice as fine, by its Fourier series."""
    height, width = x.shape
    spectrum = torch.fft.fftshift(torch.fft.fft2(x))
    pad = [width // 2, width - width // 2, height // 2, height - height // 2]
    wide = torch.nn.functional.pad(torch.view_as_real(spectrum).movedim(-1, 0), pad)
    back = torch.fft.ifft2(torch.fft.ifftshift(torch.complex(*wide), dim=_HW))
    return 4 * back.real
