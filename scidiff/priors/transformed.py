r"""Fields that a smooth map makes of a Gaussian one: positive or bounded coefficients with an exact denoiser.

.. math:: x = T(z), \qquad z \sim \mathcal N(m, C),

for example log-normal fields, or fields of nearly two values: :math:`T` the logistic function between ``low`` and
``high`` and z of standard deviation s has transitions as wide as z takes to change by a few. The state is that of z:
its denoiser is exact, and only the measurement is nonlinear.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from scidiff.priors.gaussian import GaussianPrior
from scidiff.transforms import Transform

__all__ = ["TransformedPrior"]


class TransformedPrior:
    r"""The law of :math:`T(z)` for Gaussian z.

    Arguments:
        gaussian: Law of z, fields (\*X).
        transform: :math:`T`, one of `scidiff.transforms`.
    """

    affine = False

    def __init__(self, gaussian: GaussianPrior, transform: Transform) -> None:
        if gaussian.complex:
            raise TypeError("a transform maps real fields; the Gaussian prior has complex ones.")
        self.gaussian, self.transform = gaussian, transform

    def __repr__(self) -> str:
        return f"TransformedPrior({self.gaussian!r}, {self.transform!r})"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one state."""
        return self.gaussian.shape

    def denoise(self, u: Tensor, sigma: Tensor) -> Tensor:
        r""":math:`E[u_0 | u_0 + \sigma\epsilon = u]`, exact."""
        return self.gaussian.denoise(u, sigma)

    def decode(self, u: Tensor) -> Tensor:
        """The field in physical units."""
        return self.transform.decode(self.gaussian.decode(u))

    def encode(self, x: Tensor) -> Tensor:
        """Inverse of `decode`; fields must lie strictly within the bounds of the transform."""
        return self.gaussian.encode(self.transform.encode(x))

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        r"""Independent fields (n, \*X)."""
        return self.transform.decode(self.gaussian.sample(n, generator))

    def log_prob(self, x: Tensor) -> Tensor:
        r"""Log density of fields (B, \*X): that of z, less the logarithm of the slope of T, summed over entries."""
        with torch.enable_grad():
            z = self.transform.encode(x).detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.transform.decode(z).sum(), z)
        return self.gaussian.log_prob(z.detach()) - slope.log().flatten(1).sum(1)
