"""How far a sampler is, on standard error: a bar, plain lines, or nothing."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from scidiff.protocols import Callback

__all__ = ["STYLES", "Progress"]

STYLES = ("auto", "bar", "plain", "none")
SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Counts members and, inside a batch, steps.

    Arguments:
        style: ``bar`` redraws one line, ``plain`` writes a line every few seconds (for logs), ``auto`` is ``bar`` on a
            terminal and ``plain`` elsewhere, ``none`` is silent.
        members: Members to draw in all.
        done: Members that exist already.
        callback: Called as well, with the same arguments.
        unit: What is counted, where it is not members.

    Raises:
        ValueError: unknown style.
    """

    def __init__(
        self,
        style: str,
        members: int,
        done: int = 0,
        callback: Callback | None = None,
        unit: str = "members",
    ) -> None:
        if style not in STYLES:
            raise ValueError(f"progress must be one of {', '.join(STYLES)}, got {style!r}.")
        if style == "auto":
            style = "bar" if sys.stderr.isatty() else "plain"
        self.style, self.members, self.done, self.first = style, members, done, done
        self.callback, self.unit = callback, unit
        self.batch = 0
        self.started = self.shown = time.monotonic()
        self.bar: Any = None

    @contextlib.contextmanager
    def showing(self) -> Iterator[Progress]:
        """Opens and closes the bar."""
        if self.style == "bar":
            from tqdm import tqdm

            shape = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
            self.bar = tqdm(total=float(self.members), initial=self.done, file=sys.stderr, bar_format=shape)
        try:
            yield self
        finally:
            if self.bar is not None:
                self.bar.close()

    def skip(self, done: int) -> None:
        """So many members exist already."""
        self.first += done - self.done
        self.done = done

    def start(self, batch: int) -> None:
        """A batch of so many members begins."""
        self.batch = batch

    def finish(self, now: bool = True) -> None:
        """The batch is complete and kept; ``now=False`` for many small ones, which do not get a line each."""
        self.done += self.batch
        self.batch = 0
        self._show(f"{self.done} of {self.members} {self.unit}", 0.0, now=now or self.done >= self.members)

    def __call__(self, step: int, steps: int, sigma: float, u: Tensor) -> None:
        """So many steps of a sampler are done."""
        part = self.batch * step / max(steps, 1)
        text = f"{self.done} of {self.members} {self.unit}, step {step} of {steps}, sigma {sigma:.3g}"
        self._show(text, part)
        if self.callback is not None:
            self.callback(step, steps, sigma, u)

    def _show(self, text: str, part: float, now: bool = False) -> None:
        if self.bar is not None:
            self.bar.set_description_str(text, refresh=False)
            self.bar.update(self.done + part - self.bar.n)
        elif self.style == "plain" and (now or time.monotonic() - self.shown >= SECONDS_BETWEEN_LINES):
            self.shown = time.monotonic()
            progress = self.done + part - self.first
            left = (self.shown - self.started) * (self.members - self.done - part) / progress if progress else 0.0
            line = f"{text}, {self.shown - self.started:.0f} s, about {left:.0f} s left\n"
            sys.stderr.write(line)
            sys.stderr.flush()
