"""What the problems of computed tomography share: observations from scans, cases, likelihood, comparisons."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Generator, Tensor

from scidiff.errors import InputError
from scidiff.inference import Ensemble, Likelihood
from scidiff.noise import PoissonNoise
from scidiff.operators.tomography import Transmission
from scidiff.problems.attenuation import attenuation_prior, from_hounsfield, water_attenuation
from scidiff.problems.base import require
from scidiff.problems.imaging import GridProblem, tensor
from scidiff.problems.tomography_scan import ALL_VIEWS, Seen, field_axes, numbers, observation_of, projector
from scidiff.protocols import Prior

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Tomography"]

ENERGY = 70.0
"""Effective photon energy of simulated cases in keV, about that of a tube at 120 kV."""

Source = str | os.PathLike[str]


class Tomography(GridProblem):
    """What both problems share; subclasses say which views are used."""

    name, field, long_name, units = "ct", "attenuation", "attenuation", "1/mm"
    measured, measured_long_name = "sinogram", "line integrals of the attenuation"
    measured_dims = ("angle", "bin")

    def __init__(self, arguments: dict[str, Any]) -> None:
        a = arguments
        super().__init__(a, a["prior"], a["noise"], a["seed"])
        if a["likelihood"] not in ("gaussian", "poisson"):
            raise ValueError(f"likelihood must be 'gaussian' or 'poisson', got {a['likelihood']!r}.")
        if a["energy"] is not None:
            water_attenuation(a["energy"])
        for label in ("photons", "pixel", "bin_width", "gain", "zinger_limit"):
            if a[label] is not None and not a[label] > 0:
                raise ValueError(f"{label} must be positive, got {a[label]}.")
        if a["binning"] < 1 or (a["size"] is not None and a["size"] < 16):
            raise ValueError(f"binning must be at least 1 and size at least 16, got {a['binning']} and {a['size']}.")
        for label in ("tv_weight", "model_error"):
            if not a[label] >= 0:
                raise ValueError(f"{label} must not be negative, got {a[label]}.")
        self.likelihood_kind, self.tv_weight = a["likelihood"], a["tv_weight"]
        self.energy, self.photons, self.data = a["energy"], float(a["photons"]), a["data"]
        self.pixel, self.size = a["pixel"], a["size"]

    def chosen(self, angles: np.ndarray) -> np.ndarray:
        """Indices of the views that are used, of all angles of a scan."""
        raise NotImplementedError

    def case_angles(self) -> np.ndarray:
        """Angles of simulated cases in degrees."""
        raise NotImplementedError

    # Observations

    def read(self, source: Source | np.ndarray | xr.Dataset) -> xr.Dataset:
        """Reads a scan and keeps some of its views.

        Arguments:
            source: A file of `scidiff.datasets.tomography.read_scan`; the Dataset it returns; line integrals (angle,
                bin); or an observation or result of this problem, which is validated and returned.

        Raises:
            InputError: naming the file or variable, what was expected and what was found.
        """
        from scidiff.datasets.tomography import make_scan, read_scan
        from scidiff.datasets.tomography.scan import degrees

        a = self.arguments
        if isinstance(source, (str, os.PathLike)) and not os.fspath(source).lower().endswith((".nc", ".nc4")):
            names = ("angles", "angle_units", "white", "dark", "kind", "dims", "bin_width", "gain")
            source = read_scan(source, **{name: a[name] for name in names})
        elif isinstance(source, np.ndarray):
            if source.ndim != 2 or a["angles"] is None:
                raise InputError(f"expected line integrals (angle, bin) and angles=..., got shape {source.shape}.")
            angles = degrees(np.asarray(a["angles"], dtype=float), a["angle_units"], "angles")
            angles = np.linspace(angles[0], angles[-1], len(source)) if len(angles) == 2 else angles
            source = make_scan(source[None], angles, kind="sinogram", bin_width=a["bin_width"], field="array")
        if not isinstance(source, (str, os.PathLike, np.ndarray)) and "row" in source.dims:
            if "sinogram" not in source:
                require(source, "counts", ("row", "angle", "bin"), str(source.attrs.get("source_file", "the scan")))
            source = self.observation(source)
        return super().read(source)

    def observation(self, scan: xr.Dataset) -> xr.Dataset:
        """The observation of a scan with this problem's settings."""
        a = self.arguments
        names = ("row", "binning", "pixel", "size", "centre", "noise", "model_error", "air", "zinger_limit")
        water = None if self.energy is None else water_attenuation(self.energy)
        return observation_of(scan, self.chosen, water=water, **{name: a[name] for name in names})

    def complete(self, observation: xr.Dataset, what: str) -> xr.Dataset:
        """Validates what an observation carries besides its sinogram."""
        std = np.asarray(require(observation, "noise_std", self.measured_dims, what).values)
        if not (np.isfinite(std).all() and (std > 0).all()):
            raise InputError(f"{what}: 'noise_std' must be positive and finite, found a minimum of {std.min()}.")
        require(observation, "valid", self.measured_dims, what)
        for name in ("centre", "water"):
            if not float(require(observation, name, (), what)) > 0:
                raise InputError(f"{what}: '{name}' must be positive, found {float(observation[name])}.")
        missing = [name for name in ("angle", "bin", "y", "x") if name not in observation.coords]
        if missing:
            raise InputError(f"{what}: the coordinates {', '.join(missing)} are missing.")
        if self.likelihood_kind == "poisson":
            for name in ("counts", "blank", "background"):
                require(observation, name, self.measured_dims, f"{what}: likelihood='poisson' needs counts")
        return observation

    def simulate(self, index: int, generator: Generator) -> tuple[xr.DataArray, xr.Dataset]:
        """A slice of ``data``, or a limb of ours, projected on a grid at least twice as fine."""
        from scidiff.problems.tomography_cases import coarse, limb, volume_slice

        if self.data is not None:
            fine, step, factor, origin = volume_slice(self.data, index, self.pixel or 2.0)
        else:
            size, step, factor = self.size or 96, (self.pixel or 2.0) / 2, 2
            fine, origin = limb(2 * size, generator), "a random limb"
        water = water_attenuation(self.energy or ENERGY)
        truth = coarse(from_hounsfield(fine, water), factor)
        setting = self._setting(truth.shape[-1], step * factor, water)
        fine_setting = setting.drop_vars(["y", "x"]).assign_coords(field_axes(fine.shape[-1], step, "mm"))
        lines = projector(fine_setting)(from_hounsfield(fine, water)[None, None].to(torch.float32))
        observation = self._counted(setting, lines[0, 0], generator)
        observation.attrs |= {"simulated": f"{origin}, projected on pixels of {step:.4g} mm", "source_file": origin}
        attrs = {"units": "1/mm", "long_name": "attenuation"}
        array = observation["water"].copy(data=0.0).drop_attrs()
        array = array.expand_dims(y=observation["y"], x=observation["x"]).copy(data=truth.numpy()).assign_attrs(attrs)
        return array, observation

    def setting(self, truth: xr.DataArray) -> xr.Dataset:
        sizes = {truth.sizes["y"], truth.sizes["x"]}
        if len(sizes) > 1:
            raise InputError(f"the truth has shape {truth.shape}, expected a square field about the axis of rotation.")
        pixel = abs(float(truth["x"][1] - truth["x"][0])) if "x" in truth.coords else self.pixel or 2.0
        return self._setting(sizes.pop(), pixel, water_attenuation(self.energy or ENERGY))

    def observe(self, truth: xr.Dataset, generator: Generator | None = None) -> xr.Dataset:
        """A simulated scan of a field in 1/mm or in HU, on its own grid (no finer one is known)."""
        field = self.truth_array(truth)
        setting = self.setting(field)
        return self._counted(setting, projector(setting)(numbers(field)[None, None])[0, 0], generator)

    def _setting(self, size: int, pixel: float, water: float) -> xr.Dataset:
        """Geometry of simulated scans: bins as wide as pixels, enough of them for the diagonal."""
        import xarray as xr

        bins = int(np.ceil(2**0.5 * size)) + 1
        coords = {
            "angle": ("angle", self.case_angles(), {"units": "degree", "long_name": "angle of projection"}),
            "bin": ("bin", (np.arange(bins) - (bins - 1) / 2) * pixel, {"units": "mm"}),
            **field_axes(size, pixel, "mm"),
        }
        setting = {
            "centre": ((), (bins - 1) / 2, {"units": "1", "long_name": "axis of rotation on the detector, in bins"}),
            "water": ((), water, {"units": "1/mm", "long_name": "attenuation that stands for 0 HU"}),
        }
        return xr.Dataset(setting, coords)

    def _counted(self, setting: xr.Dataset, lines: Tensor, generator: Generator | None) -> xr.Dataset:
        """Photons counted behind these line integrals, as an observation."""
        counts = torch.poisson(self.photons * torch.exp(-lines.double()), generator=generator).numpy()
        valid = counts > 0
        safe = np.where(valid, counts, 1.0)
        dims, count = self.measured_dims, {"units": "count"}
        std = {"units": "1", "long_name": "standard deviation of noise and model error"}
        spread = np.sqrt(1 / safe + self.arguments["model_error"] ** 2)
        parts = {
            "noise_std": (dims, np.where(valid, spread, 1.0).astype(np.float32), std),
            "valid": (dims, valid, {"long_name": "readings that can be used"}),
            "counts": (dims, counts.astype(np.float32), count),
            "blank": (dims, np.full(counts.shape, self.photons, np.float32), count),
            "background": (dims, np.zeros(counts.shape, np.float32), count),
        }
        values = np.where(valid, np.log(self.photons / safe), 0.0).astype(np.float32)
        return self.with_measurement(setting.assign(parts), values)

    # The question

    def operator(self, observation: xr.Dataset) -> Seen:
        return Seen(projector(observation), torch.from_numpy(np.array(observation["valid"].values, dtype=bool)))

    def likelihood(self, observation: xr.Dataset) -> Likelihood:
        if self.likelihood_kind == "gaussian":
            return super().likelihood(observation)
        blank, background = (numbers(observation[name]) for name in ("blank", "background"))
        counts = numbers(observation["counts"])
        lit = blank > 0  # elsewhere a beam too weak to say anything takes the place of none
        blank, counts = torch.where(lit, blank, 1e-6), torch.where(lit, counts, 0.0)
        background = torch.where(lit, background, 0.0)
        law = Transmission(blank, background, projector(observation))
        return Likelihood(law, PoissonNoise(), counts[None, None])

    def prior_for(self, observation: xr.Dataset) -> Prior:
        return attenuation_prior(self.prior, float(observation["water"]))

    def field_coords(self, observation: xr.Dataset) -> dict[str, Any]:
        return {dim: observation[dim] for dim in ("y", "x")}

    def template(self, observation: xr.Dataset) -> xr.DataArray:
        units = str(observation["y"].attrs.get("units", "mm"))
        return super().template(observation).assign_attrs(units=f"1/{units}")

    def truth_array(self, truth: xr.Dataset) -> xr.DataArray:
        """The field in 1/mm (converted from HU, if it is in those), or in 1/pixel where lengths are unknown."""
        from scidiff.fields import convert_units

        field = require(truth, self.field, self.dims, "the truth")
        units = str(field.attrs.get("units", ""))
        if units == "HU":
            return from_hounsfield(field, water_attenuation(self.energy or ENERGY)).assign_attrs(units=self.units)
        return field if units == "1/pixel" else convert_units(field, self.units)

    # Comparisons

    def classical(self, operator: Any, y: Tensor, observation: xr.Dataset) -> dict[str, Tensor]:
        from scidiff.problems.tomography_baselines import sirt
        from scidiff.problems.tomography_tv import weighted_tv

        scale = float(observation["water"])
        std = tensor(observation["noise_std"])
        return {
            "fbp": operator.fbp(y),
            "sirt": sirt(operator, y, 100, nonnegative=True),
            "tv": weighted_tv(operator, y, std, self.tv_weight / scale),
        }

    def region(self, truth: Tensor, observation: xr.Dataset | None) -> Tensor | None:
        """Everywhere in simulated cases; in real scans the disc that all views see."""
        if observation is None or "held_sinogram" not in observation:
            return None
        h, w = truth.shape[-2:]
        y, x = torch.arange(h)[:, None] - (h - 1) / 2, torch.arange(w) - (w - 1) / 2
        return (torch.hypot(y / (h / 2), x / (w / 2)) <= 1)[None, None]

    def image_scores(self, estimate: Tensor, truth: Tensor, where: Tensor | None = None) -> dict[str, float]:
        """RMSE, PSNR and SSIM; what lies outside of ``where`` counts as right for SSIM."""
        scores = super().image_scores(estimate, truth, where)
        if where is not None:
            scores["ssim"] = super().image_scores(torch.where(where, estimate, truth), truth).get("ssim", float("nan"))
        return scores

    def check(self, observation: xr.Dataset) -> dict[str, Any]:
        """Does the forward model explain the scan? See `scidiff.problems.tomography_checks`."""
        from scidiff.problems.tomography_checks import checks

        return checks(observation, self.operator(observation), self.likelihood_kind)

    def evaluate(self, ensemble: Ensemble | xr.Dataset, truth: xr.Dataset | None = None) -> xr.Dataset:
        """Scores of `GridProblem.evaluate`; for real scans also how the views set aside are predicted.

        A truth named ``reference`` is the filtered backprojection of all views: a noisy picture that shares its noise
        with what the ensemble was given. Its coverage is that of what members predict it to be (``coverage_90``); the
        members themselves, without noise, are compared as ``coverage_90_members``.
        """
        from scidiff.problems.tomography_checks import held_back_scores

        own = truth is not None and self.field in truth and "member" not in truth[self.field].dims
        if truth is not None and not own and "reference" in truth:
            truth = truth[["reference"]].rename(reference=self.field)
        measured = truth is not None and truth[self.field].attrs.get("measured") == ALL_VIEWS
        scores = super().evaluate(ensemble, truth)
        if isinstance(ensemble, Ensemble) or "held_sinogram" not in ensemble:
            return scores
        reference = truth[self.field] if truth is not None and measured else None
        found = held_back_scores(ensemble, self.field, reference, self.region, self.seed)
        if "coverage_90" in found:
            scores = scores.rename(coverage_90="coverage_90_members")
        return scores.assign({k: ((), v, {"units": "1"}) for k, v in found.items()})

    def tuned_tv_weight(
        self, observation: xr.Dataset, truth: xr.Dataset, weights: Sequence[float] = (2, 4, 8, 16, 32, 64, 128)
    ) -> float:
        """The weight with the best PSNR on a case whose answer is known; use another one than is then judged."""
        x = numbers(self.truth_array(truth))[None, None]
        from scidiff.problems.tomography_tv import weighted_tv

        operator, y, std = self.operator(observation), self.measurement(observation), tensor(observation["noise_std"])
        where = self.region(x, observation)
        scale = float(observation["water"])
        scores = [self.image_scores(weighted_tv(operator, y, std, w / scale), x, where)["psnr"] for w in weights]
        return float(weights[int(np.argmax(scores))])

    def shown(self, result: xr.Dataset) -> xr.DataArray:
        """Filtered backprojection of the views that were given."""
        image = self.operator(result).fbp(self.measurement(result))[0, 0].numpy()
        return self.template(result).copy(data=image).assign_attrs(long_name="filtered backprojection")
