r"""What the parts of scidiff promise each other, in torch terms only.

Symbols, used with the same letters everywhere:

===========  ==========================================================================
``u``        state of a prior: dimensionless, about zero mean and unit variance, (B, \*S)
``x``        the field in physical units, ``x = prior.decode(u)``, (B, \*X)
``sigma``    noise level of ``u_sigma = u + sigma * eps``; a scalar or one per row, (B,)
``z, y``     noiseless and noisy measurement, ``z = operator(x)``, (B, \*Y)
===========  ==========================================================================

Complex tensors are allowed for ``x``, ``z`` and ``y``; every standard deviation is then per real component.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from torch import Generator, Tensor

if TYPE_CHECKING:
    from scidiff.inference import Ensemble, Posterior

__all__ = [
    "Autoencoder",
    "Callback",
    "LinearOperator",
    "Noise",
    "Operator",
    "PosteriorSampler",
    "Prior",
    "PriorSampler",
]


@runtime_checkable
class Prior(Protocol):
    """A law of fields, known through its denoiser."""

    affine: bool
    """Whether ``decode(u) = loc + scale * u``, so that linear operators stay linear in ``u``."""

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape of ``u`` for one state, or None when any size works."""
        ...

    def denoise(self, u: Tensor, sigma: Tensor) -> Tensor:
        r"""Posterior mean :math:`E[u_0 | u_0 + \sigma\epsilon = u]`; ``u`` (B, \*S), ``sigma`` () or (B,)."""
        ...

    def decode(self, u: Tensor) -> Tensor:
        r"""The field in physical units: (B, \*S) -> (B, \*X)."""
        ...

    def encode(self, x: Tensor) -> Tensor:
        r"""Inverse of `decode`: (B, \*X) -> (B, \*S)."""
        ...


@runtime_checkable
class Autoencoder(Protocol):
    r"""A pair of maps between fields ``x`` (B, \*X), physical units, and codes ``z`` (B, \*Z).

    Optional attribute: ``identity``, a text that changes with the weights, by which a prior of codes knows the
    autoencoder it was trained behind.
    """

    @property
    def stride(self) -> int:
        """How many entries of a field share one of its code along each side; 1 where codes have no sides."""
        ...

    def encode(self, x: Tensor) -> Tensor:
        r"""Fields (B, \*X) to codes (B, \*Z): the mean, where the code of a field is a law."""
        ...

    def decode(self, z: Tensor) -> Tensor:
        r"""Codes (B, \*Z) to fields (B, \*X)."""
        ...

    def latent_shape(self, shape: tuple[int, ...], /) -> tuple[int, ...]:
        """Shape of the code of one field of the given shape; ValueError where the two do not fit."""
        ...


@runtime_checkable
class Operator(Protocol):
    """A deterministic, batched forward model without noise. Any function of one tensor is an operator.

    Optional attributes: ``adjoint(y)`` (see `LinearOperator`), ``vjp(x, v)`` (checked by `scidiff.testing.check_vjp`),
    ``svd()`` (for samplers that require it), ``differentiable`` (False for black boxes).
    """

    def __call__(self, x: Tensor, /) -> Tensor:
        r"""Maps fields (B, \*X) to noiseless measurements (B, \*Y)."""
        ...


@runtime_checkable
class LinearOperator(Operator, Protocol):
    """An operator with an adjoint: Re<A x, y> = Re<x, A' y>."""

    def adjoint(self, y: Tensor, /) -> Tensor:
        r"""Maps measurements (B, \*Y) to fields (B, \*X)."""
        ...


@runtime_checkable
class Noise(Protocol):
    """The law of a measurement given the noiseless one.

    Gaussian noises also offer ``whiten(r)``, which turns a residual into one with unit variance per real component.
    """

    def sample(self, z: Tensor, generator: Generator | None = None) -> Tensor:
        r"""Draws ``y`` given the noiseless ``z`` (B, \*Y)."""
        ...

    def log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        r"""Log density of ``y`` given ``z``, one number per row: (B,)."""
        ...


class Callback(Protocol):
    """Called after every step of a sampler; returning is all it must do. Raise to stop."""

    def __call__(self, step: int, steps: int, sigma: float, u: Tensor) -> Any: ...


class PriorSampler(Protocol):
    """Draws from a prior by integrating from large to small noise."""

    def __call__(
        self,
        prior: Prior,
        shape: tuple[int, ...] | None = None,
        members: int | Sequence[int] = 16,
        generator: Generator | None = None,
        batch_size: int | None = None,
        callback: Callback | None = None,
    ) -> Ensemble: ...


class PosteriorSampler(Protocol):
    """Draws from a posterior."""

    requires: frozenset[str]

    def __call__(
        self,
        posterior: Posterior,
        members: int | Sequence[int] = 16,
        generator: Generator | None = None,
        batch_size: int | None = None,
        callback: Callback | None = None,
    ) -> Ensemble: ...


Denoiser = Callable[[Tensor, Tensor], Tensor]
"""``denoise(u, sigma)``: the part of a prior that integrators of `scidiff.samplers` call."""
