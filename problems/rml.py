r"""Regularised maximum likelihood: the usual way from closure quantities to one image of a black hole.

Minimises over positive images :math:`x = q\, e^{z}`, by quasi-Newton steps (L-BFGS) on :math:`z`,

.. math:: \sum_k w_k\, \chi^2_k(x) + \frac{\lambda_E}{F} \sum_i \Big(x_i \log \frac{x_i}{q_i} - x_i + q_i\Big)
          + \lambda_T \sum_i \frac{|D x|_i}{F} + \lambda_F \Big(\frac{\sum_i x_i}{F} - 1\Big)^2

====================  =========================================================================================
:math:`\chi^2_k`      mean squared whitened residual of data product k, 1 where the image explains the data
:math:`q`             a centred Gaussian of flux F: what the image is without data. Closures do not see where
                      the source is; the relative entropy keeps it in the middle
:math:`D`             differences between neighbours; total variation prefers sharp edges to ripples
:math:`F`             total flux, which closures do not see either
====================  =========================================================================================

The closure terms have local minima. So the search is repeated, each time from the blurred result of the last.

References:
    High-resolution Linear Polarimetric Imaging for the Event Horizon Telescope. Chael et al., 2016.
    Interferometric Imaging Directly with Closure Phases and Closure Amplitudes. Chael et al., 2018.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scidiff.inference import Likelihood
from scidiff.operators.interferometry.images import FWHM, Beam
from scidiff.operators.interferometry.visibilities import angles, pixel_sides
from scidiff.operators.units import magnitude
from scidiff.problems.baselines import differences

__all__ = ["gaussian_source", "regularised_maximum_likelihood"]


def gaussian_source(shape: Sequence[int], pixel: Any, width: Any, flux: float = 1.0) -> Tensor:
    """A round Gaussian in the middle, Jy per pixel, float64 (1, 1, H, W).

    Arguments:
        shape: Height and width in pixels.
        pixel: Side of a pixel, radians or a pint angle.
        width: Full width at half maximum, radians or a pint angle.
        flux: Sum of all pixels, Jy.
    """
    y, x = angles(shape, pixel)
    s = float(magnitude(width, "radian", "width")) / FWHM
    source = torch.exp(-0.5 * ((y[:, None] / s) ** 2 + (x / s) ** 2))
    return (flux * source / source.sum())[None, None]


def regularised_maximum_likelihood(
    likelihoods: Likelihood | Iterable[Likelihood],
    shape: Sequence[int],
    pixel: Any,
    flux: float,
    width: Any,
    *,
    entropy: float = 1.0,
    variation: float = 0.5,
    flux_weight: float = 100.0,
    weights: Sequence[float] | None = None,
    blur: Any = None,
    rounds: int = 3,
    iterations: int = 100,
) -> Tensor:
    r"""One positive image, float64 (1, 1, H, W), Jy per pixel.

    Arguments:
        likelihoods: Data products :math:`k` of one source, B = 1, with Gaussian noise.
        shape: Height and width in pixels.
        pixel: Side of a pixel, radians or a pint angle.
        flux: Total flux :math:`F`, Jy.
        width: Full width at half maximum of :math:`q`, radians or a pint angle: about the size of the source.
        entropy: :math:`\lambda_E`.
        variation: :math:`\lambda_T`.
        flux_weight: :math:`\lambda_F`.
        weights: :math:`w_k`, one per product; all 1 by default.
        blur: Full width at half maximum of the blur between rounds; by default a third of ``width``.
        rounds: How often the search starts.
        iterations: Most steps of a search.

    Raises:
        ValueError: if there are several sources or the weights do not fit.
    """
    from scipy.optimize import minimize

    parts = (likelihoods,) if isinstance(likelihoods, Likelihood) else tuple(likelihoods)
    if any(p.y.shape[0] != 1 for p in parts):
        raise ValueError("one image at a time: every y must have shape (1, ...).")
    weights = [1.0] * len(parts) if weights is None else [float(w) for w in weights]
    if len(weights) != len(parts):
        raise ValueError(f"got {len(weights)} weights for {len(parts)} data products.")
    if not flux > 0 or rounds < 1:
        raise ValueError(f"flux must be positive and rounds at least 1, got {flux} and {rounds}.")
    pixel_sides(pixel)
    wide = float(magnitude(width, "radian", "width"))
    q = gaussian_source(shape, pixel, wide, flux)
    q = q.clamp_min(1e-8 * float(q.max()))
    beam = Beam(wide / 3 if blur is None else float(magnitude(blur, "radian", "blur")))

    def cost(z: Tensor) -> Tensor:
        x = q * z.exp()
        misfit = sum(w * p.chi2(x)[0] for w, p in zip(weights, parts, strict=True))
        edges = (differences(x / flux).square().sum(0) + 1e-16).sqrt().sum()
        return (
            misfit
            + entropy * (x * z - x + q).sum() / flux
            + variation * edges
            + flux_weight * (x.sum() / flux - 1).square()
        )

    def value_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        z = torch.from_numpy(flat).reshape(q.shape).requires_grad_()
        value = cost(z)
        (gradient,) = torch.autograd.grad(value, z)
        return float(value.detach()), gradient.flatten().numpy().astype(np.float64)

    z = torch.zeros_like(q)
    for number in range(rounds):
        if number:
            x = beam.convolve(q * z.exp(), pixel)
            z = (x.clamp_min(1e-6 * float(x.max())) / q).log()
        options = {"maxiter": iterations, "maxcor": 20}
        found = minimize(value_and_gradient, z.flatten().numpy(), jac=True, method="L-BFGS-B", options=options)
        if not math.isfinite(found.fun):
            raise FloatingPointError("the cost of the image is not finite; check noise levels and flux.")
        z = torch.from_numpy(found.x).reshape(q.shape)
    return q * z.exp()
