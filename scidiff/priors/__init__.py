"""Laws of fields: exact ones (Gaussian, mixture), learned ones (diffusion) and products of them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scidiff.priors.diffusion import DiffusionPrior
    from scidiff.priors.fitting import patches
    from scidiff.priors.gaussian import GaussianPrior
    from scidiff.priors.mixture import GaussianMixturePrior
    from scidiff.priors.pretrained import load_pretrained
    from scidiff.priors.product import ProductPrior

__all__ = ["DiffusionPrior", "GaussianMixturePrior", "GaussianPrior", "ProductPrior", "load_pretrained", "patches"]

_HOMES = {
    "DiffusionPrior": "diffusion",
    "GaussianMixturePrior": "mixture",
    "GaussianPrior": "gaussian",
    "ProductPrior": "product",
    "load_pretrained": "pretrained",
    "patches": "fitting",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"scidiff.priors.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'scidiff.priors' has no attribute {name!r}; it has {', '.join(__all__)}.")


def __dir__() -> list[str]:
    return sorted(__all__)
