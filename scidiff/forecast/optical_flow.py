r"""Extrapolation of a moving picture: its apparent motion is found from the last two states and carried on.

Lucas and Kanade's method gives a displacement :math:`u(p)` per step; the state j steps ahead is
:math:`x_{t+j}(p) = x_t(p - j u(p))`, interpolated bilinearly (one interpolation from the last state, so the picture is
not smeared step by step). What flows in from outside is the lowest value of the training data: no rain.

An extrapolation knows no spread. With errors of its own hindcasts of the training data, each member adds the errors
that one of them made at all leads, and cuts at the lowest value.

References:
    Lucas and Kanade, An iterative image registration technique with an application to stereo vision, 1981. Germann and
    Zawadzki, Scale-dependence of the predictability of precipitation from continental radar images, part I, Monthly
    Weather Review 130, 2002 (semi-Lagrangian extrapolation of radar).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Generator, Tensor

from scidiff.forecast.base import Correct, Forecaster, streams_of
from scidiff.forecast.fitting import check_horizon, training_states
from scidiff.forecast.persistence import corrected
from scidiff.rng import Streams

if TYPE_CHECKING:
    import xarray as xr

    from scidiff.forecast.state import StateSpec

__all__ = ["OpticalFlow", "carry", "motion"]


def motion(before: Tensor, after: Tensor, radius: int = 7) -> Tensor:
    """Displacement in cells along y and x that takes one picture (H, W) to the next, (2, H, W).

    Arguments:
        before, after: The pictures.
        radius: Of the window in which the motion is one, in cells.
    """
    from skimage.registration import optical_flow_ilk

    pair = torch.stack([before, after]).detach().cpu().double()
    low, high = float(pair.min()), float(pair.max())
    if not high > low:
        return torch.zeros(2, *before.shape, dtype=before.dtype, device=before.device)
    first, second = ((pair - low) / (high - low)).numpy()
    # The flow v satisfies after(p + v) = before(p).
    found = optical_flow_ilk(first, second, radius=radius, num_warp=10, gaussian=False, prefilter=True)
    return torch.from_numpy(np.stack(found)).to(before)


def carry(x: Tensor, displacement: Tensor, outside: Tensor) -> Tensor:
    r"""The picture moved: :math:`x(p - u(p))`.

    Arguments:
        x: (C, H, W).
        displacement: :math:`u` in cells along y and x, (2, H, W).
        outside: Value of each channel outside the picture, (C,).
    """
    height, width = x.shape[-2:]
    y, z = torch.meshgrid(torch.arange(height).to(x), torch.arange(width).to(x), indexing="ij")
    from_y, from_x = y - displacement[0], z - displacement[1]
    # grid_sample counts cells' centres from -1 + 1/n to 1 - 1/n.
    places = torch.stack([(2 * from_x + 1) / width - 1, (2 * from_y + 1) / height - 1], -1)
    level = outside.to(x)[:, None, None]
    moved = torch.nn.functional.grid_sample((x - level)[None], places[None], mode="bilinear", align_corners=False)
    return moved[0] + level


class OpticalFlow(Forecaster):
    r"""The extrapolation of the module, for states (B, 2, C, H, W).

    Arguments:
        horizon: Steps h.
        lowest: Lowest value of each channel, (C,).
        mask: Where the field exists, (C, H, W), or None for everywhere.
        errors: What hindcasts missed, (S, h, C, H, W), or None for an extrapolation without spread.
        radius: Of the window in which the motion is one, in cells.
    """

    window = 2
    lowest: Tensor
    mask: Tensor | None
    errors: Tensor | None

    def __init__(
        self,
        horizon: int,
        lowest: Tensor,
        mask: Tensor | None = None,
        errors: Tensor | None = None,
        radius: int = 7,
    ) -> None:
        super().__init__()
        self.horizon, self.radius = check_horizon(horizon), radius
        if errors is not None and (errors.ndim != 5 or errors.shape[1] != horizon):
            raise ValueError(f"errors must be (S, {horizon}, C, H, W), got {tuple(errors.shape)}.")
        self.register_buffer("lowest", lowest)
        self.register_buffer("mask", mask)
        self.register_buffer("errors", errors)
        self.stochastic = errors is not None

    @classmethod
    def fit(
        cls, data: xr.Dataset, spec: StateSpec, horizon: int, spread: bool = True, every: int = 1, radius: int = 7
    ) -> OpticalFlow:
        """From the training part of a Dataset.

        Arguments:
            data, spec, horizon: Of the model.
            spread: Keep the errors of hindcasts.
            every: Steps between two hindcasts.
            radius: As in the constructor.
        """
        if len(spec.grid.shape) != 2:
            raise ValueError(f"optical flow needs a grid of two dimensions, got {spec.grid.dims}.")
        states = training_states(data, spec, horizon, 2)
        mask = spec.mask
        kept = states if mask is None else states.masked_fill(~mask, torch.inf)
        model = cls(horizon, kept.amin((0, 1, 3, 4)), mask, None, radius)
        if not spread:
            return model
        errors = []
        for row in states:
            for now in range(1, len(row) - horizon, every):
                ahead = model.sample(row[None, now - 1 : now + 1])[0]
                errors.append(row[now + 1 : now + 1 + horizon] - ahead)
        return cls(horizon, model.lowest, mask, torch.stack(errors), radius)

    @property
    def network_calls(self) -> int:
        return 0

    def _extrapolate(self, pair: Tensor) -> Tensor:
        lowest = self.lowest.to(pair)
        if self.mask is not None:
            pair = torch.where(self.mask.to(pair.device), pair, lowest[:, None, None])
        flow = motion(pair[0].mean(0), pair[1].mean(0), self.radius)
        return torch.stack([carry(pair[1], j * flow, lowest) for j in range(1, self.horizon + 1)])

    def sample(
        self,
        state: Tensor,
        forcing: Tensor | None = None,
        *,
        generator: Generator | Streams | None = None,
        correct: Correct | None = None,
    ) -> Tensor:
        known: dict[bytes, Tensor] = {}  # members of one case share the motion
        found = []
        for pair in state[:, -2:]:
            key = pair.detach().cpu().contiguous().numpy().tobytes()
            if key not in known:
                known[key] = self._extrapolate(pair)
            found.append(known[key])
        ahead = torch.stack(found)
        if self.errors is not None:
            streams = streams_of(generator, len(state))
            pick = (streams.rand((1,), dtype=torch.float64)[:, 0] * len(self.errors)).long()
            added = self.errors[pick.clamp(max=len(self.errors) - 1).to(self.errors.device)].to(ahead)
            ahead = torch.maximum(ahead + added, self.lowest.to(ahead)[:, None, None])
        if self.mask is not None:
            ahead = ahead.masked_fill(~self.mask.to(ahead.device), 0)
        return corrected(ahead, correct)
