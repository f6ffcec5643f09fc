r"""What a posterior of an initial state must beat: the data taken for the answer, and the most probable state.

4D-Var (the strong-constraint form) minimises

.. math:: J(z) = \tfrac12 \|z\|^2 + \tfrac12 \big\|S_y^{-1/2}\big(y - A(S z)\big)\big\|^2, \qquad S S^T = C,

for a Gaussian prior :math:`N(0, C)` through the solver A and its gradient, by L-BFGS. In z the prior is white, which
is the preconditioning used in weather forecasting. J has several minima where the flow is far from linear.

References:
    Bouttier and Courtier, Data assimilation concepts and methods, ECMWF, 1999. Nocedal and Wright, Numerical
    optimization, 2006, chapter 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from scidiff.linalg import Covariance

__all__ = ["interpolated", "most_probable", "randomised"]


def interpolated(y: Tensor, shape: Sequence[int]) -> Tensor:
    """Values (..., h, w) at every k-th point on the whole periodic grid (H, W), by their Fourier series.

    Gaps (NaN) are filled with the mean of what is there.
    """
    y = torch.where(y.isnan(), y.nanmean(), y)
    h, w = y.shape[-2:]
    spectrum = torch.fft.fft2(y)
    for dim, n in ((-2, h), (-1, w)):  # the highest wavenumber of an even grid stands for two
        if n % 2 == 0:
            spectrum.index_fill_(dim, torch.tensor([n // 2]), 0)
    whole = y.new_zeros(*y.shape[:-2], *shape).to(spectrum.dtype)
    rows, columns = ((torch.fft.fftfreq(n) * n).round().long() for n in (h, w))
    whole[..., (rows % shape[0])[:, None], columns % shape[1]] = spectrum
    return torch.fft.ifft2(whole).real * (shape[0] * shape[1] / (h * w))


def most_probable(cov: Covariance, operator: Any, noise: Any, y: Tensor, iterations: int = 60) -> Tensor:
    r"""4D-Var from the prior mean, fields (B, \*cov.shape); rows are minimised one by one.

    Arguments:
        cov: Covariance C of the prior, with mean zero.
        operator: Differentiable operator.
        noise: Gaussian noise.
        y: Data (B, \*Y).
        iterations: Of L-BFGS; an operator call with gradient each, and a quarter more for line searches at most.
    """
    zero = torch.zeros(1, *cov.shape, dtype=y.dtype, device=y.device)
    found = [_descend(cov, operator, noise, y[row : row + 1], zero, zero, iterations) for row in range(len(y))]
    return cov.sqrt_matmul(torch.cat(found))


def randomised(
    cov: Covariance, operator: Any, noise: Any, y: Tensor, members: int, generator: Generator, iterations: int = 60
) -> Tensor:
    r"""An ensemble of 4D-Vars, (members, 1, \*cov.shape), each with its own draw of prior and noise:

    .. math:: \min_z \tfrac12 \|z - z_m\|^2 + \tfrac12 \big\|S_y^{-1/2}\big(y + n_m - A(S z)\big)\big\|^2,
              \qquad z_m \sim N(0, I), \quad n_m \sim N(0, S_y).

    Every member starts at the most probable state, for half the iterations. For linear operators the members are
    draws of the posterior, for others nearly so where the flow is nearly linear; other minima are not looked for.

    Arguments: as of `most_probable`; ``y`` is one row (1, \*Y).

    References:
        Randomize-then-optimize: A Method for Sampling from Posterior Distributions in Nonlinear Inverse Problems
        (Bardsley et al., 2014).
    """
    zero = torch.zeros(1, *cov.shape, dtype=y.dtype, device=y.device)
    start, found = _descend(cov, operator, noise, y, zero, zero, iterations), []
    for _ in range(members):
        center = torch.randn(1, *cov.shape, generator=generator, dtype=y.dtype).to(zero)
        z = _descend(cov, operator, noise, noise.sample(y, generator), start, center, -(-iterations // 2))
        found.append(cov.sqrt_matmul(z))
    return torch.stack(found)


def _descend(
    cov: Covariance, operator: Any, noise: Any, y: Tensor, start: Tensor, center: Tensor, iterations: int
) -> Tensor:
    r"""The z that minimises :math:`\|z - z_m\|^2 + \|S_y^{-1/2}(y - A(S z))\|^2`, about."""
    z = start.clone().requires_grad_()
    descent = torch.optim.LBFGS([z], max_iter=iterations, history_size=20, line_search_fn="strong_wolfe")

    def cost() -> Tensor:
        descent.zero_grad()
        with torch.enable_grad():
            residual = noise.whiten(y - operator(cov.sqrt_matmul(z)))
            value = ((z - center).square().sum() + residual.square().sum()) / 2
            value.backward()
        return value

    descent.step(cost)  # type: ignore[arg-type]
    return z.detach()
