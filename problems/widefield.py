r"""Widefield deconvolution: the fluorescence in a volume from a stack of planes that are all partly out of focus.

.. math:: y - o \sim g\,\mathrm{Poisson}\big((k * x + b) / g\big)

with the point-spread function :math:`k` (sum one), the background :math:`b`, and gain :math:`g` and offset :math:`o` of
the camera, which the stack itself tells (`scidiff.operators.camera`). The field extends a margin beyond the stack.

**Misfit of the model.** The best positive field (Richardson and Lucy) is compared with the data. What it misses beyond
the photon noise is the error of the model, most often of :math:`k`; the variance of the noise is multiplied by that
factor (``misfit``), because a posterior that trusts a wrong pattern to the photon invents structure.

**The prior** knows little, and says what: homogeneous, one correlation length, one level and one variability, all three
from this very stack. ``"positive"`` is :math:`x = s\ln(1 + e^z)` with Gaussian z, so that no draw is negative;
``"gaussian"`` is Gaussian itself, and with ``noise="gaussian"`` the posterior is then known in closed form.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from scidiff.errors import InputError
from scidiff.inference import Posterior
from scidiff.noise import GaussianNoise, PoissonNoise
from scidiff.operators.camera import photon_transfer
from scidiff.operators.psf_widefield import born_wolf
from scidiff.operators.units import magnitude
from scidiff.operators.widefield import Background, WidefieldBlur
from scidiff.priors import GaussianPrior
from scidiff.priors.transformed import TransformedPrior
from scidiff.problems.imaging import GridProblem, axes, tensor
from scidiff.problems.widefield_baselines import correlation_length, richardson_lucy, spectrum, wiener
from scidiff.protocols import Noise, Operator, Prior
from scidiff.transforms import Softplus

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["WidefieldDeconvolution", "beads"]

MISFIT_LIMIT = 1.5
"""Ratio of squared residuals to photon noise above which the model is called wrong."""

_SCALARS = ("gain", "offset", "background", "misfit", "prior_mean", "prior_std", "prior_length", "prior_scale")


class WidefieldDeconvolution(GridProblem):
    """A volume of fluorescence from a widefield stack.

    Arguments:
        psf: TIFF file with the point-spread function of the microscope on the voxels of the stack, focus at the entry
            ``side // 2``; None computes one from ``wavelength``, ``na`` and ``index``.
        voxel: Spacing along z, y and x in micrometres (or pint quantities); None takes what the file states.
        wavelength: Of the emitted light, micrometres or a pint quantity.
        na: Numerical aperture.
        index: Refractive index of the immersion medium.
        margin: Voxels of the field beyond the stack along z, y and x (or one number).
        gain: Units of the stack per photon; None estimates it from the stack.
        offset: What the camera shows without light; None estimates it.
        background: Light from no fluorophore of the field, in units of the stack.
        noise: "poisson", or "gaussian" with the mean variance of the stack everywhere.
        prior: "positive", "gaussian" (see the module), or a prior of fields (1, z, y, x) with margins.
        iterations: Steps of Richardson and Lucy.
        shape: Planes, rows and columns of simulated cases, which show small spheres.
        photons: Photons in the brightest voxel of simulated cases.
        seed: Seed of simulated cases.
    """

    name, field, long_name, units = "widefield", "fluorescence", "fluorescence", "count"
    dims = ("z", "y", "x")
    measured, measured_long_name, measured_units = "stack", "camera counts", "count"
    measured_dims = ("plane", "row", "column")
    non_negative = True

    def __init__(
        self,
        psf: str | os.PathLike[str] | None = None,
        voxel: tuple[float, float, float] | None = None,
        wavelength: float = 0.52,
        na: float = 0.75,
        index: float = 1.33,
        margin: int | tuple[int, int, int] = 4,
        gain: float | None = None,
        offset: float | None = None,
        background: float = 0.0,
        noise: str = "poisson",
        prior: str | os.PathLike[str] | Prior = "positive",
        iterations: int = 30,
        shape: tuple[int, int, int] = (16, 32, 32),
        photons: float = 500.0,
        seed: int = 0,
    ) -> None:
        super().__init__(locals(), prior, None, seed)
        if noise not in ("poisson", "gaussian"):
            raise ValueError(f"noise must be 'poisson' or 'gaussian', got {noise!r}.")
        beyond = (margin,) * 3 if isinstance(margin, int) else tuple(int(m) for m in margin)
        if len(beyond) != 3 or min(beyond) < 0 or len(shape) != 3 or min(shape) < 4:
            raise ValueError(f"margin holds three numbers >= 0, shape three >= 4; got {margin} and {shape}.")
        for label, value in (("gain", gain), ("photons", photons), ("iterations", iterations)):
            if value is not None and not value > 0:
                raise ValueError(f"{label} must be positive, got {value}.")
        if not background >= 0:
            raise ValueError(f"background must not be negative, got {background}.")
        self.psf, self.margin, self.gain, self.offset, self.background = psf, beyond, gain, offset, float(background)
        self.voxel = None if voxel is None else tuple(float(magnitude(v, "micrometer", "voxel")) for v in voxel)
        self.wavelength, self.na, self.index = float(magnitude(wavelength, "micrometer", "wavelength")), na, index
        for key in ("voxel", "wavelength"):  # plain numbers, for the record
            self.arguments[key] = getattr(self, key)
        self.kind, self.iterations = noise, int(iterations)
        self.shape, self.photons = tuple(int(n) for n in shape), float(photons)

    # The instrument

    def blur(self, observation: xr.Dataset) -> WidefieldBlur:
        """The linear part of the model."""
        shape = [observation.sizes[d] for d in self.measured_dims]
        return WidefieldBlur(tensor(observation["psf"]), shape, self.margin)  # type: ignore[arg-type]

    def operator(self, observation: xr.Dataset) -> Operator:
        """The blur with background; with Gaussian noise the background is taken from the data, so that it is linear."""
        blur = self.blur(observation)
        return blur if self.kind == "gaussian" else Background(blur, float(observation["background"]))

    def measurement(self, observation: xr.Dataset) -> Tensor:
        y = super().measurement(observation) - float(observation["offset"])
        return y - float(observation["background"]) if self.kind == "gaussian" else y.clamp(min=0)

    def variance(self, observation: xr.Dataset) -> float:
        """Gain with the misfit of the model: variance of the noise over the mean."""
        return float(observation["gain"]) * float(observation["misfit"])

    def noise_of(self, observation: xr.Dataset) -> Noise:
        if self.kind == "poisson":
            return PoissonNoise(self.variance(observation))
        level = float(observation[self.measured].mean()) - float(observation["offset"])
        return GaussianNoise(math.sqrt(self.variance(observation) * level))

    def posterior(self, observation: xr.Dataset) -> Posterior:
        return super().posterior(self.complete(observation, "the observation"))

    def baselines(self, observation: xr.Dataset) -> dict[str, xr.DataArray]:
        return super().baselines(self.complete(observation, "the observation"))

    def load(self, path: str) -> Any:
        from scidiff.datasets.tiff_stack import read_stack

        return read_stack(path, self.voxel).to_dataset()

    def complete(self, observation: xr.Dataset, what: str) -> xr.Dataset:
        """Adds pattern, gain, offset, misfit and the numbers of the prior, where the observation lacks them."""
        stack = observation[self.measured]
        if min(stack.shape) < 4:
            raise InputError(f"{what}: the stack has {stack.shape} voxels, expected at least 4 along each side.")
        if "psf" not in observation:
            pattern = self._pattern(stack, what)
            dims = ("psf_z", "psf_y", "psf_x")
            about = {"units": "1", "long_name": "point-spread function"}
            observation = observation.assign(psf=(dims, pattern.float().numpy(), about))
        pattern = np.asarray(observation["psf"].values)
        if pattern.ndim != 3 or not np.isfinite(pattern).all() or pattern.min() < 0 or not pattern.sum() > 0:
            raise InputError(f"{what}: 'psf' must be a stack of finite numbers >= 0 that are not all zero.")
        if all(name in observation for name in _SCALARS):
            return observation
        observation = observation.assign(psf=observation["psf"] / pattern.sum())
        numbers = self._camera(tensor(stack), what)
        return self._numbers(observation, {**numbers, "background": self.background})

    def _camera(self, stack: Tensor, what: str) -> dict[str, float]:
        if self.gain is not None and self.offset is not None:
            return {"gain": self.gain, "offset": self.offset}
        try:
            found = photon_transfer(stack)
        except ValueError as error:
            raise InputError(f"{what}: gain and offset cannot be estimated: {error}") from error
        return {"gain": self.gain or found.gain, "offset": found.offset if self.offset is None else self.offset}

    def _numbers(self, observation: xr.Dataset, numbers: dict[str, float]) -> xr.Dataset:
        """With all scalars; what is not known yet comes from a fit of Richardson and Lucy."""
        blur = self.blur(observation)
        y = (super().measurement(observation) - numbers["offset"]).clamp(min=0)
        x = richardson_lucy(blur, y, numbers["background"], self.iterations)
        z = blur(x) + numbers["background"]
        misfit = float(((y - z).square() / (numbers["gain"] * z).clamp(min=numbers["gain"] ** 2)).mean())
        misfit = max(1.0, misfit)
        noise = numbers["gain"] * misfit * float(y.mean())
        voxel = self._voxel(observation)
        length = correlation_length(y[0, 0], blur.kernel, voxel, noise)
        inside = x[(0, 0, *(slice(m, m + n) for m, n in zip(blur.margin, blur.shape, strict=True)))]
        if self._prior == "positive":
            scale = max(float(inside.median()), 0.02 * float(inside.mean()), 1e-6)
            z = Softplus(scale).encode(inside.double().clamp(min=0.05 * scale))
            mean, std = float(z.mean()), max(float(z.std()), 0.1)
        else:
            scale, mean, std = 1.0, float(inside.mean()), float(inside.std())
        units = {"prior_length": "um" if self._physical(observation) else "voxel", "misfit": "1"}
        numbers |= {
            "misfit": misfit,
            "prior_mean": mean,
            "prior_std": std,
            "prior_length": length,
            "prior_scale": scale,
        }
        return observation.assign({k: ((), v, {"units": units.get(k, "count")}) for k, v in numbers.items()})

    def _physical(self, observation: xr.Dataset) -> bool:
        dim = self.measured_dims[0]
        return dim in observation.coords and str(observation[dim].attrs.get("units")) == "um"

    def _voxel(self, observation: xr.Dataset) -> tuple[float, ...]:
        """Spacing along each axis, from coordinates; 1 where there are none."""
        found = []
        for dim in self.measured_dims:
            axis = np.asarray(observation[dim].values, dtype=float) if dim in observation.coords else np.arange(2.0)
            found.append(float(axis[1] - axis[0]))
        return tuple(found)

    def _pattern(self, stack: xr.DataArray, what: str) -> Tensor:
        if self.psf is not None:
            from scidiff.datasets.tiff_stack import read_stack

            return tensor(read_stack(self.psf))
        units = [str(stack[d].attrs.get("units")) if d in stack.coords else "" for d in self.measured_dims]
        if any(unit != "um" for unit in units):
            raise InputError(f"{what} states no voxel size: give voxel=(z, y, x) in micrometres, or the file psf.")
        sides = [2 * n - 1 for n in stack.shape]
        voxel = self._voxel(stack.to_dataset(name=self.measured))
        return born_wolf(sides, voxel, self.wavelength, self.na, self.index, subplanes=2)

    def field_coords(self, observation: xr.Dataset) -> dict[str, Any]:
        units = "um" if self._physical(observation) else "1"
        found = {}
        parts = zip(self.dims, self.measured_dims, self.margin, self._voxel(observation), strict=True)
        for dim, measured, margin, step in parts:
            first = float(observation[measured][0]) if measured in observation.coords else 0.0
            found |= axes((dim,), (observation.sizes[measured] + 2 * margin,), step, units, first - margin * step)
        return found

    # The prior

    def prior_for(self, observation: xr.Dataset) -> Prior:
        if self._prior not in ("positive", "gaussian"):
            return self.prior
        grid = self.blur(observation).grid
        mean, std, length, scale = (float(observation[f"prior_{k}"]) for k in ("mean", "std", "length", "scale"))
        covariance = spectrum(grid, self._voxel(observation), length, std**2)
        law = GaussianPrior(torch.full((1, *grid), mean), covariance)
        return law if self._prior == "gaussian" else TransformedPrior(law, Softplus(scale))

    # Cases

    def setting(self, truth: xr.DataArray) -> xr.Dataset:
        raise InputError("a stack is simulated from spheres on a finer grid; use `case`, or write your own stack.")

    def simulate(self, index: int, generator: Generator) -> tuple[xr.DataArray, xr.Dataset]:
        """Spheres on a grid twice as fine along every axis, blurred there, then averaged over voxels."""
        import xarray as xr

        voxel = self.voxel or (0.4, 0.15, 0.15)
        grid = [n + 2 * m for n, m in zip(self.shape, self.margin, strict=True)]
        fine = beads([2 * n for n in grid], [v / 2 for v in voxel], self.margin, generator)
        sides = [4 * n - 1 for n in self.shape]  # as far as the coarse one reaches
        kernel = born_wolf(sides, [v / 2 for v in voxel], self.wavelength, self.na, self.index)
        blur = WidefieldBlur(kernel, [2 * n for n in self.shape], [2 * m for m in self.margin])
        z = F.avg_pool3d(blur(fine[None, None]), 2)
        x = F.avg_pool3d(fine[None, None], 2)
        factor = self.photons / float(z.max())
        gain, offset = self.gain or 2.0, 100.0 if self.offset is None else self.offset
        y = PoissonNoise(gain).sample(gain * factor * z + self.background, generator) + offset
        step = dict(zip(self.measured_dims, voxel, strict=True))
        coords = {d: (d, v * np.arange(n), {"units": "um"}) for (d, v), n in zip(step.items(), self.shape, strict=True)}
        attrs = {"units": "count", "long_name": self.measured_long_name}
        stack = xr.DataArray(y[0, 0].float().numpy(), coords, self.measured_dims, attrs=attrs)
        observation = xr.Dataset({self.measured: stack})
        values = (gain * factor * x[0, 0]).float().numpy()
        place = self.field_coords(observation)
        return xr.DataArray(
            values, place, self.dims, attrs={"units": self.units, "long_name": self.long_name}
        ), observation

    # Comparisons

    def classical(self, operator: Any, y: Tensor, observation: xr.Dataset) -> dict[str, Tensor]:
        """``richardson_lucy``, and ``wiener``: the mean under the Gaussian prior and homogeneous noise."""
        blur, background = self.blur(observation), float(observation["background"])
        raw = super().measurement(observation) - float(observation["offset"])
        found = {"richardson_lucy": richardson_lucy(blur, raw.clamp(min=0), background, self.iterations)}
        std = math.sqrt(self.variance(observation) * max(float(raw.mean()), 1e-6))
        best = found["richardson_lucy"]
        covariance = spectrum(
            blur.grid, self._voxel(observation), float(observation["prior_length"]), float(best.double().var())
        )
        found["wiener"] = wiener(blur, raw, float(best.mean()), covariance, std, background)
        return found

    def region(self, truth: Tensor, observation: xr.Dataset | None) -> Tensor | None:
        """The stack without its margins."""
        inside = torch.zeros(truth.shape, dtype=torch.bool)
        inside[(..., *(slice(m, n - m) for m, n in zip(self.margin, truth.shape[-3:], strict=True)))] = True
        return inside

    def check(self, observation: xr.Dataset) -> dict[str, Any]:
        """Gain, offset, misfit of the model and the numbers of the prior."""
        return {**super().check(observation), **{name: float(observation[name]) for name in _SCALARS}}

    def warnings_of(self, observation: xr.Dataset) -> list[str]:
        misfit = float(observation["misfit"])
        if misfit <= MISFIT_LIMIT:
            return []
        return [
            f"the best positive field misses the stack by {misfit:.3g} times the photon noise (variance): the "
            "point-spread function, the background or the margin is wrong; the noise was widened by that factor."
        ]


def beads(
    grid: Sequence[int], voxel: Sequence[float], margin: Sequence[int], generator: Generator, count: int = 5
) -> Tensor:
    """Spheres of radius 0.4 to 1 micrometre and unequal brightness on a faint ground, (Z, Y, X) float64.

    Arguments:
        grid: Sides in voxels.
        voxel: Spacing in micrometres.
        margin: Coarse voxels (two of these) that centres keep from the faces.
        generator: Source of places, sizes and brightness.
        count: Number of spheres.
    """
    size = [n * d for n, d in zip(grid, voxel, strict=True)]
    axes = [(torch.arange(n, dtype=torch.float64) + 0.5) * d for n, d in zip(grid, voxel, strict=True)]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    field = torch.full(tuple(grid), 0.02, dtype=torch.float64)
    for _ in range(count):
        draw = torch.rand(5, generator=generator, dtype=torch.float64).tolist()
        at = [2 * m * d + r * (s - 4 * m * d) for m, d, s, r in zip(margin, voxel, size, draw, strict=False)]
        radius, bright = 0.4 + 0.6 * draw[3], 0.3 + 0.7 * draw[4]
        distance = ((z - at[0]).square() + (y - at[1]).square() + (x - at[2]).square()).sqrt()
        field = torch.maximum(field, bright * ((radius - distance) / min(voxel) + 0.5).clamp(0, 1))
    return field
