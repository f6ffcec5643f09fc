r"""Pictures that people know: dirty image, dirty beam, and a field as an instrument of finite resolution shows it.

The dirty image is what the measured visibilities :math:`V_n` say with zeros for the others, weights :math:`w_n`:

.. math:: D(x, y) = \frac{\sum_n w_n \mathrm{Re}\, V_n e^{-2\pi i (u_n x + v_n y)}}{\sum_n w_n}
          \qquad P(x, y) = \frac{\sum_n w_n \cos 2\pi (u_n x + v_n y)}{\sum_n w_n}

in Jy per beam. For the points of a field it is the convolution with the dirty beam P. The clean beam is the Gaussian
:math:`e^{-\frac12 r^T \Sigma^{-1} r}` fitted to the central lobe of P; convolution with it (of unit sum, so in Jy per
pixel) multiplies visibilities by :math:`e^{-2\pi^2 k^T \Sigma k}`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scidiff.operators.interferometry.visibilities import Visibilities, baselines, pixel_sides
from scidiff.operators.units import magnitude

__all__ = ["Beam", "dirty_beam", "dirty_image", "fit_beam"]

FWHM = math.sqrt(8 * math.log(2))
"""Full width at half maximum of a Gaussian of unit standard deviation."""


def _weights(weights: Tensor | None, like: Tensor) -> Tensor:
    w = torch.ones(like.shape[-1:], dtype=like.dtype.to_real()) if weights is None else torch.as_tensor(weights)
    w = w.to(like.device, like.dtype.to_real())
    if w.shape != like.shape[-1:] or not bool((w >= 0).all()) or not float(w.sum()) > 0:
        raise ValueError(f"weights must be {tuple(like.shape[-1:])}, not negative, not all zero; got {tuple(w.shape)}.")
    return w / w.sum()


def dirty_image(operator: Visibilities, vis: Tensor, weights: Tensor | None = None) -> Tensor:
    r"""The dirty image on the operator's grid, Jy per beam, (B, 1, H, W).

    Arguments:
        operator: `Visibilities` of the measured baselines.
        vis: (B, n), Jy.
        weights: (n,), all alike by default (natural weights for even noise); :math:`1/\sigma^2` for uneven noise.
    """
    return operator.adjoint(vis * _weights(weights, vis))


def dirty_beam(uv: Any, shape: Sequence[int], pixel: Any, weights: Tensor | None = None) -> Tensor:
    """The dirty beam around the centre of the picture, (1, 1, H, W), float64.

    Its peak is 1 and lies between pixels if a side is even. Arguments as in `fit_beam` and `Visibilities`.
    """
    operator = Visibilities(uv, shape, pixel)
    return dirty_image(operator, torch.ones(1, len(operator), dtype=torch.complex128), weights)


@dataclass(frozen=True)
class Beam:
    """An elliptical Gaussian.

    Arguments:
        major: Full width at half maximum along the long axis, radians or a pint angle.
        minor: The same along the short axis; a circle by default.
        angle: Position angle of the long axis, from north towards east, radians or a pint angle.

    Raises:
        ValueError: if ``0 < minor <= major`` does not hold.
    """

    major: float
    minor: float | None = None
    angle: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "minor", self.major if self.minor is None else self.minor)
        for name in ("major", "minor", "angle"):
            object.__setattr__(self, name, float(magnitude(getattr(self, name), "radian", name)))
        if not 0 < float(self.minor) <= self.major * (1 + 1e-12):  # type: ignore[arg-type]
            raise ValueError(f"a beam needs 0 < minor <= major, got {self.minor} and {self.major}.")

    @property
    def covariance(self) -> np.ndarray:
        r""":math:`\Sigma` of (x, y), east and north, radians squared, (2, 2)."""
        axes = np.array([[math.sin(self.angle), math.cos(self.angle)], [math.cos(self.angle), -math.sin(self.angle)]])
        return axes.T @ np.diag([(self.major / FWHM) ** 2, (float(self.minor) / FWHM) ** 2]) @ axes  # type: ignore[arg-type]

    @classmethod
    def from_covariance(cls, covariance: Any) -> Beam:
        r"""The beam of :math:`\Sigma` (2, 2)."""
        values, axes = np.linalg.eigh(np.asarray(covariance, float))
        minor, major = np.sqrt(values) * FWHM
        east, north = axes[:, 1]
        return cls(major, minor, math.atan2(east, north) % math.pi)

    def convolve(self, x: Tensor, pixel: Any) -> Tensor:
        """Fields (B, C, H, W) blurred with the beam of unit sum, by Fourier transform on twice the sides.

        Arguments:
            x: Jy per pixel; light that leaves the picture is lost.
            pixel: Side of a pixel in radians, or a pint angle; two for (height, width).
        """
        height, width = x.shape[-2:]
        rows, columns = pixel_sides(pixel)
        ky = torch.fft.fftfreq(2 * height, rows, dtype=torch.float64)[:, None]
        kx = torch.fft.rfftfreq(2 * width, columns, dtype=torch.float64)
        s = self.covariance  # both axes of the picture point away from north and east: the product keeps its sign
        form = s[0, 0] * kx**2 + 2 * s[0, 1] * kx * ky + s[1, 1] * ky**2
        taper = torch.exp(-2 * math.pi**2 * form).to(x.device, x.dtype)
        blurred = torch.fft.irfft2(torch.fft.rfft2(x, s=(2 * height, 2 * width)) * taper, s=(2 * height, 2 * width))
        return blurred[..., :height, :width]


def fit_beam(uv: Any, weights: Tensor | None = None, level: float = 0.5) -> Beam:
    r"""The clean beam: least squares of a Gaussian against the dirty beam where the latter's lobe is high.

    The start has the curvature of the dirty beam at its peak, :math:`\Sigma^{-1} = 4\pi^2 \langle k k^T \rangle` with
    :math:`k = (u, v)`, which is the answer for ``level`` near 1.

    Arguments:
        uv: Baselines in wavelengths, (n, 2).
        weights: (n,), all alike by default.
        level: The lobe is where the Gaussian of the start is higher than this.

    Raises:
        ValueError: if all baselines lie on a line, so that one direction is not resolved.
    """
    from scipy.optimize import least_squares

    k = baselines(uv).cpu()
    w = _weights(weights, k[:, 0]).cpu().numpy()
    k = k.numpy()
    precision = 4 * math.pi**2 * (k * w[:, None]).T @ k
    values = np.linalg.eigvalsh(precision)
    if not values[0] > 1e-8 * values[1]:
        raise ValueError("the baselines lie on a line: the beam is not bounded across it.")
    root = np.linalg.cholesky(np.linalg.inv(precision))  # in these coordinates the start is a unit circle
    side = np.linspace(-1, 1, 15) * math.sqrt(-2 * math.log(level))
    points = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    points = points[np.exp(-0.5 * (points**2).sum(1)) >= level]
    beam = np.cos(2 * math.pi * (points @ root.T) @ k.T) @ w

    def difference(p: np.ndarray) -> np.ndarray:
        a, b, c = p
        return np.exp(-0.5 * ((a * points[:, 0] + b * points[:, 1]) ** 2 + (c * points[:, 1]) ** 2)) - beam

    a, b, c = least_squares(difference, [1.0, 0.0, 1.0], xtol=1e-12, ftol=1e-12).x
    upper = np.array([[a, b], [0, c]]) @ np.linalg.inv(root)
    return Beam.from_covariance(np.linalg.inv(upper.T @ upper))
