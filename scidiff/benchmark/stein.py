r"""Members against the score of their posterior, where neither truth nor exact answer exists.

.. math:: \nabla_u \log p(u | y) \approx \frac{D(u, \sigma) - u}{\sigma^2} + \nabla_u \log p(y | \mathrm{decode}(u))

The first term is the score of the prior blurred by :math:`\sigma`; a small one changes it little where the prior is
smooth on that scale. The answer is relative to the prior: members of a wrong prior pass.

References:
    See `scidiff.metrics.stein`.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from scidiff.inference import Posterior
from scidiff.metrics.stein import SteinTest, kernel_stein_discrepancy

__all__ = ["posterior_score", "stein_test"]


def posterior_score(posterior: Posterior, u: Tensor, sigma: float = 0.02, batch: int = 64) -> Tensor:
    r"""Score of the posterior of one observation at the states u (M, \*S): the same shape.

    Arguments:
        posterior: Of one observation, with a differentiable operator.
        u: States.
        sigma: Noise level at which the prior's score is taken, in units of u.
        batch: States at once.

    Raises:
        ValueError: more than one observation.
        TypeError: the operator has no gradient.
    """
    if posterior.batch != 1:
        raise ValueError(f"one observation is needed, got {posterior.batch}; take posterior.rows(1).")
    if not all(part.differentiable for part in posterior.likelihoods):
        raise TypeError("the score of the likelihood needs an operator with a gradient; this one is a black box.")
    parts = []
    for rows in u.split(batch):
        with torch.no_grad():
            prior = (posterior.prior.denoise(rows, torch.as_tensor(sigma).to(rows)) - rows) / sigma**2
        with torch.enable_grad():
            v = rows.detach().requires_grad_()
            (likelihood,) = torch.autograd.grad(posterior.tile(len(v)).log_likelihood(v).sum(), v)
        parts.append(prior + likelihood)
    return torch.cat(parts)


def stein_test(
    posterior: Posterior, samples: Tensor, sigma: float = 0.02, generator: Generator | None = None
) -> SteinTest:
    r"""Kernel Stein discrepancy of the members of an ensemble.

    Arguments:
        posterior: Of one observation; its prior must be affine, so that fields have one state each.
        samples: Members (M, \*X) or (M, 1, \*X), in the units of the field.
        sigma: See `posterior_score`.
        generator: Source of the bootstrap.

    Raises:
        TypeError: the prior's decoder is not affine.
    """
    if not posterior.prior.affine:
        raise TypeError("members have a state each only if the prior's decoder is affine; this one's is not.")
    assert posterior.shape is not None
    u = posterior.prior.encode(samples.flatten(0, 1) if samples.ndim > len(posterior.shape) + 1 else samples)
    return kernel_stein_discrepancy(u, posterior_score(posterior, u, sigma), generator=generator)
