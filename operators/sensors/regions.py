r"""Coarse averages over regions of any shape: catchments, counties, the pixels of another instrument.

.. math:: y_r = \frac{\sum_{j \in r} a_j x_j}{\sum_{j \in r} a_j}

with areas :math:`a_j` of the grid cells. Averages over equal blocks are `scidiff.operators.Downsampling`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scidiff.operators.sensors.weighted import WeightedSensors, gathered

__all__ = ["RegionMeans"]


class RegionMeans(WeightedSensors):
    r"""Observes the mean of every region, (B, \*R, \*grid) to (B, \*R, regions), in the order of their labels.

    Arguments:
        labels: Whole numbers (\*grid): the region of each entry, counted from 0; negative where nothing is seen.
        area: Areas of the cells, positive, broadcast to (\*grid); ``lat.deg2rad().cos()[:, None]`` on latitudes and
            longitudes. Equal by default.

    Raises:
        ValueError: a label between 0 and the largest one that is missing, areas that are not positive.
    """

    def __init__(self, labels: Tensor, area: Tensor | None = None) -> None:
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool or labels.ndim == 0:
            raise ValueError(f"labels must be whole numbers, one per grid point, got {labels.dtype}.")
        flat = labels.flatten().to(torch.int64)
        count = int(flat.max()) + 1
        missing = [r for r, n in enumerate(flat[flat >= 0].bincount(minlength=count).tolist()) if n == 0]
        if count < 1 or missing:
            raise ValueError(f"labels must be 0 to their largest without a gap; region {(missing or [0])[0]} is empty.")
        weight = torch.ones(labels.shape, dtype=torch.float64)
        if area is not None:
            weight = area.to(torch.float64).expand(labels.shape)
        weight = weight.flatten()
        if not bool((torch.isfinite(weight) & (weight > 0))[flat >= 0].all()):
            raise ValueError("areas must be positive and finite wherever a region is.")
        rows = []
        for region in range(count):
            entries = (flat == region).nonzero()[:, 0]
            rows.append((entries, weight[entries] / weight[entries].sum()))
        super().__init__(labels.shape, *gathered(rows))

    def __repr__(self) -> str:
        return f"RegionMeans({self.count} regions of a grid {self.grid})"
