r"""What problems on a regular grid share: one field, one measured array, and everything but the physics.

A field (\*dims) with coordinates and units, such as a picture (y, x) or a stack (z, y, x), is measured as

.. math:: y = A(x) + n \quad \text{or} \quad y \sim p(y \mid A(x)),

one array with dimensions of its own. A problem of this kind states its operator, its noise, its cases and its classical
baselines; `GridProblem` reads, validates, assembles the posterior, scores and draws.

Inside, fields are (B, 1, \*grid). Outside, an observation is a Dataset with the measured variable, and with all that
the operator needs to know of this measurement (``noise_std``, a mask, a point-spread function, ...): a result that
carries its observation can be scored without anything else.
"""

from __future__ import annotations

import math
import os
import warnings
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Generator, Tensor

from scidiff.errors import InputError
from scidiff.inference import Ensemble, Likelihood, Posterior
from scidiff.metrics import coverage, crps, rmse, spread_skill, ssim
from scidiff.noise import GaussianNoise
from scidiff.problems.base import Case, parameters, require, samples_of, states_for, stream
from scidiff.protocols import Noise, Operator, Prior

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["GridProblem", "axes", "continued", "tensor"]

NETCDF = (".nc", ".nc4", ".netcdf")


def tensor(array: xr.DataArray) -> Tensor:
    """A copy of the numbers of an array."""
    return torch.from_numpy(np.array(array.values))


def axes(
    dims: tuple[str, ...], shape: tuple[int, ...], spacing: float = 1.0, units: str = "pixel", first: float = 0.0
) -> dict[str, tuple[str, np.ndarray, dict[str, str]]]:
    """Evenly spaced coordinates for `xarray.DataArray`, beginning at ``first``."""
    attrs = {"units": units}
    return {d: (d, first + spacing * np.arange(n, dtype=float), attrs) for d, n in zip(dims, shape, strict=True)}


def continued(axis: xr.DataArray, dim: str, before: float, count: int, factor: int = 1) -> tuple[str, np.ndarray, dict]:
    """Coordinates of a field that overhangs a measured axis, or is finer.

    Arguments:
        axis: Evenly spaced coordinates of the measurement.
        dim: Name of the field's dimension.
        before: How many entries of the field come before the block of entries that the first measured one stands for.
        count: Entries of the field.
        factor: Entries of the field in one measured entry; blocks share their centres.
    """
    values = np.asarray(axis.values, dtype=float)
    spacing = (values[-1] - values[0]) / (len(values) - 1) if len(values) > 1 else 1.0
    first = values[0] - spacing / factor * (before + (factor - 1) / 2)
    return dim, first + spacing / factor * np.arange(count), {**axis.attrs}


CHI2_LIMIT = 1.5
"""Beyond this misfit per number an ensemble is called at odds with its data."""


class GridProblem:
    r"""Base of problems with one field on a grid and one measured array.

    A subclass sets the class attributes and defines `operator`, `setting`, `field_coords`, `simulate` and `classical`;
    the others have defaults that fit additive Gaussian noise of known standard deviation.

    Arguments:
        arguments: ``locals()`` of the subclass's constructor, from which ``config()`` is made.
        prior: A prior of fields (1, \*grid) in the field's units; the name of a bundled one, or a ``.safetensors``
            file. Loaded when first needed.
        noise: Standard deviation of the noise in units of the measured array (per real component), where an
            observation does not carry its own ``noise_std``; None where the noise is of another kind.
        seed: Seed of the simulated cases.
    """

    # Of the class
    name: str
    field: str = "image"
    long_name: str = "image"
    units: str = "1"
    dims: tuple[str, ...] = ("y", "x")
    measured: str = "observation"
    measured_long_name: str = "observation"
    measured_units: str = "1"
    measured_dims: tuple[str, ...] = ("y", "x")  # names other than `dims` where the two grids differ
    missing: bool = False  # whether NaN means "not observed"
    non_negative: bool = False  # whether a negative measurement is an error
    complex_measured: bool = False  # whether the measured array may be complex
    peak: float | None = None  # range of values for PSNR and SSIM; None takes the range of the truth
    default_sampler: str = "mmps"

    def __init__(
        self,
        arguments: dict[str, Any],
        prior: str | os.PathLike[str] | Prior,
        noise: float | None = None,
        seed: int = 0,
    ) -> None:
        self.arguments = {k: v for k, v in arguments.items() if k not in ("self", "__class__")}
        if noise is not None and not (noise > 0 and math.isfinite(noise)):
            raise ValueError(
                f"noise is a standard deviation ({self.measured_units}) and must be positive, got {noise}."
            )
        self._prior, self.noise, self.seed = prior, noise, seed

    # What a subclass must say

    def operator(self, observation: xr.Dataset) -> Operator:
        r"""The forward model of this observation, fields (B, 1, \*grid) to what `measurement` gives."""
        raise NotImplementedError

    def setting(self, truth: xr.DataArray) -> xr.Dataset:
        """An observation of this field without its measured variable: coordinates and all that `operator` needs."""
        raise NotImplementedError

    def field_coords(self, observation: xr.Dataset) -> dict[str, Any]:
        """Coordinates of the field by dimension, as `axes` gives them or as arrays of the observation."""
        raise NotImplementedError

    def simulate(self, index: int, generator: Generator) -> tuple[xr.DataArray, xr.Dataset]:
        """A truth and its observation, computed on a finer grid or by another scheme than `operator`."""
        raise NotImplementedError

    def classical(self, operator: Any, y: Tensor, observation: xr.Dataset) -> dict[str, Tensor]:
        r"""Classical reconstructions (1, 1, \*grid) by name."""
        raise NotImplementedError

    # What a subclass may change

    def noise_of(self, observation: xr.Dataset) -> Noise:
        """The noise of this observation; by default Gaussian with its ``noise_std``."""
        std = observation["noise_std"]
        return GaussianNoise(float(std) if std.ndim == 0 else tensor(std)[None])

    def measurement(self, observation: xr.Dataset) -> Tensor:
        r"""The measured array as (1, 1, \*Y)."""
        return tensor(observation[self.measured].transpose(*self.measured_dims))[None, None]

    def to_array(self, z: Tensor) -> np.ndarray:
        r"""The inverse of `measurement` for a simulated ``z``, in the order of ``measured_dims``."""
        return z[0, 0].numpy()

    def load(self, path: str) -> xr.Dataset | np.ndarray:
        """Reads a file that is no NetCDF."""
        raise InputError(f"{path}: expected a NetCDF file ({', '.join(NETCDF)}) with '{self.measured}'.")

    def complete(self, observation: xr.Dataset, what: str) -> xr.Dataset:
        """Adds what an observation lacks and validates what it carries besides the measured variable."""
        if self.noise is None:
            return observation
        if "noise_std" not in observation:
            attrs = {"units": self.measured_units, "long_name": "standard deviation of the noise"}
            return observation.assign(noise_std=((), float(self.noise), attrs))
        dims = self.measured_dims if observation["noise_std"].ndim else ()
        std = np.asarray(require(observation, "noise_std", dims, what).values)
        if not (np.isfinite(std).all() and (std > 0).all()):
            raise InputError(f"{what}: 'noise_std' must be positive and finite, found a minimum of {std.min()}.")
        return observation

    def prior_for(self, observation: xr.Dataset) -> Prior:
        """The prior of this observation's field."""
        return self.prior

    def warnings_of(self, observation: xr.Dataset) -> list[str]:
        """Sentences on what looks wrong with an observation."""
        return []

    def region(self, truth: Tensor, observation: xr.Dataset | None) -> Tensor | None:
        r"""Where fields are compared, boolean (1, 1, \*grid); None is everywhere."""
        return None

    def compared(self, x: Tensor, observation: xr.Dataset | None) -> Tensor:
        r"""The part of fields (..., \*grid) that is scored, such as the inside of the frame; by default all."""
        return x

    def aligned(self, samples: Tensor, truth: Tensor) -> Tensor:
        r"""Members (M, 1, 1, \*grid) with what the data cannot know (a shift, a sign) taken from the truth."""
        return samples

    def shown(self, result: xr.Dataset) -> xr.DataArray | None:
        """The data as a picture on the field's grid, for `plot`; None leaves the choice to it."""
        return None

    # What all share

    @cached_property
    def prior(self) -> Prior:
        """The prior, loaded when first asked for."""
        if not isinstance(self._prior, (str, os.PathLike)):
            return self._prior
        from scidiff.priors.pretrained import load_pretrained

        return load_pretrained(self._prior)

    def config(self) -> dict[str, Any]:
        return parameters(self)

    def case(self, index: int = 0, generator: Generator | None = None) -> Case:
        """A simulated case; see the class for what is simulated and how."""
        generator = stream(self.name, self.seed, index) if generator is None else generator
        truth, observation = self.simulate(index, generator)
        return Case(truth.rename(self.field).to_dataset(), observation)

    def truth_array(self, truth: xr.Dataset) -> xr.DataArray:
        """The field of a truth in this problem's units and order of dimensions."""
        from scidiff.fields import convert_units

        return convert_units(require(truth, self.field, self.dims, "the truth"), self.units)

    def observe(self, truth: xr.Dataset, generator: Generator | None = None) -> xr.Dataset:
        """An observation of a given field, on its own grid (no finer one is known)."""
        field = self.truth_array(truth)
        setting = self.setting(field)
        with torch.no_grad():
            z = self.operator(setting)(tensor(field)[None, None])
            y = self.noise_of(setting).sample(z, generator)
        return self.with_measurement(setting, self.to_array(y))

    def with_measurement(self, setting: xr.Dataset, values: np.ndarray) -> xr.Dataset:
        """A setting with its measured variable."""
        attrs = {"units": self.measured_units, "long_name": self.measured_long_name}
        return setting.assign({self.measured: (self.measured_dims, values, attrs)})

    def read(self, source: str | os.PathLike[str] | np.ndarray | xr.Dataset) -> xr.Dataset:
        """A validated observation from a file, an array or a Dataset with the measured variable.

        Raises:
            InputError: naming the file or variable, what was expected and what was found.
        """
        import xarray as xr

        from scidiff.fields import convert_units

        what = "the observation"
        if isinstance(source, (str, os.PathLike)):
            what = os.fspath(source)
            source = self._open(what)
        if isinstance(source, np.ndarray):
            if source.ndim != len(self.measured_dims):
                raise InputError(f"{what} has shape {source.shape}, expected dimensions {self.measured_dims}.")
            source = self.with_measurement(xr.Dataset(), source)
        array = require(self.renamed(source), self.measured, self.measured_dims, what)
        if array.dtype.kind not in "fiu" and not (array.dtype.kind == "c" and self.complex_measured):
            raise InputError(f"{what}: '{self.measured}' holds {array.dtype}, expected real numbers.")
        if array.dtype.kind in "iu":
            array = array.astype(np.float32)
        if "units" not in array.attrs:
            raise InputError(f"{what}: '{self.measured}' has no units attribute, expected {self.measured_units!r}.")
        array = convert_units(array, self.measured_units)
        values = np.asarray(array.values)
        if 0 in values.shape or np.isnan(values).all():
            raise InputError(f"{what}: '{self.measured}' {values.shape} holds no number.")
        bad = int((np.isinf(values) if self.missing else ~np.isfinite(values)).sum())
        if bad:
            kind = "infinite values; write NaN where nothing was observed" if self.missing else "NaN or infinite values"
            raise InputError(f"{what}: '{self.measured}' holds {bad} {kind}.")
        if self.non_negative and (values < 0).any():
            raise InputError(f"{what}: '{self.measured}' has negative values, down to {np.nanmin(values):.4g}.")
        return self.complete(self.renamed(source).assign({self.measured: array}), what)

    def renamed(self, data: xr.Dataset) -> xr.Dataset:
        """Data whose measured variable has this problem's dimensions, where a file names them after the field's."""
        if self.measured not in data or self.measured_dims == self.dims:
            return data
        if set(data[self.measured].dims) == set(self.dims) and self.field not in data:
            return data.rename(dict(zip(self.dims, self.measured_dims, strict=True)))
        return data

    def _open(self, path: str) -> xr.Dataset | np.ndarray:
        import xarray as xr

        if not os.path.isfile(path):
            raise InputError(f"{path}: there is no such file.")
        if not path.lower().endswith(NETCDF):
            return self.load(path)
        try:
            return xr.load_dataset(path, engine="h5netcdf")
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: not a NetCDF4 file ({error}).") from error

    def likelihood(self, observation: xr.Dataset) -> Likelihood:
        """Operator, noise and measurement."""
        return Likelihood(self.operator(observation), self.noise_of(observation), self.measurement(observation))

    def posterior(self, observation: xr.Dataset) -> Posterior:
        prior, shape = states_for(self.prior_for(observation), (1, *self.template(observation).shape))
        if prior.shape is not None and tuple(prior.shape) != shape:
            raise InputError(f"the prior's states have shape {tuple(prior.shape)}, but this field needs {shape}.")
        return Posterior(prior, self.likelihood(observation), shape)

    def template(self, observation: xr.Dataset) -> xr.DataArray:
        import xarray as xr

        coords = self.field_coords(observation)
        shape = tuple(len(c[1] if isinstance(c, tuple) else c) for c in (coords[d] for d in self.dims))
        attrs = {"units": self.units, "long_name": self.long_name}
        return xr.DataArray(np.zeros(shape, np.float32), coords, self.dims, self.field, attrs)

    def baselines(self, observation: xr.Dataset) -> dict[str, xr.DataArray]:
        template = self.template(observation)
        with torch.no_grad():
            found = self.classical(self.operator(observation), self.measurement(observation), observation)
        return {k: template.copy(data=v.reshape(template.shape).cpu().numpy()) for k, v in found.items()}

    def check(self, observation: xr.Dataset) -> dict[str, Any]:
        """Number of observations, their range, the noise, and warnings."""
        values = np.asarray(observation[self.measured].values)
        found: dict[str, Any] = {"observations": int((~np.isnan(values)).sum())}
        if values.dtype.kind == "f":
            found |= {"smallest": float(np.nanmin(values)), "largest": float(np.nanmax(values))}
        if "noise_std" in observation:
            found["noise_std"] = float(np.sqrt((observation["noise_std"].values.astype(float) ** 2).mean()))
        return {**found, "warnings": self.warnings_of(observation)}

    # Scores

    def image_scores(self, estimate: Tensor, truth: Tensor, where: Tensor | None = None) -> dict[str, float]:
        r"""RMSE, PSNR and (in two dimensions, everywhere) SSIM of one field (1, 1, \*grid)."""
        error = float(rmse(estimate, truth, where))
        peak = self.peak or float(truth.max() - truth.min())
        scores = {"rmse": error, "psnr": 20 * math.log10(peak / error) if error > 0 else math.inf}
        if truth.ndim == 4 and min(truth.shape[-2:]) >= 11 and where is None:
            scores["ssim"] = float(ssim(estimate, truth, peak))
        return scores

    def evaluate(self, ensemble: Ensemble | xr.Dataset, truth: xr.Dataset | None = None) -> xr.Dataset:
        """Scores of the mean (RMSE, PSNR, SSIM) and of the ensemble (CRPS, spread-skill ratio, 90 % coverage).

        With the result of `scidiff.reconstruct`, which carries the observation, also the misfit ``chi2`` of the members
        and the scores of the baselines (``psnr_tv``, ...). Without a truth, the misfit alone, with a warning beyond
        1.5.
        """
        import xarray as xr

        observation: Any = ensemble if not isinstance(ensemble, Ensemble) and self.measured in ensemble else None
        if truth is None and observation is None:
            raise ValueError("without a truth, evaluate needs the result of `reconstruct`, with the observation in it.")
        shape = self.truth_array(truth).shape if truth is not None else self.template(observation).shape
        samples = samples_of(ensemble, self.field, (1, *shape))
        scores: dict[str, float] = {}
        x = where = None
        if truth is not None:
            whole = tensor(self.truth_array(truth))[None, None].to(samples.dtype)
            where = self.region(whole, observation)
            members = self.compared(self.aligned(samples, whole), observation)
            x = self.compared(whole, observation)
            where = None if where is None else self.compared(where, observation)
            scores |= self.image_scores(members.mean(0), x, where)
            if len(samples) > 1:
                each = crps(members, x)
                scores["crps"] = float((each if where is None else each[where.expand(each.shape)]).mean())
                scores["spread_skill"] = float(spread_skill(members, x, where=where))
                scores["coverage_90"] = float(coverage(members, x, 0.9, where=where))
        if observation is not None:
            part = self.likelihood(observation)
            with torch.no_grad():
                if part.whitens:
                    scores["chi2"] = float(np.mean([float(part.residual(s).square().mean()) for s in samples]))
                    if scores["chi2"] > CHI2_LIMIT:
                        warnings.warn(
                            f"members miss the data: chi2 {scores['chi2']:.2f} per number, expected about 1. The noise "
                            "is larger than stated, the forward model is wrong, the prior cannot explain the data, or "
                            "the sampler needs more steps; the spread is then too small.",
                            stacklevel=2,
                        )
            if x is not None:
                for label, image in self.baselines(observation).items():
                    other = self.aligned(tensor(image)[None, None, None].to(x.dtype), whole)[0]
                    found = self.image_scores(self.compared(other, observation), x, where)
                    scores |= {f"{k}_{label}": v for k, v in found.items()}
        units = {"rmse": self.units, "crps": self.units, "psnr": "dB"}
        return xr.Dataset({k: ((), v, {"units": units.get(k.split("_")[0], "1")}) for k, v in scores.items()})

    def plot(self, result: xr.Dataset) -> Figure:
        from scidiff.plots import result_figure

        data = self.shown(result)
        if data is None:
            return result_figure(result)
        return result_figure(result.assign(data=data), "data")
