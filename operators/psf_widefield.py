r"""The point-spread function of a widefield microscope without aberrations, in the scalar model of Born and Wolf.

A point at the focus of an objective of numerical aperture NA, seen in light of wavelength :math:`\lambda` through a
medium of refractive index n, has at the distance r from the axis and z from the plane of focus the intensity

.. math:: k(r, z) = \Big| 2 \int_0^1 J_0\!\Big(\frac{2\pi\,\mathrm{NA}}{\lambda} r \rho\Big)\,
          e^{-i \pi \mathrm{NA}^2 \rho^2 z / (n \lambda)}\,\rho\,d\rho \Big|^2 .

In focus it is the Airy pattern :math:`(2 J_1(v) / v)^2`, :math:`v = 2\pi\,\mathrm{NA}\,r/\lambda`, dark at
:math:`r = 0.61\,\lambda/\mathrm{NA}`; on the axis it is :math:`\mathrm{sinc}^2`, dark at
:math:`z = 2 n\lambda/\mathrm{NA}^2`. Every plane holds the same light. The model is paraxial: at high aperture (NA
above about n/2) real patterns are shorter along z, and a mismatch of refractive indices makes them lopsided; measure
the pattern of a small bead then.

References:
    Principles of Optics. Born and Wolf, 1999, section 8.8 (three-dimensional light distribution near focus).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from scidiff.operators.units import magnitude

__all__ = ["born_wolf", "born_wolf_intensity"]


def born_wolf_intensity(r: Tensor, z: Tensor, wavelength: Any, na: float, index: float = 1.0) -> Tensor:
    """The formula, 1 at the focus.

    Arguments:
        r: Distances from the axis in micrometres, any shape.
        z: Distances from the plane of focus in micrometres, of a shape that broadcasts with r.
        wavelength: In vacuum; micrometres, or a pint quantity.
        na: Numerical aperture, less than ``index``.
        index: Refractive index of the immersion medium.

    Raises:
        ValueError: for an aperture that the medium does not allow, or lengths that are not positive.
    """
    wavelength = float(magnitude(wavelength, "micrometer", "wavelength"))
    _validate(wavelength, na, index)
    r, z = torch.broadcast_tensors(r.double(), z.double())
    v, u = 2 * math.pi * na / wavelength * r, math.pi * na**2 / (index * wavelength) * z
    from scipy.special import j0  # torch's own is good to 1e-8 only

    turns = float(v.abs().max() + 2 * u.abs().max())
    nodes, weights = _gauss(int(32 + turns))
    total = torch.zeros(v.shape, dtype=torch.complex128)
    for rho, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
        phase = u * rho**2
        total += weight * rho * torch.as_tensor(j0((v * rho).numpy())) * torch.complex(phase.cos(), -phase.sin())
    return (2 * total).abs().square()


def _validate(wavelength: float, na: float, index: float) -> None:
    if not 0 < na < index:
        raise ValueError(
            f"the numerical aperture must be positive and less than the refractive index {index}, got {na}."
        )
    if not 0 < wavelength < math.inf:
        raise ValueError(f"wavelength must be positive, got {wavelength} micrometres.")


def _gauss(count: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of Gauss and Legendre on [0, 1]: eigenvalues of the Jacobi matrix."""
    k = torch.arange(1, count, dtype=torch.float64)
    off = k / (4 * k.square() - 1).sqrt()
    values, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return (values + 1) / 2, vectors[0].square()


def born_wolf(
    shape: Sequence[int],
    voxel: Sequence[Any] | Any,
    wavelength: Any,
    na: float,
    index: float = 1.0,
    subpixels: int = 3,
    subplanes: int = 1,
) -> Tensor:
    """The point-spread function on a grid of voxels, (Z, Y, X), with the sum one and the focus at ``side // 2``.

    Arguments:
        shape: Sides Z, Y and X in voxels; odd ones make it symmetric.
        voxel: Spacing along z, y and x in micrometres, or pint quantities.
        wavelength: Of the emitted light, in vacuum; micrometres, or a pint quantity.
        na: Numerical aperture.
        index: Refractive index of the immersion medium.
        subpixels: Points per pixel along y and x over whose intensity a pixel takes the mean.
        subplanes: The same along z, for a field that is constant over the depth of a voxel.

    Raises:
        ValueError: for wrong sizes, and as in `born_wolf_intensity`.
    """
    size = [float(magnitude(s, "micrometer", "voxel")) for s in voxel]
    if len(shape) != 3 or len(size) != 3 or min(shape) < 1 or not min(size) > 0 or min(subpixels, subplanes) < 1:
        raise ValueError(
            f"expected three sides, three voxel sizes and subpixels >= 1, got {tuple(shape)}, {size}, {subpixels}."
        )
    depths = (torch.arange(subplanes).double() - (subplanes - 1) / 2) / subplanes
    z = (((torch.arange(shape[0]).double() - shape[0] // 2)[:, None] + depths) * size[0]).flatten()
    inside = (torch.arange(subpixels).double() - (subpixels - 1) / 2) / subpixels
    y, x = (
        ((torch.arange(n).double() - n // 2)[:, None] + inside).flatten() * s
        for n, s in zip(shape[1:], size[1:], strict=True)
    )
    r = torch.hypot(y[:, None], x[None, :])
    # Intensity depends on r and |z| alone: a fine table along r, read by cubic interpolation.
    _validate(float(magnitude(wavelength, "micrometer", "wavelength")), na, index)
    step = float(magnitude(wavelength, "micrometer", "wavelength")) / na / 64
    count = int(float(r.max()) / step) + 4
    depth, plane = torch.unique(z.abs().round(decimals=9), return_inverse=True)
    table = born_wolf_intensity(torch.arange(-1, count).double().abs() * step, depth[:, None], wavelength, na, index)
    first = (r / step).long()
    t = r / step - first
    parts = [table[:, first + i] for i in range(4)]
    fine = _cubic(parts, t)
    lateral = fine.unflatten(1, (shape[1], subpixels)).unflatten(3, (shape[2], subpixels)).mean((2, 4))
    kernel = lateral[plane].unflatten(0, (shape[0], subplanes)).mean(1)
    return kernel / kernel.sum()


def _cubic(p: list[Tensor], t: Tensor) -> Tensor:
    """The cubic through four equidistant values at -1, 0, 1, 2."""
    weights = (
        -t * (t - 1) * (t - 2) / 6,
        (t + 1) * (t - 1) * (t - 2) / 2,
        -(t + 1) * t * (t - 2) / 2,
        (t + 1) * t * (t - 1) / 6,
    )
    return sum(w * q for w, q in zip(weights, p, strict=True))  # type: ignore[return-value]
