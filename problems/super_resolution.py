r"""Super-resolution: a fine picture from a coarse one whose pixels are weighted means of it.

.. math:: y = D_f\, (g * x) + n, \qquad n \sim N(0, s^2)

:math:`g` is the antialiasing filter and :math:`D_f` keeps every f-th value. With the boundary "valid" the fine picture
overhangs the coarse one by what the filter sees beyond it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Generator, Tensor

from scidiff.errors import InputError
from scidiff.operators.antialias import FILTERS, antialias
from scidiff.operators.downsampling import Downsampling
from scidiff.problems.baselines import total_variation
from scidiff.problems.image_baselines import bicubic_upsampling, edge_padded
from scidiff.problems.imaging import axes, continued
from scidiff.problems.photographs import Photographs, checked_shape, window
from scidiff.protocols import Prior

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["SuperResolution"]

FINER = 2  # simulated scenes are this much finer than the field
BOUNDARIES = ("valid", "mirror", "periodic")


class SuperResolution(Photographs):
    """Fine grey pictures (y, x) from coarse ones (row, column).

    Simulated cases begin with a held-out picture on a grid twice as fine as the field: the truth is its mean over 2 x 2
    pixels, the observation is filtered and sampled from the finer picture directly.

    Arguments:
        factor: How many fine pixels make a coarse one along each axis, at least 2.
        antialias: The filter: ``"bicubic"`` (what image programs do), ``"box"`` (a detector that integrates),
            ``"gaussian"`` or ``"lanczos"``.
        boundary: ``"valid"``, ``"mirror"`` or ``"periodic"``, see `scidiff.operators.Downsampling`.
        noise: Standard deviation of the noise in grey values, where the observation does not carry its own.
        shape: Height and width of simulated coarse pictures.
        prior: A prior of grey pictures (1, y, x) between 0 and 1; the name of a bundled one, or a file.
        tv_weight: Weight of the total-variation baseline in units of the noise.
        seed: Seed of the simulated cases.
    """

    name, measured_long_name = "super-resolution", "coarse picture"

    def __init__(
        self,
        factor: int = 4,
        antialias: str = "bicubic",
        boundary: str = "valid",
        noise: float = 0.01,
        shape: tuple[int, int] = (24, 32),
        prior: str | os.PathLike[str] | Prior = "patches",
        tv_weight: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__(locals(), prior, noise, seed)
        if factor < 2:
            raise ValueError(f"factor must be a whole number of at least 2, got {factor}.")
        if antialias not in FILTERS:
            raise ValueError(f"antialias must be one of {', '.join(FILTERS)}, got {antialias!r}.")
        if boundary not in BOUNDARIES:
            raise ValueError(f"boundary must be one of {', '.join(BOUNDARIES)}, got {boundary!r}.")
        if not tv_weight >= 0:
            raise ValueError(f"tv_weight must not be negative, got {tv_weight}.")
        self.factor, self.antialias, self.boundary = int(factor), antialias, boundary
        self.shape, self.tv_weight = checked_shape(shape), tv_weight

    @property
    def overhang(self) -> int:
        """Fine pixels beyond the coarse picture on each side."""
        return (len(antialias(self.factor, self.antialias)) - self.factor) // 2 if self.boundary == "valid" else 0

    def _grid(self, observation: xr.Dataset) -> tuple[int, ...]:
        return tuple(self.factor * observation.sizes[d] + 2 * self.overhang for d in self.measured_dims)

    def operator(self, observation: xr.Dataset) -> Downsampling:
        return Downsampling(self.factor, self._grid(observation), self.antialias, self.boundary)  # type: ignore[arg-type]

    def compared(self, x: Tensor, observation: xr.Dataset | None) -> Tensor:
        """The inside of the coarse picture."""
        n = self.overhang
        return x[..., n : x.shape[-2] - n, n : x.shape[-1] - n]

    def setting(self, truth: xr.DataArray) -> xr.Dataset:
        import xarray as xr

        coords: dict[str, Any] = {}
        for dim, own in zip(self.dims, self.measured_dims, strict=True):
            inside = len(truth[dim]) - 2 * self.overhang
            if inside < self.factor or inside % self.factor:
                raise InputError(
                    f"the truth has {len(truth[dim])} entries along {dim}, expected a multiple of {self.factor}"
                    + (f" plus {2 * self.overhang}." if self.overhang else ".")
                )
            values = np.asarray(truth[dim].values, dtype=float)[self.overhang : self.overhang + inside]
            coords[own] = (own, values.reshape(-1, self.factor).mean(1), truth[dim].attrs)
        return self.complete(xr.Dataset(coords=coords), "the setting")

    def field_coords(self, observation: xr.Dataset) -> dict[str, Any]:
        parts = zip(self.dims, self.measured_dims, self._grid(observation), strict=True)
        return {dim: continued(observation[own], dim, self.overhang, n, self.factor) for dim, own, n in parts}

    def simulate(self, index: int, generator: Generator) -> tuple[xr.DataArray, xr.Dataset]:
        import xarray as xr

        wide = len(antialias(FINER * self.factor, self.antialias)) - FINER * self.factor
        margin = max(FINER * self.overhang, wide // 2)  # of the scene around the coarse picture
        margin += -margin % FINER
        scene, name = window(tuple(FINER * self.factor * n + 2 * margin for n in self.shape), generator)  # type: ignore[arg-type]
        cut = margin - wide // 2
        seen = scene[cut : scene.shape[0] - cut, cut : scene.shape[1] - cut]
        sample = Downsampling(FINER * self.factor, seen.shape, self.antialias, "valid")  # type: ignore[arg-type]
        coarse = sample(seen[None])[0]
        noisy = coarse + float(self.noise or 0) * torch.randn(coarse.shape, generator=generator, dtype=coarse.dtype)
        spacing = axes(self.measured_dims, self.shape, float(self.factor), first=(self.factor - 1) / 2 + self.overhang)
        setting = self.complete(xr.Dataset(coords=spacing), "the case")
        observation = self.with_measurement(setting, noisy.to(torch.float32).numpy())
        observation.attrs["simulated"] = f"from a window of '{name}' on a grid {FINER} times as fine as the field's"
        cut = margin - FINER * self.overhang
        inside = scene[cut : scene.shape[0] - cut, cut : scene.shape[1] - cut]
        return self.picture(Downsampling(FINER, inside.shape)(inside[None])[0], observation), observation

    def classical(self, operator: Any, y: Tensor, observation: xr.Dataset) -> dict[str, Tensor]:
        """``bicubic`` interpolation and ``tv``, total variation."""
        noise = float(np.sqrt((np.asarray(observation["noise_std"].values, dtype=float) ** 2).mean()))
        return {
            "bicubic": self._fine(y, observation),
            "tv": total_variation(operator, y, self.tv_weight * noise),
        }

    def _fine(self, y: Tensor, observation: xr.Dataset) -> Tensor:
        return bicubic_upsampling(y, self.factor, (self.overhang,) * 2, self._grid(observation))

    def shown(self, result: xr.Dataset) -> xr.DataArray:
        blocks = self.measurement(result).float()
        blocks = blocks.repeat_interleave(self.factor, -1).repeat_interleave(self.factor, -2)
        picture = self.picture(edge_padded(blocks, (self.overhang,) * 2, self._grid(result)), result)
        return picture.assign_attrs(long_name="coarse picture")
