r"""A convolutional autoencoder for fields of any size, in one, two or three dimensions.

    encode: x -> patches of p^d points -> [blocks, halve] x (L-1) -> blocks -> mean (and log variance) of the code
    decode: z -> [blocks, double] x (L-1) -> blocks -> points of the patches

One code vector stands for a cell of ``stride = p 2^(L-1)`` points a side. Everything is local and knows the boundary as
`scidiff.nn.unet` does: with periodic padding the maps commute with shifts by the stride. Blocks add to a path that is
linear from the field to the code and back, so that training starts from a linear transform of patches and the size of
a field passes through undistorted.

Two ways keep codes simple enough to be modelled:

* `codebook = 0`: the code is a normal law :math:`q(z | x) = N(m(x), s^2(x))`, drawn while training and held close to
  N(0, 1) by a Kullback-Leibler term of small weight; used as a map, the code is ``m(x)``.
* `codebook = K`: the decoder sees the nearest of K learned vectors. The code handed out is the vector before it is
  replaced, so that a law of continuous codes can be learned; decoding replaces it.

References:
    Kingma & Welling, Auto-encoding variational Bayes, 2014, arXiv:1312.6114. van den Oord, Vinyals & Kavukcuoglu,
    Neural discrete representation learning, 2017, arXiv:1711.00937. Rombach et al., High-resolution image synthesis
    with latent diffusion models, 2022, arXiv:2112.10752, section 3.1 and appendix G (both, with a small weight).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scidiff.nn.codebook import Codebook
from scidiff.nn.grid import check_options, from_patches, to_patches
from scidiff.nn.unet import Block, conv

__all__ = ["ConvAutoencoder"]

_FIRST_LOG_VARIANCE = -7.0
"""Codes start almost without noise: the first thing learned is to reconstruct."""


class ConvAutoencoder(nn.Module):
    r"""Encoder and decoder for standardised fields.

    Arguments:
        channels: Channels of the field.
        latent: Channels of the code.
        width: Channels at each level, finest first; the number of levels is its length.
        blocks: Residual blocks per level, in the encoder and in the decoder.
        dims: Dimensions of the grid, 1 to 3.
        patch: Side of the patches that become one point of the finest level.
        padding: What lies beyond the edge: zeros, periodic or reflect, see `scidiff.nn.grid`.
        codebook: Number of vectors of the codebook; 0 for a code that is a normal law.

    Shapes: fields (B, channels, \*grid), sides multiples of ``stride``; codes (B, latent, \*grid / stride).
    """

    def __init__(
        self,
        channels: int,
        latent: int = 4,
        width: Sequence[int] = (32, 96),
        blocks: int = 2,
        dims: int = 2,
        patch: int = 2,
        padding: str = "zeros",
        codebook: int = 0,
    ) -> None:
        super().__init__()
        check_options(dims, width, blocks, patch, padding, ())
        if channels < 1 or latent < 1 or codebook < 0:
            raise ValueError(f"channels and latent must be >= 1, codebook >= 0; got {channels}, {latent}, {codebook}.")
        self.channels, self.latent, self.width, self.blocks = channels, latent, tuple(width), blocks
        self.dims, self.patch, self.padding = dims, patch, padding
        self.stride = patch * 2 ** (len(self.width) - 1)

        def stage(c: int) -> nn.Sequential:
            return nn.Sequential(*(Block(dims, c, c, 0, padding) for _ in range(blocks)))

        cell = channels * patch**dims
        fine, coarse = self.width[0], self.width[-1]
        pairs = list(zip(self.width, self.width[1:], strict=False))
        self.head = conv(dims, cell, fine, padding=padding)
        self.down = nn.ModuleList(stage(c) for c in self.width)
        self.halve = nn.ModuleList(conv(dims, a, b, size=2, stride=2) for a, b in pairs)
        self.code = conv(dims, coarse, latent if codebook else 2 * latent, size=1)
        self.uncode = conv(dims, latent, coarse, padding=padding)
        self.up = nn.ModuleList(stage(c) for c in reversed(self.width))
        self.join = nn.ModuleList(conv(dims, b, a, size=1) for a, b in reversed(pairs))
        self.tail = conv(dims, fine, cell, padding=padding)
        self.codebook = Codebook(codebook, latent) if codebook else None
        if not codebook:
            nn.init.zeros_(self.code.weight[latent:])  # type: ignore[arg-type,index]
            nn.init.constant_(self.code.bias[latent:], _FIRST_LOG_VARIANCE)  # type: ignore[arg-type,index]

    @property
    def config(self) -> dict[str, int | str | tuple[int, ...]]:
        """The constructor's arguments, for the card of a trained network."""
        names = ("channels", "latent", "width", "blocks", "dims", "patch", "padding")
        entries = 0 if self.codebook is None else len(self.codebook.vectors)
        return {**{name: getattr(self, name) for name in names}, "codebook": entries}

    @torch.no_grad()
    def start(self, fields: Tensor) -> bool:
        r"""Begins as the best linear code of patches: their principal components, with unit variance.

        Only where there is a linear path that keeps all numbers of a patch: a single level, as wide as a patch holds
        numbers (finer levels are reached by repeating points). Blocks start as the identity.

        Arguments:
            fields: Standardised fields (B, channels, \*grid), sides multiples of ``stride``.

        Returns:
            Whether it did.
        """
        cell = self.channels * self.patch**self.dims
        if len(self.width) > 1 or self.width[0] < cell or self.latent > cell:
            return False
        p = to_patches(fields, self.patch).transpose(0, 1).flatten(1).double()
        law = torch.linalg.eigh(p @ p.T / p.shape[1])
        basis, std = law.eigenvectors.flip(1)[:, : self.latent], law.eigenvalues.flip(0)[: self.latent].sqrt()
        std = std.clamp(min=1e-3 * std[0])
        middle = (1,) * self.dims
        for layer, rows, columns, taps in (
            (self.head, cell, cell, torch.eye(cell)),
            (self.uncode, cell, self.latent, basis * std),
            (self.tail, cell, self.width[0], torch.eye(cell, self.width[0])),
        ):
            weight, bias = layer.weight, layer.bias
            weight[:rows] = 0  # type: ignore[index]
            bias[:rows] = 0  # type: ignore[index]
            weight[(slice(rows), slice(columns), *middle)] = taps.to(weight)  # type: ignore[index,arg-type]
        self.code.weight[: self.latent] = 0  # type: ignore[index]
        self.code.bias[: self.latent] = 0  # type: ignore[index]
        self.code.weight[(slice(self.latent), slice(cell), *(0 for _ in middle))] = (basis / std).T.to(p.dtype)  # type: ignore[index]
        return True

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean and log variance of the code, each (B, latent, ...); no variance with a codebook."""
        h = self.head(to_patches(x, self.patch))
        for level, stage in enumerate(self.down):
            h = stage(h)
            if level + 1 < len(self.width):
                h = self.halve[level](h)
        h = self.code(h)
        return (h, None) if self.codebook is not None else h.chunk(2, dim=1)  # type: ignore[return-value]

    def decode(self, z: Tensor) -> Tensor:
        """Codes to fields; with a codebook the nearest vectors are decoded, and the gradient passes straight."""
        return self.expand(z if self.codebook is None else self.codebook.straight(z))

    def expand(self, z: Tensor) -> Tensor:
        """The decoder itself."""
        h = self.uncode(z)
        for level, stage in enumerate(self.up):
            if level:
                h = F.interpolate(self.join[level - 1](h), scale_factor=2, mode="nearest")
            h = stage(h)
        return from_patches(self.tail(h), self.patch, self.dims)

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r"""One pass of training.

        Arguments:
            x: Fields (B, channels, \*grid).
            noise: Standard normal numbers, as many a row as the code has at least: (B, ...).

        Returns:
            The reconstruction, and two tensors (B, latent, ...): mean and log variance of the code, or the code and its
            nearest vectors.
        """
        z, logvar = self.encode(x)
        if self.codebook is not None:
            nearest = self.codebook(z)
            return self.expand(z + (nearest - z).detach()), z, nearest
        assert logvar is not None
        logvar = logvar.clamp(-30, 20)
        eps = noise.flatten(1)[:, : z[0].numel()].reshape(z.shape).to(z.dtype)
        return self.expand(z + (logvar / 2).exp() * eps), z, logvar

    def constrain(self) -> None:
        """After an optimiser step: unused vectors of the codebook are moved to where codes are."""
        if self.codebook is not None:
            self.codebook.restart()
