r"""Filters that remove what a coarse grid cannot hold, as weights for `scidiff.operators.Downsampling`.

A filter :math:`g(t)`, with t in units of the coarse spacing, becomes weights :math:`w_i \propto g(t_i)` at the fine
entries :math:`t_i = (i - (n - 1) / 2) / f`, where the number n of weights has the parity of the factor f, since coarse
entries stand at the centres of blocks. Weights sum to 1.

=========== =======================================================================================================
`box`       :math:`|t| < 1/2`: the mean over the block, a detector that integrates
`gaussian`  :math:`e^{-t^2 / 2 s^2}`, s = 1/2, cut at 4 s
`bicubic`   cubic convolution with a = -1/2, :math:`|t| < 2`: what image programs do
`lanczos`   :math:`\mathrm{sinc}(t)\,\mathrm{sinc}(t / 3)`, :math:`|t| < 3`: sharper, with ripples
=========== =======================================================================================================

References:
    Cubic convolution interpolation for digital image processing (Keys, 1981).
    Filters for common resampling tasks (Turkowski, 1990).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["FILTERS", "antialias"]


def _bicubic(t: Tensor) -> Tensor:
    t = t.abs()
    near = (1.5 * t - 2.5) * t.square() + 1
    far = ((-0.5 * t + 2.5) * t - 4) * t + 2
    return torch.where(t < 1, near, torch.where(t < 2, far, 0))


FILTERS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "box": (torch.ones_like, 0.5),
    "gaussian": (lambda t: torch.exp(-2 * t.square()), 2.0),
    "bicubic": (_bicubic, 2.0),
    "lanczos": (lambda t: torch.sinc(t) * torch.sinc(t / 3), 3.0),
}
"""Name -> function of t and its reach."""


def antialias(factor: int, name: str = "bicubic") -> Tensor:
    """The weights of a filter for a factor, float64.

    Raises:
        ValueError: for another name than those of `FILTERS`, or a factor below 1.
    """
    if name not in FILTERS:
        raise ValueError(f"the filter must be one of {', '.join(FILTERS)}, got {name!r}.")
    if factor < 1:
        raise ValueError(f"factor must be at least 1, got {factor}.")
    function, reach = FILTERS[name]
    n = round(2 * reach * factor)
    n -= (n - factor) % 2
    t = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2) / factor
    w = function(t)
    while len(w) > factor and float(w[0].abs()) < 1e-12:  # where the filter ends on a fine entry
        w = w[1:-1]
    return w / w.sum()
