"""What deblurring, super-resolution and inpainting share: grey pictures between 0 and 1, read from picture files.

Simulated cases are windows of the pictures of `scidiff.datasets.images.HELD_OUT`, which the bundled prior has not seen,
at their full or half size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from scidiff.errors import InputError
from scidiff.problems.imaging import GridProblem, axes

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Photographs", "checked_shape", "window"]


def checked_shape(shape: Any, least: int = 8) -> tuple[int, int]:
    """Height and width."""
    sides = tuple(int(n) for n in shape)
    if len(sides) != 2 or min(sides) < least:
        raise ValueError(f"shape must be (height, width) of at least {least}, got {tuple(shape)}.")
    return sides


def window(shape: tuple[int, int], generator: Generator, halvings: int = 0) -> tuple[Tensor, str]:
    """A random window (h, w) of a held-out picture, float64, and the picture's name.

    Arguments:
        shape: Sides of the window.
        generator: Source of the draw.
        halvings: The picture is made smaller by means over 2 x 2 pixels at most this often; every size that the window
            fits into is equally probable.

    Raises:
        ValueError: if no picture is as large as the window.
    """
    from scidiff.datasets.images import HELD_OUT, picture

    found = []
    for name in HELD_OUT:
        image = picture(name)
        for _ in range(halvings + 1):
            if all(n >= s for n, s in zip(image.shape, shape, strict=True)):
                found.append((image, name))
            image = F.avg_pool2d(image[None, None], 2)[0, 0]
    if not found:
        raise ValueError(f"no picture for simulated cases is as large as {shape}; choose a smaller shape.")
    image, name = found[int(torch.randint(len(found), (), generator=generator))]
    first = [int(torch.randint(n - s + 1, (), generator=generator)) for n, s in zip(image.shape, shape, strict=True)]
    return image[first[0] : first[0] + shape[0], first[1] : first[1] + shape[1]], name


class Photographs(GridProblem):
    """Base of the problems with one grey picture; see `GridProblem` for the arguments."""

    field, long_name, measured_long_name = "image", "grey value", "photograph"
    measured_dims: tuple[str, ...] = ("row", "column")
    peak = 1.0

    def load(self, path: str) -> xr.Dataset:
        """A picture file."""
        from scidiff.datasets.images import read_image

        return read_image(path, self.measured_dims).to_dataset(name=self.measured)  # type: ignore[arg-type]

    def complete(self, observation: xr.Dataset, what: str) -> xr.Dataset:
        sizes = {str(d): n for d, n in observation.sizes.items() if d in self.measured_dims}
        absent = {d: n for d, n in sizes.items() if d not in observation.coords}
        observation = observation.assign_coords(axes(tuple(absent), tuple(absent.values())))
        for dim in sizes:
            steps = np.diff(np.asarray(observation[dim].values, dtype=float))
            if len(steps) and not (np.allclose(steps, steps[0], rtol=1e-3) and steps[0] != 0):
                raise InputError(f"{what}: coordinate '{dim}' must be evenly spaced.")
        return super().complete(observation, what)

    def picture(self, values: Tensor, observation: xr.Dataset) -> xr.DataArray:
        """A field as an array like `template`."""
        template = self.template(observation)
        return template.copy(data=values.reshape(template.shape).to(torch.float32).numpy())

    def warnings_of(self, observation: xr.Dataset) -> list[str]:
        values = np.asarray(observation[self.measured].values)
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        slack = 0.1 + 6 * (self.noise or 0)
        if low < -slack or high > 1 + slack or high < 0.05:
            return [f"grey values run from {low:.3g} to {high:.3g}; the prior knows pictures between 0 and 1: rescale."]
        return []
