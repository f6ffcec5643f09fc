r"""Windows of photographs: the pictures that scikit-image carries in its package, as grey values between 0 and 1.

Nothing is downloaded. The pictures and what their documentation says of their rights:

=========== ====================================================================
camera      CC0, Lav Varshney
astronaut   NASA, public domain
chelsea     CC0, Stefan van der Walt
coffee      CC0, Rachel Michetti
rocket      SpaceX, released into the public domain
brick       CC0 (CC0 Textures)
grass       CC0 (DeviantArt, linolafett)
gravel      CC0 (CC0 Textures)
=========== ====================================================================

Colours are turned into luminance, :math:`0.2125 R + 0.7154 G + 0.0721 B` (as in `skimage.color.rgb2gray`), of the
stored numbers, that is with their gamma. Half of the windows are mirrored left to right, and pictures are also used at
half size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from scidiff.datasets.simulator import Simulator, window
from scidiff.errors import InputError
from scidiff.optional import optional

__all__ = ["PICTURES", "Patches"]

PICTURES = {
    "camera": "camera.png",
    "astronaut": "astronaut.png",
    "chelsea": "chelsea.png",
    "coffee": "coffee.png",
    "rocket": "rocket.jpg",
    "brick": "brick.png",
    "grass": "grass.png",
    "gravel": "gravel.png",
}
"""Name -> file in the folder ``data`` of the package skimage."""


class Patches(Simulator):
    r"""Draws windows (1, h, w) of pictures.

    Arguments:
        pictures: Names of pictures for training; by default all that are not held out.
        validation: Names of the pictures that are held out.
        halvings: Every picture is also used at half, a quarter, ... of its size, this many times; large structures then
            fit into a window, and every scale is equally probable.
    """

    def __init__(
        self,
        pictures: Sequence[str] = (),
        validation: Sequence[str] = ("chelsea",),
        halvings: int = 1,
    ) -> None:
        unknown = sorted({*pictures, *validation} - {*PICTURES})
        if unknown:
            raise ValueError(f"there is no picture '{unknown[0]}'; the pictures are {', '.join(PICTURES)}.")
        chosen = [*pictures] or [name for name in PICTURES if name not in validation]
        if both := sorted({*chosen} & {*validation}):
            raise ValueError(f"'{both[0]}' is a picture for training and held out; remove it from one list.")
        if halvings < 0:
            raise ValueError(f"halvings must be 0 or more, got {halvings}.")
        self.pictures, self.halvings = chosen, halvings
        images = [_read(name) for name in chosen]
        every = torch.cat([image.flatten().double() for image in images])
        self._mean, self._deviation = float(every.mean()), float(every.std())
        self.loc, self.scale = self._mean, self._deviation
        self._train = [self._scales(image) for image in images]
        self._apart = [self._scales(_read(name)) for name in validation]

    def _scales(self, image: Tensor) -> list[Tensor]:
        """The picture at full size, half, ..., in units of ``u``."""
        scales = [((image - self._mean) / self._deviation).float()]
        for _ in range(self.halvings):
            scales.append(F.avg_pool2d(scales[-1][None], 2)[0])
        return scales

    @staticmethod
    def _draw(pool: list[list[Tensor]], generator: Generator, crop: tuple[int, ...]) -> Tensor:
        scales = pool[int(torch.randint(len(pool), (), generator=generator))]
        image = scales[int(torch.randint(len(scales), (), generator=generator))]
        part = image[window(image.shape, crop, generator, "the smallest version of a picture")]
        return (part.flip(1) if int(torch.randint(2, (), generator=generator)) else part)[None]

    def __call__(self, generator: Generator, crop: tuple[int, ...]) -> Tensor:
        """One window (1, h, w) in units of ``u``, of a picture for training."""
        return self._draw(self._train, generator, crop)

    @property
    def held_out(self):  # noqa: ANN201 - a source
        return lambda generator, crop: self._draw(self._apart or self._train, generator, crop)

    @property
    def card(self) -> dict[str, Any]:
        return {"variables": ["grey value"], "pictures": self.pictures}


def _read(name: str) -> Tensor:
    """A picture (H, W), grey values in [0, 1]."""
    folder = Path(str(optional("skimage").__file__)).parent / "data"
    path = folder / PICTURES[name]
    if not path.is_file():
        raise InputError(f"{path}: the installed scikit-image does not carry this picture; leave out '{name}'.")
    image = torch.from_numpy(optional("skimage.io").imread(path).copy()).double() / 255
    if image.ndim == 3:
        image = image[..., :3] @ torch.tensor([0.2125, 0.7154, 0.0721], dtype=torch.float64)
    return image
