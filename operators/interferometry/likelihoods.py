r"""Likelihoods of one interferometric data set: one product each, or the tuple that a `Posterior` takes.

=========================  ====================================  ==================================================
function                   measurement ``y``                     noise
=========================  ====================================  ==================================================
`of_visibilities`          complex visibilities, (1, n)          :math:`\sigma` per real component
`of_amplitudes`            debiased amplitudes, (1, n)           :math:`\sigma`
`of_closure_phases`        zero, (1, m); see `ClosurePhases`     full covariance of every scan, :math:`\sigma/|V|`
`of_closure_amplitudes`    log closure amplitudes, (1, m)        full covariance of every scan, :math:`\sigma/|V|`
`of_flux`                  total flux, (1, 1)                    its standard deviation
=========================  ====================================  ==================================================

The laws of amplitudes and closures are Gaussian to first order in :math:`\sigma/|V|`. Baselines below a signal to noise
of ``min_snr`` are left out before closures are formed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scidiff.inference import Likelihood
from scidiff.noise import GaussianNoise
from scidiff.operators.interferometry.closure_sets import ClosureSet, quadrangles, triangles
from scidiff.operators.interferometry.closures import (
    ClosurePhases,
    LogClosureAmplitudes,
    TotalFlux,
    VisibilityAmplitudes,
    debiased,
)
from scidiff.operators.interferometry.visibilities import Visibilities, baselines

__all__ = [
    "VisibilityData",
    "chi2",
    "closure_likelihoods",
    "of_amplitudes",
    "of_closure_amplitudes",
    "of_closure_phases",
    "of_flux",
    "of_visibilities",
]

Transform = Callable[[Tensor, Sequence[int], Any], Callable[[Tensor], Tensor]]
"""``Visibilities``, or another class that is called with ``(uv, shape, pixel)``."""


@dataclass(frozen=True)
class VisibilityData:
    r"""What an array of stations measured of one source.

    Arguments:
        uv: Baselines in wavelengths, (n, 2).
        stations: The two stations i, j of every visibility, (n, 2) whole numbers; the baseline i, j has the phase of
            :math:`V_{ij}`, whose conjugate is :math:`V_{ji}`.
        scans: Number or time of the scan, (n,): closures are formed among equal ones, so times must be equal exactly.
        vis: Visibilities in Jy, complex, (n,). Their type is that of the computation.
        sigma: Standard deviation of the thermal noise per real component in Jy, (n,).

    Raises:
        TypeError: if the visibilities are not complex.
        ValueError: if shapes differ, or a number is not finite or a sigma not positive.
    """

    uv: Tensor
    stations: Tensor
    scans: Tensor
    vis: Tensor
    sigma: Tensor

    def __post_init__(self) -> None:
        for name in ("stations", "scans", "vis", "sigma"):
            object.__setattr__(self, name, torch.as_tensor(getattr(self, name)).resolve_conj())
        object.__setattr__(self, "uv", baselines(self.uv))
        n = len(self.uv)
        if not self.vis.is_complex():
            raise TypeError(f"vis must be complex, got {self.vis.dtype}; amplitudes alone go to `of_amplitudes`.")
        for name, shape in (("stations", (n, 2)), ("scans", (n,)), ("vis", (n,)), ("sigma", (n,))):
            if tuple(getattr(self, name).shape) != shape:
                raise ValueError(f"{name} must have shape {shape} like uv, got {tuple(getattr(self, name).shape)}.")
        if not bool(torch.isfinite(torch.view_as_real(self.vis)).all()):
            raise ValueError("vis holds NaN or infinite values; leave these baselines out.")
        if not bool(((self.sigma > 0) & torch.isfinite(self.sigma)).all()):
            raise ValueError("sigma must be positive and finite; leave baselines without noise estimate out.")

    def __len__(self) -> int:
        return len(self.uv)

    @property
    def snr(self) -> Tensor:
        """Debiased amplitude over sigma, (n,)."""
        return debiased(self.vis.abs(), self.sigma) / self.sigma

    def select(self, keep: Tensor) -> VisibilityData:
        """The visibilities where the boolean ``keep`` (n,) is True, or at these places."""
        keep = torch.as_tensor(keep)
        return VisibilityData(self.uv[keep], self.stations[keep], self.scans[keep], self.vis[keep], self.sigma[keep])

    def with_systematic(self, fraction: float) -> VisibilityData:
        r"""Adds errors proportional to the amplitude: :math:`\sigma^2 \mapsto \sigma^2 + f^2 |V|^2`."""
        if not fraction >= 0:
            raise ValueError(f"fraction must not be negative, got {fraction}.")
        sigma = (self.sigma.square() + (fraction * self.vis.abs()).square()).sqrt()
        return VisibilityData(self.uv, self.stations, self.scans, self.vis, sigma)

    def averaged(self, scans: Any) -> VisibilityData:
        r"""Means weighted by :math:`1/\sigma^2` over visibilities of the same baseline and the same new scan.

        Average only over times in which phases of gains do not turn, else the amplitude is lost.

        Arguments:
            scans: New number of the scan of every visibility, (n,), ``(time // width)`` for intervals.
        """
        scans = np.asarray(scans)
        if scans.shape != (len(self),):
            raise ValueError(f"scans must have shape ({len(self)},), got {scans.shape}.")
        i, j = self.stations.T
        flip = i > j
        uv = torch.where(flip[:, None], -self.uv, self.uv)
        vis = torch.where(flip, self.vis.conj(), self.vis)
        pair = torch.where(flip[:, None], self.stations.flip(1), self.stations)
        numbers = torch.as_tensor(np.unique(scans, return_inverse=True)[1])
        key, group = torch.unique(torch.cat([numbers[:, None], pair], 1), dim=0, return_inverse=True)
        weight = 1 / self.sigma.double().square()
        total = weight.new_zeros(len(key)).index_add(0, group, weight)

        def mean(values: Tensor) -> Tensor:
            weighted = values * weight.reshape(-1, *[1] * (values.ndim - 1))
            out = weighted.new_zeros(len(key), *values.shape[1:]).index_add(0, group, weighted)
            return out / total.reshape(-1, *[1] * (values.ndim - 1))

        return VisibilityData(
            mean(uv), key[:, 1:], key[:, 0], mean(vis).to(self.vis.dtype), total.rsqrt().to(self.sigma.dtype)
        )


def of_visibilities(
    data: VisibilityData, shape: Sequence[int], pixel: Any, transform: Transform = Visibilities
) -> Likelihood:
    """Complex visibilities: for calibrated data.

    Arguments:
        data: The measurement.
        shape: Height and width of the field in pixels.
        pixel: Side of a pixel in radians, or a pint angle.
        transform: Class of the operator, called with ``(uv, shape, pixel)``.
    """
    return Likelihood(transform(data.uv, shape, pixel), GaussianNoise(data.sigma), data.vis[None])


def of_amplitudes(
    data: VisibilityData, shape: Sequence[int], pixel: Any, min_snr: float = 2.0, transform: Transform = Visibilities
) -> Likelihood:
    """Debiased amplitudes; arguments as in `of_closure_phases`."""
    data = _detected(data, min_snr)
    operator = VisibilityAmplitudes(transform(data.uv, shape, pixel))
    return Likelihood(operator, GaussianNoise(data.sigma), debiased(data.vis.abs(), data.sigma)[None])


def of_closure_phases(
    data: VisibilityData,
    shape: Sequence[int],
    pixel: Any,
    min_snr: float = 3.0,
    von_mises: bool = True,
    transform: Transform = Visibilities,
) -> Likelihood:
    """A minimal set of closure phases with its covariance; ``y`` is zero, the data are in the operator's reference.

    Arguments:
        data: The measurement.
        shape: Height and width of the field in pixels.
        pixel: Side of a pixel in radians, or a pint angle.
        min_snr: Visibilities of lower signal to noise are left out.
        von_mises: As in `ClosurePhases`.
        transform: Class of the operator, called with ``(uv, shape, pixel)``.

    Raises:
        ValueError: if no closed triangle is left.
    """
    data, closures = _closures(data, min_snr, triangles)
    phases = closures(data.vis.to(torch.complex128).angle())
    operator = ClosurePhases(transform(data.uv, shape, pixel), closures, phases, von_mises)
    y = torch.zeros(1, len(closures), dtype=data.vis.dtype.to_real(), device=data.vis.device)
    return Likelihood(operator, GaussianNoise(closures.covariance(1 / data.snr)), y)


def of_closure_amplitudes(
    data: VisibilityData, shape: Sequence[int], pixel: Any, min_snr: float = 3.0, transform: Transform = Visibilities
) -> Likelihood:
    """A minimal set of log closure amplitudes with its covariance; arguments as in `of_closure_phases`."""
    data, closures = _closures(data, min_snr, quadrangles)
    y = closures(data.vis.to(torch.complex128).abs().log()).to(data.vis.dtype.to_real())
    operator = LogClosureAmplitudes(transform(data.uv, shape, pixel), closures)
    return Likelihood(operator, GaussianNoise(closures.covariance(1 / data.snr)), y[None])


def of_flux(flux: float, std: float, shape: Sequence[int], like: Tensor | None = None) -> Likelihood:
    """Total flux in Jy.

    Arguments:
        flux: Its value.
        std: Its standard deviation.
        shape: Height and width of the field in pixels.
        like: A tensor that gives type and device, complex or real; default the default type.
    """
    dtype = torch.get_default_dtype() if like is None else like.dtype.to_real()
    y = torch.tensor([[float(flux)]], dtype=dtype, device=None if like is None else like.device)
    return Likelihood(TotalFlux((int(shape[0]), int(shape[1]))), GaussianNoise(float(std)), y)


def closure_likelihoods(
    data: VisibilityData,
    shape: Sequence[int],
    pixel: Any,
    flux: tuple[float, float] | None = None,
    min_snr: float = 3.0,
    von_mises: bool = True,
    transform: Transform = Visibilities,
) -> tuple[Likelihood, ...]:
    """Closure phases, log closure amplitudes and, if known, the total flux, which closures do not see.

    Arguments:
        flux: Total flux and its standard deviation in Jy. The other arguments are those of `of_closure_phases`.
    """
    parts = (
        of_closure_phases(data, shape, pixel, min_snr, von_mises, transform),
        of_closure_amplitudes(data, shape, pixel, min_snr, transform),
    )
    return parts if flux is None else (*parts, of_flux(*flux, shape=shape, like=data.vis))


_NAMES = {
    "ClosurePhases": "closure_phase",
    "LogClosureAmplitudes": "log_closure_amplitude",
    "TotalFlux": "flux",
    "VisibilityAmplitudes": "amplitude",
}


def chi2(likelihoods: Likelihood | Iterable[Likelihood], x: Tensor) -> dict[str, Tensor]:
    """Mean squared whitened residual of every data product by name: (B,), about 1 where ``x`` is right.

    Arguments:
        likelihoods: As a `Posterior` takes them.
        x: Fields (B, 1, H, W) in Jy per pixel.
    """
    parts = (likelihoods,) if isinstance(likelihoods, Likelihood) else tuple(likelihoods)
    return {_NAMES.get(type(p.operator).__name__, "visibility"): p.chi2(x) for p in parts}


def _detected(data: VisibilityData, min_snr: float) -> VisibilityData:
    if not min_snr > 0:
        raise ValueError(f"min_snr must be positive, got {min_snr}: a zero amplitude has no phase and no logarithm.")
    keep = data.snr >= min_snr
    if not bool(keep.any()):
        raise ValueError(
            f"no visibility has a signal to noise of {min_snr:g}; the largest is {float(data.snr.max()):.3g}."
        )
    return data.select(keep)


def _closures(
    data: VisibilityData, min_snr: float, choose: Callable[..., ClosureSet]
) -> tuple[VisibilityData, ClosureSet]:
    """Closures of the detected visibilities, and only the visibilities that they use."""
    data = _detected(data, min_snr)
    closures = choose(data.stations.cpu().numpy(), data.scans.cpu().numpy(), (1 / data.snr).double().cpu().numpy())
    if len(closures) == 0:
        raise ValueError(f"no scan has a closed loop of baselines with a signal to noise of {min_snr:g} or more.")
    used, place = torch.unique(closures.index, return_inverse=True)
    return data.select(used.to(data.vis.device)), ClosureSet(
        place, closures.sign, closures.stations, closures.scan, len(used)
    )
