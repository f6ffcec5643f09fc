r"""Does the forward model explain the scan? Checked before any sampling, with the measured data alone.

The image is fitted by regularised least squares (CG-SENSE) to whitened data ``y = A x + n``,

.. math:: \hat x = \arg\min \|y - A x\|^2 + \sum_k |F x|_k^2 / p_k ,

with ``p`` the smoothed power spectrum of the scan itself, so that the penalty is weak where there is signal. Two
numbers come out, both 1 for a model that is right to the noise and larger where maps, noise level or motion are wrong:

``fit``
    Misfit of the fit to all data over its degrees of freedom, :math:`\|y - A\hat x\|^2 / (n - \mathrm{tr} H)`, with
    the hat matrix ``y -> A x_hat``. Its trace (effective parameters) is estimated with random probes.
``held_back``
    The fit sees 90 % of the numbers measured (coil, point), drawn at random, and predicts the others. A prediction has
    an error of its own, from noise and from what the data do not determine, which is not the model's fault. It is found
    by replaying the experiment with fresh noise on a known image, drawn from the Gaussian law that the penalty stands
    for, given all data: ``held_back`` is the misfit observed over that of the replay. ``held_back_raw`` is the plain
    misfit per degree of freedom, prediction error included.

References:
    Advances in sensitivity encoding with arbitrary k-space trajectories. Pruessmann, Weigh, Boernert, Boesiger, 2001,
    Magn. Reson. Med. 46 (CG-SENSE).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from scidiff.linalg import cg
from scidiff.operators.mri.encoding import CartesianMRI, fft2c, ifft2c
from scidiff.operators.mri.masks import calibration_region
from scidiff.operators.mri.noise import prewhiten
from scidiff.rng import explicit

__all__ = ["ForwardCheck", "cg_sense", "held_back_chi2", "power_spectrum"]


@dataclass(frozen=True)
class ForwardCheck:
    """How well maps and noise explain a scan; chi2 are per degree of freedom, 1 is perfect.

    Attributes:
        held_back: Chi2 of the prediction of held-back data over what it would be for a perfect model.
        held_back_raw: The same without allowing for the error of the prediction.
        expected: Chi2 of the replay, that is ``held_back_raw / held_back``.
        held_back_error: One standard error of ``held_back``, from the scatter over splits and the count of numbers.
        held_back_outside: ``held_back`` of the points outside the calibration region alone, which coil maps made from
            that region have not seen; NaN where there are none.
        fit: Chi2 of the fit to all data over its degrees of freedom.
        degrees_of_freedom: Real numbers measured minus effective parameters of the fit.
        measured: Real numbers measured.
        image: The fitted image, (C, H, W).
    """

    held_back: float
    held_back_raw: float
    expected: float
    held_back_error: float
    held_back_outside: float
    fit: float
    degrees_of_freedom: float
    measured: int
    image: Tensor


def power_spectrum(operator: CartesianMRI, y: Tensor, bins: int = 32) -> Tensor:
    r"""Expected power of the image per point of k-space and real component, (H, W), from whitened data (1, J, n).

    The power of the data less that of the noise, in rings of equal width, over the mean squared sensitivity. Rings
    without excess power get a thousandth of the noise.
    """
    height, width = operator.mask.shape
    rows = (torch.arange(height, device=y.device) - height // 2) / (height / 2)
    cols = (torch.arange(width, device=y.device) - width // 2) / (width / 2)
    ring = (torch.hypot(rows[:, None], cols[None, :]) * bins).long()
    inside = ring[operator.mask]
    power = y[0].abs().square().sum(0) / 2 - operator.coils
    total = power.new_zeros(int(ring.max()) + 1).index_add(0, inside, power)
    count = torch.bincount(inside, minlength=len(total))
    gain = operator.maps.abs().square().sum((0, 1)).mean()
    spectrum = total / count.clamp_min(1)
    known = spectrum[count > 0]
    # Rings that were not measured take the weakest power that was.
    spectrum = torch.where(count > 0, spectrum, known.min()).clamp_min(1e-3)
    return spectrum[ring] / gain


def cg_sense(
    operator: CartesianMRI,
    y: Tensor,
    spectrum: Tensor | float,
    weight: Tensor | None = None,
    iterations: int = 100,
    tolerance: float = 1e-4,
) -> Tensor:
    """Regularised least squares on whitened data: (B, J, n) to images (B, C, H, W).

    Arguments:
        operator: Forward model with whitened maps.
        y: Whitened data.
        spectrum: Expected power p of the image, per point of k-space (H, W) or one number; penalty ``|F x|^2 / p``.
        weight: Zero or one per measured number, (J, n) or (B, J, n); zeros are left out of the fit.
        iterations: Most iterations of preconditioned conjugate gradients.
        tolerance: Residual of the normal equations, relative to the right-hand side, at which to stop. The centre of
            k-space is often a thousand times above the noise: at 1e-3 unfinished iterations look like a wrong model.
    """
    kept = 1.0 if weight is None else weight
    precision = 1 / torch.as_tensor(spectrum, device=y.device, dtype=y.real.dtype).expand(operator.mask.shape)
    gain = operator.maps.abs().square().sum((0, 1)).mean() * operator.mask.double().mean()

    def normal(x: Tensor) -> Tensor:
        data = operator.normal(x) if weight is None else operator.adjoint(kept * operator(x))
        return data + ifft2c(precision * fft2c(x))

    def precondition(r: Tensor) -> Tensor:
        return ifft2c(fft2c(r) / (precision + gain))

    solution, _ = cg(
        normal,
        operator.adjoint(kept * y),
        iterations=iterations,
        tolerance=tolerance,
        preconditioner=precondition,
        check_every=1,
    )
    return solution


def held_back_chi2(
    kspace: Tensor,
    mask: Tensor,
    maps: Tensor,
    covariance: Tensor | None = None,
    fraction: float = 0.1,
    splits: int = 1,
    probes: int = 1,
    spectrum: Tensor | float | None = None,
    generator: Generator | None = None,
) -> ForwardCheck:
    """Chi2 per degree of freedom of the forward model on data it was fitted to and on data held back.

    Arguments:
        kspace: Centred k-space, (J, H, W) complex.
        mask: Measured points, (H, W) boolean.
        maps: Coil maps, (J, H, W) or (J, C, H, W), not whitened.
        covariance: Noise covariance (J, J) as of `estimate_noise`; None for data and maps that are whitened already.
        fraction: Share of the measured numbers held back.
        splits: Random splits that are averaged.
        probes: Random probes for the effective number of parameters.
        spectrum: Expected power of the whitened image, see `cg_sense`; by default from the data.
        generator: Source of randomness.

    Raises:
        ValueError: If ``fraction`` is not between 0 and 1 or shapes disagree.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must lie between 0 and 1, got {fraction}.")
    if covariance is not None:
        kspace, maps = prewhiten(covariance, kspace, maps)
    operator = CartesianMRI(maps, mask)
    y = operator.sample(kspace)[None]
    power = power_spectrum(operator, y) if spectrum is None else torch.as_tensor(spectrum, device=y.device)
    image = cg_sense(operator, y, power)
    explained = operator(image)
    real_numbers = 2 * y.numel()

    # Effective parameters: E[Re <e, H e>] for white e of unit variance per real component.
    noise = _noise(y, probes, generator)
    hat = operator(cg_sense(operator, noise, power))
    parameters = float((noise.conj() * hat).real.sum() / probes)
    freedom = real_numbers - parameters
    fit = float((y - explained).abs().square().sum()) / freedom

    weight = (torch.rand(splits, *y.shape[1:], generator=explicit(generator)) >= fraction).to(y.device)
    held = 2 * int((~weight).sum())
    # A draw given the data: a free draw plus the fit of what its own noisy data miss (conditioning by kriging).
    draws = ifft2c(_noise(image, splits, generator) * power.sqrt())
    replica = operator(draws) + _noise(y, splits, generator)
    truth = draws + cg_sense(operator, y - replica, power)
    replay = operator(truth) + _noise(y, splits, generator)

    def errors(data: Tensor) -> Tensor:
        error = data - operator(cg_sense(operator, data, power, weight.to(y.real.dtype)))
        return error.abs().square() * ~weight

    observed, expected = errors(y.expand(splits, -1, -1)), errors(replay)
    total, total_expected = float(observed.sum()), float(expected.sum())
    ratio = total / total_expected
    outer = _outside_calibration(mask)[mask]
    outside = float(observed[..., outer].sum() / expected[..., outer].sum()) if bool(outer.any()) else float("nan")
    # Two independent chi2 of `held` real numbers each; splits overlap little.
    error = ratio * (4 / held) ** 0.5
    return ForwardCheck(
        ratio, total / held, total_expected / held, error, outside, fit, freedom, real_numbers, image[0]
    )


def _outside_calibration(mask: Tensor) -> Tensor:
    """Measured points that estimators of coil maps do not see, (H, W)."""
    outside = mask.clone()
    if bool(mask[mask.shape[0] // 2, mask.shape[1] // 2]):
        outside[calibration_region(mask)] = False
    return outside


def _noise(y: Tensor, batch: int, generator: Generator | None) -> Tensor:
    """White complex numbers (batch, ...), shaped as the rows of ``y``, of unit variance per real component."""
    draw = torch.randn(batch, *y.shape[1:], generator=explicit(generator), dtype=y.dtype)
    return draw.to(y.device) * 2**0.5
