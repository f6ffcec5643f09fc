"""How a prior is trained: the table ``[training]`` of a configuration file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, fields

__all__ = ["TrainingConfig"]

_ENDS = ("steps", "log_every", "checkpoint_every", "spike", "snapshots")
"""Do not change what a step does."""

_ADDED = ("accumulate", "condition_dropout", "compile", "channels_last", "averages", "weight_decay")
"""Younger than some checkpoints: at their defaults they say nothing."""


@dataclass(frozen=True)
class TrainingConfig:
    """How to train.

    Arguments:
        steps: Optimiser steps.
        batch: Rows of the global batch at the first crop; larger crops take fewer rows, so that a step keeps its cost.
        crops: Grids to train on, cycled from step to step.
        learning_rate: Peak rate of Adam, reached after ``warmup`` steps, constant to step ``decay``, then falling as
            1/sqrt(step). It does not depend on ``steps``: a finished run can be continued with more of them.
        clip: Largest norm of the gradient.
        ema: Exponent of the power-function average, see `scidiff.training.ema`.
        noise_mean, noise_std: Mean and standard deviation of ln sigma, for the default loss.
        bf16: Compute the network in bfloat16 (weights and loss stay in float32).
        seed: Root of all random numbers, initial weights included.
        log_every, checkpoint_every: In steps.
        accumulate: Parts into which the rows of a process are split, to save memory; the gradient is that of all rows.
        condition_dropout: Probability that a row is trained without its condition, for classifier-free guidance.
        compile: Compile the network (``torch.compile``).
        channels_last: Store 2-D and 3-D weights and fields with the channels last.
        averages: Exponents of further averages that are stored in snapshots, see `scidiff.training.posthoc`.
        snapshots: Steps between snapshots of the averages; 0 stores none.
        weight_decay: Fraction of a weight removed per step and unit of learning rate (AdamW).
        spike: Stop when the mean loss between two log lines exceeds this multiple of the median of the last ten.
    """

    steps: int
    batch: int = 16
    crops: Sequence[Sequence[int]] = ((64, 64),)
    learning_rate: float = 1e-3
    warmup: int = 200
    decay: int = 2000
    clip: float = 1.0
    ema: float = 16.97
    noise_mean: float = -1.2
    noise_std: float = 1.2
    bf16: bool = True
    seed: int = 0
    log_every: int = 50
    checkpoint_every: int = 500
    accumulate: int = 1
    condition_dropout: float = 0.0
    compile: bool = False
    channels_last: bool = False
    averages: Sequence[float] = ()
    snapshots: int = 0
    spike: float = 10.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "decay", "log_every", "checkpoint_every", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"training.{name} must be at least 1, got {getattr(self, name)}.")
        if self.learning_rate <= 0 or self.clip <= 0 or self.noise_std <= 0:
            raise ValueError("training.learning_rate, clip and noise_std must be positive.")
        if not self.crops or any(min(crop) < 1 for crop in self.crops):
            raise ValueError(f"training.crops must list grids such as [[64, 64]], got {self.crops}.")
        if not 0 <= self.condition_dropout < 1:
            raise ValueError(f"training.condition_dropout must lie in [0, 1), got {self.condition_dropout}.")
        if self.weight_decay < 0:
            raise ValueError(f"training.weight_decay must not be negative, got {self.weight_decay}.")
        if self.spike <= 1:
            raise ValueError(f"training.spike must be more than 1, got {self.spike}.")
        if self.snapshots < 0 or (self.snapshots and not self.averages):
            raise ValueError("training.snapshots needs training.averages, for example [16.97, 6.94].")

    @property
    def identity(self) -> dict[str, object]:
        """What two runs must share for one to continue the other."""
        plain = {f.name: f.default for f in fields(self) if f.default is not MISSING}
        old = {k: v for k, v in asdict(self).items() if k not in _ENDS}
        return {k: v for k, v in old.items() if k not in _ADDED or v != plain[k]}

    def crop(self, step: int) -> tuple[int, ...]:
        """Grid of a step."""
        return tuple(self.crops[step % len(self.crops)])

    def rows(self, step: int) -> int:
        """Rows of the global batch of a step."""
        return max(1, round(self.batch * math.prod(self.crops[0]) / math.prod(self.crop(step))))

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        return self.learning_rate / math.sqrt(max(1.0, step / self.decay))
