"""A time limit for a piece of work.

A sampler that leaves the range of its forward model can keep a solver busy for hours: a flow a hundred times too fast
needs a hundred times the steps. A limit turns that into a failure with a reason.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["within"]


@contextmanager
def within(seconds: float | None) -> Iterator[None]:
    """Raises TimeoutError in the block after so many seconds of wall time; None sets no limit.

    Python is interrupted between two of its own instructions: a single long call into a library ends first.

    Raises:
        ValueError: not a positive number, or not in the main thread of a process with timers (not Windows).
    """
    if seconds is None:
        yield
        return
    if not seconds > 0:
        raise ValueError(f"a time limit must be positive, got {seconds} s.")
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        raise ValueError("a time limit needs the main thread of a process with timers; leave the limit out here.")

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"stopped after {seconds:g} s, the time limit of a cell.")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
