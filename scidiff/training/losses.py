r"""The denoising loss of EDM.

.. math::
    L = E_{\ln\sigma \sim N(m, s^2)}\; \frac{1 + \sigma^2}{\sigma^2}\, \| D(u + \sigma\epsilon, \sigma) - u \|^2 / n,

whose weight makes the network's own output error count equally at every noise level (sigma_data = 1).

References:
    Karras et al., Elucidating the design space of diffusion-based generative models, 2022, arXiv:2206.00364, eq. 8
    and table 1.
"""

from __future__ import annotations

from torch import Tensor, nn

from scidiff.priors.diffusion import precondition

__all__ = ["edm_loss", "log_normal"]


def log_normal(z: Tensor, mean: float = -1.2, std: float = 1.2) -> Tensor:
    """Noise levels ``exp(mean + std z)`` from standard normal ``z`` (B,)."""
    return (mean + std * z).exp()


def edm_loss(network: nn.Module, u: Tensor, sigma: Tensor, eps: Tensor) -> Tensor:
    r"""Weighted squared error per row: (B,). ``u``, ``eps`` (B, C, \*grid), ``sigma`` (B,)."""
    s = sigma.reshape(-1, *(1,) * (u.ndim - 1))
    error = precondition(network, u + s * eps, sigma).float() - u
    return (1 + sigma.square()) / sigma.square() * error.square().flatten(1).mean(1)
