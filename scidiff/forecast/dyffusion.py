r"""DYffusion: diffusion in which interpolation in time takes the place of added noise.

A forecaster F guesses the state h steps ahead, a stochastic interpolator I (trained before, frozen) goes back from the
guess to a state nearer by, from which F guesses again. With times :math:`i_0 = 0 < ... < i_{N-1}` (`schedule`):

.. code-block:: text

    x = x_t
    for n = 0 ... N-1:
        e = F(x, i_n)                                               guess of x_{t+h}
        if n = N-1: x_{t+h} = e; stop
        cold:   x = x + I(x_t, e, i_{n+1} | xi) - I(x_t, e, i_n | xi')      the last term is x itself at i_n = 0
        naive:  x = I(x_t, e, i_{n+1} | xi)
        where i_{n+1} is whole, x is the forecast at that lead
    refine: for j = 1 ... h-1:  x_{t+j} = I(x_t, e, j | xi'')

Cold sampling moves x by the *difference* of two interpolations, in which errors common to both cancel. It costs
N + (2N - 3) = 3 (N - 1) network calls, h - 1 more with refinement; the two interpolations of a step go through the
network as one call of twice the rows.

**Which one with networks that are themselves draws** (trained by a score, `scidiff.forecast.losses`): naive. If F
draws from :math:`p(x_{t+h} | x)` and I from :math:`p(x_{t+i} | x_t, x_{t+h})` of a Markov process, the naive x has
exactly the law :math:`p(x_{t+i} | x_t)` at every lead, by induction. Cold sampling adds an increment that is too
smooth and is narrower: for Brownian motion with h = 4 and one shared :math:`\xi`, its variance at lead 2 is 1.77
instead of 2. Cold sampling is made for networks that are nearly deterministic, whose errors repeat themselves.

References:
    Rühling Cachay, Zhao, Joren, Yu, DYffusion: a dynamics-informed diffusion model for spatiotemporal forecasting,
    2023, arXiv:2306.01984, algorithms 1 and 2. Bansal et al., Cold diffusion: inverting arbitrary image transforms
    without noise, 2022, arXiv:2208.09392 (cold sampling).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from scidiff.forecast.base import Correct, Forecaster, streams_of
from scidiff.forecast.draws import Twice
from scidiff.forecast.forcing import at_time
from scidiff.forecast.interpolator import Interpolator, Predictor
from scidiff.forecast.schedule import position, sampling_times, training_times
from scidiff.nn.stochastic import Draws
from scidiff.rng import Streams

__all__ = ["DYffusion"]

CONDITIONING = ("none", "data", "data+noise")


class DYffusion(Forecaster):
    r"""Forecasts by the two networks of DYffusion.

    Arguments:
        forecaster: :math:`F_\theta`.
        interpolator: :math:`I_\phi`; it is frozen here.
        auxiliary_steps: k of the training schedule.
        schedule: ``before_t1_only`` or ``linear``, see `scidiff.forecast.schedule`.
        sampling_schedule: Which of its times sampling uses; None for all.
        sampling: ``cold`` or ``naive``.
        conditioning: What F sees besides its input: ``none``; ``data``, the past states; ``data+noise``,
            :math:`w x_t + (1 - w) \epsilon` with :math:`w = n/(N-1)` and fresh noise every call.
        cold_last_step: Take the difference of interpolations in the last step too.
        refine: Replace the intermediate leads by interpolations to the last guess.
        shared_masks: Both interpolations of a step use the same random numbers.
        forecaster_noise: F keeps its randomness in sampling (published: only in training).
        forcing_at: ``target``: F is given the forcing of t + h and I that of t + i; ``start``: F that of its input's
            time t + i and I that of t.
    """

    parts = ("forecaster", "interpolator")

    def __init__(
        self,
        forecaster: Predictor,
        interpolator: Interpolator,
        *,
        auxiliary_steps: int = 0,
        schedule: str = "before_t1_only",
        sampling_schedule: str | Sequence[float] | None = None,
        sampling: str = "cold",
        conditioning: str = "none",
        cold_last_step: bool = False,
        refine: bool = False,
        shared_masks: bool = False,
        forecaster_noise: bool = False,
        forcing_at: str = "target",
    ) -> None:
        super().__init__()
        for name, value, known in (
            ("sampling", sampling, ("cold", "naive")),
            ("conditioning", conditioning, CONDITIONING),
            ("forcing_at", forcing_at, ("target", "start")),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}; got {value!r}.")
        self.forecaster, self.interpolator = forecaster, interpolator.freeze()
        self.horizon, self.window = interpolator.horizon, interpolator.window
        self.auxiliary_steps, self.schedule, self.sampling_schedule = auxiliary_steps, schedule, sampling_schedule
        self.sampling, self.conditioning, self.cold_last_step = sampling, conditioning, cold_last_step
        self.refine, self.shared_masks, self.forecaster_noise = refine, shared_masks, forecaster_noise
        self.forcing_at = forcing_at
        self.times = training_times(self.horizon, auxiliary_steps, schedule)
        self.stops = sampling_times(self.times, sampling_schedule)

    @property
    def config(self) -> dict[str, object]:
        """The arguments besides the networks."""
        names = "auxiliary_steps schedule sampling_schedule sampling conditioning cold_last_step refine shared_masks"
        return {n: getattr(self, n) for n in [*names.split(), "forecaster_noise", "forcing_at"]}

    @property
    def network_calls(self) -> int:
        """3 (N - 1) for cold sampling, 2 N - 1 for naive; one more for a cold last step, h - 1 more if refining."""
        n = len(self.stops)
        steps = 3 * (n - 1) + self.cold_last_step if self.sampling == "cold" else 2 * n - 1
        return steps + (self.horizon - 1) * self.refine

    def predict(
        self,
        x: Tensor,
        time: Tensor,
        past: Tensor,
        forcing: Tensor | None,
        streams: Draws | None,
        forecaster: Predictor | None = None,
    ) -> Tensor:
        r"""F with its conditions: states (B, C, \*grid) at ``time`` (B,) -> guesses of the state at h.

        Arguments:
            x, time: Where the guess starts.
            past: The states of the call, (B, window C, \*grid).
            forcing: Of the whole window, as in `sample`, or None.
            streams: Of the rows. ``data+noise`` draws from them even when F itself is deterministic.
            forecaster: Used in the place of the model's own, in training.
        """
        parts: list[Tensor] = []
        if self.conditioning == "data":
            parts.append(past)
        elif self.conditioning == "data+noise":
            if streams is None:
                raise ValueError("conditioning='data+noise' needs streams.")
            places = [position(self.times, t) / max(1, len(self.times) - 1) for t in time.tolist()]
            w = torch.tensor(places, dtype=x.dtype, device=x.device).reshape(-1, *(1,) * (x.ndim - 1))
            parts.append(w * past + (1 - w) * streams.randn(past.shape[1:], x.device, x.dtype))
        if forcing is not None:
            when = torch.full_like(time, self.horizon) if self.forcing_at == "target" else time
            parts.append(at_time(forcing, when, self.window))
        noise = streams if self.forecaster_noise or forecaster is not None else None
        return (forecaster or self.forecaster)(x, time, noise, torch.cat(parts, 1) if parts else None)

    def interpolate(
        self, past: Tensor, end: Tensor, time: Tensor, forcing: Tensor | None, streams: Draws | None
    ) -> Tensor:
        """I with its forcing: the state at ``time`` (B,)."""
        if forcing is not None:
            when = time if self.forcing_at == "target" else torch.zeros_like(time)
            forcing = at_time(forcing, when, self.window)
        return self.interpolator(past, end, time, streams, forcing)

    @torch.no_grad()
    def sample(
        self,
        state: Tensor,
        forcing: Tensor | None = None,
        *,
        generator: Generator | Streams | None = None,
        correct: Correct | None = None,
        lead_times: Sequence[float] | None = None,
    ) -> Tensor:
        r"""Draws the next states of each row, see the module.

        Arguments:
            state, forcing, generator, correct: As in `Forecaster.sample`.
            lead_times: Leads to return in the place of 1 ... h, fractions allowed. A lead at which sampling does not
                stop is interpolated to the last guess, at one network call more.

        Returns:
            (B, leads, C, \*grid).
        """
        streams, h = streams_of(generator, len(state)), self.horizon
        leads = [float(t) for t in (lead_times if lead_times is not None else range(1, h + 1))]
        if not all(0 < t <= h for t in leads):
            raise ValueError(f"lead_times must lie in (0, {h}], got {leads}.")
        fix = correct or (lambda x, _: x)
        past, x = state[:, -self.window :].flatten(1, 2), state[:, -1]
        # Of the two interpolations of a cold step, which go through the network as one batch.
        pasts = past.repeat(2, *(1,) * (past.ndim - 1)) if self.sampling == "cold" else past
        forced = None if forcing is None else torch.cat([forcing, forcing])
        twice = Twice(streams, self.shared_masks)
        found: dict[float, Tensor] = {}

        def full(time: float) -> Tensor:
            return x.new_full((len(x),), time)

        for here, there in zip(self.stops, [*self.stops[1:], None], strict=True):
            end = fix(self.predict(x, full(here), past, forcing, streams), h)
            if there is None:
                if self.cold_last_step and here > 0:
                    end = fix(x + end - self.interpolate(past, end, full(here), forcing, streams), h)
                found[float(h)] = end
            elif self.sampling == "naive" or here == 0:
                x = fix(self.interpolate(past, end, full(there), forcing, streams), there)
            else:
                both = torch.cat([full(there), full(here)])
                ahead, behind = self.interpolate(pasts, torch.cat([end, end]), both, forced, twice).chunk(2)
                x = fix(x + ahead - behind, there)
            if there is not None:
                found[there] = x
        end = found[float(h)]
        if self.refine:
            found = {float(h): end}
        whole = {float(j) for j in range(1, h)} if self.refine and lead_times is None else set()
        for lead in sorted({*leads, *whole} - found.keys()):
            found[lead] = fix(self.interpolate(past, end, full(lead), forcing, streams), lead)
        return torch.stack([found[lead] for lead in leads], dim=1)
