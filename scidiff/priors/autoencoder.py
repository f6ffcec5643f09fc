r"""An autoencoder of fields in physical units: a trained network between a normaliser and its inverse.

.. math:: z = E\!\left(\frac{x - \mathrm{loc}}{\mathrm{scale}}\right), \qquad
          x = \mathrm{loc} + \mathrm{scale}\; D(z)

It knows nothing of a law of codes; `scidiff.priors.LatentPrior` joins it with a prior that was trained on its codes.
"""

from __future__ import annotations

import copy
import hashlib
import json
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from scidiff.nn.autoencoder import ConvAutoencoder

__all__ = ["FieldAutoencoder"]


class FieldAutoencoder:
    r"""Maps between fields (B, C, \*grid) in physical units and codes (B, latent, \*grid / stride).

    Arguments:
        network: Trained on standardised fields. Its weights are frozen: sampling never computes gradients with respect
            to them.
        loc: Mean of the field in physical units, a scalar or one per field channel.
        scale: Standard deviation of the field in physical units (per real component if complex), likewise.
        complex: The field is complex: channels 2k and 2k + 1 of the network are real and imaginary part of channel k.
        units: Physical units of the field.
        card: What is known of the training.
    """

    def __init__(
        self,
        network: ConvAutoencoder,
        loc: float | Tensor = 0.0,
        scale: float | Tensor = 1.0,
        complex: bool = False,  # noqa: A002 - the field's own word
        units: str = "1",
        card: dict[str, Any] | None = None,
    ) -> None:
        if complex and network.channels % 2:
            raise ValueError(f"a complex field needs an even number of real channels, got {network.channels}.")
        if not bool((torch.as_tensor(scale) > 0).all()):
            raise ValueError(f"scale must be positive, got {scale}.")
        self.network = network.eval().requires_grad_(False)
        self.loc, self.scale = torch.as_tensor(loc), torch.as_tensor(scale)
        self.complex, self.units, self.card = complex, units, dict(card or {})
        self.grid: tuple[int, ...] | None = None

    def __repr__(self) -> str:
        name = self.card.get("name", "unnamed")
        return f"FieldAutoencoder({name}, {self.channels} channels on stride {self.stride} -> {self.latent})"

    @property
    def stride(self) -> int:
        """Grid points of the field per point of the code, along each side."""
        return self.network.stride

    @property
    def channels(self) -> int:
        """Channels of the field."""
        return self.network.channels // (2 if self.complex else 1)

    @property
    def latent(self) -> int:
        """Channels of the code."""
        return self.network.latent

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.network.parameters()).device

    @property
    def identity(self) -> str:
        """A digest of weights and settings: two autoencoders with the same one give the same codes."""
        plain = {k: v.tolist() for k, v in (("loc", self.loc), ("scale", self.scale))}
        settings = {**self.network.config, **plain, "complex": self.complex}
        digest = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16)
        for name, value in sorted(self.network.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def latent_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        r"""Shape of the code of one field: (C, \*grid) -> (latent, \*grid / stride).

        Raises:
            ValueError: Other channels or dimensions, or sides that are smaller than the stride or no multiples of it.
        """
        dims, stride = self.network.dims, self.stride
        if len(shape) != dims + 1 or shape[0] != self.channels:
            raise ValueError(
                f"expected one field ({self.channels}, {', '.join('n' * dims)}), found {tuple(shape)}; "
                f"this autoencoder codes {self.channels} channels on a {dims}-D grid."
            )
        grid = shape[1:]
        if self.grid is not None:
            if tuple(grid) != self.grid:
                raise ValueError(f"expected the grid {self.grid}, found {tuple(grid)}; ask for another with on(grid).")
            grid = tuple(-(-n // stride) * stride for n in grid)
        least = 2 * stride if self.network.padding == "reflect" else stride
        if any(n < least for n in grid):
            raise ValueError(
                f"expected sides of at least {least} points, found {tuple(grid)}: one code stands for {stride} points "
                "a side; take a larger field, or an autoencoder with a smaller stride."
            )
        if any(n % stride for n in grid):
            raise ValueError(
                f"expected sides that are multiples of the stride {stride}, found {tuple(grid)}; "
                "autoencoder.on(grid) pads and crops fields of one grid."
            )
        return (self.latent, *(n // stride for n in grid))

    def on(self, grid: tuple[int, ...]) -> FieldAutoencoder:
        """The same for fields of one grid of any sides: padded with their edge before coding, cropped after decoding.

        Raises:
            ValueError: A grid of other dimensions or smaller than the stride; a periodic field cannot be padded.
        """
        other = copy.copy(self)
        other.grid = tuple(grid)
        if len(grid) == self.network.dims and any(n < self.stride for n in grid):
            raise ValueError(f"expected sides of at least the stride {self.stride}, found {tuple(grid)}.")
        if self.network.padding == "periodic" and any(n % self.stride for n in grid):
            raise ValueError(
                f"a periodic field cannot be padded: its sides {tuple(grid)} must be multiples of {self.stride}."
            )
        other.latent_shape((self.channels, *grid))
        return other

    def encode(self, x: Tensor) -> Tensor:
        r"""Fields (B, C, \*grid) to codes (B, latent, \*grid / stride); the mean of a code that is a normal law.

        Raises:
            ValueError: Fields of another shape, see `latent_shape`.
        """
        self.latent_shape(tuple(x.shape[1:]))
        u = (x - self._channelwise(self.loc, x)) / self._channelwise(self.scale, x)
        if self.complex:
            u = torch.stack([u.real, u.imag], dim=2).flatten(1, 2)
        if self.grid is not None and any(n % self.stride for n in self.grid):
            u = F.pad(u, [p for n in reversed(self.grid) for p in (0, -n % self.stride)], mode="replicate")
        return self.network.encode(u.to(self._weights))[0].to(u.dtype)

    def decode(self, z: Tensor) -> Tensor:
        r"""Codes (B, latent, \*grid / stride) to fields (B, C, \*grid) in physical units."""
        u = self.network.decode(z.to(self._weights)).to(z.dtype)
        if self.grid is not None:
            u = u[(..., *(slice(n) for n in self.grid))]
        if self.complex:
            u = torch.complex(u[:, 0::2], u[:, 1::2])
        return self._channelwise(self.loc, u) + self._channelwise(self.scale, u) * u

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> FieldAutoencoder:
        """On another device, or computed in another type."""
        other = copy.copy(self)
        other.network = copy.deepcopy(self.network).to(device=device, dtype=dtype)
        return other

    @property
    def _weights(self) -> torch.dtype:
        return next(self.network.parameters()).dtype

    @staticmethod
    def _channelwise(value: Tensor, like: Tensor) -> Tensor:
        kind = like.dtype if value.is_complex() else like.real.dtype
        value = value.to(device=like.device, dtype=kind)
        return value.reshape(-1, *(1,) * (like.ndim - 2)) if value.ndim else value
