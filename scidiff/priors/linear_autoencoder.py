r"""The linear autoencoder (PCA): the one behind which posteriors are exact.

With a mean field m and k fields :math:`w_1 \dots w_k` as the columns of W,

.. math:: G(z) = m + W z, \qquad E(x) = W^+ (x - m),

so that a Gaussian (or mixture) law of codes is one of fields, a linear measurement of fields is a linear one of codes,
and both have closed forms. Latent samplers are measured on it.

Principal components: with the centred data :math:`X` (N, d), :math:`X / \sqrt{N - 1} = U S V^\top`, W is the first k
columns of V and the codes have the variances :math:`S_i^2`; or, whitened, W = V S and the variances are one.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from scidiff.linalg import Diagonal
from scidiff.priors.gaussian import GaussianPrior, from_real, to_real
from scidiff.priors.mixture import GaussianMixturePrior

__all__ = ["LinearAutoencoder"]


class LinearAutoencoder:
    r"""Fields :math:`x = m + W z` with k numbers as code.

    Arguments:
        mean: Mean field m, (\*X), real or complex, physical units.
        factor: Columns of W as fields, (k, \*X), linearly independent; orthonormal or of any length.
        variance: Variances of the codes, (k,), for `code_prior`; ones when left out.

    Raises:
        ValueError: if shapes differ or the columns are linearly dependent.

    References:
        Pattern Recognition and Machine Learning (Bishop, 2006), section 12.1.
    """

    affine = True
    stride = 1

    def __init__(self, mean: Tensor, factor: Tensor, variance: Tensor | None = None) -> None:
        if factor.ndim != mean.ndim + 1 or factor.shape[1:] != mean.shape:
            raise ValueError(
                f"factor must hold fields like the mean, (k, {', '.join(map(str, mean.shape))}), "
                f"got {tuple(factor.shape)}."
            )
        if factor.is_complex() != mean.is_complex():
            raise ValueError(f"mean and factor must both be real or both complex, got {mean.dtype}, {factor.dtype}.")
        self.mean, self.complex = mean.detach(), mean.is_complex()
        self.loc = to_real(mean[None])[0].detach().to(torch.float64)
        self.factor = to_real(factor).detach().to(torch.float64).flatten(1)
        s = torch.linalg.svdvals(self.factor)
        if len(s) > self.factor.shape[1] or not float(s[-1]) > 1e-10 * float(s[0]):
            raise ValueError(f"the {len(s)} columns of factor are linearly dependent; take fewer components.")
        self.inverse = torch.linalg.pinv(self.factor)
        self.variance = torch.ones(len(factor)) if variance is None else variance.detach()
        if tuple(self.variance.shape) != (len(factor),) or not bool((self.variance > 0).all()):
            raise ValueError(f"variance must hold {len(factor)} positive numbers, got {tuple(self.variance.shape)}.")
        digest = hashlib.blake2b(self.loc.cpu().numpy().tobytes(), digest_size=8)
        digest.update(self.factor.cpu().numpy().tobytes())
        self.identity = digest.hexdigest()

    def __repr__(self) -> str:
        return f"LinearAutoencoder(shape={self.field_shape}, components={len(self.factor)})"

    @property
    def field_shape(self) -> tuple[int, ...]:
        """Shape of one field."""
        return tuple(self.mean.shape)

    def latent_shape(self, shape: tuple[int, ...], /) -> tuple[int, ...]:
        """``(k,)`` for the one shape of field that it takes."""
        if tuple(shape) != self.field_shape:
            raise ValueError(
                f"expected a field of shape {self.field_shape}, got {tuple(shape)}; fit an autoencoder to such fields."
            )
        return (len(self.factor),)

    def encode(self, x: Tensor) -> Tensor:
        r"""Fields (B, \*X) to codes (B, k): least squares."""
        if tuple(x.shape[1:]) != self.field_shape or x.is_complex() != self.complex:
            raise ValueError(f"expected fields (B, *{self.field_shape}), got {tuple(x.shape)}, {x.dtype}.")
        v = to_real(x)
        return (v - self.loc.to(v)).flatten(1) @ self.inverse.to(v)

    def decode(self, z: Tensor) -> Tensor:
        r"""Codes (B, k) to fields (B, \*X)."""
        v = self.loc.to(z) + (z @ self.factor.to(z)).reshape(-1, *self.loc.shape)
        return from_real(v) if self.complex else v

    def code_prior(self) -> GaussianPrior:
        """Independent Gaussian codes with mean zero and the variances of the fit."""
        dtype = self.mean.dtype.to_real()
        zero = torch.zeros(len(self.factor), dtype=dtype, device=self.mean.device)
        return GaussianPrior(zero, Diagonal(self.variance))

    def law(self, codes: GaussianPrior | GaussianMixturePrior) -> GaussianPrior | GaussianMixturePrior:
        """The law of the fields whose codes have the given law; rank k, exact."""
        W = self.factor.mT.to(codes.mean.device)
        if isinstance(codes, GaussianMixturePrior):
            covs = torch.stack([W @ C.to(W) @ W.mT for C in (c.dense() for c in codes.covs)])
            return GaussianMixturePrior(codes.weights, self.decode(codes.means), covs)
        if not isinstance(codes, GaussianPrior):
            raise TypeError(f"a closed form needs Gaussian codes or a mixture of them, got {type(codes).__name__}.")
        return GaussianPrior(self.decode(codes.mean[None])[0], W @ codes.cov.dense().to(W) @ W.mT)

    @classmethod
    def fit(cls, data: Tensor, components: int, whiten: bool = False) -> LinearAutoencoder:
        r"""The first principal components of the given fields.

        Arguments:
            data: Fields (N, \*X), real or complex.
            components: Number k of components, below N.
            whiten: Scale the columns so that codes have unit variance.
        """
        if data.ndim < 2 or not 1 <= components < len(data):
            raise ValueError(
                f"{components} components need more fields than that, stacked along the first axis; "
                f"got {tuple(data.shape)}."
            )
        v = to_real(data).to(torch.float64)
        if not bool(torch.isfinite(v).all()):
            raise ValueError("the data hold NaN or infinite values.")
        mean = v.mean(0)
        _, s, Vh = torch.linalg.svd((v - mean).flatten(1) / (len(v) - 1) ** 0.5, full_matrices=False)
        columns, variance = Vh[:components], s[:components].square()
        if whiten:
            columns, variance = columns * s[:components, None], torch.ones_like(variance)
        dtype = data.dtype.to_real()
        fields = torch.cat([mean[None], columns.reshape(-1, *mean.shape)]).to(dtype)
        fields = from_real(fields) if data.is_complex() else fields
        return cls(fields[0], fields[1:], variance.to(dtype))
