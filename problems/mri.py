r"""Accelerated multi-coil MRI: an ensemble of complex images from undersampled k-space.

.. math:: y = P F (S_j x) + n, \qquad x \sim \text{prior}, \; n \sim N(0, s^2) \text{ per real component}

Everything but the prior comes from the scan: noise, coil maps, intensity scale (`scidiff.problems.mri_observation`).
The prior knows complex images whose magnitude has 99th percentile 1 and is rescaled to the scan.
"""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Generator, Tensor

from scidiff.errors import InputError
from scidiff.inference import Ensemble, Likelihood, Posterior
from scidiff.noise import GaussianNoise
from scidiff.operators.mri import fft2c
from scidiff.problems.base import Case, parameters, require, rescaled, samples_of, states_for, stream
from scidiff.problems.baselines import total_variation
from scidiff.problems.mri_observation import (
    CHI2_LIMIT,
    Sampling,
    image_array,
    observation_from_kspace,
    operator_of,
    tensor,
)
from scidiff.problems.mri_scores import (
    data_misfit,
    ensemble_scores,
    head_region,
    held_back_scores,
    image_scores,
    predicted_reference,
)
from scidiff.protocols import Prior

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["AcceleratedMRI"]

PATTERNS = ("random", "uniform", "poisson")


class AcceleratedMRI:
    """Complex images of a head from undersampled Cartesian multi-coil k-space.

    Arguments:
        acceleration: Points of full k-space per point kept, at least 1. A scan that is already accelerated more is kept
            as it is.
        pattern: ``"random"`` or ``"uniform"`` lines, or ``"poisson"``-disc points.
        lines: Direction across which lines are dropped, ``"ky"`` or ``"kx"``; by default the phase encoding that the
            file states, else ky.
        calibration: Share of the lines in the middle that is fully sampled (of each side, for points).
        coils: Number of coils of simulated cases.
        shape: Height and width of simulated cases.
        noise: Standard deviation of the noise of simulated cases per real component, for intensities about 1.
        prior: A prior of complex images with one field channel, intensities about 1; the name of a bundled one, or a
            ``.safetensors`` file. Loaded when first needed.
        zeros: What k-space that is exactly zero in every coil is: ``"missing"`` or ``"measured"``.
        map_sets: Sets of coil maps, 1 or 2, or ``"auto"``: two where one does not explain the scan.
        tv_weight: Weight of the total-variation baseline in units of the noise.
        validation: Share of the samples set aside to check the answer with, where a scan is accelerated already and all
            of it would be kept; 0 uses everything.
        slice: Which slice of a file that holds several; the middle one by default.
        seed: Seed of the mask, of the checks and of the simulated cases.
    """

    name, field, default_sampler = "mri", "image", "mmps"

    def __init__(
        self,
        acceleration: float = 4,
        pattern: str = "random",
        calibration: float = 0.08,
        coils: int = 8,
        shape: tuple[int, int] = (160, 128),
        noise: float = 0.01,
        prior: str | os.PathLike[str] | Prior = "head-mri",
        zeros: str = "missing",
        map_sets: int | str = "auto",
        tv_weight: float = 0.25,
        validation: float = 0.05,
        lines: str = "auto",
        slice: int | None = None,  # noqa: A002 - the user's word
        seed: int = 0,
    ) -> None:
        self.arguments = {k: v for k, v in locals().items() if k != "self"}
        if not acceleration >= 1:
            raise ValueError(f"acceleration must be at least 1 (1 keeps everything), got {acceleration}.")
        if pattern not in PATTERNS:
            raise ValueError(f"pattern must be one of {', '.join(PATTERNS)}, got {pattern!r}.")
        if not 0 < calibration <= 1:
            raise ValueError(f"calibration is a share of the lines in (0, 1], got {calibration}; coil maps need some.")
        if zeros not in ("missing", "measured"):
            raise ValueError(f"zeros must be 'missing' or 'measured', got {zeros!r}.")
        if map_sets not in (1, 2, "auto"):
            raise ValueError(f"map_sets must be 1, 2 or 'auto', got {map_sets!r}.")
        if not noise > 0:
            raise ValueError(f"noise must be positive, got {noise}.")
        if lines not in ("auto", "ky", "kx"):
            raise ValueError(f"lines must be 'ky', 'kx' or 'auto', got {lines!r}.")
        if not 0 <= validation < 0.5:
            raise ValueError(f"validation is a share of the samples in [0, 0.5), got {validation}.")
        if not tv_weight >= 0:
            raise ValueError(f"tv_weight must not be negative, got {tv_weight}.")
        if coils < 1 or len(tuple(shape)) != 2 or min(shape) < 32:
            raise ValueError(f"cases need at least 1 coil and a (height, width) of 32 or more, got {coils}, {shape}.")
        self.coils, self.shape, self.noise = int(coils), (int(shape[0]), int(shape[1])), float(noise)
        self.zeros, self.map_sets, self.tv_weight, self.slice, self.seed = zeros, map_sets, tv_weight, slice, seed
        self.sampling = Sampling(float(acceleration), pattern, float(calibration), seed, float(validation), lines)
        self._prior = prior

    @cached_property
    def prior(self) -> Prior:
        """The prior of images with intensities about 1."""
        if not isinstance(self._prior, (str, os.PathLike)):
            return self._prior
        from scidiff.priors.pretrained import load_pretrained

        return load_pretrained(self._prior)

    def config(self) -> dict[str, Any]:
        return parameters(self)

    # Observations

    def read(self, source: str | os.PathLike[str] | np.ndarray | xr.Dataset) -> xr.Dataset:
        """Reads a scan, keeps some of it, and estimates noise, coil maps and scale.

        Arguments:
            source: A file of `scidiff.datasets.read_kspace`, an array (coil, ky, kx), a Dataset with ``kspace`` and
                ``mask``, or an observation or result of this problem, which is validated and returned.

        Raises:
            InputError: naming the file or variable, what was expected and what was found.
        """
        from scidiff.datasets.kspace import read_kspace, validate_kspace

        if isinstance(source, (str, os.PathLike)):
            data = read_kspace(source, self.slice, self.zeros)  # type: ignore[arg-type]
        elif isinstance(source, np.ndarray):
            data = validate_kspace(source, self.zeros)  # type: ignore[arg-type]
        elif "coil_maps" in source:
            return self._validated(source)
        else:
            array = require(source, "kspace", ("coil", "ky", "kx"), "the scan")
            mask = require(source, "mask", ("ky", "kx"), "the scan").values if "mask" in source else None
            data = validate_kspace(array.values, self.zeros, mask, name="'kspace'")  # type: ignore[arg-type]
            data.attrs = {**source.attrs, **data.attrs}
        observation, _ = observation_from_kspace(data, self.sampling, self.map_sets)
        return observation

    def _validated(self, observation: xr.Dataset) -> xr.Dataset:
        what = "the observation"
        kspace = require(observation, "kspace", ("coil", "ky", "kx"), what)
        mask = require(observation, "mask", ("ky", "kx"), what)
        require(observation, "coil_maps", ("coil", "set", "y", "x"), what)
        for name in ("noise_std", "image_scale"):
            if not float(require(observation, name, (), what)) > 0:
                raise InputError(f"{what}: '{name}' must be positive, found {float(observation[name])}.")
        if not np.isfinite(kspace.values).all():
            raise InputError(f"{what}: 'kspace' holds NaN or infinite values.")
        if not mask.values.any():
            raise InputError(f"{what}: the mask samples nothing.")
        return observation

    def case(self, index: int = 0, generator: Generator | None = None) -> Case:
        """A random head of `scidiff.datasets.phantom`, its k-space rendered on a grid twice as fine.

        The truth is the image that the noiseless, fully sampled k-space gives with the coil maps estimated from the
        observation: the same convention as the reconstruction, in the same units.
        """
        import xarray as xr

        from scidiff.datasets.kspace import validate_kspace
        from scidiff.datasets.phantom import simulate_kspace

        generator = stream("mri", self.seed, index) if generator is None else generator
        kspace, parts = simulate_kspace(self.shape, self.coils, self.noise, generator)
        data = validate_kspace(kspace.numpy())
        data.attrs["simulated"] = "scidiff.datasets.phantom, rendered on a grid twice as fine as the inversion's"
        observation, image = observation_from_kspace(data, self.sampling, self.map_sets, parts["clean"])
        assert image is not None
        truth = image_array(image, data, self.field, "complex image")
        return Case(xr.Dataset({self.field: truth}, attrs=data.attrs), observation)

    def observe(self, truth: xr.Dataset, generator: Generator | None = None) -> xr.Dataset:
        """Simulates a scan of a given complex image (y, x), on its own grid (no finer one is known).

        The image's scale is kept; noise is ``noise`` times its 99th percentile.
        """
        from scidiff.datasets.kspace import validate_kspace
        from scidiff.datasets.phantom import coil_maps

        image = tensor(require(truth, self.field, ("y", "x"), "the truth")).to(torch.complex64)
        first, second = torch.randint(0, 2**62, (2,), generator=generator).tolist()
        maps = coil_maps(tuple(image.shape), self.coils, Generator().manual_seed(first))  # type: ignore[arg-type]
        noise_std = self.noise * float(torch.quantile(image.abs().flatten(), 0.99))
        draw = torch.randn(*maps.shape, 2, generator=Generator().manual_seed(second))
        kspace = fft2c(maps * image) + noise_std * torch.view_as_complex(draw)
        data = validate_kspace(kspace.numpy())
        data.attrs["simulated"] = "on the grid of the inversion"
        return observation_from_kspace(data, self.sampling, self.map_sets)[0]

    # The question

    def posterior(self, observation: xr.Dataset) -> Posterior:
        operator = operator_of(observation)
        scale, noise_std = float(observation["image_scale"]), float(observation["noise_std"])
        y = operator.sample(tensor(observation["kspace"]))[None]
        prior = rescaled(self.prior, scale)
        if getattr(self.prior, "autoencoder", None) is not None:
            if operator.sets > 1:
                raise InputError(
                    f"a prior of codes knows images of one set of coil maps, this observation has {operator.sets}; read "
                    "the scan with map_sets=1, or take a prior of pixels."
                )
            prior, states = states_for(prior, tuple(operator.shape))
            return Posterior(prior, Likelihood(operator, GaussianNoise(noise_std), y), states)
        shape = (2 * operator.sets, *operator.shape[1:])
        known = prior.shape[0] if prior.shape else getattr(prior, "channels", None)
        if operator.sets > 1 and known == 2:
            from scidiff.priors import ProductPrior

            prior = ProductPrior([prior] * operator.sets)
        elif known is not None and known != shape[0]:
            raise InputError(
                f"the prior has {known} channels, but a complex image with {operator.sets} set(s) of coil maps has "
                f"{shape[0]} (real and imaginary); choose a prior trained on complex images."
            )
        if prior.shape is not None and tuple(prior.shape) != shape:
            raise InputError(f"the prior's states have shape {tuple(prior.shape)}, but this scan needs {shape}.")
        return Posterior(prior, Likelihood(operator, GaussianNoise(noise_std), y), shape)

    def template(self, observation: xr.Dataset) -> xr.DataArray:
        return self._image(torch.zeros(1, *operator_of(observation).shape, dtype=torch.complex64), observation)

    def _image(self, values: Tensor, observation: xr.Dataset) -> xr.DataArray:
        image = image_array(values, observation, self.field, "complex image")
        return image.assign_coords({dim: observation[dim] for dim in ("y", "x") if dim in observation.coords})

    # Comparisons

    def baselines(self, observation: xr.Dataset) -> dict[str, xr.DataArray]:
        """``zero_filled``, coils combined, and ``tv``, total variation with ``tv_weight`` times the noise."""
        operator = operator_of(observation)
        y = operator.sample(tensor(observation["kspace"]))[None]
        tv = total_variation(operator, y, self.tv_weight * float(observation["noise_std"]))
        zero_filled = operator.adjoint(y)
        return {"zero_filled": self._image(zero_filled, observation), "tv": self._image(tv, observation)}

    def tuned_tv_weight(
        self, observation: xr.Dataset, weights: tuple[float, ...] = (0.06, 0.12, 0.25, 0.5, 1.0, 2.0), index: int = 0
    ) -> float:
        """The weight with the best PSNR on another image: a phantom on this scan's grid, mask and noise.

        Arguments:
            observation: The scan whose setting is copied; its image is not looked at.
            weights: Candidates, in units of the noise.
            index: Which phantom.
        """
        sizes = observation["kspace"].sizes
        noise = float(observation["noise_std"]) / float(observation["image_scale"])
        same = {"coils": sizes["coil"], "shape": (sizes["ky"], sizes["kx"]), "noise": noise, "map_sets": 1}
        case = AcceleratedMRI(**{**self.arguments, **same}).case(index)
        operator = operator_of(case.observation)
        y = operator.sample(tensor(case.observation["kspace"]))[None]
        truth = tensor(case.truth[self.field])[None, None]  # type: ignore[index]
        level = float(case.observation["noise_std"])
        scores = [image_scores(total_variation(operator, y, w * level), truth)["psnr"] for w in weights]
        return weights[int(np.argmax(scores))]

    def check(self, observation: xr.Dataset) -> dict[str, Any]:
        """Does the forward model explain the scan to its noise? Chi2 are per degree of freedom, 1 is perfect.

        ``forward_chi2``: samples predicted by a least-squares fit to the others, over what a perfect model would give.
        ``forward_fit_chi2``: the fit to all samples kept. ``reference_chi2``: the image of the full scan against all
        samples, where the scan is fully sampled.
        """
        sets = observation.sizes["set"]
        found: dict[str, Any] = {
            "noise_std": float(observation["noise_std"]),
            "image_scale": float(observation["image_scale"]),
            "map_sets": sets,
            "fraction_kept": float(observation["mask"].mean()),
        }
        for name in ("forward_chi2", "forward_fit_chi2"):
            if name in observation:
                found[name] = float(observation[name])
        if "reference" in observation:
            image = tensor(observation["reference"]).reshape(1, *operator_of(observation).shape)
            total = 0.0
            for held_back in (False, True):
                share = observation["held_back_mask" if held_back else "mask"].values.sum()
                total += float(data_misfit(image, observation, held_back)[0]) * share
            coils, points = observation.sizes["coil"], observation["mask"].size
            found["reference_chi2"] = float(total * coils / (points * max(coils - sets, 1)))
        warnings = [str(observation.attrs["remark"])] if "remark" in observation.attrs else []
        for name in ("forward_chi2", "reference_chi2"):
            if found.get(name, 1.0) > CHI2_LIMIT:
                warnings.append(
                    f"{name} is {found[name]:.2f}, above {CHI2_LIMIT}: coil maps and noise do not explain the scan, "
                    "and a sampler would invent structure. Try map_sets=2 or a larger calibration region."
                )
        return {**found, "warnings": warnings}

    def evaluate(self, ensemble: Ensemble | xr.Dataset, truth: xr.Dataset | None = None) -> xr.Dataset:
        """Scores of the mean and of the ensemble; see `scidiff.problems.mri_scores`.

        With the result of `scidiff.reconstruct`, which carries the observation, also the misfit of the data
        (``chi2`` of the members), of the samples set aside (``held_back_...``), and the scores of the baselines
        (``psnr_zero_filled``, ...). A truth whose variable has the attribute ``noise_std`` is itself a measurement with
        that noise per real component, and is treated as one. Without a truth, what the samples set aside say remains.
        """
        import xarray as xr

        observation = None if isinstance(ensemble, Ensemble) or "coil_maps" not in ensemble else ensemble
        true = None
        if truth is not None:
            true = truth[self.field if self.field in truth else "reference"]
            shape = (true.sizes.get("set", 1), *true.shape[-2:])
        elif observation is not None:
            shape = operator_of(observation).shape
        else:
            raise ValueError("without a truth, evaluate needs the result of `reconstruct`, with the observation in it.")
        samples = samples_of(ensemble, self.field, shape).to(torch.complex64)
        aside = observation is not None and "held_back_mask" in observation
        scores: dict[str, float] = {}
        x = None
        if true is not None:
            x = tensor(true).reshape(1, *shape).to(torch.complex64)
            scores |= image_scores(samples.mean(0), x)
            if len(samples) > 1:
                noise_std = true.attrs.get("noise_std")
                where = head_region(x.abs().square().sum(1).sqrt()[0])
                if noise_std is not None and observation is not None and aside:
                    scores |= ensemble_scores(predicted_reference(samples, observation, self.seed), x, where)
                else:
                    scores |= ensemble_scores(samples, x, where, noise_std)
        if observation is not None:
            scores["chi2"] = float(data_misfit(samples[:, 0], observation).mean())
            if aside:
                scores |= held_back_scores(samples, observation)
            for label, image in self.baselines(observation).items():
                other = tensor(image).reshape(1, *shape)
                if x is not None:
                    scores |= {f"{k}_{label}": v for k, v in image_scores(other, x).items()}
                scores[f"chi2_{label}"] = float(data_misfit(other, observation))
                if aside:
                    scores[f"held_back_chi2_{label}"] = float(data_misfit(other, observation, True))
        return xr.Dataset({k: ((), v, {"units": "dB" if k.startswith("psnr") else "1"}) for k, v in scores.items()})

    def plot(self, result: xr.Dataset) -> Figure:
        from scidiff.plots import result_figure

        return result_figure(result, "zero_filled" if "zero_filled" in result else None)
