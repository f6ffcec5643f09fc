r"""What the stages of a forecaster minimise, on rows that are windows in time.

A row is (window + h, C + K, \*grid): states, then forcings, at consecutive times. A loss draws two numbers per row,
where in the window to work and a seed; the seed becomes one stream per member (`SeededStreams`), so a row's loss does
not depend on the rows beside it nor on how many processes share the batch.

======================  ==============================================================================
loss                    per row
======================  ==============================================================================
`InterpolationLoss`     stage 1: score of :math:`I(x_t, x_{t+h}, i)` against :math:`x_{t+i}`, i in 1...h-1
`DYffusionLoss`         stage 2: :math:`\lambda_1 L_1 + \lambda_2 L_2`, see the class
`LeadLoss`              score of :math:`F(x_t, i)` against :math:`x_{t+i}`, i in 1...h
`BlockLoss`             score of all h states of one call, or of several calls in a row
======================  ==============================================================================

With a squared error these are the published losses. With `CRPS` every row is repeated for its members, each with its
own stream through the whole computation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import cast

import torch
from torch import Generator, Tensor, nn

from scidiff.forecast.draws import SeededStreams
from scidiff.forecast.dyffusion import DYffusion
from scidiff.forecast.forcing import at_time
from scidiff.forecast.interpolator import Interpolator, Predictor
from scidiff.forecast.scores import CRPS, AbsoluteError, SquaredError

__all__ = ["BlockLoss", "DYffusionLoss", "InterpolationLoss", "LeadLoss", "WindowLoss"]

AnyScore = SquaredError | AbsoluteError | CRPS


class WindowLoss(ABC):
    """A loss of windows in time, for `scidiff.training.train`.

    Arguments:
        channels: Prognostic channels C; the others of a window are forcings.
        window: Past states.
        score: Compares members with the truth.
        low, high: The drawn place is a whole number in [low, high).
    """

    windows = True

    def __init__(self, channels: int, window: int, score: AnyScore, low: int, high: int) -> None:
        self.channels, self.window, self.score, self.low, self.high = channels, window, score, low, high

    def draw(self, generator: Generator) -> Tensor:
        """The place in the window and the seed of the row, float64 (2,)."""
        place = torch.randint(self.low, self.high, (), generator=generator)
        seed = torch.randint(2**52, (), generator=generator)
        return torch.stack([place, seed]).double()

    def __call__(self, network: nn.Module, u: Tensor, time: Tensor, eps: Tensor | None = None) -> Tensor:
        r"""One number per row, (B,); ``u`` (B, window + h, C + K, \*grid), ``time`` (B, 2) from `draw`."""
        members = self.score.members
        streams = SeededStreams(time[:, 1].long(), members)
        repeated = u.repeat_interleave(members, 0)
        place = time[:, 0].float().repeat_interleave(members)
        x = repeated[:, :, : self.channels]
        forcing = repeated[:, :, self.channels :] if u.shape[2] > self.channels else None
        return self.losses(network, x, forcing, place, streams)

    @abstractmethod
    def losses(
        self, network: nn.Module, x: Tensor, forcing: Tensor | None, place: Tensor, streams: SeededStreams
    ) -> Tensor:
        r"""(B,) from rows and members (B M, window + h, C, \*grid)."""

    def scored(self, members: Tensor, truth: Tensor) -> Tensor:
        """Members (B M, ...) and the truth, repeated like them -> (B,)."""
        count = self.score.members
        return self.score(members.unflatten(0, (-1, count)), truth[::count])


def _at(x: Tensor, index: Tensor) -> Tensor:
    return x[torch.arange(len(x), device=x.device), index.long()]


class InterpolationLoss(WindowLoss):
    """Stage 1.

    Arguments:
        channels: Prognostic channels.
        horizon: h.
        window: Past states.
        score: The squared error as published, or `CRPS`.
        forcing_at: As in `DYffusion`.
    """

    def __init__(
        self,
        channels: int,
        horizon: int,
        window: int = 1,
        score: AnyScore | None = None,
        forcing_at: str = "target",
    ) -> None:
        super().__init__(channels, window, score or SquaredError(), 1, horizon)
        self.forcing_at = forcing_at

    def losses(
        self, network: nn.Module, x: Tensor, forcing: Tensor | None, place: Tensor, streams: SeededStreams
    ) -> Tensor:
        past, end = x[:, : self.window].flatten(1, 2), x[:, -1]
        if forcing is not None:
            when = place if self.forcing_at == "target" else torch.zeros_like(place)
            forcing = at_time(forcing, when, self.window)
        guess = cast(Interpolator, network)(past, end, place, streams, forcing)
        return self.scored(guess, _at(x, place + self.window - 1))


class DYffusionLoss(WindowLoss):
    r"""Stage 2, with a look-ahead through the frozen interpolator.

    .. math:: \tilde x = I(x_t, x_{t+h}, i_n \mid \xi) \;(= x_t \text{ for } n = 0), \qquad e = F(\tilde x, i_n), \\
        L_1 = s(e, x_{t+h}), \qquad L_2 = s(F(I(x_t, e, i_{n+1} \mid \xi'), i_{n+1}), x_{t+h}), \quad n \le N - 2

    with n uniform on 0...N-1. The gradient of :math:`L_2` flows through I into the first F. :math:`L_2` is a mean over
    the rows that have one, which is a weight N / (N - 1) per row.

    With an ensemble score :math:`\tilde x` is one draw per row, shared by the members; from there on every member is a
    chain of its own, so that both terms are proper scores of a law given :math:`\tilde x`.

    Arguments:
        model: Its interpolator, times and conditions are used; the trained F is the loop's network.
        channels: Prognostic channels.
        score: The squared error as published, or `CRPS`.
        reconstruction: :math:`\lambda_1`.
        lookahead: :math:`\lambda_2`; 0 leaves the second term out.
    """

    def __init__(
        self,
        model: DYffusion,
        channels: int,
        score: AnyScore | None = None,
        reconstruction: float = 0.5,
        lookahead: float = 0.5,
    ) -> None:
        super().__init__(channels, model.window, score or SquaredError(), 0, len(model.times))
        if reconstruction < 0 or lookahead < 0 or reconstruction + lookahead == 0:
            raise ValueError(f"weights must be >= 0 and not both 0, got {reconstruction} and {lookahead}.")
        self.model, self.reconstruction, self.lookahead = model, reconstruction, lookahead

    def losses(
        self, network: nn.Module, x: Tensor, forcing: Tensor | None, place: Tensor, streams: SeededStreams
    ) -> Tensor:
        model, count, forecaster = self.model, self.score.members, cast(Predictor, network)
        model.interpolator.to(x.device)
        times = torch.tensor([*model.times, model.horizon], dtype=torch.float32, device=x.device)
        here, there = times[place.long()], times[place.long() + 1]
        past, first, end = x[:, : self.window].flatten(1, 2), x[:, self.window - 1], x[:, -1]
        column = (-1, *(1,) * (first.ndim - 1))
        with torch.no_grad():
            each = None if forcing is None else forcing[::count]
            inside = model.interpolate(past[::count], end[::count], here[::count], each, streams.first(count))
            inside = inside.repeat_interleave(count, 0)
        start = torch.where((place == 0).reshape(column), first, inside)
        guess = model.predict(start, here, past, forcing, streams, forecaster)
        total = self.reconstruction * self.scored(guess, end)
        if self.lookahead:
            ahead = model.interpolate(past, guess, there, forcing, streams)
            second = model.predict(ahead, there.clamp(max=model.times[-1]), past, forcing, streams, forecaster)
            n = len(model.times)
            weight = (place < n - 1)[::count].to(total) * self.lookahead * n / (n - 1)
            total = total + weight * self.scored(second, end)
        return total


class LeadLoss(WindowLoss):
    """States at one random lead, by a network that is told the lead.

    Arguments:
        channels: Prognostic channels.
        horizon: h.
        window: Past states.
        score: Squared error by default.
    """

    def __init__(self, channels: int, horizon: int, window: int = 1, score: AnyScore | None = None) -> None:
        super().__init__(channels, window, score or SquaredError(), 1, horizon + 1)

    def losses(
        self, network: nn.Module, x: Tensor, forcing: Tensor | None, place: Tensor, streams: SeededStreams
    ) -> Tensor:
        parts = [] if self.window == 1 else [x[:, : self.window - 1].flatten(1, 2)]
        parts += [] if forcing is None else [at_time(forcing, place, self.window)]
        conditions = torch.cat(parts, 1) if parts else None
        guess = cast(Predictor, network)(x[:, self.window - 1], place, streams, conditions)
        return self.scored(guess, _at(x, place + self.window - 1))


class BlockLoss(WindowLoss):
    r"""All h states of a call; of several calls in a row, each from the states that the last one drew.

    With ``blocks`` K > 1 every member is a roll-out of K calls, and all K h states are scored: their law given
    :math:`x_t` is a proper target too. Gradients pass through the drawn states, so an error that the next call
    would amplify counts where it arises. Windows have window + K h times.

    Arguments:
        channels: Prognostic channels.
        horizon: h.
        window: Past states.
        score: `CRPS` by default.
        blocks: K.
    """

    def __init__(
        self, channels: int, horizon: int, window: int = 1, score: AnyScore | None = None, blocks: int = 1
    ) -> None:
        super().__init__(channels, window, score or CRPS(), 0, 1)
        if blocks < 1:
            raise ValueError(f"blocks must be at least 1, got {blocks}.")
        self.horizon, self.blocks = horizon, blocks

    def losses(
        self, network: nn.Module, x: Tensor, forcing: Tensor | None, place: Tensor, streams: SeededStreams
    ) -> Tensor:
        past, guesses = x[:, : self.window], []
        for first in range(0, self.blocks * self.horizon, self.horizon):
            parts = [] if self.window == 1 else [past[:, :-1].flatten(1, 2)]
            parts += [] if forcing is None else [forcing[:, first : first + self.window + self.horizon].flatten(1, 2)]
            conditions = torch.cat(parts, 1) if parts else None
            guesses.append(cast(Predictor, network)(past[:, -1], place, streams, conditions))
            past = torch.cat([past, guesses[-1].unflatten(1, (self.horizon, -1)).to(past)], 1)[:, -self.window :]
        return self.scored(torch.cat(guesses, 1), x[:, self.window :].flatten(1, 2))
