r"""A prior of codes behind an autoencoder: fields that are too large for a network of their own size.

With an autoencoder :math:`E, G` between fields x and codes z, and any prior of codes with the state u,

.. math:: x = G(z), \quad z = \mathrm{decode}_z(u), \qquad u = \mathrm{encode}_z(E(x)),

so that the state of a `LatentPrior` is that of the prior of codes, which also normalises them, and its ``decode`` ends
in physical units. Samplers of `scidiff.posterior` need nothing else: normalisation, positivity and codes are one idea.

**What it cannot say.** Every field it draws is a G(z). What the autoencoder loses no measurement brings back, however
precise; see the reconstruction error of its card before believing small structures.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from scidiff.errors import InputError
from scidiff.priors.linear_autoencoder import LinearAutoencoder
from scidiff.protocols import Autoencoder, Noise, Operator, Prior
from scidiff.rng import Streams

__all__ = ["LatentPrior"]


class LatentPrior:
    r"""The law of ``autoencoder.decode(z)`` for a prior of codes ``z``.

    Arguments:
        autoencoder: Acts on fields in physical units, see `scidiff.protocols.Autoencoder`.
        prior: Any prior whose fields are codes: `GaussianPrior`, `GaussianMixturePrior`, `DiffusionPrior` with the
            ``loc`` and ``scale`` of codes. A card's field ``autoencoder`` names the autoencoder it was trained behind.

    Raises:
        TypeError: if either is something else.
        InputError: if the card of the prior names another autoencoder.
    """

    def __init__(self, autoencoder: Autoencoder, prior: Prior) -> None:
        if not isinstance(autoencoder, Autoencoder):
            raise TypeError(
                f"expected an autoencoder with encode, decode, latent_shape and stride first, got "
                f"{type(autoencoder).__name__}; write LatentPrior(autoencoder, prior)."
            )
        if not isinstance(prior, Prior):
            raise TypeError(f"expected a prior of codes, got {type(prior).__name__}.")
        self.autoencoder, self.prior = autoencoder, prior
        self.card: dict[str, Any] = dict(getattr(prior, "card", {}))
        trained, given = self.card.get("autoencoder"), getattr(autoencoder, "identity", None)
        if trained is not None and trained != given:
            raise InputError(
                f"autoencoder and prior do not belong together: the card of the prior names the autoencoder {trained}, "
                f"this one is {given or 'without an identity'}; load the pair that was trained together, or train a "
                "prior on the codes of this autoencoder."
            )
        fixed = getattr(autoencoder, "field_shape", None)
        if fixed is not None:
            self.state_shape(tuple(fixed))
        self.affine = bool(prior.affine) and bool(getattr(autoencoder, "affine", False))

    def __repr__(self) -> str:
        return f"LatentPrior({self.autoencoder!r}, {self.prior!r})"

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape of ``u``, or None where the prior of codes takes any size; see `state_shape`."""
        return self.prior.shape

    @property
    def channels(self) -> int | None:
        """Channels of ``u``, where the prior of codes knows them."""
        return getattr(self.prior, "channels", None)

    @property
    def device(self) -> torch.device:
        """Where the prior of codes computes."""
        return getattr(self.prior, "device", torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """Real type in which the prior of codes answers when nothing else is given."""
        return getattr(self.prior, "dtype", torch.get_default_dtype())

    def state_shape(self, field: tuple[int, ...]) -> tuple[int, ...]:
        r"""Shape of ``u`` for fields (\*X) of shape ``field``; what `Posterior` wants as ``shape``.

        Raises:
            ValueError: if the field does not fit the autoencoder's stride, or its codes do not fit the prior.
        """
        code = tuple(self.autoencoder.latent_shape(tuple(field)))
        own, channels = self.prior.shape, self.channels
        if (own is not None and tuple(own) != code) or (channels is not None and code[0] != channels):
            wanted = tuple(own) if own is not None else f"{channels} channels"
            raise InputError(
                f"autoencoder and prior do not belong together: fields of shape {tuple(field)} have codes of shape "
                f"{code}, the prior is of codes with {wanted}."
            )
        return code

    def denoise(self, u: Tensor, sigma: Tensor) -> Tensor:
        """That of the prior of codes."""
        return self.prior.denoise(u, sigma)

    def decode(self, u: Tensor) -> Tensor:
        r"""The field in physical units: (B, \*S) -> (B, \*X)."""
        return self.autoencoder.decode(self.prior.decode(u))

    def encode(self, x: Tensor) -> Tensor:
        r"""The state of the field's code, (B, \*X) -> (B, \*S): inverse of `decode` on fields that it reaches."""
        return self.prior.encode(self.autoencoder.encode(x))

    def sample(self, n: int, generator: Generator | Streams | None = None) -> Tensor:
        r"""Independent fields (n, \*X), where the prior of codes has ``sample``."""
        own: Any = getattr(self.prior, "sample", None)
        if own is None:
            raise TypeError(f"{type(self.prior).__name__} has no `sample`; draw with scidiff.samplers.")
        return self.autoencoder.decode(own(n, generator))

    def condition(self, operator: Operator, noise: Noise, y: Tensor) -> Any:
        r"""The exact posterior law of fields given ``y = A x + n``, for a `LinearAutoencoder` and an exact prior.

        A closed form in codes: :math:`A \circ G` is affine, so the prior of codes is conditioned on it, and the
        result is carried to fields by `LinearAutoencoder.law`.

        Raises:
            TypeError: if the autoencoder is not linear, or the prior or the noise has no closed form.
        """
        own: Any = getattr(self.prior, "condition", None)
        if own is None or not isinstance(self.autoencoder, LinearAutoencoder):
            raise TypeError(
                "an exact posterior needs a LinearAutoencoder and a prior of codes with `condition`, got "
                f"{type(self.autoencoder).__name__} and {type(self.prior).__name__}; draw with scidiff.posterior."
            )
        decode = self.autoencoder.decode
        return self.autoencoder.law(own(lambda z: operator(decode(z)), noise, y))
