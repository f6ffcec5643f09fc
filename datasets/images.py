"""Pictures from files as grey values, and pictures for simulated cases.

Whole numbers are divided by the largest of their type, so that white is 1; floating-point files keep their values.
Colours become luminance, :math:`0.2125 R + 0.7154 G + 0.0721 B`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from scidiff.errors import InputError
from scidiff.optional import optional

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["FORMATS", "HELD_OUT", "picture", "read_image"]

FORMATS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy")
LUMINANCE = (0.2125, 0.7154, 0.0721)  # ITU-R BT.709, as in skimage.color.rgb2gray

HELD_OUT = {"chelsea": "chelsea.png", "coins": "coins.png"}
"""Pictures in the package skimage that the bundled prior ``patches`` was not trained on: name -> file.

chelsea: CC0, Stefan van der Walt. coins: Brooklyn Museum Collection, no known copyright restrictions.
"""


def read_image(path: str | os.PathLike[str], dims: tuple[str, str] = ("y", "x")) -> xr.DataArray:
    """A grey picture (y, x), dimensionless, with coordinates in pixels.

    Arguments:
        path: PNG, JPEG, TIFF or NPY; grey (H, W), or colour (H, W, 3 or 4), whose opacity is ignored.
        dims: Names of the two dimensions.

    Raises:
        InputError: no such file, unreadable, not a picture, or with values that are not finite.
    """
    import xarray as xr

    name = os.fspath(path)
    if not os.path.isfile(name):
        raise InputError(f"{name}: there is no such file.")
    if not name.lower().endswith(FORMATS):
        raise InputError(f"{name}: expected a picture, one of {', '.join(FORMATS)}.")
    try:
        if name.lower().endswith(".npy"):
            values = np.load(name, allow_pickle=False)
        else:
            values = np.asarray(optional("skimage.io").imread(name))
    except Exception as error:  # readers of pictures raise a dozen unrelated types for a broken file
        raise InputError(f"{name}: not a readable picture ({error}).") from error
    grey = _grey(values, name)
    coords = {d: (d, np.arange(n, dtype=float), {"units": "pixel"}) for d, n in zip(dims, grey.shape, strict=True)}
    return xr.DataArray(grey, coords, dims, "image", {"units": "1", "long_name": "grey value"})


def _grey(values: np.ndarray, name: str) -> np.ndarray:
    if values.dtype.kind not in "fiub":
        raise InputError(f"{name}: holds {values.dtype}, expected real numbers.")
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[-1] not in (1, 3, 4)) or not values.size:
        raise InputError(f"{name}: has shape {values.shape}, expected (height, width) or (height, width, 3 or 4).")
    if values.dtype.kind == "i" and values.min() < 0:
        raise InputError(f"{name}: holds negative whole numbers, down to {values.min()}; expected counts.")
    scale = np.iinfo(values.dtype).max if values.dtype.kind in "iu" else 1
    grey = values.astype(np.float64) / scale
    if grey.ndim == 3:
        grey = grey[..., 0] if grey.shape[-1] == 1 else grey[..., :3] @ np.array(LUMINANCE)
    bad = int((~np.isfinite(grey)).sum())
    if bad:
        raise InputError(f"{name}: holds {bad} NaN or infinite values of {grey.size}.")
    return grey.astype(np.float32)


def picture(name: str) -> Tensor:
    """One of `HELD_OUT`, (H, W), float64, grey values in [0, 1]."""
    if name not in HELD_OUT:
        raise ValueError(f"there is no picture {name!r}; the pictures are {', '.join(HELD_OUT)}.")
    path = Path(str(optional("skimage").__file__)).parent / "data" / HELD_OUT[name]
    if not path.is_file():
        raise InputError(f"{path}: the installed scikit-image does not carry this picture.")
    return torch.from_numpy(read_image(path).values).double()
