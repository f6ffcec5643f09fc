r"""Tests of significance that tables rest on.

References:
    A simple sequentially rejective multiple test procedure (Holm, 1979).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["holm", "uniformity"]

LEAST = 5
"""Expected count of a bin of a chi-square test."""


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


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number, in the order given: rejecting those below a level errs with that level."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, largest = [0.0] * len(p_values), 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, p_values[i] * (len(p_values) - place)))
        corrected[i] = largest
    return corrected
