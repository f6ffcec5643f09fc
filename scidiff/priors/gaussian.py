r"""The Gaussian prior: every answer in closed form, hence the truth that samplers are measured with.

The field :math:`x \sim \mathcal{N}(m, C)` in physical units has the state :math:`u = (x - m)/c` with one scale
:math:`c = \sqrt{\mathrm{tr}\,C / d}`, so that ``u`` is centred with unit mean variance. With :math:`K = C / c^2`,

.. math:: D(u, \sigma) = E[u_0 | u_0 + \sigma\epsilon = u] = K (K + \sigma^2 I)^{-1} u .

A complex field (C, H, W) has the real state (2C, H, W) with channels re0, im0, re1, im1, ...; its covariance is that
of the state's 2 d real numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from scidiff.linalg import Covariance, Stationary, as_covariance
from scidiff.priors.fitting import shrunk_covariance, stationary_spectrum
from scidiff.protocols import Noise, Operator
from scidiff.rng import Streams

__all__ = ["GaussianPrior", "from_real", "measurement_matrix", "to_real"]


def to_real(x: Tensor) -> Tensor:
    """Complex (B, C, H, W) to real (B, 2C, H, W), channels re0, im0, re1, ...; real fields are returned as they are."""
    if not x.is_complex():
        return x
    if x.ndim < 2:
        raise ValueError(f"a complex field needs a channel dimension, (B, C, ...), got {tuple(x.shape)}.")
    return torch.view_as_real(x).movedim(-1, 2).flatten(1, 2)


def from_real(v: Tensor) -> Tensor:
    """Inverse of `to_real` for complex fields: real (B, 2C, H, W) to complex (B, C, H, W)."""
    return torch.view_as_complex(v.unflatten(1, (-1, 2)).movedim(2, -1).contiguous())


class Standardised:
    """What exact priors share: ``u = (x - mean) / scale``, and the border between complex fields and real states.

    Arguments:
        mean: Mean field, (``*X``), real or complex.
        scale: Standard deviation of the field, root mean square over its real numbers.
    """

    affine = True

    def __init__(self, mean: Tensor, scale: float) -> None:
        if not (mean.is_floating_point() or mean.is_complex()):
            raise TypeError(f"mean must be a floating-point or complex tensor, got {mean.dtype}.")
        self.mean = mean.detach()
        self.complex = mean.is_complex()
        self.loc = to_real(mean[None])[0].detach().to(torch.float64)
        if not bool(torch.isfinite(self.loc).all()):
            raise ValueError("the mean field holds NaN or infinite values.")
        if not (0 < scale < math.inf):
            raise ValueError(f"the prior needs a positive, finite variance, got a standard deviation of {scale}.")
        self.scale = scale

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one state ``u``."""
        return tuple(self.loc.shape)

    @property
    def field_shape(self) -> tuple[int, ...]:
        """Shape of one field ``x``."""
        return tuple(self.mean.shape)

    @property
    def channels(self) -> int:
        """Size of the first dimension of the state."""
        return self.shape[0]

    @property
    def size(self) -> int:
        """Number of real numbers d in one field."""
        return math.prod(self.shape)

    @property
    def dtype(self) -> torch.dtype:
        """Real type in which the prior answers when nothing else is given."""
        return self.mean.dtype.to_real()

    def decode(self, u: Tensor) -> Tensor:
        r"""The field in physical units: (B, \*S) -> (B, \*X)."""
        v = self.loc.to(u) + self.scale * u
        return from_real(v) if self.complex else v

    def encode(self, x: Tensor) -> Tensor:
        r"""Inverse of `decode`: (B, \*X) -> (B, \*S)."""
        v = self._flatten(x)
        return ((v - self.loc.to(v).flatten()) / self.scale).reshape(-1, *self.shape)

    def _flatten(self, x: Tensor) -> Tensor:
        """Fields (B, ``*X``) as real rows (B, d)."""
        if tuple(x.shape[1:]) != self.field_shape or x.is_complex() != self.complex:
            raise ValueError(
                f"expected {'complex' if self.complex else 'real'} fields (B, *{self.field_shape}), "
                f"got {tuple(x.shape)}, {x.dtype}; stack fields along the first axis."
            )
        return to_real(x).flatten(1)

    def _fields(self, v: Tensor) -> Tensor:
        """Inverse of `_flatten`."""
        return self._as_field(v.reshape(-1, *self.shape), self.complex)

    @staticmethod
    def _as_field(v: Tensor, complex: bool) -> Tensor:
        return from_real(v) if complex else v


class GaussianPrior(Standardised):
    r"""Gaussian fields :math:`x \sim \mathcal{N}(m, C)` with an exact denoiser, density and conditioning.

    Arguments:
        mean: Mean field :math:`m` in physical units, (\*X). A complex mean makes a prior of complex fields.
        cov: Covariance :math:`C` in squared physical units: a matrix (d, d), one variance, or a covariance of
            `scidiff.linalg` on fields of d entries. For complex fields d counts real numbers, in the state's order.

    Raises:
        ValueError: if sizes differ, or the covariance is not positive semi-definite or zero.
    """

    linear_denoiser = True

    def __init__(self, mean: Tensor, cov: Tensor | Covariance | float) -> None:
        shape = to_real(mean[None]).shape[1:]
        self.cov = as_covariance(cov, shape)
        super().__init__(mean, math.sqrt(self.cov.trace / math.prod(shape)))
        self._unit = self.cov.scaled(1 / self.scale**2)

    def __repr__(self) -> str:
        return f"GaussianPrior(shape={self.field_shape}, cov={self.cov})"

    @property
    def state_covariance(self) -> Covariance:
        r""":math:`K = C / c^2`, that of the state."""
        return self._unit

    @property
    def covariance(self) -> Tensor:
        """The matrix :math:`C` of the flattened field (real numbers in the order of the state), (d, d)."""
        return self.cov.dense().to(self.mean.device, self.dtype)

    @property
    def variance(self) -> Tensor:
        """Variance of every real number of the state's layout, in physical units, (``*shape``)."""
        return self.cov.diagonal().reshape(self.shape).to(self.mean.device, self.dtype)

    def denoise(self, u: Tensor, sigma: Tensor) -> Tensor:
        r""":math:`E[u_0 | u_0 + \sigma\epsilon = u]`, exact; ``u`` (B, \*S), ``sigma`` () or (B,)."""
        return self._unit.shrink(u, torch.as_tensor(sigma, dtype=u.dtype, device=u.device).square())

    def noised_log_prob(self, u: Tensor, sigma: Tensor) -> Tensor:
        r"""Log density of the noised state :math:`u_0 + \sigma\epsilon` at ``u``, (B,)."""
        variance = torch.as_tensor(sigma, dtype=u.dtype, device=u.device).square()
        quadratic = (u * self._unit.solve(u, variance)).flatten(1).sum(-1)
        return -0.5 * (quadratic + self._unit.logdet(variance).to(u) + self.size * math.log(2 * math.pi))

    def log_prob(self, x: Tensor) -> Tensor:
        r"""Log density of the fields ``x`` (B, \*X) in physical units, per real number: (B,)."""
        v = self._flatten(x)
        r = (v - self.loc.to(v).flatten()) / self.scale
        quadratic = (r * self._unit.solve(r)).sum(-1)
        constant = self.size * (math.log(2 * math.pi) + 2 * math.log(self.scale))
        return -0.5 * (quadratic + self._unit.logdet().to(v) + constant)

    def sample(self, n: int, generator: Generator | Streams | None = None) -> Tensor:
        r"""Independent fields (n, \*X) in physical units."""
        e = self._unit.sample(generator, n, dtype=self.dtype).reshape(-1, *self.shape)
        return self.decode(e.to(self.mean.device))

    def marginal_cdf(self, x: Tensor) -> Tensor:
        r"""Probability that an entry is below the one in ``x`` (B, \*X), entry by entry, in the state's layout."""
        r = self.encode(x) * self.scale / self.variance.to(torch.float64).sqrt()
        return torch.special.ndtr(r)

    def condition(self, operator: Operator, noise: Noise, y: Tensor) -> GaussianPrior:
        r"""The exact posterior given ``y = A x + n``.

        With :math:`C = S S^\top`, whitened operator :math:`B = \Sigma^{-1/2} A S` and residual
        :math:`r = \Sigma^{-1/2}(y - A m)`, it has mean :math:`m + S (I + B^\top B)^{-1} B^\top r` and covariance
        :math:`S (I + B^\top B)^{-1} S^\top`, which stays positive for any noise. Costs one matrix of d columns.

        Arguments:
            operator: Linear (or affine) operator on fields (B, \*X).
            noise: Gaussian noise, one that has ``whiten``.
            y: One measurement, (\*Y) or (1, \*Y), real or complex.

        Raises:
            TypeError: if the noise is not Gaussian.
            ValueError: if ``y`` has another shape or the operator is not linear.
        """
        matrix, r = measurement_matrix(self, operator, noise, y)
        eye = torch.eye(self.size, dtype=torch.float64, device=matrix.device)
        root = self._unit.sqrt_matmul(eye.reshape(-1, *self.shape)).flatten(1).mT * self.scale
        mean, cov, _ = condition_gaussian(self.loc.flatten().to(matrix), root, matrix, r)
        return GaussianPrior(self._fields(mean.to(self.dtype))[0], cov)

    @classmethod
    def fit(
        cls, data: Tensor, shrinkage: float | None = None, stationary: bool = False, dims: int = 2
    ) -> GaussianPrior:
        r"""The Gaussian of the given fields.

        Arguments:
            data: Independent fields (N, \*X), real or complex.
            shrinkage: Weight of :math:`(\mathrm{tr}\,S/d) I` against the sample covariance :math:`S`, in [0, 1];
                None takes the optimal one of Ledoit and Wolf.
            stationary: Homogeneous periodic fields: one mean per channel, a power spectrum per channel, channels
                independent. Needs few fields; ``shrinkage`` is not used.
            dims: Number of last dimensions that are space, for ``stationary``.

        References:
            A well-conditioned estimator for large-dimensional covariance matrices, Ledoit and Wolf, 2004,
            Journal of Multivariate Analysis 88.
        """
        if data.ndim < 2 or len(data) < 2:
            raise ValueError(f"data must be at least two fields stacked along the first axis, got {tuple(data.shape)}.")
        real = to_real(data).to(torch.float64)
        if not bool(torch.isfinite(real).all()):
            raise ValueError("the data hold NaN or infinite values.")
        if stationary:
            mean, spectrum = stationary_spectrum(real, dims)
            cov: Covariance = Stationary(spectrum, dims=dims)
        else:
            mean = real.mean(0)
            cov = as_covariance(shrunk_covariance(real.flatten(1), shrinkage), tuple(real.shape[1:]))
        mean = mean[None].to(data.dtype.to_real())
        cov.dtype = mean.dtype
        return cls((from_real(mean) if data.is_complex() else mean)[0], cov)


def condition_gaussian(mean: Tensor, root: Tensor, matrix: Tensor, r: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Posterior mean (d,), covariance (d, d) and log evidence of the whitened residual ``r0 = r - matrix @ mean``.

    Arguments:
        mean: Prior mean (d,).
        root: Square root S of the prior covariance, (d, k) with ``S S' = C``.
        matrix: Whitened operator (n, d).
        r: Whitened measurement (n,).
    """
    r = r - matrix @ mean
    b = matrix @ root
    lower = torch.linalg.cholesky(b.mT @ b + torch.eye(root.shape[1], dtype=b.dtype, device=b.device))
    half = torch.linalg.solve_triangular(lower, root.mT, upper=False)  # (k, d), half' half = posterior covariance
    g = torch.linalg.solve_triangular(lower, (b.mT @ r)[:, None], upper=False)[:, 0]
    logdet = 2 * lower.diagonal().log().sum()
    evidence = -0.5 * (r.square().sum() - g.square().sum() + logdet + len(r) * math.log(2 * math.pi))
    return mean + half.mT @ g, half.mT @ half, evidence


def measurement_matrix(prior: Standardised, operator: Operator, noise: Noise, y: Tensor) -> tuple[Tensor, Tensor]:
    """The whitened operator as a matrix (n, d) on flattened fields, and the whitened measurement (n,), float64."""
    whiten: Callable[[Tensor], Tensor] | None = getattr(noise, "whiten", None)
    if whiten is None:
        raise TypeError(f"exact conditioning needs Gaussian noise, got {type(noise).__name__}.")

    def rows(z: Tensor) -> Tensor:
        w = whiten(z)
        return (torch.view_as_real(w) if w.is_complex() else w).flatten(1).to(torch.float64)

    real: Any = y.dtype.to_real() if y.is_complex() or y.is_floating_point() else torch.float64
    like = {"dtype": real, "device": y.device}
    with torch.no_grad():
        origin = operator(prior._fields(torch.zeros(1, prior.size, **like)))
        if tuple(y.shape) == tuple(origin.shape[1:]):
            y = y[None]
        if tuple(y.shape) != tuple(origin.shape):
            raise ValueError(
                f"y has shape {tuple(y.shape)}, but the operator maps one field to {tuple(origin.shape[1:])}; "
                "condition on one measurement at a time."
            )
        columns = []
        step = 256
        for first in range(0, prior.size, step):
            count = min(step, prior.size - first)
            basis = torch.zeros(count, prior.size, **like)
            basis[torch.arange(count), first + torch.arange(count)] = 1
            columns.append(rows(operator(prior._fields(basis)) - origin))
        matrix = torch.cat(columns).mT
        probe = torch.cos(torch.arange(prior.size, **like) ** 2)[None]
        got, expected = rows(operator(prior._fields(probe)) - origin)[0], matrix @ probe[0].to(torch.float64)
        tolerance = 1e4 * torch.finfo(real).eps * float(matrix.norm() * probe.norm())
        if float((got - expected).norm()) > tolerance:
            raise ValueError("the operator is not linear, so the exact posterior is not known; use a sampler.")
        return matrix, rows(y - origin)[0]
