r"""What all integrators share: levels, start, batches of members, watch for numbers that are not finite.

An integrator carries a state from :math:`u = \sigma_0 \epsilon` at the largest noise level to level zero, and knows the
law it draws from only through a denoiser :math:`D(u, \sigma) = E[u_0 | u]`. The denoiser of a prior gives draws from
the prior; the conditional denoiser of `scidiff.posterior` gives draws from a posterior.

In the files of this folder a step goes from level :math:`a = \sigma_i` to :math:`b = \sigma_{i+1}`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Generator, Tensor

from scidiff.errors import NumericalError
from scidiff.inference import Cost, Ensemble
from scidiff.protocols import Callback, Denoiser, Prior
from scidiff.rng import Streams, member_indices, root_seed
from scidiff.schedules import Schedule, describe, karras

__all__ = ["Correction", "Path", "Sampler", "batches", "level"]

Correction = Callable[[Tensor, float], tuple[Tensor, Tensor]]
"""``correct(u, sigma)``: the state at a level, corrected, and the denoised state before (`PredictorCorrector`)."""


def level(u: Tensor, sigma: float) -> Tensor:
    """The noise level as a scalar tensor beside ``u``, filled on the device (no copy from the host)."""
    return torch.full((), sigma, dtype=u.dtype, device=u.device)


def batches(members: Sequence[int], batch_size: int | None) -> list[Sequence[int]]:
    """Splits the members to draw into groups that are computed at once."""
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    size = batch_size or len(members)
    return [members[i : i + size] for i in range(0, len(members), size)]


class Path:
    """The steps (a, b) along a sequence of levels, and what follows each of them: correction and report.

    The sum of a state, which tells whether it is finite, stays on the device and is read every ``every`` steps, so that
    a graphics processor is not made to wait at each step; the error still names the level where it happened first.
    """

    def __init__(
        self,
        name: str,
        levels: Sequence[float],
        callback: Callback | None = None,
        every: int = 16,
        correct: Correction | None = None,
    ) -> None:
        self.name, self.levels, self.callback, self.every = name, list(levels), callback, every
        self.correct = correct
        self.before: Tensor | None = None
        self.flags: list[tuple[float, Tensor]] = []
        self.done = 0

    def __len__(self) -> int:
        return len(self.levels) - 1

    def __iter__(self) -> Iterator[tuple[float, float]]:
        return pairwise(self.levels)

    def report(self, u: Tensor) -> Tensor:
        """Corrects the state after a step (not at level zero), notes it, calls the callback, returns the state."""
        start = self.levels[self.done]
        self.done += 1
        if self.correct is not None and self.levels[self.done] > 0:
            u, self.before = self.correct(u, self.levels[self.done])
        self.flags.append((start, u.sum()))  # not finite if an entry is not; the cheapest test
        if len(self.flags) == self.every or self.done == len(self):
            finite = torch.stack([total for _, total in self.flags]).isfinite().tolist()
            for (sigma, _), good in zip(self.flags, finite, strict=True):
                if not good:
                    raise NumericalError(
                        f"{self.name}: the state is not finite after the step from noise level {sigma:.4g}; "
                        "check the forward model and the noise level of the data, or take more steps."
                    )
            self.flags.clear()
        if self.callback is not None:
            self.callback(self.done, len(self), self.levels[self.done], u)
        return u


@dataclass(frozen=True, repr=False)
class Sampler(ABC):
    """An integrator; subclasses are frozen dataclasses whose fields are the parameters of the method.

    Arguments:
        steps: Budget of denoiser calls per member. One-call methods make exactly ``steps`` steps; `Heun` says how it
            divides the budget.
        schedule: Noise levels as a function of the number of steps, from `scidiff.schedules`.
    """

    steps: int = 64
    schedule: Schedule = karras

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}.")
        levels = self.levels()
        if any(b >= a for a, b in pairwise(levels)) or levels[-1] != 0:
            raise ValueError("a schedule must decrease and end at 0; take one of scidiff.schedules.")

    def __repr__(self) -> str:
        return describe(self)

    @property
    def intervals(self) -> int:
        """Number of steps from one noise level to the next."""
        return self.steps

    @property
    def calls(self) -> int:
        """Number of denoiser calls per member that a run makes."""
        return self.steps

    def levels(self) -> list[float]:
        """The noise levels from the largest to zero."""
        return self.schedule(self.intervals).tolist()

    def path(self, callback: Callback | None = None, correct: Correction | None = None) -> Path:
        """The steps of one run."""
        return Path(type(self).__name__, self.levels(), callback, correct=correct)

    def start(self, streams: Streams, shape: Sequence[int], device: torch.device | str, dtype: torch.dtype) -> Tensor:
        r"""The first state :math:`\sigma_0\epsilon` (rows, \*shape)."""
        return self.levels()[0] * streams.randn(shape, device, dtype)

    def denoiser(self, prior: Prior, cost: Cost) -> Denoiser:
        """The denoiser of a prior that `integrate` is given; it counts its calls."""

        def denoise(u: Tensor, sigma: Tensor) -> Tensor:
            cost.denoiser += 1
            return prior.denoise(u, sigma)

        return denoise

    @abstractmethod
    def integrate(
        self,
        denoise: Denoiser,
        u: Tensor,
        streams: Streams,
        callback: Callback | None = None,
        correct: Correction | None = None,
    ) -> Tensor:
        r"""Carries ``u`` (rows, \*S) from the first noise level to zero.

        Arguments:
            denoise: ``D(u, sigma)`` with a scalar ``sigma``; of a prior or of a posterior.
            u: State at the first noise level, see `start`.
            streams: Source of all random numbers, one stream per row.
            callback: Called as ``callback(step, steps, sigma, u)`` after each step, with the level just reached.
            correct: Applied to the state after each step but the last one, before the callback.

        Raises:
            NumericalError: The state left the finite numbers; the message names method and noise level.
        """

    def __call__(
        self,
        prior: Prior,
        shape: Sequence[int] | None = None,
        members: int | Sequence[int] = 16,
        generator: Generator | None = None,
        batch_size: int | None = None,
        callback: Callback | None = None,
    ) -> Ensemble:
        r"""Draws from the prior.

        The state has the device and type of ``prior.device`` and ``prior.dtype`` where the prior has them, else the
        CPU and torch's default type.

        Arguments:
            prior: Law to draw from.
            shape: Shape of one state ``u``; needed when the prior takes any size.
            members: Number of draws, or their indices.
            generator: Its state seeds the run and is not advanced; None takes fresh entropy.
            batch_size: Members computed at once; None takes all.
            callback: Called after each step of each batch.

        Returns:
            Ensemble with samples (M, 1, \*X).
        """
        own = prior.shape
        if shape is None and own is None:
            raise ValueError("this prior takes any size: give shape=(channels, height, width).")
        if shape is not None and own is not None and tuple(shape) != tuple(own):
            raise ValueError(f"the prior's state has shape {tuple(own)}, but shape={tuple(shape)} was given.")
        size = tuple(shape if shape is not None else own or ())
        device = getattr(prior, "device", torch.device("cpu"))
        dtype = getattr(prior, "dtype", torch.get_default_dtype())
        root, indices, parts, cost = root_seed(generator), member_indices(members), [], Cost()
        for group in batches(indices, batch_size):
            cost, streams = Cost(), Streams(root, group)
            denoise = self.denoiser(prior, cost)
            with torch.no_grad():
                u = self.integrate(denoise, self.start(streams, size, device, dtype), streams, callback)
                parts.append(prior.decode(u)[:, None])
        return Ensemble(torch.cat(parts), cost, {"seed": root, "members": indices, "sampler": repr(self)})
