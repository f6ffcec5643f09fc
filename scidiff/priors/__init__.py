"""Laws of fields: exact ones (Gaussian, mixture), learned ones (diffusion) and products of them.

Names are imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scidiff.lazy import lazy_exports

if TYPE_CHECKING:
    from scidiff.priors.diffusion import DiffusionPrior
    from scidiff.priors.fitting import patches
    from scidiff.priors.gaussian import GaussianPrior
    from scidiff.priors.mixture import GaussianMixturePrior
    from scidiff.priors.pretrained import load_pretrained
    from scidiff.priors.product import ProductPrior

__all__ = ["DiffusionPrior", "GaussianMixturePrior", "GaussianPrior", "ProductPrior", "load_pretrained", "patches"]

_EXPORTS = {
    "DiffusionPrior": "scidiff.priors.diffusion",
    "GaussianMixturePrior": "scidiff.priors.mixture",
    "GaussianPrior": "scidiff.priors.gaussian",
    "ProductPrior": "scidiff.priors.product",
    "load_pretrained": "scidiff.priors.pretrained",
    "patches": "scidiff.priors.fitting",
}
__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
