r"""The measurement in the singular vectors of the whitened operator, for samplers that work component by component.

For linear operators, an affine prior and Gaussian noise, :math:`S_y^{-1/2} A\,\partial\mathrm{decode}/\partial u
= U\,\mathrm{diag}(s)\,V^\top`, and with :math:`c = V^\top u` the data are k independent numbers

.. math:: \bar y_i = s_i c_i + n_i, \qquad n_i \sim N(0, 1).

What of ``y`` lies outside the columns of :math:`U` is noise alone and says nothing about the field.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scidiff.inference import Cost, Posterior
from scidiff.linalg.svd import SVD, dense_svd
from scidiff.noise import GaussianNoise
from scidiff.posterior.measurement import Measurement
from scidiff.priors.gaussian import from_real, to_real

__all__ = ["Spectrum"]

WAY_OUT = "make the operator a matrix with LinearMap.dense(operator, shape), or take a sampler that needs no svd (mmps)"
SMALL = 4096
"""Most numbers of a state for which a dense decomposition is made: 16 s and 0.4 GB on one core."""


@dataclass(frozen=True)
class Spectrum:
    r"""Whitened singular values, data and the change of coordinates.

    Arguments:
        s: Singular values in units of the noise, (k,), not negative; zeros mark components without data.
        y: Data :math:`\bar y` of every row, (rows, k).
        analyse: Coefficients :math:`c = V^\top u`, (rows, \*S) -> (rows, k).
        synthesise: States :math:`V c`, (rows, k) -> (rows, \*S); ``analyse(synthesise(c)) = c``.
    """

    s: Tensor
    y: Tensor
    analyse: Callable[[Tensor], Tensor]
    synthesise: Callable[[Tensor], Tensor]

    @staticmethod
    def of(posterior: Posterior) -> Spectrum:
        """The spectrum of the rows of a posterior.

        One structured operator (mask, convolution, ...) with one noise level and one scale of the field keeps its
        structure. Matrices (`LinearMap`), also several of them, with any Gaussian noise are decomposed densely.

        Raises:
            TypeError: if the noise or the prior does not keep the operator's structure; the message says what to do.
        """
        if all(hasattr(part.operator, "matrix") for part in posterior.likelihoods):
            return _dense(posterior)
        return _structured(posterior)

    @staticmethod
    def structured(posterior: Posterior) -> Spectrum | None:
        """The spectrum if one operator offers it at the price of a transform, without a dense decomposition."""
        operator = posterior.likelihoods[0].operator
        if not posterior.linear or hasattr(operator, "matrix") or not callable(getattr(operator, "svd", None)):
            return None
        try:
            return _structured(posterior)
        except TypeError:  # several instruments, or noise or scales that mix the singular vectors
            return None


def _zeros(posterior: Posterior, rows: int) -> Tensor:
    return torch.zeros(rows, *(posterior.shape or ()), dtype=posterior.dtype, device=posterior.device)


def _dense(posterior: Posterior) -> Spectrum:
    one, shape = _zeros(posterior, 1)[0], tuple(posterior.shape or ())
    if one.numel() > SMALL:
        raise TypeError(f"a dense SVD of {one.numel()} unknowns is too large (at most {SMALL}); take mmps.")
    measurement, rows = Measurement(posterior, Cost()), posterior.batch
    eye = torch.eye(one.numel(), dtype=torch.float64, device=one.device)
    columns = []
    for first in range(0, len(eye), rows):  # operators and noises see as many rows as y has
        basis = eye[first : first + rows]
        full = torch.cat([basis, basis.new_zeros(rows - len(basis), len(eye))])
        columns.append(measurement.forward(full.reshape(-1, *shape))[: len(basis)])
    svd = dense_svd(torch.cat(columns).mT, shape)
    y = svd.U.adjoint(measurement.residual(_zeros(posterior, rows)).to(torch.float64)).to(one.dtype)
    return Spectrum(svd.s.to(y), y, svd.V.adjoint, svd.V.forward)


def _structured(posterior: Posterior) -> Spectrum:
    if len(posterior.likelihoods) != 1:
        raise TypeError(f"several instruments have no common SVD; {WAY_OUT}.")
    part, prior = posterior.likelihoods[0], posterior.prior
    noise = part.noise
    std = getattr(noise, "std", None)
    if isinstance(std, Tensor) and std.ndim == 0:
        std = float(std)
    if not isinstance(noise, GaussianNoise) or not isinstance(std, float):
        raise TypeError(f"{noise} mixes or weighs the singular vectors of the operator; {WAY_OUT}.")
    zero = _zeros(posterior, 1)
    slope = prior.decode(torch.ones_like(zero)) - prior.decode(zero)
    complex = slope.is_complex()
    parts = torch.view_as_real(slope) if complex else slope
    scale = parts.double().mean()
    if bool((parts - scale).abs().max() > 1e-4 * scale.abs()) or to_real(slope).shape != zero.shape:
        raise TypeError(f"the prior scales its pixels differently, which changes the singular vectors; {WAY_OUT}.")
    svd: SVD = part.operator.svd()  # type: ignore[attr-defined]

    def analyse(u: Tensor) -> Tensor:
        return _numbers(svd.V.adjoint(from_real(u) if complex else u))

    shape = svd.V.adjoint(from_real(zero) if complex else zero).shape[1:]
    s = svd.s.to(zero).expand(shape)
    s = (s[..., None].expand(*shape, 2) if complex else s).flatten()

    def synthesise(c: Tensor) -> Tensor:
        if complex:
            return to_real(svd.V(torch.view_as_complex(c.reshape(-1, *shape, 2).contiguous())))
        return svd.V(c.reshape(-1, *shape))

    with torch.no_grad():
        r = part.y - part.operator(prior.decode(_zeros(posterior, posterior.batch)))
    y = _numbers(svd.U.adjoint(r)) / std
    return Spectrum(s * float(scale) / std, y.to(zero.dtype), analyse, synthesise)


def _numbers(c: Tensor) -> Tensor:
    """Coefficients (rows, ``*K``) as real numbers (rows, k)."""
    return (torch.view_as_real(c) if c.is_complex() else c).flatten(1)
