r"""Gaussian fields given n numbers measured of them, by systems of n equations: kriging.

For :math:`x \sim N(m, C)` and :math:`y = A x + e` with independent :math:`e_i \sim N(0, s_i^2)`,

.. math:: S = A C A^\top + \mathrm{diag}(s^2), \qquad
          E[x | y] = m + C A^\top S^{-1} (y - A m), \qquad
          \mathrm{Cov}[x | y] = C - C A^\top S^{-1} A C .

Draws are Matheron's: a draw of the prior plus the correction that its own misfit asks for,
:math:`x + C A^\top S^{-1}(y - A x - e)`. The work is n products with C, done once in pieces, and a Cholesky
factorisation of an n x n matrix; a mean or a draw is then one product with C. No matrix of the field's size squared is
made, so grids of a million points are fine as long as n is some thousand. The variance of every entry needs the n x d
matrix A C, made when first asked for.

Also known as Gaussian-process regression.

References:
    Conditional simulation by kriging: Journel and Huijbregts, Mining Geostatistics, 1978. Gaussian Processes for
    Machine Learning, Rasmussen and Williams, 2006, section 2.2.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Generator, Tensor

from scidiff.priors.gaussian import GaussianPrior

__all__ = ["Kriging"]

F64 = torch.float64
PIECE = 2**24
"""Numbers of float64 in one batch of fields that C is applied to: 128 MB."""


class Kriging:
    r"""The posterior of a Gaussian field given n of its points, or n linear measurements of it.

    Arguments:
        prior: Gaussian prior of real fields (\*X) with d entries.
        at: Indices of the points seen in the flattened field, (n,) integers; or the measurement as a matrix (n, d).
        std: Standard deviation s of the noise, one or (n,); zero for exact numbers.
        y: What was measured, (n,) or (1, n).

    Raises:
        ValueError: indices outside the field or twice without noise, shapes that do not fit, negative noise.
        TypeError: a prior of complex fields.
    """

    def __init__(self, prior: GaussianPrior, at: Tensor, std: float | Tensor, y: Tensor) -> None:
        if prior.complex:
            raise TypeError("kriging takes priors of real fields; make real and imaginary part two channels.")
        points = not at.is_floating_point()
        if points and (at.ndim != 1 or not len(at) or int(at.min()) < 0 or int(at.max()) >= prior.size):
            raise ValueError(f"at must be indices (n,) between 0 and {prior.size - 1}, got {tuple(at.shape)}.")
        if not points and (at.ndim != 2 or at.shape[1] != prior.size):
            raise ValueError(f"a measurement of this field is a matrix (n, {prior.size}), got {tuple(at.shape)}.")
        self.prior, self.n = prior, len(at)
        self.std = torch.as_tensor(std, dtype=F64).expand(self.n)
        if not bool((self.std >= 0).all()):
            raise ValueError(f"std must not be negative, got {float(self.std.min())}.")
        if y.numel() != self.n:
            raise ValueError(f"{self.n} numbers are measured, but y has shape {tuple(y.shape)}.")
        self.at = at if points else at.to(F64)
        self.points = points
        step = max(1, PIECE // prior.size)
        S = torch.cat([self.measure(self._columns(i, min(i + step, self.n))) for i in range(0, self.n, step)])
        S = (S + S.mT) / 2 + self.std.square().diag()
        lower, failed = torch.linalg.cholesky_ex(S)
        rounding = 10 * self.n * torch.finfo(F64).eps * float(S.diagonal().max())
        if int(failed) or float(lower.diagonal().square().min()) < rounding:
            raise ValueError(
                "the measurements determine each other to rounding (a point seen twice, or points closer than the "
                "field varies); give them noise, std > 0, or leave some out."
            )
        self.lower = lower
        loc = prior.loc.flatten()
        self._mean = loc + self.gain(y.reshape(1, -1).to(F64) - self.measure(loc[None]))[0]

    def _rows(self, first: int, last: int) -> Tensor:
        """Rows of A, (k, d)."""
        if not self.points:
            return self.at[first:last]
        return torch.nn.functional.one_hot(self.at[first:last], self.prior.size).to(F64)

    def _columns(self, first: int, last: int) -> Tensor:
        """Rows of A C, (k, d)."""
        return self.prior.cov.matmul(self._rows(first, last))

    def measure(self, x: Tensor) -> Tensor:
        r""":math:`A x` of flattened fields, (B, d) -> (B, n)."""
        return x[:, self.at] if self.points else x @ self.at.mT

    def gain(self, r: Tensor) -> Tensor:
        r""":math:`C A^\top S^{-1} r`, (B, n) -> (B, d)."""
        w = torch.cholesky_solve(r.mT, self.lower).mT
        if self.points:
            spread = torch.zeros(len(r), self.prior.size, dtype=F64).index_add_(1, self.at, w)
        else:
            spread = w @ self.at
        return self.prior.cov.matmul(spread)

    @property
    def mean(self) -> Tensor:
        r"""(\*X), float64."""
        return self._mean.reshape(self.prior.shape)

    @cached_property
    def W(self) -> Tensor:  # noqa: N802 - the letter of the formula
        r""":math:`L^{-1} A C` with :math:`L L^\top = S`, (n, d)."""
        return torch.linalg.solve_triangular(self.lower, self._columns(0, self.n), upper=False)

    @cached_property
    def variance(self) -> Tensor:
        r"""(\*X), float64."""
        return self.prior.cov.diagonal().reshape(self.prior.shape) - self.W.square().sum(0).reshape(self.prior.shape)

    @cached_property
    def scale(self) -> float:
        """Root of the mean variance."""
        return float(self.variance.mean().sqrt())

    @property
    def covariance(self) -> Tensor:
        """The matrix (d, d): 134 MB for 64x64 points."""
        return self.prior.cov.dense() - self.W.mT @ self.W

    def encode(self, x: Tensor) -> Tensor:
        r"""``(x - mean) / scale``, (B, \*X)."""
        return (x - self.mean.to(x)) / self.scale

    def marginal_cdf(self, x: Tensor) -> Tensor:
        r"""Probability that an entry is below the one in ``x`` (B, \*X)."""
        return torch.special.ndtr((x.to(F64) - self.mean) / self.variance.sqrt())

    def errors(self, n: int, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        r"""Truths around zero and what the posterior mean makes of their measurements, (n, \*X) each, float64."""
        x = self.prior.cov.sample(generator, n, F64).flatten(1)
        e = self.std * torch.randn(n, self.n, generator=generator, dtype=F64)
        return x.reshape(n, *self.prior.shape), self.gain(self.measure(x) + e).reshape(n, *self.prior.shape)

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        r"""Exact draws (n, \*X), float64, by Matheron's rule."""
        x, guess = self.errors(n, generator)
        return self.mean + x - guess

    def bayes_error(
        self, draws: int, generator: Generator | None = None, readout: Callable[[Tensor], Tensor] = lambda x: x
    ) -> float:
        """Relative L2 error of the posterior mean, averaged over truths and noises: the least that any method has.

        Arguments:
            draws: Truths to draw from the prior, around zero, each measured at the same points.
            generator: Source of randomness.
            readout: Linear map of the field to what is asked for.
        """
        x, mean = self.errors(draws, generator)
        wrong, truth = readout(mean - x).flatten(1).norm(dim=1), readout(x).flatten(1).norm(dim=1)
        return float((wrong / truth).mean())
