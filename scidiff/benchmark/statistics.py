r"""Tests of significance that tables rest on.

References:
    A simple sequentially rejective multiple test procedure (Holm, 1979).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["against_best", "holm", "mean_ranks", "paired_interval", "rank_test", "unevenness", "uniformity"]

LEAST = 5
"""Expected count of a bin of a chi-square test."""

FEWEST_RANKS = 10
"""With fewer ranks `rank_test` says nothing."""


def uniformity(ranks: Tensor, members: int) -> float:
    """P-value of ranks (N,) in 0 ... members being uniform: chi-square over as many equal bins as counts allow.

    The number of bins is the largest divisor of ``members + 1`` that leaves at least 5 expected ranks in each, at most
    20; with fewer than two bins nothing can be said, and the p-value is 1.
    """
    from scipy.stats import chisquare

    values, n = members + 1, len(ranks)
    fits = [b for b in range(2, min(values, 20) + 1) if values % b == 0 and n / b >= LEAST]
    if not fits:
        return 1.0
    bins = max(fits)
    counts = torch.bincount(ranks.long() * bins // values, minlength=bins)
    return float(chisquare(counts.numpy()).pvalue)


def rank_test(ranks: Sequence[float], members: Sequence[float]) -> float:
    """P-value of scaled ranks ``(k + 1/2) / (M + 1)`` of few cases being uniform; NaN for fewer than 10.

    Each rank becomes a number drawn from its interval of width ``1 / (M + 1)``, exactly uniform on [0, 1] under the
    null. Two Kolmogorov tests, of these numbers and of their distance to 1/2 (an ensemble that is too narrow has ranks
    at both ends, which the first hardly sees), corrected for their number (Holm).

    Arguments:
        ranks: Of one number per case; cases of different problems may be put together.
        members: M of each.
    """
    from scipy.stats import kstest

    if len(ranks) < FEWEST_RANKS:
        return float("nan")
    chance = torch.rand(len(ranks), generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5
    width = 1 / (torch.tensor(members, dtype=torch.float64) + 1)
    v = torch.tensor(ranks, dtype=torch.float64) + chance * width
    return min(holm([float(kstest(part.numpy(), "uniform").pvalue) for part in (v, (2 * v - 1).abs())]))


def unevenness(histogram: Sequence[float]) -> float:
    r"""Total variation distance :math:`\frac12 \sum_b |h_b - 1/B|` of shares :math:`h_b` of B bins to equal shares."""
    return 0.5 * sum(abs(share - 1 / len(histogram)) for share in histogram)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number, in the order given: rejecting those below a level errs with that level."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, largest = [0.0] * len(p_values), 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, p_values[i] * (len(p_values) - place)))
        corrected[i] = largest
    return corrected


def paired_interval(
    a: Sequence[float], b: Sequence[float], level: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of ``a - b`` over cases and its bootstrap interval; NaN limits for fewer than two cases.

    Cases are drawn again in pairs, so what makes a case hard for both drops out.
    """
    if len(a) != len(b) or not a:
        raise ValueError(f"pairs are needed, got {len(a)} and {len(b)} values.")
    difference = torch.tensor(a, dtype=torch.float64) - torch.tensor(b, dtype=torch.float64)
    mean = float(difference.mean())
    if len(a) < 2:
        return mean, float("nan"), float("nan")
    generator = torch.Generator().manual_seed(seed)
    means = difference[torch.randint(len(a), (draws, len(a)), generator=generator)].mean(1)
    tail = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = torch.quantile(means, tail).tolist()
    return mean, low, high


def mean_ranks(values: Tensor) -> Tensor:
    """Mean over cases of the rank (1 is the smallest, ties share) of every method: (cases, methods) -> (methods,).

    A method without a value (NaN) in a case shares the last places there.
    """
    from scipy.stats import rankdata

    filled = torch.where(values.isnan(), torch.inf, values)
    return torch.as_tensor(rankdata(filled.numpy(), axis=1).mean(0))


def against_best(values: Tensor) -> list[float]:
    """P-value (Wilcoxon signed rank, Holm) of each method being no worse than the one with the best mean rank.

    Arguments:
        values: Smaller is better, (cases, methods); cases with a missing value of either method are left out.

    Returns:
        1 for the best itself; NaN where fewer than six pairs are left, for which no difference can be significant.
    """
    from scipy.stats import wilcoxon

    top = int(mean_ranks(values).argmin())
    plain: dict[int, float] = {}
    for m in range(values.shape[1]):
        pairs = values[:, [m, top]]
        pairs = pairs[~pairs.isnan().any(1)]
        difference = pairs[:, 0] - pairs[:, 1]
        if m != top and int((difference != 0).sum()) >= 6:
            plain[m] = float(wilcoxon(difference.numpy(), alternative="greater").pvalue)  # type: ignore[attr-defined]
    corrected = dict(zip(plain, holm(list(plain.values())), strict=True))
    return [1.0 if m == top else corrected.get(m, float("nan")) for m in range(values.shape[1])]
