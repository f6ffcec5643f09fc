r"""Point-spread functions: the picture that an instrument makes of one point.

All are real tensors with odd sides that are not negative, sum to 1 and have their centroid at the central entry (to
rounding where the shape has a formula, within half an entry where it is measured or random). Lengths are in pixels, or
pint quantities together with the ``pixel`` size as another one. Each entry is the mean over its pixel where that has a
closed form.

=================== ================================================================================================
`gaussian`          :math:`\propto e^{-|r|^2 / 2 s^2}`, integrated over pixels; diffraction, seeing, scatter
`disc`              constant within a radius: a lens out of focus
`line`              uniform motion during the exposure
`walk`              a hand that trembles: a smooth random path with a velocity that forgets itself
`measured`          a recorded one: cleaned, centred, normalised
=================== ================================================================================================
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Generator, Tensor

from scidiff.operators.units import is_quantity, magnitude
from scidiff.rng import explicit

__all__ = ["centred", "disc", "gaussian", "line", "measured", "pixels", "walk"]

SUBPIXELS = 32  # along each side of a pixel, for shapes without a closed form


def pixels(length: Any, pixel: Any = 1.0, name: str = "length") -> float:
    """A length in pixels.

    Arguments:
        length: Number of pixels, or a pint quantity.
        pixel: Size of a pixel; a pint quantity of the same dimension as ``length``, or a number that divides it.
        name: What the length is called in messages.

    Raises:
        ValueError: if one of the two has units and the other has not, or they measure different things; if the
            length is negative or not finite, or the pixel is not positive.
    """
    if is_quantity(length) and not is_quantity(pixel):
        raise ValueError(f"{name} is {length}, but the size of a pixel is not known; give pixel= as a quantity too.")
    if is_quantity(pixel):
        unit = str(pixel.units)
        if is_quantity(length):
            length = magnitude(length, unit, name) / float(pixel.magnitude)
    else:
        length = length / pixel
    if not (0 <= float(length) < math.inf):
        raise ValueError(f"{name} must be a number of pixels of at least 0, got {length}.")
    return float(length)


def gaussian(std: Any, dims: int = 2, pixel: Any = 1.0, size: int | None = None) -> Tensor:
    """A Gaussian integrated over pixels.

    Arguments:
        std: Standard deviation.
        dims: Number of dimensions.
        pixel: Size of a pixel.
        size: Odd side; default: everything within 4 standard deviations.
    """
    s = pixels(std, pixel, "std")
    reach = _reach(size, math.ceil(4 * s))
    edges = torch.arange(-reach, reach + 2, dtype=torch.float64) - 0.5
    profile = torch.special.ndtr(edges / s).diff() if s > 0 else (edges[:-1] == -0.5).double()
    profile = (profile + profile.flip(0)) / (2 * profile.sum())  # even to the last digit
    kernel = profile
    for _ in range(dims - 1):
        kernel = kernel[..., None] * profile
    return kernel


def disc(radius: Any, pixel: Any = 1.0, size: int | None = None) -> Tensor:
    """A disc, the share of every pixel that it covers: defocus of a round aperture.

    Arguments:
        radius: Radius; 0 is a single point.
        pixel: Size of a pixel.
        size: Odd side; default: the whole disc.
    """
    r = pixels(radius, pixel, "radius")
    reach = _reach(size, max(0, math.ceil(r - 0.5)))
    side = 2 * reach + 1
    fine = (torch.arange(side * SUBPIXELS, dtype=torch.float64) + 0.5) / SUBPIXELS - side / 2
    # exact along x: the chord of every fine row, cut at the edges of pixels
    half = (r**2 - fine.square()).clamp(min=0).sqrt()
    edges = torch.arange(side + 1, dtype=torch.float64) - side / 2
    chord = torch.minimum(torch.maximum(edges, -half[:, None]), half[:, None]).diff(dim=1)
    kernel = chord.reshape(side, SUBPIXELS, side).sum(1)
    kernel = kernel + kernel.mT  # as even along both axes as the disc, to the last digit
    kernel = kernel + kernel.flip(0)
    kernel = kernel + kernel.flip(1)
    if float(kernel.sum()) == 0:
        kernel[reach, reach] = 1
    return kernel / kernel.sum()


def line(length: Any, angle: Any = 0.0, pixel: Any = 1.0) -> Tensor:
    """Uniform motion along a straight line.

    Arguments:
        length: Way during the exposure.
        angle: Direction in degrees or a pint angle, from the second (x) towards the first dimension (y).
        pixel: Size of a pixel.
    """
    way = pixels(length, pixel)
    turn = math.radians(float(magnitude(angle, "degree", "angle")))
    steps = max(1, math.ceil(way * SUBPIXELS))
    along = ((torch.arange(steps, dtype=torch.float64) + 0.5) / steps - 0.5) * way
    return _splat(torch.stack([along * math.sin(turn), along * math.cos(turn)], 1))


def walk(size: int, generator: Generator, smoothness: float = 0.2, steps: int = 2000) -> Tensor:
    r"""A camera that trembles: the time spent along a random path, whose velocity obeys :math:`dv = -v dt / T + dW`.

    Arguments:
        size: Odd side of the answer; the path is scaled to reach across it in its longer direction.
        generator: Source of the path.
        smoothness: Correlation time T in units of the exposure.
        steps: Points of the path.
    """
    if size < 3 or size % 2 == 0:
        raise ValueError(f"size must be odd and at least 3, got {size}.")
    if not (smoothness > 0 and steps > 1):
        raise ValueError(f"smoothness must be positive and steps at least 2, got {smoothness} and {steps}.")
    keep = math.exp(-1 / (smoothness * steps))
    draws = torch.randn(steps, 2, generator=explicit(generator), dtype=torch.float64)
    path = torch.empty(steps, 2, dtype=torch.float64)
    velocity, place = draws[0], torch.zeros(2, dtype=torch.float64)
    for i in range(steps):
        place = place + velocity
        path[i] = place
        velocity = keep * velocity + math.sqrt(1 - keep**2) * draws[i]
    path = path - path.mean(0)
    reach = float(path.abs().max())
    return _splat(path * ((size - 1) / 2 - 1e-9) / reach, size)


def measured(kernel: Tensor, background: float = 0.0) -> Tensor:
    """A recorded point-spread function, ready for use: background removed, empty margins cut, centred, normalised.

    Arguments:
        kernel: Picture of a point, two or three dimensions.
        background: Level that is subtracted; what is then negative is set to zero.

    Raises:
        ValueError: if nothing is left, or values are not finite.
    """
    k = kernel.detach().to(torch.float64)
    if not bool(torch.isfinite(k).all()):
        raise ValueError("the point-spread function holds NaN or infinite values.")
    if background == 0 and float(k.min()) < -1e-6 * float(k.abs().max()):
        raise ValueError(
            f"the point-spread function has negative values, down to {float(k.min()):.3g}; give a background."
        )
    k = (k - background).clamp(min=0)
    if not float(k.sum()) > 0:
        raise ValueError("the point-spread function is zero everywhere.")
    return centred(k)


def centred(kernel: Tensor) -> Tensor:
    """Shifts a kernel by whole entries so that its centroid is nearest the centre; smallest odd sides; sum 1."""
    k = kernel / kernel.sum()
    for dim in range(k.ndim):
        profile = k.sum([d for d in range(k.ndim) if d != dim]) if k.ndim > 1 else k
        at = torch.arange(len(profile), dtype=k.dtype)
        middle = round(float((profile * at).sum()))
        used = profile.nonzero()[:, 0]
        reach = max(int(used.max()) - middle, middle - int(used.min()))
        padded = torch.zeros(*k.shape[:dim], 2 * reach + 1, *k.shape[dim + 1 :], dtype=k.dtype)
        first, last = int(used.min()), int(used.max()) + 1
        padded.narrow(dim, first - middle + reach, last - first).copy_(k.narrow(dim, first, last - first))
        k = padded
    return k


def _reach(size: int | None, default: int) -> int:
    if size is None:
        return default
    if size < 1 or size % 2 == 0:
        raise ValueError(f"size must be odd, so that there is a centre; got {size}.")
    return size // 2


def _splat(points: Tensor, size: int | None = None) -> Tensor:
    """Points (n, 2) around the origin as a picture: each shared between its four nearest pixels, bilinearly."""
    reach = _reach(size, math.ceil(float(points.abs().max()) - 1e-9))
    side = 2 * reach + 1
    kernel = torch.zeros(side * side, dtype=torch.float64)
    low = points.floor()
    share = points - low
    for dy in (0, 1):
        for dx in (0, 1):
            weight = (share[:, 0] if dy else 1 - share[:, 0]) * (share[:, 1] if dx else 1 - share[:, 1])
            at = (low + torch.tensor([dy, dx]) + reach).long().clamp(0, side - 1)  # of weight 0 where it is clamped
            kernel.index_add_(0, at[:, 0] * side + at[:, 1], weight)
    return (kernel / kernel.sum()).reshape(side, side)
