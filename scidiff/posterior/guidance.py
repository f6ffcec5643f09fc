r"""What guidance methods share: a Gaussian law of the clean state, and its gain in measurement space.

If :math:`u_0` given :math:`u_\sigma` were Gaussian with mean :math:`D` and covariance :math:`\hat C`, the score of the
likelihood would be, with the whitened residual :math:`r` and slope :math:`\tilde A` at :math:`D`,

.. math:: \nabla_u \log p(y | u) = J^T \tilde A^T v, \qquad (I + \tilde A \hat C \tilde A^T) v = r.

Methods differ in :math:`\hat C`; none of the products with it passes through the network.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from scidiff.posterior.base import Run
from scidiff.posterior.krylov import Solution, conjugate_gradients, dot
from scidiff.posterior.measurement import Linearisation

__all__ = ["gain", "pull", "steepest"]


def pull(run: Run, u: Tensor, D: Tensor, g: Tensor) -> Tensor:
    r""":math:`J^T g`, one counted vector-Jacobian product of the network; ``u, D`` from `differentiate`."""
    run.cost.denoiser_vjp += 1
    return torch.autograd.grad(D, u, g, retain_graph=True)[0]


def steepest(near: Linearisation) -> tuple[Tensor, Tensor]:
    r""":math:`\tilde A^T r`, and :math:`\lambda = \|\tilde A^T r\|^2 / \|r\|^2`, the squared gain along r, (rows,).

    With the variance :math:`\rho^2` in every number of :math:`u_0`, the data have :math:`1 + \rho^2\lambda` along r, in
    units of the noise. For a mask, lambda is one over the noise variance (in units of the field).
    """
    r = near.residual
    g = near.adjoint(r)
    tiny = torch.finfo(r.dtype).tiny
    return g, g.flatten(1).square().sum(1) / r.square().sum(1).clamp(min=tiny)


def gain(
    run: Run, near: Linearisation, covariance: Callable[[Tensor], Tensor], iterations: int, tolerance: float
) -> Tensor:
    r""":math:`\tilde A^T v` with :math:`(I + \tilde A \hat C \tilde A^T) v = r`, by conjugate gradients.

    Arguments:
        run: Where ``iterations`` and the relative ``residual`` are noted.
        near: The measurement around :math:`D`.
        covariance: Product with :math:`\hat C`, states to states, symmetric and not negative.
        iterations: Largest number of iterations, two operator passes each.
        tolerance: A row stops at a residual of ``tolerance * |r|``.
    """

    def product(p: Tensor) -> tuple[Tensor, Tensor]:
        g = near.adjoint(p)
        return p + near.forward(covariance(g)), g

    r = near.residual
    x = Solution.zero(r, tuple(run.posterior.shape or ()))
    size = dot(r, r).sqrt()
    conjugate_gradients(x, product, tolerance * size, iterations)
    run.note("iterations", x.used.double().mean())
    run.note("residual", (dot(x.r, x.r).sqrt() / size.clamp(min=torch.finfo(r.dtype).tiny)).mean())
    return x.image
