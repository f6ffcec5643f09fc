r"""What every forecaster promises, in torch terms.

A state is a tensor (B, C, \*grid) in units of the prior: dimensionless, about zero mean and unit variance per channel.
A forecaster turns the last ``window`` states into the next ``horizon`` states, one draw per row. Rows hold members and
initial times alike; what belongs together is known above, in `scidiff.forecast`. Longer forecasts feed the last states
back.

Random numbers come from `Streams`, one generator per row, so a row's forecast does not depend on the rows beside it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Generator, Tensor, nn

from scidiff.rng import Streams, root_seed

__all__ = ["Correct", "Forecaster", "streams_of"]

Correct = Callable[[Tensor, float], Tensor]
r"""A correction of one predicted state: (B, C, \*grid) and its lead, counted in steps from the state that the call
started from (1 is the next step, fractions are between steps) -> the same shape. Boundary conditions, conservation and
positivity are imposed this way, after every predicted step."""


class Forecaster(nn.Module, ABC):
    r"""A law of the next states given the last ones.

    Attributes:
        horizon: Steps h that one call predicts.
        window: Past states it needs.
        stochastic: Whether two calls on the same state differ.
    """

    horizon: int
    window: int = 1
    stochastic: bool = True

    @property
    @abstractmethod
    def network_calls(self) -> int:
        """Calls of networks per row that `sample` makes for one block of `horizon` steps."""

    @abstractmethod
    def sample(
        self,
        state: Tensor,
        forcing: Tensor | None = None,
        *,
        generator: Generator | Streams | None = None,
        correct: Correct | None = None,
    ) -> Tensor:
        r"""Draws the next ``horizon`` states of each row.

        Arguments:
            state: Past states, oldest first, (B, window, C, \*grid).
            forcing: Prescribed fields at the valid times t - window + 1 ... t + horizon,
                (B, window + horizon, K, \*grid), for models that were trained with forcings.
            generator: One stream per row (`Streams`), or a generator that stands for the whole call.
            correct: Applied to every predicted state before it is used further.

        Returns:
            (B, horizon, C, \*grid).
        """


def streams_of(generator: Generator | Streams | None, rows: int) -> Streams:
    """One stream per row: those given, or new ones from a generator that is read, not advanced.

    Raises:
        ValueError: Given streams are not as many as the rows.
    """
    if isinstance(generator, Streams):
        if len(generator) != rows:
            raise ValueError(f"expected {rows} streams, one per row, got {len(generator)}.")
        return generator
    return Streams(root_seed(generator), range(rows))
