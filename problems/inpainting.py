r"""Inpainting: a whole picture from some of its pixels.

.. math:: y = x_M + n, \qquad n \sim N(0, s^2)

Nothing is discretised, so a case and its inversion share the grid without an inverse crime.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Generator, Tensor

from scidiff.errors import InputError
from scidiff.noise import GaussianNoise
from scidiff.operators import inpainting
from scidiff.operators.mask import Mask
from scidiff.problems.base import require, stream
from scidiff.problems.baselines import total_variation
from scidiff.problems.image_baselines import biharmonic
from scidiff.problems.imaging import axes, tensor
from scidiff.problems.photographs import Photographs, checked_shape, window
from scidiff.protocols import Prior

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Inpainting"]

MASKS = ("random", "lines", "box", "centre")


class Inpainting(Photographs):
    """Grey pictures (y, x) from pictures with holes: NaN, or False in a variable ``mask``.

    Simulated cases are windows of held-out pictures.

    Arguments:
        mask: What simulated cases see: ``"random"`` pixels or ``"lines"`` (rows), a share ``observed`` of them; or all
            but a ``"box"`` somewhere or in the ``"centre"``, of ``1 - observed`` of all pixels.
        observed: Share of the pixels that is seen, in (0, 1].
        noise: Standard deviation of the noise in grey values, where the observation does not carry its own.
        shape: Height and width of simulated cases.
        prior: A prior of grey pictures (1, y, x) between 0 and 1; the name of a bundled one, or a file.
        tv_weight: Weight of the total-variation baseline in units of the noise.
        seed: Seed of the masks and of the simulated cases.
    """

    name, measured_long_name, measured_dims, missing = "inpainting", "picture with holes", ("y", "x"), True

    def __init__(
        self,
        mask: str = "random",
        observed: float = 0.3,
        noise: float = 0.02,
        shape: tuple[int, int] = (64, 96),
        prior: str | os.PathLike[str] | Prior = "patches",
        tv_weight: float = 0.3,
        seed: int = 0,
    ) -> None:
        super().__init__(locals(), prior, noise, seed)
        if mask not in MASKS:
            raise ValueError(f"mask must be one of {', '.join(MASKS)}, got {mask!r}.")
        if not 0 < observed <= 1:
            raise ValueError(f"observed is a share in (0, 1], got {observed}.")
        if mask in ("box", "centre") and observed == 1:
            raise ValueError("a box that hides nothing: observed must be less than 1.")
        if not tv_weight >= 0:
            raise ValueError(f"tv_weight must not be negative, got {tv_weight}.")
        self.mask, self.observed, self.shape, self.tv_weight = mask, observed, checked_shape(shape), tv_weight

    def draw_mask(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Which pixels are seen, boolean."""
        if self.mask == "random":
            return inpainting.random_pixels(shape, self.observed, generator)
        if self.mask == "lines":
            return inpainting.lines(shape, self.observed, generator)
        side = (1 - self.observed) ** 0.5
        if self.mask == "centre":
            return inpainting.centre(shape, side)
        return inpainting.box(shape, [max(1, min(n - 1, round(side * n))) for n in shape], generator)

    def complete(self, observation: xr.Dataset, what: str) -> xr.Dataset:
        observation = super().complete(observation, what)
        if self.measured not in observation:
            return observation
        seen = observation[self.measured].notnull()
        if "mask" in observation:
            mask = require(observation, "mask", self.dims, what)
            if not np.isin(mask.values, (0, 1)).all():
                raise InputError(f"{what}: 'mask' must hold 0 and 1 (or False and True), 1 where a pixel was observed.")
            seen = seen & mask.astype(bool)
        if not bool(seen.any()):
            raise InputError(f"{what}: the mask leaves no observed pixel.")
        seen = seen.transpose(*self.dims).assign_attrs(units="1", long_name="1 where the pixel was observed")
        return observation.assign({self.measured: observation[self.measured].where(seen), "mask": seen})

    def seen(self, observation: xr.Dataset) -> Tensor:
        """The mask of an observation, boolean (y, x)."""
        return tensor(observation["mask"].transpose(*self.dims).astype(bool))

    def operator(self, observation: xr.Dataset) -> Mask:
        return Mask(self.seen(observation))

    def noise_of(self, observation: xr.Dataset) -> GaussianNoise:
        std = observation["noise_std"]
        return GaussianNoise(float(std) if std.ndim == 0 else tensor(std)[self.seen(observation)][None])

    def measurement(self, observation: xr.Dataset) -> Tensor:
        return super().measurement(observation)[..., self.seen(observation)]

    def setting(self, truth: xr.DataArray) -> xr.Dataset:
        import xarray as xr

        mask = self.draw_mask(truth.shape, stream("mask", self.seed)).numpy()
        attrs = {"units": "1", "long_name": "1 where the pixel was observed"}
        coords = {dim: (dim, truth[dim].values, truth[dim].attrs) for dim in self.dims}
        return self.complete(xr.Dataset({"mask": (self.dims, mask, attrs)}, coords), "the setting")

    def observe(self, truth: xr.Dataset, generator: Generator | None = None) -> xr.Dataset:
        """Noisy pixels where the mask, drawn with the problem's seed, is True; NaN elsewhere."""
        field = self.truth_array(truth)
        setting = self.setting(field)
        y = self.noise_of(setting).sample(self.operator(setting)(tensor(field)[None, None]), generator)
        values = torch.full(field.shape, torch.nan, dtype=y.dtype)
        values[self.seen(setting)] = y[0, 0]
        return self.with_measurement(setting, values.numpy())

    def field_coords(self, observation: xr.Dataset) -> dict[str, Any]:
        return {dim: observation[dim] for dim in self.dims}

    def simulate(self, index: int, generator: Generator) -> tuple[xr.DataArray, xr.Dataset]:
        import xarray as xr

        scene, name = window(self.shape, generator, 1)
        attrs = {"units": self.units, "long_name": self.long_name}
        truth = xr.DataArray(scene.to(torch.float32).numpy(), axes(self.dims, self.shape), self.dims, self.field, attrs)
        observation = self.observe(truth.to_dataset(), generator)
        observation.attrs["simulated"] = f"a window of '{name}'"
        return truth, observation

    def classical(self, operator: Any, y: Tensor, observation: xr.Dataset) -> dict[str, Tensor]:
        """``biharmonic`` interpolation and ``tv``, total variation."""
        noise = float(np.sqrt((np.asarray(observation["noise_std"].values, dtype=float) ** 2).mean()))
        return {
            "biharmonic": biharmonic(operator.adjoint(y), self.seen(observation)),
            "tv": total_variation(operator, y, self.tv_weight * noise, iterations=120),
        }

    def shown(self, result: xr.Dataset) -> xr.DataArray:
        return result[self.measured].fillna(0.0).assign_attrs(long_name="picture with holes, black where missing")
