r"""Proper scores of an ensemble as training objectives: one number per row, differentiable.

For members :math:`x_1 ... x_M` of a law and what happened, y,

.. math:: \mathrm{CRPS}_\alpha = \frac1M \sum_j |x_j - y| - \frac{1 - (1-\alpha)/M}{2 M (M-1)} \sum_{j,k} |x_j - x_k|

is *fair* for :math:`\alpha = 1`: its expectation over members is the CRPS of their law, whatever M, so two members per
row suffice. The biased estimator (:math:`\alpha = 0`) rewards members for being too close together. Values between are
*almost fair*: where all but one member hit y, the fair score no longer cares where the last one is, and arithmetic of
low precision shows. That safety has a price. If the truth is Gaussian of deviation 1 and the members are Gaussian of
deviation s, the expected score has its minimum at

.. math:: s^2 = \frac{q^2}{1 - q^2}, \qquad q = \frac{1 - (1 - \alpha)/M}{\sqrt 2},

s = 0.952 for two members and :math:`\alpha = 0.95`: a spread 5 % too small by construction. In single precision the
fair score trains well, so it is the default.

The score of single points knows nothing of how errors hang together in space: white and smooth noise of the same
variance score the same. A sum of the scores of *several* linear functions of a field is proper too, so coefficients of
an orthonormal transform (`spectral`) and means over blocks (`scales`) can be added: noise then earns its place only
with the right spectrum, which matters when the draw is fed to the next network.

References:
    Gneiting & Raftery, Strictly proper scoring rules, prediction, and estimation, 2007. Ferro, Fair scores for
    ensemble forecasts, 2014. Lang et al., AIFS-CRPS, 2024, arXiv:2412.15832, eq. 3 (almost fair).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["CRPS", "AbsoluteError", "Score", "SquaredError", "almost_fair_crps", "make_score"]


def almost_fair_crps(members: Tensor, truth: Tensor, alpha: float = 1.0) -> Tensor:
    r"""The score at every point.

    Arguments:
        members: (B, M, \*shape), M at least 2.
        truth: (B, \*shape).
        alpha: 1 is fair, 0 the biased estimator.

    Returns:
        (B, \*shape).
    """
    count = members.shape[1]
    if count < 2:
        raise ValueError(f"the score of an ensemble needs at least 2 members, got {count}.")
    skill = (members - truth[:, None]).abs().mean(1)
    if count == 2:
        apart = (members[:, 0] - members[:, 1]).abs() * 2
    else:
        apart = sum((members - members.roll(k, 1)).abs().sum(1) for k in range(1, count))
    return skill - (1 - (1 - alpha) / count) / (2 * count * (count - 1)) * apart


@dataclass(frozen=True)
class SquaredError:
    """Mean squared error of every member: its minimiser is the mean."""

    members: int = 1

    def __call__(self, members: Tensor, truth: Tensor) -> Tensor:
        """(B, M, C, grid), (B, C, grid) -> (B,)."""
        return (members - truth[:, None]).square().flatten(1).mean(1)


@dataclass(frozen=True)
class AbsoluteError:
    """Mean absolute error of every member: its minimiser is the median."""

    members: int = 1

    def __call__(self, members: Tensor, truth: Tensor) -> Tensor:
        """(B, M, C, grid), (B, C, grid) -> (B,)."""
        return (members - truth[:, None]).abs().flatten(1).mean(1)


@dataclass(frozen=True)
class CRPS:
    r"""Almost fair CRPS of points, and optionally of what fields have at larger scales.

    Arguments:
        members: Members per training row.
        alpha: See the module.
        spectral: Weight of the same score of the Fourier coefficients (real and imaginary parts, orthonormal).
        scales: Weight of the same score of means over blocks of 2, 4, ... points, while at least two blocks fit.
    """

    members: int = 2
    alpha: float = 1.0
    spectral: float = 0.0
    scales: float = 0.0

    def __post_init__(self) -> None:
        if self.members < 2 or not 0 <= self.alpha <= 1 or min(self.spectral, self.scales) < 0:
            raise ValueError("CRPS needs members >= 2, alpha in [0, 1], spectral and scales >= 0.")

    def __call__(self, members: Tensor, truth: Tensor) -> Tensor:
        """(B, M, C, grid), (B, C, grid) -> (B,)."""
        score = lambda x, y: almost_fair_crps(x, y, self.alpha).flatten(1).mean(1)  # noqa: E731
        total = score(members, truth)
        dims = tuple(range(-truth.ndim + 2, 0))
        if self.spectral:
            x, y = (torch.view_as_real(torch.fft.rfftn(v, dim=dims, norm="ortho")) for v in (members, truth))
            # Half the variance of a coefficient is in each part: sqrt(2) brings them back to the size of a point.
            total = total + self.spectral * 2**0.5 * score(x, y)
        if self.scales:
            x, y = members.flatten(0, 1), truth
            while min(y.shape[2:]) >= 4:
                x, y = (_halved(v) for v in (x, y))
                total = total + self.scales * score(x.unflatten(0, members.shape[:2]), y)
        return total


def _halved(x: Tensor) -> Tensor:
    """Means over blocks of two points along every side; a last odd point is left out."""
    return {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[x.ndim - 2](x, 2)


Score = Callable[[Tensor, Tensor], Tensor]
_SCORES: dict[str, Callable[..., SquaredError | AbsoluteError | CRPS]] = {
    "squared": SquaredError,
    "absolute": AbsoluteError,
    "crps": CRPS,
}


def make_score(kind: str = "squared", **options: float) -> SquaredError | AbsoluteError | CRPS:
    """A score by name: squared, absolute or crps, with its arguments.

    Raises:
        ValueError: A name or an option that does not exist.
    """
    if kind not in _SCORES:
        raise ValueError(f"the score '{kind}' does not exist; choose {', '.join(_SCORES)}.")
    try:
        return _SCORES[kind](**options)
    except TypeError as error:
        raise ValueError(f"the score '{kind}': {error}.") from error
