r"""Does the spread of an ensemble tell its error? Coverage, ranks, spread-skill ratio.

With :math:`M` members :math:`x_m`, mean :math:`\bar x`, spread :math:`s^2 = \sum_m (x_m - \bar x)^2 / (M - 1)` and a
truth :math:`x^*` drawn from the same law, :math:`E (\bar x - x^*)^2 = (1 + 1/M) E s^2`: a small ensemble errs more than
its spread, because its mean is uncertain too. All functions account for that.

A reference that is itself measured, :math:`x^* + \eta` with :math:`\eta \sim N(0, \tau^2)`, adds :math:`\tau^2`
(``noise_std``).

References:
    Why Should Ensemble Spread Match the RMSE of the Ensemble Mean? (Fortin et al., 2014).
    Interpretation of Rank Histograms for Verifying Ensemble Forecasts (Hamill, 2001).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator, Tensor

from scidiff.metrics._shared import check_ensemble, mean_over_field, real_view

__all__ = ["coverage", "inside_interval", "rank_histogram", "spread_skill"]


def inside_interval(
    samples: Tensor,
    truth: Tensor,
    level: float = 0.9,
    noise_std: float | Tensor | None = None,
    method: Literal["t", "rank"] = "t",
) -> Tensor:
    r"""Whether the truth lies inside the central interval of probability ``level``: (\*truth.shape, 1 or 2), bool.

    ``method="t"``: the interval is

    .. math:: \bar x \pm q \sqrt{s^2 (1 + 1/M) + \tau^2}, \qquad q = t_{M-1}\!\left(\tfrac{1 + \text{level}}{2}\right)

    with the quantile of Student's t. For Gaussian members and :math:`\tau = 0` it covers exactly ``level`` for every
    :math:`M \ge 2`. With :math:`\tau > 0` it is slightly too wide, because the known part needs no t quantile.

    ``method="rank"``: between the order statistics at the (often fractional) ranks :math:`(M + 1) (1 \mp level) / 2`,
    counted from 1 and interpolated linearly; no Gaussian assumption, but needs :math:`level \le (M - 1) / (M + 1)`.

    Arguments:
        samples: (M, B, \*X), members first.
        truth: (B, \*X).
        level: Probability in (0, 1).
        noise_std: :math:`\tau`, a number or a tensor that broadcasts to the field; per real component.
        method: See above.

    Returns:
        One answer per real number: a last dimension of 2 (real, imaginary) for complex fields, of 1 for real ones.
    """
    check_ensemble(samples, truth)
    if not 0 < level < 1:
        raise ValueError(f"level must lie strictly between 0 and 1, got {level}; write 0.9 for 90 %.")
    members = len(samples)
    x, y = real_view(samples), real_view(truth)
    if method == "rank":
        if noise_std is not None:
            raise ValueError("method='rank' takes no noise_std; add draws of the noise to the members instead.")
        low = (members + 1) * (1 - level) / 2
        if low < 1 - 1e-9:
            raise ValueError(
                f"{members} members bound at most {(members - 1) / (members + 1):.3f} by ranks, level={level} asked; "
                "use method='t' or more members."
            )
        ordered, low = x.sort(0).values, max(low, 1.0)
        return (y >= _order_statistic(ordered, low)) & (y <= _order_statistic(ordered, members + 1 - low))
    if method != "t":
        raise ValueError(f"method must be 't' or 'rank', got {method!r}.")
    from scipy.stats import t

    quantile = float(t.ppf((1 + level) / 2, members - 1))
    variance = x.var(0) * (1 + 1 / members)
    if noise_std is not None:
        tau = torch.as_tensor(noise_std, dtype=x.dtype, device=x.device)
        variance = variance + (tau.square()[..., None] if tau.ndim else tau.square())
    return (y - x.mean(0)).abs() <= quantile * variance.sqrt()


def _order_statistic(ordered: Tensor, rank: float) -> Tensor:
    """Value at a fractional rank counted from 1, members sorted along the first dimension."""
    below = min(int(rank), len(ordered) - 1)
    return torch.lerp(ordered[below - 1], ordered[below], rank - below)


def coverage(
    samples: Tensor,
    truth: Tensor,
    level: float = 0.9,
    noise_std: float | Tensor | None = None,
    method: Literal["t", "rank"] = "t",
    where: Tensor | None = None,
) -> Tensor:
    r"""Share of the field inside its interval of probability ``level``: (B,). See `inside_interval`.

    Arguments:
        samples: (M, B, \*X), members first.
        truth: (B, \*X).
        level: Probability in (0, 1).
        noise_std: Standard deviation of the truth's own measurement noise, per real component.
        method: ``"t"`` or ``"rank"``.
        where: Part of the field to count, broadcast against it.
    """
    inside = inside_interval(samples, truth, level, noise_std, method).to(samples.real.dtype)
    return mean_over_field(inside.mean(-1), where)


def spread_skill(
    samples: Tensor, truth: Tensor, noise_std: float | Tensor | None = None, where: Tensor | None = None
) -> Tensor:
    r"""Ratio of predicted to actual error of the ensemble mean: (B,), 1 for an exact ensemble, below 1 if too sure.

    .. math:: \sqrt{\frac{\langle \frac{M + 1}{M} s^2 + \tau^2 \rangle}{\langle (\bar x - x^*)^2 \rangle}}

    Arguments:
        samples: (M, B, \*X), members first.
        truth: (B, \*X).
        noise_std: Standard deviation :math:`\tau` of the truth's own measurement noise, per real component.
        where: Part of the field to average over.
    """
    check_ensemble(samples, truth)
    members = len(samples)
    x, y = real_view(samples), real_view(truth)
    predicted = x.var(0).mean(-1) * (members + 1) / members
    if noise_std is not None:
        predicted = predicted + torch.as_tensor(noise_std, dtype=x.dtype, device=x.device).square()
    error = (x.mean(0) - y).square().mean(-1)
    return (mean_over_field(predicted, where) / mean_over_field(error, where)).sqrt()


def rank_histogram(
    samples: Tensor, truth: Tensor, generator: Generator | None = None, where: Tensor | None = None
) -> Tensor:
    r"""How often the truth has rank 0 to M among the members: counts (B, M + 1), flat for a calibrated ensemble.

    Arguments:
        samples: (M, B, \*X), members first.
        truth: (B, \*X).
        generator: Breaks ties at random (values that were rounded or clipped); one with a fixed seed if None.
        where: Boolean part of the field to count, broadcast against it.
    """
    check_ensemble(samples, truth, 1)
    x, y = real_view(samples), real_view(truth)
    below, equal = (x < y).sum(0), (x == y).sum(0)
    if generator is None:
        generator = Generator().manual_seed(0)
    noise = torch.rand(y.shape, generator=generator, device=generator.device).to(y.device)
    rank = below + (noise * (equal + 1)).long().clamp(max=equal)
    keep = torch.ones_like(rank, dtype=torch.bool)
    if where is not None:
        keep = where.bool().expand(truth.shape)[..., None].expand_as(rank)
    bins = len(samples) + 1
    return torch.stack([torch.bincount(r[k], minlength=bins) for r, k in zip(rank, keep, strict=True)])
