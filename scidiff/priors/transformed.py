r"""A prior seen through a transform: positive or bounded fields from any prior, :math:`x = T(z)`.

The state :math:`u` and the denoiser are those of the prior of :math:`z`; only ``decode`` changes. A Gaussian prior
keeps its exact denoiser, so that positive fields have one too (with `scidiff.transforms.Log` a log-normal law).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from scidiff.protocols import Prior
from scidiff.rng import Streams
from scidiff.transforms import Transform

__all__ = ["TransformedPrior"]


class TransformedPrior:
    """The law of ``transform.decode(z)`` for a prior of real fields ``z``.

    Arguments:
        prior: Prior of z, dimensionless.
        transform: A transform of `scidiff.transforms`; carries the units of x.
    """

    affine = False

    def __init__(self, prior: Prior, transform: Transform) -> None:
        if not isinstance(transform, Transform):
            raise TypeError(f"expected a transform of scidiff.transforms, got {type(transform).__name__}.")
        self.prior, self.transform = prior, transform
        self.card = {**getattr(prior, "card", {}), "transforms": [transform.card]}

    def __repr__(self) -> str:
        return f"TransformedPrior({self.prior!r}, {self.transform})"

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape of ``u``."""
        return self.prior.shape

    def denoise(self, u: Tensor, sigma: Tensor) -> Tensor:
        """That of the prior of z."""
        return self.prior.denoise(u, sigma)

    def decode(self, u: Tensor) -> Tensor:
        """The field in physical units."""
        return self.transform.decode(self.prior.decode(u))

    def encode(self, x: Tensor) -> Tensor:
        """Inverse of `decode`."""
        return self.prior.encode(self.transform.encode(x))

    def rescaled(self, factor: float) -> TransformedPrior:
        """The prior of ``factor * x``."""
        return TransformedPrior(self.prior, self.transform.rescaled(factor))

    def sample(self, n: int, generator: torch.Generator | Streams | None = None) -> Tensor:
        r"""Independent fields (n, \*X), where the prior of z has ``sample``."""
        own: Any = getattr(self.prior, "sample", None)
        if own is None:
            raise TypeError(f"{type(self.prior).__name__} has no `sample`; draw with scidiff.samplers.")
        return self.transform.decode(own(n, generator))

    def log_prob(self, x: Tensor) -> Tensor:
        r"""Log density of fields (B, \*X), where the prior of z has one.

        That of z, less the logarithm of the slope of the transform, summed over entries.
        """
        own: Any = getattr(self.prior, "log_prob", None)
        if own is None:
            raise TypeError(f"{type(self.prior).__name__} has no `log_prob`.")
        with torch.enable_grad():
            z = self.transform.encode(x).detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.transform.decode(z).sum(), z)
        return own(z.detach()) - slope.log().flatten(1).sum(1)
