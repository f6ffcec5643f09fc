"""Measured point-spread functions from files: one picture, or a stack of several."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from scidiff.datasets.images import FORMATS
from scidiff.errors import InputError
from scidiff.optional import optional

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["read_kernel"]


def read_kernel(path: str | os.PathLike[str], index: int = 0, background: float = 0.0) -> xr.DataArray:
    """A point-spread function (kernel_y, kernel_x) with sum 1, on the file's grid; `scidiff.operators.psf` centres it.

    Arguments:
        path: NPZ with an array ``kernels`` (n, h, w) (or a single array), NPY, TIFF or PNG; (h, w) or a stack.
        index: Which one of a stack.
        background: Level to subtract, in the file's numbers.

    Raises:
        InputError: no such file, unreadable, of a wrong shape, or with values no point-spread function has.
    """
    import xarray as xr

    name = os.fspath(path)
    if not os.path.isfile(name):
        raise InputError(f"{name}: there is no such file.")
    values = _load(name)
    if values.dtype.kind not in "fiu" or values.ndim not in (2, 3) or not values.size:
        raise InputError(f"{name}: holds {values.dtype} {values.shape}, expected real numbers (h, w) or (n, h, w).")
    if values.ndim == 3:
        if not 0 <= index < len(values):
            raise InputError(f"{name}: holds {len(values)} point-spread functions, but number {index} was asked for.")
        values = values[index]
    elif index:
        raise InputError(f"{name}: holds one point-spread function, but number {index} was asked for.")
    kernel = values.astype(np.float64)
    if not np.isfinite(kernel).all():
        raise InputError(f"{name}: the point-spread function holds NaN or infinite values.")
    if background == 0 and kernel.min() < -1e-6 * np.abs(kernel).max():
        raise InputError(f"{name}: the point-spread function has negative values, down to {kernel.min():.3g}.")
    kernel = np.clip(kernel - background, 0, None)
    if not kernel.sum() > 0:
        raise InputError(f"{name}: the point-spread function is zero everywhere.")
    attrs = {"units": "1", "long_name": "point-spread function", "source": os.path.basename(name)}
    return xr.DataArray(kernel / kernel.sum(), dims=("kernel_y", "kernel_x"), name="kernel", attrs=attrs)


def _load(name: str) -> np.ndarray:
    lower = name.lower()
    if not lower.endswith((".npz", *FORMATS)):
        raise InputError(f"{name}: expected one of .npz, {', '.join(FORMATS)}.")
    try:
        if lower.endswith((".npy", ".npz")):
            loaded = np.load(name, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            arrays = {key: loaded[key] for key in loaded.files}
        else:
            return np.asarray(optional("skimage.io").imread(name))
    except Exception as error:  # readers of pictures raise a dozen unrelated types for a broken file
        raise InputError(f"{name}: not a readable file ({error}).") from error
    key = "kernels" if "kernels" in arrays else next(iter(arrays), None)
    if key is None or (key != "kernels" and len(arrays) > 1):
        raise InputError(f"{name}: expected an array 'kernels', found {', '.join(arrays) or 'nothing'}.")
    return arrays[key]
