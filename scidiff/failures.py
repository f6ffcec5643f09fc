"""Fields for which a forward model failed: how an operator tells the sampler that called it.

An operator that shall not stop the run at the first field without a solution (`scidiff.operators.BlackBox` with
``on_failure="drop"`` or ``"redraw"``) gives NaN there and reports the field. A sampler listens while it calls an
operator; where nobody listens, the report becomes a warning.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

from scidiff.errors import NumericalError

__all__ = ["POLICIES", "AllDropped", "Failure", "listening", "report"]

POLICIES = ("raise", "drop", "redraw")


@dataclass(frozen=True)
class Failure:
    """One field without a measurement.

    Arguments:
        field: Its index among the fields of the call.
        fields: How many fields the call had.
        message: What the model said.
        policy: What shall become of it, ``"drop"`` or ``"redraw"``.
    """

    field: int
    fields: int
    message: str
    policy: str

    def row(self, rows: int) -> int:
        """The row of a batch that the field belongs to, where each row has the same number of fields (frames, say)."""
        return self.field * rows // self.fields


class AllDropped(NumericalError):
    """No member of a call is left.

    Arguments:
        last: What the forward model said at the last failure.
    """

    def __init__(self, last: str) -> None:
        super().__init__(f"all members were dropped; the last failure: {last}")
        self.last = last


_HEARD: ContextVar[list[Failure] | None] = ContextVar("scidiff_failures", default=None)


@contextlib.contextmanager
def listening() -> Iterator[list[Failure]]:
    """A list that fills with the failures reported inside the block."""
    found: list[Failure] = []
    token = _HEARD.set(found)
    try:
        yield found
    finally:
        _HEARD.reset(token)


def report(failure: Failure) -> None:
    """Tells whoever listens, else warns."""
    heard = _HEARD.get()
    if heard is None:
        warnings.warn(f"field {failure.field} of {failure.fields} has no measurement: {failure.message}", stacklevel=4)
    else:
        heard.append(failure)
