"""Prescribed fields between their times."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["at_time"]


def at_time(forcing: Tensor, time: Tensor, window: int) -> Tensor:
    r"""The forcing ``time`` steps after the last past state, on the straight line between its neighbours in time.

    Arguments:
        forcing: (B, window + h, K, \*grid) at the valid times t - window + 1 ... t + h.
        time: (B,) in steps, in [1 - window, h].
        window: Past states.

    Returns:
        (B, K, \*grid).
    """
    index = time.double() + window - 1
    low = index.floor().long().clamp(0, forcing.shape[1] - 1)
    high = (low + 1).clamp(max=forcing.shape[1] - 1)
    rows = torch.arange(len(forcing), device=forcing.device)
    part = (index - low).to(forcing).reshape(-1, *(1,) * (forcing.ndim - 2))
    return torch.lerp(forcing[rows, low], forcing[rows, high], part)
