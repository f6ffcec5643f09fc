"""Laws of fields: exact ones (Gaussian, mixture), learned ones (diffusion), products of them, and laws of codes.

Names are imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scidiff.lazy import lazy_exports

if TYPE_CHECKING:
    from scidiff.priors.autoencoder import FieldAutoencoder
    from scidiff.priors.conversions import ConvertedPrior
    from scidiff.priors.diffusion import DiffusionPrior
    from scidiff.priors.fitting import patches
    from scidiff.priors.gaussian import GaussianPrior
    from scidiff.priors.kriging import Kriging
    from scidiff.priors.latent import LatentPrior
    from scidiff.priors.likelihood import bits_per_dimension, elbo, log_prob
    from scidiff.priors.linear_autoencoder import LinearAutoencoder
    from scidiff.priors.mixture import GaussianMixturePrior
    from scidiff.priors.pretrained import load_autoencoder, load_pretrained
    from scidiff.priors.product import ProductPrior
    from scidiff.priors.transformed import TransformedPrior

__all__ = [
    "ConvertedPrior",
    "DiffusionPrior",
    "FieldAutoencoder",
    "GaussianMixturePrior",
    "GaussianPrior",
    "Kriging",
    "LatentPrior",
    "LinearAutoencoder",
    "ProductPrior",
    "TransformedPrior",
    "bits_per_dimension",
    "elbo",
    "load_autoencoder",
    "load_pretrained",
    "log_prob",
    "patches",
]

_EXPORTS = {
    "ConvertedPrior": "scidiff.priors.conversions",
    "DiffusionPrior": "scidiff.priors.diffusion",
    "FieldAutoencoder": "scidiff.priors.autoencoder",
    "GaussianMixturePrior": "scidiff.priors.mixture",
    "GaussianPrior": "scidiff.priors.gaussian",
    "Kriging": "scidiff.priors.kriging",
    "LatentPrior": "scidiff.priors.latent",
    "LinearAutoencoder": "scidiff.priors.linear_autoencoder",
    "ProductPrior": "scidiff.priors.product",
    "TransformedPrior": "scidiff.priors.transformed",
    "bits_per_dimension": "scidiff.priors.likelihood",
    "elbo": "scidiff.priors.likelihood",
    "load_autoencoder": "scidiff.priors.pretrained",
    "load_pretrained": "scidiff.priors.pretrained",
    "log_prob": "scidiff.priors.likelihood",
    "patches": "scidiff.priors.fitting",
}
__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
