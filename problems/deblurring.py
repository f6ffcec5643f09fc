r"""Deblurring: a sharp picture from a photograph and the point-spread function of its camera.

.. math:: y = k * x + n, \qquad n \sim N(0, s^2)

With the boundary "valid" the unknown picture is larger than the photograph by the reach of the kernel: what lies just
outside the frame also reached the sensor. Other boundaries assume something about the outside; they are faster to
invert, and wrong near the border of a photograph.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Generator, Tensor

from scidiff.errors import InputError
from scidiff.operators import psf
from scidiff.operators.blur import BOUNDARIES, blur
from scidiff.problems.base import require, stream
from scidiff.problems.baselines import total_variation
from scidiff.problems.image_baselines import edge_padded, richardson_lucy, wiener
from scidiff.problems.imaging import axes, continued, tensor
from scidiff.problems.photographs import Photographs, checked_shape, window
from scidiff.protocols import Prior

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Deblurring"]

KERNEL_DIMS = ("kernel_y", "kernel_x")


class Deblurring(Photographs):
    """Sharp grey pictures (y, x) from blurred ones (row, column).

    Simulated photographs are windows of held-out pictures, blurred by a direct sum over true surroundings. Scores are
    those of the part of the picture inside the frame.

    Arguments:
        kernel: ``"gaussian"``, ``"disc"`` (defocus), ``"line"`` (motion) or ``"walk"`` (a trembling hand), with
            ``width``; a file of `scidiff.datasets.read_kernel`; or a tensor (h, w), as `scidiff.operators.psf` makes
            them, also from physical units. An observation that carries a variable ``kernel`` uses its own.
        width: In pixels: standard deviation of a gaussian, radius of a disc, length of a line, side of a walk.
        angle: Direction of a line in degrees.
        boundary: ``"valid"``, ``"periodic"``, ``"reflective"`` or ``"zero"``, see `scidiff.operators.blur`.
        noise: Standard deviation of the noise in grey values, where the observation does not carry its own.
        shape: Height and width of simulated photographs.
        prior: A prior of grey pictures (1, y, x) between 0 and 1; the name of a bundled one, or a file.
        tv_weight: Weight of the total-variation baseline in units of the noise.
        index: Which kernel of a file that holds several.
        seed: Seed of the simulated cases and of a walk.
    """

    name = "deblurring"

    def __init__(
        self,
        kernel: str | os.PathLike[str] | Tensor = "gaussian",
        width: float = 1.5,
        angle: float = 30.0,
        boundary: str = "valid",
        noise: float = 0.01,
        shape: tuple[int, int] = (64, 96),
        prior: str | os.PathLike[str] | Prior = "patches",
        tv_weight: float = 0.2,
        index: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(locals(), prior, noise, seed)
        if boundary not in BOUNDARIES:
            raise ValueError(f"boundary must be one of {', '.join(BOUNDARIES)}, got {boundary!r}.")
        if not tv_weight >= 0:
            raise ValueError(f"tv_weight must not be negative, got {tv_weight}.")
        self.boundary, self.shape, self.tv_weight = boundary, checked_shape(shape), tv_weight
        self.kernel = _kernel(kernel, width, angle, index, seed)

    def complete(self, observation: xr.Dataset, what: str) -> xr.Dataset:
        observation = super().complete(observation, what)
        if "kernel" not in observation:
            attrs = {"units": "1", "long_name": "point-spread function"}
            observation = observation.assign(kernel=(KERNEL_DIMS, self.kernel.numpy(), attrs))
        values = np.asarray(require(observation, "kernel", KERNEL_DIMS, what).values)
        if values.dtype.kind not in "fiu" or not np.isfinite(values).all():
            raise InputError(f"{what}: 'kernel' must hold finite real numbers.")
        if abs(values.sum() - 1) > 1e-3:
            raise InputError(f"{what}: 'kernel' sums to {values.sum():.4g}, expected 1; divide it by its sum.")
        sizes = tuple(observation.sizes[d] for d in self.measured_dims if d in observation.sizes)
        if self.boundary != "valid" and any(k > n for k, n in zip(values.shape, sizes, strict=False)):
            raise InputError(f"{what}: 'kernel' {values.shape} is larger than the photograph {sizes}.")
        return observation

    def _margins(self, observation: xr.Dataset) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Entries of the field before the photograph, and sides of the field."""
        sizes = tuple(observation.sizes[d] for d in self.measured_dims)
        if self.boundary != "valid":
            return (0, 0), sizes
        kernel = tuple(observation.sizes[d] for d in KERNEL_DIMS)
        return tuple(k - 1 - k // 2 for k in kernel), tuple(n + k - 1 for n, k in zip(sizes, kernel, strict=True))

    def compared(self, x: Tensor, observation: xr.Dataset | None) -> Tensor:
        """The inside of the frame: what lies beyond it was hardly seen."""
        if self.boundary != "valid":
            return x
        kernel = self.kernel.shape if observation is None else tuple(observation.sizes[d] for d in KERNEL_DIMS)
        for dim, k in zip((-2, -1), kernel, strict=True):
            x = x.narrow(dim, k - 1 - k // 2, x.shape[dim] - k + 1)
        return x

    def operator(self, observation: xr.Dataset) -> Any:
        return blur(tensor(observation["kernel"].transpose(*KERNEL_DIMS)), self._margins(observation)[1], self.boundary)

    def setting(self, truth: xr.DataArray) -> xr.Dataset:
        import xarray as xr

        coords: dict[str, Any] = {}
        for dim, own, k in zip(self.dims, self.measured_dims, self.kernel.shape, strict=True):
            axis, reach = truth[dim], (k - 1 - k // 2, k // 2) if self.boundary == "valid" else (0, 0)
            if len(axis) <= sum(reach):
                raise InputError(f"the truth has {len(axis)} entries along {dim}, no more than the kernel reaches.")
            axis = axis[reach[0] : len(axis) - reach[1]]
            coords[own] = (own, axis.values, axis.attrs)
        return self.complete(xr.Dataset(coords=coords), "the setting")

    def field_coords(self, observation: xr.Dataset) -> dict[str, Any]:
        before, grid = self._margins(observation)
        parts = zip(self.dims, self.measured_dims, before, grid, strict=True)
        return {dim: continued(observation[own], dim, b, n) for dim, own, b, n in parts}

    def simulate(self, index: int, generator: Generator) -> tuple[xr.DataArray, xr.Dataset]:
        import xarray as xr
        from scipy.signal import convolve2d

        kernel = self.kernel.numpy()
        scene, name = window(tuple(n + k - 1 for n, k in zip(self.shape, kernel.shape, strict=True)), generator, 1)  # type: ignore[arg-type]
        blurred = torch.from_numpy(convolve2d(scene.numpy(), kernel, mode="valid"))
        noisy = blurred + float(self.noise or 0) * torch.randn(blurred.shape, generator=generator, dtype=blurred.dtype)
        setting = self.complete(xr.Dataset(coords=axes(self.measured_dims, self.shape)), "the case")
        observation = self.with_measurement(setting, noisy.to(torch.float32).numpy())
        observation.attrs["simulated"] = f"direct sum over a window of '{name}' and its surroundings"
        before, grid = self._margins(observation)
        if self.boundary != "valid":
            first = [k - 1 - k // 2 for k in kernel.shape]
            scene = scene[first[0] : first[0] + grid[0], first[1] : first[1] + grid[1]]
        return self.picture(scene, observation), observation

    def classical(self, operator: Any, y: Tensor, observation: xr.Dataset) -> dict[str, Tensor]:
        """``wiener``, ``richardson_lucy`` (30 iterations) and ``tv``, total variation."""
        before, grid = self._margins(observation)
        noise = float(np.sqrt((np.asarray(observation["noise_std"].values, dtype=float) ** 2).mean()))
        kernel = tensor(observation["kernel"].transpose(*KERNEL_DIMS))
        return {
            "wiener": wiener(
                edge_padded(y, before, grid), kernel, noise, taper=0 if self.boundary == "periodic" else None
            ),
            "richardson_lucy": richardson_lucy(operator, y, (1, *grid)),
            "tv": total_variation(operator, y, self.tv_weight * noise),
        }

    def shown(self, result: xr.Dataset) -> xr.DataArray:
        before, grid = self._margins(result)
        picture = self.picture(edge_padded(self.measurement(result).float(), before, grid), result)
        return picture.assign_attrs(long_name="photograph")


def _kernel(kernel: Any, width: float, angle: float, index: int, seed: int) -> Tensor:
    """The point-spread function that the constructor's arguments name, float64."""
    if isinstance(kernel, Tensor):
        if kernel.ndim != 2:
            raise ValueError(f"the kernel of a picture has two dimensions, got {tuple(kernel.shape)}.")
        return psf.measured(kernel)
    named = {
        "gaussian": lambda: psf.gaussian(width),
        "disc": lambda: psf.disc(width),
        "line": lambda: psf.line(width, angle),
        "walk": lambda: psf.walk(int(width), stream("walk", seed)),
    }
    if str(kernel) in named:
        return named[str(kernel)]()
    if not os.path.isfile(kernel):
        raise ValueError(
            f"kernel must be one of {', '.join(named)}, a tensor or a file; there is no file {str(kernel)!r}."
        )
    from scidiff.datasets.blur_kernels import read_kernel

    return psf.measured(tensor(read_kernel(kernel, index)))
