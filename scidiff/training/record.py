"""The log of a run, and the watch over its loss.

Losses stay on the device until a line is due. A spike is judged against the lines before it, those of a resumed run
included, before anything is written over the last good checkpoint.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor

from scidiff.errors import NumericalError
from scidiff.training.config import TrainingConfig

__all__ = ["Record"]

_WINDOW = 10
"""Lines that a spike is compared with; with fewer than five there is no verdict."""


class Record:
    """Collects losses and gradient norms, writes lines, raises when a run diverges.

    Arguments:
        path: ``log.jsonl``.
        done: Steps of the checkpoint; later lines are dropped, so that a resumed log reads like an unbroken one.
        config: The run's configuration.
        lead: Whether this process writes.
    """

    def __init__(self, path: Path, done: int, config: TrainingConfig, lead: bool) -> None:
        self.path, self.config, self.lead = path, config, lead
        self.rows: list[tuple[Tensor, Tensor]] = []
        self.past = _trim(path, done) if lead else []
        self.clock = time.perf_counter()

    def note(self, loss: Tensor, norm: Tensor) -> None:
        """After each step."""
        self.rows.append((loss, norm))

    def restart(self) -> None:
        """Leaves the time of a checkpoint out of the seconds per step."""
        self.clock = time.perf_counter()

    def check(self, step: int, checkpoint: Path) -> tuple[float, float]:
        """The means of loss and gradient norm since the last line (zero just after one).

        Raises:
            NumericalError: They are not finite, or the loss is far above that of the last lines.
        """
        if not self.rows:
            return 0.0, 0.0
        loss, norm = (torch.stack(v).mean().item() for v in zip(*self.rows, strict=True))
        kept = f"the last good state is {checkpoint}" if checkpoint.exists() else "there is no checkpoint yet"
        where = f"training diverged between steps {step - len(self.rows)} and {step}"
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise NumericalError(
                f"{where} (loss {loss}, gradient norm {norm}); {kept}: "
                "resume with a smaller learning_rate or bf16 = false, and look for NaN and infinities in the data."
            )
        if len(self.past) >= _WINDOW // 2:
            usual = statistics.median(self.past[-_WINDOW:])
            if loss > self.config.spike * abs(usual):
                raise NumericalError(
                    f"{where}: the loss is {loss:.4g}, usually {usual:.4g}, a jump by {loss / abs(usual):.3g}; {kept}: "
                    "resume with a smaller learning_rate, or raise training.spike if such jumps are expected."
                )
        return loss, norm

    def line(self, step: int, checkpoint: Path) -> float:
        """Writes a line and returns the mean loss."""
        loss, norm = self.check(step, checkpoint)
        seconds = (time.perf_counter() - self.clock) / len(self.rows)
        rate = self.config.rate(step - 1)
        self.append({"step": step, "loss": loss, "gradient": norm, "rate": rate, "seconds": seconds})
        self.past.append(loss)
        self.rows = []
        self.restart()
        return loss

    def append(self, row: dict[str, object]) -> None:
        """Writes any line."""
        if self.lead:
            with open(self.path, "a") as file:
                file.write(json.dumps(row) + "\n")


def _trim(log: Path, done: int) -> list[float]:
    """Drops lines of steps that the checkpoint does not hold and returns the losses of the others."""
    if not log.exists():
        return []
    rows = [(line, _parsed(line)) for line in log.read_text().splitlines()]
    kept = [(line, row) for line, row in rows if done and row is not None and row["step"] <= done]
    log.write_text("".join(line + "\n" for line, _ in kept))
    return [float(row["loss"]) for _, row in kept if row is not None and "loss" in row]


def _parsed(line: str) -> dict | None:
    try:
        row = json.loads(line)
        return {**row, "step": int(row["step"])}
    except (json.JSONDecodeError, KeyError, TypeError):
        return None  # the last line of a killed run may be cut
