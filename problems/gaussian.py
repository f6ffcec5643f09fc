r"""A temperature field seen at a few noisy stations: the posterior is known in closed form.

The field on an (H, W) grid is Gaussian with mean :math:`m` and covariance
:math:`C_{ij} = s^2 e^{-d_{ij}^2 / 2 \ell^2}` (plus a thousandth of :math:`s^2` on the diagonal), observed as
:math:`y = x_M + n`. With every entry observed this is denoising. Nothing is discretised, so simulation and inversion
share the grid without an inverse crime.
"""

from __future__ import annotations

import math
import os
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Generator

from scidiff.errors import InputError
from scidiff.inference import Ensemble, Likelihood, Posterior
from scidiff.metrics import coverage, crps, rmse, spread_skill
from scidiff.noise import GaussianNoise
from scidiff.operators.mask import Mask
from scidiff.priors import GaussianPrior
from scidiff.problems.base import Case, parameters, require, samples_of, stream

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["GaussianInpainting"]


class GaussianInpainting:
    """A Gaussian temperature field observed at some points: every answer can be compared with the exact one.

    Arguments:
        shape: Height and width of the grid, at most 1024 points in all (the covariance is dense).
        observed: Share of the points that are observed, in (0, 1].
        noise: Standard deviation of the observations in kelvin.
        mean: Mean temperature in kelvin.
        std: Standard deviation of the field in kelvin.
        length: Correlation length in kilometres; the grid spacing is 1 km.
        seed: Seed of the stations and of the simulated cases.
    """

    name, field, default_sampler = "gaussian", "temperature", "mmps"

    def __init__(
        self,
        shape: tuple[int, int] = (8, 12),
        observed: float = 0.3,
        noise: float = 1.0,
        mean: float = 280.0,
        std: float = 5.0,
        length: float = 2.5,
        seed: int = 0,
    ) -> None:
        self.arguments = {k: v for k, v in locals().items() if k != "self"}
        shape = tuple(int(n) for n in shape)  # type: ignore[assignment]
        if len(shape) != 2 or min(shape) < 1 or math.prod(shape) > 1024:
            raise ValueError(f"shape must be (height, width) with at most 1024 points, got {shape}.")
        if not 0 < observed <= 1:
            raise ValueError(f"observed is a share in (0, 1], got {observed}.")
        for label, value in (("noise", noise), ("std", std), ("length", length)):
            if not value > 0:
                raise ValueError(f"{label} must be positive, got {value}.")
        self.shape, self.observed, self.noise, self.seed = shape, observed, noise, seed
        self.mean, self.std, self.length = mean, std, length

    @cached_property
    def prior(self) -> GaussianPrior:
        """The Gaussian of the module's formula, fields (1, H, W) in kelvin."""
        y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in self.shape), indexing="ij")
        points = torch.stack([y.flatten(), x.flatten()], 1)
        square = (points[:, None] - points[None]).square().sum(-1)
        cov = self.std**2 * (torch.exp(-square / (2 * self.length**2)) + 1e-3 * torch.eye(len(points)))
        return GaussianPrior(torch.full((1, *self.shape), self.mean), cov)

    def config(self) -> dict[str, Any]:
        return parameters(self)

    def case(self, index: int = 0, generator: Generator | None = None) -> Case:
        """A field drawn from the prior and its observation."""
        generator = stream("gaussian", self.seed, index) if generator is None else generator
        x = self.prior.sample(1, generator)
        truth = self._array(x[0, 0].to(torch.float32).numpy()).to_dataset()
        return Case(truth, self.observe(truth, generator))

    def observe(self, truth: xr.Dataset, generator: Generator | None = None) -> xr.Dataset:
        """Noisy values at stations drawn with the problem's seed; NaN elsewhere."""
        import xarray as xr

        from scidiff.fields import convert_units

        field = convert_units(require(truth, self.field, ("y", "x"), "the truth"), "K")
        if field.shape != self.shape:
            raise InputError(f"the truth has shape {field.shape}, but the problem's grid is {self.shape}.")
        count = max(1, round(self.observed * math.prod(self.shape)))
        order = torch.randperm(math.prod(self.shape), generator=stream("stations", self.seed))
        station = torch.zeros(math.prod(self.shape), dtype=torch.bool)
        station[order[:count]] = True
        noise = self.noise * torch.randn(self.shape, generator=generator)
        values = np.where(station.reshape(self.shape).numpy(), field.values + noise.numpy(), np.nan)
        attrs = {"units": "K", "long_name": "observed temperature, missing where there is no station"}
        return xr.Dataset({"observation": self._array(values.astype(np.float32)).assign_attrs(attrs)})

    def read(self, source: str | os.PathLike[str] | np.ndarray | xr.Dataset) -> xr.Dataset:
        """Observations (y, x) in units of temperature, NaN where there are none; from a NetCDF file, array or Dataset.

        Raises:
            InputError: missing file, wrong dimensions, shape or units, or no observation at all.
        """
        import xarray as xr

        from scidiff.fields import convert_units

        what = "the observation"
        if isinstance(source, (str, os.PathLike)):
            what = os.fspath(source)
            if not os.path.isfile(source):
                raise InputError(f"{what}: there is no such file; expected a NetCDF file with 'observation' (y, x).")
            try:
                source = xr.load_dataset(source, engine="h5netcdf")
            except (OSError, ValueError) as error:
                raise InputError(f"{what}: not a NetCDF4 file ({error}).") from error
        if isinstance(source, np.ndarray):
            if source.shape != self.shape:
                raise InputError(f"{what} has shape {source.shape}, but the problem's grid is {self.shape}.")
            source = xr.Dataset({"observation": self._array(source).rename("observation")})
        array = require(source, "observation", ("y", "x"), what)
        if array.shape != self.shape:
            raise InputError(f"{what}: 'observation' has shape {array.shape}, but the problem's grid is {self.shape}.")
        array = convert_units(array, "K")
        values = np.asarray(array.values)
        if values.dtype.kind != "f":
            raise InputError(f"{what}: 'observation' holds {values.dtype}, expected floating-point numbers in kelvin.")
        if np.isinf(values).any():
            raise InputError(f"{what}: 'observation' holds infinite values; write NaN where nothing was observed.")
        if np.isnan(values).all():
            raise InputError(f"{what}: 'observation' is NaN everywhere: the mask samples nothing.")
        return source.assign(observation=array)

    def _likelihood(self, observation: xr.Dataset) -> Likelihood:
        values = torch.as_tensor(np.asarray(observation["observation"].values))
        mask = torch.isfinite(values)
        return Likelihood(Mask(mask[None]), GaussianNoise(self.noise), values[mask][None])

    def posterior(self, observation: xr.Dataset) -> Posterior:
        return Posterior(self.prior, self._likelihood(observation))

    def exact(self, observation: xr.Dataset) -> GaussianPrior:
        """The posterior in closed form, again a Gaussian with ``mean``, ``variance``, ``covariance`` and ``sample``."""
        part = self._likelihood(observation)
        return self.prior.condition(part.operator, part.noise, part.y)

    def _array(self, values: np.ndarray) -> xr.DataArray:
        import xarray as xr

        km = {"units": "km"}
        coords = {d: (d, np.arange(n, dtype=float), km) for d, n in zip(("y", "x"), self.shape, strict=True)}
        attrs = {"units": "K", "long_name": "temperature", "standard_name": "air_temperature"}
        return xr.DataArray(values, coords, ("y", "x"), self.field, attrs)

    def template(self, observation: xr.Dataset) -> xr.DataArray:
        return self._array(np.zeros(self.shape, np.float32)).assign_coords(observation["observation"].coords)

    def baselines(self, observation: xr.Dataset) -> dict[str, xr.DataArray]:
        """The nearest station, and the mean of the exact posterior, which nothing can beat."""
        values = np.asarray(observation["observation"].values)
        place = np.argwhere(np.isfinite(values))
        grid = np.stack(np.meshgrid(*(np.arange(n) for n in self.shape), indexing="ij"), -1)
        near = np.linalg.norm(grid[:, :, None] - place, axis=-1).argmin(-1)
        nearest = values[tuple(place[near].transpose(2, 0, 1))]
        template = self.template(observation)
        exact = self.exact(observation).mean.reshape(self.shape)
        return {"nearest": template.copy(data=nearest), "exact": template.copy(data=exact.to(torch.float32).numpy())}

    def check(self, observation: xr.Dataset) -> dict[str, Any]:
        """Misfit of the data under the prior: squared Mahalanobis distance of ``y`` per observation, about 1."""
        part = self._likelihood(observation)
        mask = part.operator.mask.flatten()  # type: ignore[attr-defined]
        cov = self.prior.covariance.to(torch.float64)[mask][:, mask] + self.noise**2 * torch.eye(int(mask.sum()))
        r = part.y[0].to(torch.float64) - self.mean
        chi2 = float(r @ torch.linalg.solve(cov, r) / len(r))
        warnings = []
        if abs(chi2 - 1) > 4 * math.sqrt(2 / len(r)):
            warnings.append(
                f"the observations have chi2 {chi2:.2f} per degree of freedom under prior and noise, expected "
                f"1 +- {math.sqrt(2 / len(r)):.2f}; check units, mean and noise."
            )
        return {"observations": len(r), "noise_std": self.noise, "prior_chi2": chi2, "warnings": warnings}

    def evaluate(self, ensemble: Ensemble | xr.Dataset, truth: xr.Dataset) -> xr.Dataset:
        """Scores against the truth; with the observation at hand also the distance to the exact posterior.

        ``mean_error``: root mean square of (mean - exact mean) / exact standard deviation. ``trace_ratio``: total
        variance of the members over the exact one.
        """
        import xarray as xr

        x = torch.as_tensor(np.asarray(require(truth, self.field, ("y", "x"), "the truth").values))[None]
        samples = samples_of(ensemble, self.field, self.shape).to(x.dtype)
        scores: dict[str, Any] = {"rmse": rmse(samples.mean(0), x)}
        if len(samples) > 1:
            scores["crps"] = crps(samples, x).mean()
            scores["spread_skill"] = spread_skill(samples, x)
            scores["coverage_90"] = coverage(samples, x, 0.9)
        if not isinstance(ensemble, Ensemble) and "observation" in ensemble:
            exact = self.exact(ensemble)
            mean, variance = exact.mean.reshape(self.shape), exact.variance.reshape(self.shape)
            scores["mean_error"] = ((samples.mean(0)[0] - mean).square() / variance).mean().sqrt()
            if len(samples) > 1:
                scores["trace_ratio"] = samples.var(0).sum() / variance.sum()
        units = {"rmse": "K", "crps": "K"}
        return xr.Dataset({k: ((), float(v), {"units": units.get(k, "1")}) for k, v in scores.items()})

    def plot(self, result: xr.Dataset) -> Figure:
        from scidiff.plots import result_figure

        return result_figure(result)
