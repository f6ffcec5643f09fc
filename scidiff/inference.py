r"""The records that methods exchange: `Likelihood`, `Posterior`, `Ensemble`, `Cost`.

A measurement ``y`` (B, \*Y) of ``B`` independent fields is explained by ``y ~ noise(operator(x))``. A posterior joins
one or several likelihoods with a prior; a sampler draws an ensemble of ``M`` members for each of the ``B`` fields.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from scidiff.protocols import Noise, Operator, Prior

__all__ = ["Cost", "Ensemble", "Likelihood", "Posterior"]


@dataclass
class Cost:
    """Calls per member: how often one row passed through the denoiser and the operator, forward and backward."""

    denoiser: int = 0
    denoiser_vjp: int = 0
    operator: int = 0
    operator_vjp: int = 0

    def as_dict(self) -> dict[str, int]:
        """The counters by name."""
        return dict(vars(self))


@dataclass(frozen=True)
class Likelihood:
    r"""``y ~ noise(operator(x))``.

    Arguments:
        operator: Forward model; any function of a batch of fields.
        noise: Law of the measurement given the noiseless one.
        y: Measurement of shape (B, \*Y); the first dimension runs over independent fields.
    """

    operator: Operator
    noise: Noise
    y: Tensor

    def __post_init__(self) -> None:
        if not isinstance(self.y, Tensor):
            raise TypeError(f"y must be a torch tensor with a batch dimension first, got {type(self.y).__name__}.")
        if self.y.ndim < 1 or self.y.shape[0] < 1:
            raise ValueError(f"y must have shape (B, *Y) with B >= 1, got {tuple(self.y.shape)}; write y[None].")
        finite = torch.isfinite(torch.view_as_real(self.y) if self.y.is_complex() else self.y)
        if not bool(finite.all()):
            raise ValueError("y holds NaN or infinite values; mask them out in the operator instead.")

    @property
    def linear(self) -> bool:
        """Whether the operator declares an adjoint, hence is linear."""
        return callable(getattr(self.operator, "adjoint", None))

    @property
    def differentiable(self) -> bool:
        """Whether gradients flow through the operator."""
        return bool(getattr(self.operator, "differentiable", True))

    @property
    def whitens(self) -> bool:
        """Whether the noise is Gaussian, so that `residual` is exact."""
        return callable(getattr(self.noise, "whiten", None))

    def tile(self, members: int) -> Likelihood:
        r"""The likelihood of ``members * B`` rows, member slowest: row ``m * B + b`` holds ``y[b]``."""
        if members == 1:
            return self
        y = self.y.expand(members, *self.y.shape).reshape(members * self.y.shape[0], *self.y.shape[1:])
        return Likelihood(self.operator, self.noise, y)

    def matching(self, z: Tensor) -> Tensor:
        """The noiseless measurement ``z`` as it is; another shape than that of ``y`` would broadcast silently."""
        if tuple(z.shape[1:]) != tuple(self.y.shape[1:]):
            raise ValueError(
                f"y has shape {tuple(self.y.shape)}, but the operator gives {tuple(z.shape)}; "
                "the first dimension of y runs over fields: write y[None] for a single measurement."
            )
        return z

    def log_prob(self, x: Tensor) -> Tensor:
        r"""Log likelihood of the fields ``x`` (B, \*X): (B,)."""
        return self.noise.log_prob(self.y, self.matching(self.operator(x)))

    def difference(self, z: Tensor) -> Tensor:
        r"""``y - z`` with the noiseless measurement ``z`` (B, \*Y), whose shape is checked."""
        return self.y - self.matching(z)

    def misfit(self, z: Tensor) -> Tensor:
        r"""Whitened difference :math:`S_y^{-1/2}(y - z)` from the noiseless measurement ``z`` (B, \*Y): (B, n) real."""
        return self.whiten(self.difference(z))

    def residual(self, x: Tensor) -> Tensor:
        r"""Whitened residual :math:`S_y^{-1/2}(y - A(x))`, (B, n) real: unit variance per number if ``x`` is right."""
        return self.misfit(self.operator(x))

    def whiten(self, r: Tensor) -> Tensor:
        r"""Divides a difference of measurements (B, \*Y) by the noise; complex numbers count as two. (B, n) real."""
        if not self.whitens:
            name = type(self.noise).__name__
            raise TypeError(f"{name} has no `whiten`; residuals need Gaussian noise. Use `log_prob` instead.")
        r = self.noise.whiten(r)  # type: ignore[attr-defined]
        if r.is_complex():
            r = torch.view_as_real(r)
        return r.flatten(1)

    def chi2(self, x: Tensor) -> Tensor:
        """Mean squared whitened residual, (B,): about 1 where ``x`` explains the data to the noise."""
        return self.residual(x).square().mean(-1)


@dataclass(frozen=True)
class Posterior:
    r"""Prior times likelihood.

    Arguments:
        prior: Law of the field before the measurement.
        likelihood: One likelihood, or a tuple of them for several instruments that see the same fields.
        shape: Shape of one state ``u``; needed when the prior takes any size.
    """

    prior: Prior
    likelihood: Likelihood | tuple[Likelihood, ...]
    shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.likelihood, list):
            object.__setattr__(self, "likelihood", tuple(self.likelihood))
        batches = {part.y.shape[0] for part in self.likelihoods}
        if len(batches) != 1:
            raise ValueError(f"all likelihoods must see the same number of fields B, got {sorted(batches)}.")
        own = self.prior.shape
        shape = tuple(self.shape) if self.shape is not None else own
        codes = getattr(self.prior, "autoencoder", None) is not None
        hint = "; its states are codes: give shape=prior.state_shape(shape of one field)" if codes else ""
        if shape is None:
            raise ValueError(f"this prior takes any size: give Posterior(..., shape=(channels, height, width)){hint}.")
        if own is not None and tuple(own) != tuple(shape):
            raise ValueError(f"the prior's state has shape {tuple(own)}, but shape={tuple(shape)} was given.")
        channels = getattr(self.prior, "channels", None)
        if channels is not None and shape[0] != channels:
            raise ValueError(
                f"the prior has {channels} channels, but shape={tuple(shape)} starts with {shape[0]}{hint}."
            )
        object.__setattr__(self, "shape", tuple(shape))

    @property
    def likelihoods(self) -> tuple[Likelihood, ...]:
        """All likelihoods as a tuple."""
        return self.likelihood if isinstance(self.likelihood, tuple) else (self.likelihood,)

    @property
    def batch(self) -> int:
        """Number of fields B."""
        return self.likelihoods[0].y.shape[0]

    @property
    def device(self) -> torch.device:
        """Where the measurement lives; states are made there."""
        return self.likelihoods[0].y.device

    @property
    def dtype(self) -> torch.dtype:
        """Real floating-point type of the states, from the measurement."""
        y = self.likelihoods[0].y
        if y.is_complex():
            return y.real.dtype
        return y.dtype if y.is_floating_point() else torch.get_default_dtype()

    @property
    def linear(self) -> bool:
        """Whether the measurement is linear in ``u``: linear operators and an affine prior."""
        return bool(self.prior.affine) and all(part.linear for part in self.likelihoods)

    def rows(self, count: int) -> Posterior:
        """The posterior of the first ``count`` observations."""
        parts = tuple(Likelihood(part.operator, part.noise, part.y[:count]) for part in self.likelihoods)
        return Posterior(self.prior, parts, self.shape)

    def tile(self, members: int) -> Posterior:
        """The posterior of ``members * B`` rows, member slowest."""
        return Posterior(self.prior, tuple(part.tile(members) for part in self.likelihoods), self.shape)

    def residual(self, u: Tensor) -> Tensor:
        r"""Whitened residuals of all instruments at the states ``u`` (B, \*S), side by side: (B, n)."""
        x = self.prior.decode(u)
        return torch.cat([part.residual(x) for part in self.likelihoods], dim=1)

    def log_likelihood(self, u: Tensor) -> Tensor:
        r"""Sum of the log likelihoods at the states ``u`` (B, \*S): (B,)."""
        x = self.prior.decode(u)
        return torch.stack([part.log_prob(x) for part in self.likelihoods]).sum(0)


@dataclass
class Ensemble:
    r"""Draws, decoded to physical units.

    Arguments:
        samples: (M, B, \*X), member first.
        cost: Calls per member.
        diagnostics: What the method reports of itself: noise levels, residuals of inner solvers, warnings, seed.
    """

    samples: Tensor
    cost: Cost = field(default_factory=Cost)
    diagnostics: dict[str, Any] = field(default_factory=dict)

    @property
    def mean(self) -> Tensor:
        r"""Mean over members, (B, \*X)."""
        return self.samples.mean(0)

    @property
    def spread(self) -> Tensor:
        r"""Standard deviation over members with the factor 1/(M-1), (B, \*X), real.

        Complex fields: per real component, so that ``E|x - mean|^2 = 2 spread^2``. NaN for a single member.
        """
        deviation = self.samples - self.samples.mean(0)
        power = deviation.abs().square().sum(0) / (2 if self.samples.is_complex() else 1)
        return (power / (len(self.samples) - 1)).sqrt() if len(self.samples) > 1 else torch.full_like(power, torch.nan)
