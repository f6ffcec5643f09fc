r"""Intervals of scores from a series that is correlated in time: the moving-block bootstrap.

Scores of neighbouring days are not independent. Drawing blocks of :math:`\ell` neighbouring cases with replacement, any
of the :math:`T - \ell + 1` blocks as likely as another, keeps the correlation inside a block; blocks longer than the
correlation give honest intervals, blocks of one case the ordinary bootstrap.

References:
    The Jackknife and the Bootstrap for General Stationary Observations (Künsch, 1989).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Generator, Tensor

__all__ = ["block_bootstrap", "resampled_means"]


def resampled_means(
    series: Mapping[str, Tensor], block: int, draws: int = 1000, generator: Generator | None = None
) -> dict[str, Tensor]:
    r"""Means over resampled times of several series, resampled together.

    Arguments:
        series: (T, \*K) each.
        block: Length :math:`\ell` of a block, 1 to T.
        draws: Number D of resampled series.
        generator: Source of the blocks; a fixed one by default.

    Returns:
        (D, \*K) each, float64.
    """
    times = {len(s) for s in series.values()}
    if len(times) != 1:
        raise ValueError(f"all series must have one length, got {sorted(times)}.")
    (length,) = times
    if not 1 <= block <= length:
        raise ValueError(f"block must lie between 1 and the number of cases {length}, got {block}.")
    generator = generator if generator is not None else Generator().manual_seed(0)
    count = math.ceil(length / block)
    starts = torch.randint(length - block + 1, (draws, count), generator=generator, device=generator.device).cpu()
    index = (starts[:, :, None] + torch.arange(block)).flatten(1)[:, :length]
    found: dict[str, list[Tensor]] = {name: [] for name in series}
    for part in index.split(max(1, (1 << 22) // length)):  # 32 MB of weights at a time
        weight = torch.zeros(len(part), length, dtype=torch.float64)
        weight.scatter_add_(1, part, torch.ones_like(part, dtype=torch.float64))
        for name, values in series.items():
            flat = (
                values.detach().cpu().to(torch.float64).flatten(1)
                if values.ndim > 1
                else values.cpu().double()[:, None]
            )
            found[name].append((weight @ flat / length).reshape(len(part), *values.shape[1:]))
    return {name: torch.cat(parts) for name, parts in found.items()}


def block_bootstrap(
    series: Tensor | Mapping[str, Tensor],
    block: int,
    function: Callable[[dict[str, Tensor]], Tensor] | None = None,
    level: float = 0.95,
    draws: int = 1000,
    generator: Generator | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Interval of a mean over cases, or of a function of several means, by percentiles.

    Arguments:
        series: (T, \*K), or several by name; cases in order of time.
        block: Cases in a block.
        function: Of the means by name, each (D, \*K); None takes the mean itself.
        level: Probability of the interval.
        draws: Number of resampled series.
        generator: Source of the blocks; a fixed one by default.

    Returns:
        Lower and upper end, (\*K) each, float64.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie strictly between 0 and 1, got {level}.")
    if isinstance(series, Tensor):
        series, function = {"series": series}, (lambda means: means["series"])
    elif function is None:
        raise ValueError("name the function of the means: function=lambda means: ...")
    values = function(resampled_means(series, block, draws, generator))
    low, high = values.quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=values.dtype), 0)
    return low, high
