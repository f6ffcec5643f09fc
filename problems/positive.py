r"""Priors of positive fields made of a prior of any field: :math:`x = T(z)`, and a generic one for images of the sky.

The generic prior knows neither rings nor black holes. The log brightness is Gaussian,

.. math:: \ln I = \ln E + s\, g, \qquad E(x, y) \propto e^{-(x^2 + y^2) / 2 \ell^2},

with an envelope :math:`E` of the size of the source and a random field :math:`g` of unit variance whose spectrum falls
off as :math:`(\kappa^2 + k^2)^{-\alpha/2}`: what is smaller than :math:`1/\kappa` of the field of view becomes rare.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from scidiff.linalg import Stationary
from scidiff.priors import GaussianPrior
from scidiff.protocols import Prior
from scidiff.transforms import Log, Transform

__all__ = ["TransformedPrior", "generic_sky"]


class TransformedPrior:
    """The law of ``transform.decode(z)`` for a prior of ``z``: the same state ``u``.

    Arguments:
        prior: Prior of real fields.
        transform: See `scidiff.transforms`.
        card: What a result records of the prior.
    """

    affine = False

    def __init__(self, prior: Prior, transform: Transform, card: dict[str, Any] | None = None) -> None:
        self.prior, self.transform, self.card = prior, transform, dict(card or {})
        channels = getattr(prior, "channels", None)
        if channels is not None:
            self.channels = channels

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape of ``u``."""
        return self.prior.shape

    def denoise(self, u: Tensor, sigma: Tensor) -> Tensor:
        """That of the prior: ``u`` has not changed."""
        return self.prior.denoise(u, sigma)

    def decode(self, u: Tensor) -> Tensor:
        """The transformed field."""
        return self.transform.decode(self.prior.decode(u))

    def encode(self, x: Tensor) -> Tensor:
        """Inverse of `decode`."""
        return self.prior.encode(self.transform.encode(x))

    def rescaled(self, factor: float) -> TransformedPrior:
        """The prior of ``factor * x``."""
        return TransformedPrior(self.prior, self.transform.rescaled(factor), self.card)


def generic_sky(
    shape: Sequence[int],
    fov: float,
    size: float = 30.0,
    deviation: float = 1.5,
    exponent: float = 4.0,
    cutoff: float = 4.0,
) -> TransformedPrior:
    r"""The generic prior of the module, of images (1, H, W) in Jy per pixel with a flux about one.

    Arguments:
        shape: Height and width.
        fov: Field of view along the longer side, microarcseconds.
        size: :math:`\ell` of the envelope, microarcseconds.
        deviation: :math:`s`.
        exponent: :math:`\alpha`.
        cutoff: :math:`\kappa`, cycles per field of view.
    """
    height, width = (int(n) for n in shape)
    pixel = fov / max(height, width)
    y, x = (((n - 1) / 2 - torch.arange(n, dtype=torch.float64)) * pixel for n in (height, width))
    log = -(y[:, None].square() + x.square()) / (2 * size**2)
    # The mean of exp(s g) is exp(s^2 / 2).
    log = log - torch.logsumexp(log.flatten(), 0) - deviation**2 / 2
    law = GaussianPrior(log[None], Stationary.power_law((height, width), exponent, cutoff, deviation**2, channels=1))
    settings = {"size": size, "deviation": deviation, "exponent": exponent, "cutoff": cutoff, "fov": fov}
    return TransformedPrior(
        law, Log(), {"name": "generic", "law": "log-normal, see scidiff.problems.positive", **settings}
    )
