r"""deepinv's denoisers as priors, and priors as denoisers for deepinv.

A denoiser of deepinv maps an image :math:`w_0 + \sigma_w\epsilon`, usually in [0, 1], and :math:`\sigma_w` to an
estimate of :math:`w_0`. That is EDM's process with the prediction ``x0``; see `scidiff.priors.conversions`.

References:
    DeepInverse: a Python package for solving imaging inverse problems with deep learning (Tachella et al., 2025),
    arXiv:2505.20160.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from scidiff.optional import optional
from scidiff.priors.conversions import EDM, ConvertedPrior
from scidiff.protocols import Prior

deepinv = optional("deepinv")

__all__ = ["PriorDenoiser", "from_deepinv"]


class _Denoiser(nn.Module):
    """Passes the noise level as deepinv's denoisers expect it."""

    def __init__(self, denoiser: nn.Module) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return self.denoiser(x, label)


def from_deepinv(
    denoiser: nn.Module,
    channels: int,
    image_mean: float | Tensor = 0.5,
    image_std: float = 0.25,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    loc: float | Tensor = 0.0,
    scale: float | Tensor = 1.0,
    units: str = "1",
) -> ConvertedPrior:
    r"""A prior whose denoiser is one of deepinv.

    Many denoisers saw weak noise only (DRUNet up to 0.2 of the image range, for example). Give that as ``sigma_max``:
    stronger noise is then continued as `ConvertedPrior` describes, and ``sigma_range`` of the prior tells samplers
    where knowledge ends.

    Arguments:
        denoiser: ``denoiser(x, sigma)`` with images (B, channels, H, W) and levels (B,).
        channels: Channels of the image.
        image_mean: Mean of the fields in the denoiser's own units.
        image_std: Standard deviation of the fields in the denoiser's own units.
        sigma_min: Weakest noise it was trained on, in its own units.
        sigma_max: Strongest noise it was trained on, in its own units.
        loc: Mean of the field in physical units.
        scale: Standard deviation of the field in physical units.
        units: Physical units of the field.

    Raises:
        TypeError: if it is not a denoiser of deepinv.
    """
    if not isinstance(denoiser, deepinv.models.Denoiser):
        raise TypeError(
            f"expected a deepinv.models.Denoiser, got {type(denoiser).__name__}; for other networks write "
            "`ConvertedPrior(network, EDM(), 'x0', channels)`."
        )
    return ConvertedPrior(
        _Denoiser(denoiser), EDM(sigma_min, sigma_max), "x0", channels,
        data_mean=image_mean, data_std=image_std, loc=loc, scale=scale, units=units,
        card={"name": type(denoiser).__name__, "source": "deepinv"},
    )  # fmt: skip


class PriorDenoiser(deepinv.models.Denoiser):
    r"""A prior as a denoiser of deepinv, for images :math:`w = m + c\,u`.

    Arguments:
        prior: Any prior; complex fields appear as their real channels.
        image_mean: Mean :math:`m` of the images.
        image_std: Standard deviation :math:`c` of the images.
    """

    def __init__(self, prior: Prior, image_mean: float = 0.0, image_std: float = 1.0) -> None:
        super().__init__()
        if not image_std > 0:
            raise ValueError(f"image_std must be positive, got {image_std}.")
        self.prior, self.image_mean, self.image_std = prior, image_mean, image_std

    def forward(self, x: Tensor, sigma: float | Tensor, *args: Any, **kwargs: Any) -> Tensor:
        r"""Denoised images; ``x`` (B, C, \*grid), ``sigma`` a number, () or (B,); further words are unused."""
        u = (x - self.image_mean) / self.image_std
        level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).flatten() / self.image_std
        return self.image_mean + self.image_std * self.prior.denoise(u, level.expand(len(x)))
