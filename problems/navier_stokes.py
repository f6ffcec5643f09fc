r"""Where did this flow come from? The vorticity at time 0 from some points of the vorticity at time T.

.. math:: y_i = \omega(r_i, T) + n_i, \qquad n_i \sim N(0, s^2), \qquad
          \partial_t \omega + v \cdot \nabla \omega = \tfrac{1}{\mathrm{Re}} \Delta \omega - m \cos(m y)

in a periodic box (`scidiff.operators.pde.NavierStokes`), :math:`r_i` being every k-th point of the grid along y and
x. What is asked for is :math:`\omega(\cdot, 0)`. The map is strongly nonlinear, smooths fine scales away and has
gradients, which samplers may use or not (`scidiff.operators.Frozen` hides them).

**The law of simulated truths** is Gaussian, homogeneous and smooth,

.. math:: \omega_0 \sim N(0, s_0^2 C), \qquad C \propto (-\Delta + 9)^{-4} \text{ without mean}, \qquad s_0 = 5,

so that it is also a prior known exactly (`initial_law`), the default. The settings (Re 200, T = 1, m = 4, every second,
fourth or eighth point, noise 0, 1 or 2, vorticity of standard deviation about 5) are those of a published benchmark;
its truths are snapshots of a simulation, ours this law, so that numbers of the two are not to be compared digit by
digit.

**Error of the coarse grid.** By time T the flow has made details that the reconstruction's grid does not resolve, and
its solution differs from the truth by about a fifth of the vorticity's standard deviation on 32 x 32 points, by a few
hundredths on 64 x 64. A likelihood that ignores this is too sure of itself, so the standard deviation of the noise is

.. math:: s = \sqrt{s_\text{instrument}^2 + e^2},

with e the root mean square difference between a grid twice as fine and the reconstruction's, measured with two draws of
the law when it is first needed. It is treated as white, which it is not. ``noise = 0`` leaves e alone.

References:
    InverseBench: Benchmarking Plug-and-Play Diffusion Priors for Inverse Problems in Physical Sciences (Zheng et al.,
    2025). Ensemble Kalman Diffusion Guidance (Zheng et al., 2024), arXiv:2409.20175.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Generator, Tensor

from scidiff.errors import InputError
from scidiff.linalg import Stationary
from scidiff.noise import GaussianNoise
from scidiff.operators import Mask
from scidiff.operators.pde import NavierStokes
from scidiff.priors import GaussianPrior
from scidiff.problems.base import require, stream
from scidiff.problems.flow_baselines import interpolated, most_probable
from scidiff.problems.imaging import GridProblem, axes, tensor
from scidiff.protocols import Noise, Operator, Prior

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["FINER", "NavierStokesInitial", "initial_law", "lowered"]

FINER = 2
COURANT = 1.2
"""Of the reconstruction's time steps: their error is below a hundredth of that of the coarse grid."""
FLOOR = 0.002
"""Least error of the grid, in standard deviations of the vorticity."""
SIDE = 2 * math.pi


def initial_law(shape: Sequence[int], std: float = 5.0, side: float = SIDE) -> GaussianPrior:
    r"""The law :math:`N(0, s_0^2 C)` of fields (1, H, W) on a grid of the box (side, side W / H).

    The density of wavenumbers is that of the box and not of the grid: a field on a fine grid without its high
    wavenumbers has the law of the coarse grid.
    """
    height, width = shape

    def density(ky: Tensor, kx: Tensor) -> Tensor:
        k2 = (ky[:, None].square() + kx.square()) * (2 * math.pi / side) ** 2
        return torch.where(k2 > 0, (k2 + 9 * (2 * math.pi / side) ** 2) ** -4.0, 0.0)

    aspect = width / height
    every = torch.arange(-256, 257, dtype=torch.float64)
    whole = density(every, every / aspect).sum()
    own = density(*(torch.fft.fftfreq(n, 1 / n, dtype=torch.float64) / a for n, a in ((height, 1.0), (width, aspect))))
    cov = Stationary(own * (std**2 * height * width / whole), (1, height, width))
    return GaussianPrior(torch.zeros(1, height, width), cov)


def lowered(x: Tensor, shape: Sequence[int]) -> Tensor:
    """A periodic field (..., f H, f W) on the grid (H, W), without the wavenumbers that it has not."""
    spectrum = torch.fft.fft2(x)
    for dim, n in zip((-2, -1), shape, strict=True):
        numbers = (torch.fft.fftfreq(n) * n).round().long()
        whole = (2 * numbers.abs() < n).to(x.dtype)
        spectrum = spectrum.index_select(dim, numbers % spectrum.shape[dim])
        spectrum = spectrum * (whole[:, None] if dim == -2 else whole)
    return torch.fft.ifft2(spectrum).real * (shape[0] * shape[1] / (x.shape[-2] * x.shape[-1]))


class NavierStokesInitial(GridProblem):
    r"""Initial vorticity (y, x) from the vorticity at every k-th point (observed_y, observed_x) at a later time.

    Simulated cases begin on a grid twice as fine, with time steps a quarter as long; the truth is what of the fine
    field the grid resolves. NaN in an observation means "no sensor".

    Arguments:
        shape: Grid (H, W) of simulated cases, at least 16; sides are multiples of ``subsampling``. The box has the
            height :math:`2 \pi` and square cells.
        subsampling: k.
        noise: Standard deviation of the instrument's noise in s-1, 0 for none; used where the observation does not
            carry ``noise_std``, the standard deviation of all errors.
        model_error: e in s-1; None measures it, see above.
        reynolds: :math:`1/\nu`.
        time: T.
        forcing: Wavenumber m of the forcing; 0 for none.
        std: Standard deviation :math:`s_0` of the law.
        steps: Time steps of the reconstruction; None lets each field choose.
        prior: A prior of fields (1, H, W) in s-1; the name of a bundled one, or a ``.safetensors`` file. None takes
            `initial_law`, from which the truths come.
        iterations: Of the baseline 4D-Var.
        seed: Seed of the simulated cases.
    """

    name, field, long_name, units = "navier-stokes", "vorticity", "vorticity at time 0", "s-1"
    measured, measured_long_name, measured_units = "later_vorticity", "vorticity at time T", "s-1"
    measured_dims = ("observed_y", "observed_x")
    missing = True
    default_sampler = "dps"
    side: float = SIDE
    """Height of the box in m."""

    def __init__(
        self,
        shape: tuple[int, int] = (64, 64),
        subsampling: int = 2,
        noise: float = 1.0,
        model_error: float | None = None,
        reynolds: float = 200.0,
        time: float = 1.0,
        forcing: int = 4,
        std: float = 5.0,
        steps: int | None = None,
        prior: str | os.PathLike[str] | Prior | None = None,
        iterations: int = 60,
        seed: int = 0,
    ) -> None:
        if not (noise >= 0 and math.isfinite(noise)):
            raise ValueError(f"noise is a standard deviation (s-1) and must not be negative, got {noise}.")
        if model_error is not None and not (model_error >= 0 and noise + model_error > 0):
            raise ValueError(f"model_error must not be negative, nor 0 without noise, got {model_error}.")
        super().__init__(locals(), "" if prior is None else prior, noise or None, seed)
        if len(shape) != 2 or min(shape) < 16:
            raise ValueError(f"shape must be (height, width) of at least 16 points each, got {tuple(shape)}.")
        if subsampling < 1 or any(n % subsampling for n in shape):
            raise ValueError(f"subsampling must divide both sides of {tuple(shape)}, got {subsampling}.")
        if not (std > 0 and iterations >= 1):
            raise ValueError(f"std must be positive and iterations at least 1, got {std} and {iterations}.")
        self.shape, self.subsampling = (int(shape[0]), int(shape[1])), int(subsampling)
        self.std, self.iterations, self._model_error = float(std), int(iterations), model_error
        self.reynolds, self.time, self.forcing, self.steps = float(reynolds), float(time), forcing, steps
        self.own_law = prior is None
        self.flow(self.shape)  # validates the physics
        if self.own_law:
            self._prior = self.law(self.shape)

    def law(self, shape: Sequence[int]) -> GaussianPrior:
        """The law of the truths on a grid."""
        return initial_law(shape, self.std)

    @cached_property
    def model_error(self) -> float:
        """e, the error of the grid ``shape`` with this subsampling; for other grids a guess."""
        if self._model_error is not None:
            return float(self._model_error)
        fine = (FINER * self.shape[0], FINER * self.shape[1])
        start = self.law(fine).cov.sample(stream(self.name, "pilot"), 2, torch.float64)
        truth = self.flow(fine, COURANT / 2)(start)[..., ::FINER, ::FINER]
        own = self.flow(self.shape, steps=self.steps)(lowered(start, self.shape))
        return max(FLOOR * self.std, float((truth - own).square().mean().sqrt()))

    def flow(self, grid: Sequence[int], courant: float = COURANT, steps: int | None = None) -> NavierStokes:
        """The flow map on a grid."""
        return NavierStokes(grid, self.reynolds, self.time, steps, forcing=self.forcing, courant=courant)

    def grid(self, observation: xr.Dataset) -> tuple[int, int]:
        """Grid (H, W) that an observation is a part of."""
        height, width = (self.subsampling * observation.sizes[d] for d in self.measured_dims)
        return height, width

    def seen(self, observation: xr.Dataset) -> Tensor:
        """Where there are sensors, boolean (H, W)."""
        k, found = self.subsampling, torch.zeros(self.grid(observation), dtype=torch.bool)
        if self.measured in observation:
            values = observation[self.measured].transpose(*self.measured_dims).values
            found[::k, ::k] = torch.from_numpy(~np.isnan(values))
        else:
            found[::k, ::k] = True
        return found

    # The instrument

    def operator(self, observation: xr.Dataset) -> Operator:
        """The flow, then its values at the sensors, (B, 1, n)."""
        return Mask(self.seen(observation)) @ self.flow(self.grid(observation), steps=self.steps)

    def noise_of(self, observation: xr.Dataset) -> Noise:
        std = observation["noise_std"]
        if std.ndim == 0:
            return GaussianNoise(float(std))
        k = self.subsampling
        values = tensor(std.transpose(*self.measured_dims))
        return GaussianNoise(values[self.seen(observation)[::k, ::k]][None])

    def measurement(self, observation: xr.Dataset) -> Tensor:
        k = self.subsampling
        return super().measurement(observation)[..., self.seen(observation)[::k, ::k]]

    def setting(self, truth: xr.DataArray) -> xr.Dataset:
        k = self.subsampling
        if any(n % k for n in truth.shape):
            raise InputError(f"the truth has {truth.shape} points, expected multiples of subsampling, {k}.")
        return self._setting(truth.shape)

    def observe(self, truth: xr.Dataset, generator: Generator | None = None) -> xr.Dataset:
        """An observation of a given field, on its own grid; its noise has the standard deviation of all errors."""
        setting = self.setting(self.truth_array(truth))
        with torch.no_grad():
            z = self.operator(setting)(tensor(self.truth_array(truth))[None, None])
            y = self.noise_of(setting).sample(z, generator)
        return self.with_measurement(setting, y[0, 0].reshape(self._sizes(setting)).numpy())

    def _setting(self, shape: Sequence[int]) -> xr.Dataset:
        import xarray as xr

        k, spacing = self.subsampling, self.side / shape[0]
        coords = axes(self.measured_dims, (shape[0] // k, shape[1] // k), k * spacing, "m")
        return self.complete(xr.Dataset(coords=coords), "the setting")

    def complete(self, observation: xr.Dataset, what: str) -> xr.Dataset:
        """Adds noise and coordinates, and checks that the grid is one that the flow can have."""
        if "noise_std" in observation:
            dims = self.measured_dims if observation["noise_std"].ndim else ()
            std = np.asarray(require(observation, "noise_std", dims, what).values)
            if not (np.isfinite(std).all() and (std > 0).all()):
                raise InputError(f"{what}: 'noise_std' must be positive and finite, found a minimum of {std.min()}.")
        else:
            attrs = {"units": "s-1", "long_name": "standard deviation of noise and of the error of the grid"}
            std = math.hypot(self.noise or 0.0, self.model_error)
            observation = observation.assign(noise_std=((), std, attrs))
        height, width = self.grid(observation)
        if min(height, width) < 16 or self.forcing >= min(height, width) / 3:
            raise InputError(
                f"{what}: '{self.measured}' has {observation.sizes['observed_y']} x {observation.sizes['observed_x']} "
                f"points, which with subsampling {self.subsampling} is a grid of {height} x {width}; expected at least "
                f"16 x 16 and more than three times the forcing's wavenumber {self.forcing}."
            )
        spacing = self.side / height
        for dim, axis in axes(self.measured_dims, self._sizes(observation), self.subsampling * spacing, "m").items():
            if dim not in observation.coords:
                observation = observation.assign_coords({dim: axis})
        return observation

    def _sizes(self, observation: xr.Dataset) -> tuple[int, ...]:
        return tuple(observation.sizes[d] for d in self.measured_dims)

    def field_coords(self, observation: xr.Dataset) -> dict[str, Any]:
        shape = self.grid(observation)
        return axes(self.dims, shape, self.side / shape[0], "m")

    def prior_for(self, observation: xr.Dataset) -> Prior:
        shape = self.grid(observation)
        return self.law(shape) if self.own_law and shape != self.shape else self.prior

    def warnings_of(self, observation: xr.Dataset) -> list[str]:
        values = np.asarray(observation[self.measured].values, dtype=float)
        mean, spread = float(np.nanmean(values)), float(np.nanstd(values))
        if abs(mean) > max(0.5 * spread, 4 * float(np.mean(observation["noise_std"].values))):
            return [
                f"the mean vorticity is {mean:.3g} s-1 beside a standard deviation of {spread:.3g}: in a periodic box "
                "it is zero. Check sign, units, and whether the box is periodic."
            ]
        return []

    # Cases

    def flows(self, generator: Generator) -> tuple[Tensor, Tensor]:
        """Vorticity (1, 1, H, W) at both times on the fine grid."""
        fine = (FINER * self.shape[0], FINER * self.shape[1])
        start = self.law(fine).cov.sample(generator, 1, torch.float64)
        return start, self.flow(fine, COURANT / 2)(start)

    def simulate(self, index: int, generator: Generator) -> tuple[xr.DataArray, xr.Dataset]:
        import xarray as xr

        start, later = self.flows(generator)
        k = FINER * self.subsampling
        y = later[0, 0, ::k, ::k]
        y = y + float(self.noise or 0) * torch.randn(y.shape, generator=generator, dtype=torch.float64)
        observation = self.with_measurement(self._setting(self.shape), y.float().numpy())
        observation.attrs["simulated"] = (
            f"on a grid of {start.shape[-2]} x {start.shape[-1]}, twice as fine as the reconstruction's, with time "
            f"steps a quarter as long; standard deviation of the noise {self.noise or 0:g}"
        )
        attrs = {"units": self.units, "long_name": self.long_name}
        values = lowered(start[0, 0], self.shape).float().numpy()
        return xr.DataArray(values, self.field_coords(observation), self.dims, attrs=attrs), observation

    # Comparisons

    def classical(self, operator: Any, y: Tensor, observation: xr.Dataset) -> dict[str, Tensor]:
        """``no_dynamics``, the observation interpolated, and ``4dvar``, the most probable field under `initial_law`."""
        law = self.law(self.grid(observation))
        return {
            "no_dynamics": self._spread(observation),
            "4dvar": most_probable(law.cov, operator, self.noise_of(observation), y, self.iterations),
        }

    def _spread(self, observation: xr.Dataset) -> Tensor:
        values = tensor(observation[self.measured].transpose(*self.measured_dims))[None, None]
        return interpolated(values, self.grid(observation))

    def image_scores(self, estimate: Tensor, truth: Tensor, where: Tensor | None = None) -> dict[str, float]:
        """Also ``relative_l2``, the norm of the error over that of the truth."""
        scores = super().image_scores(estimate, truth, where)
        return {"relative_l2": float((estimate - truth).norm() / truth.norm()), **scores}

    def shown(self, result: xr.Dataset) -> xr.DataArray:
        picture = self.template(result).copy(data=self._spread(result)[0, 0].numpy())
        return picture.assign_attrs(long_name="vorticity at time T, interpolated")
