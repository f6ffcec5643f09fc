r"""Windows of trajectories of Lorenz' chaotic systems, with noise in every transition.

.. math:: x_{n+1} = \mathrm{RK4}_{\Delta t}(x_n) + \sqrt{\Delta t}\, \epsilon_n, \qquad \epsilon_n \sim N(0, 1),

with the right-hand sides of `scidiff.solvers.lorenz`. States are standardised with fixed numbers, so that priors of
different runs speak of the same ``u``: for Lorenz-63 :math:`(x - (0, 0, 25)) / (8, 9, 8.6)`.

References:
    Score-based data assimilation, Rozet and Louppe, 2023, arXiv:2306.10574 (time step, noise and scaling of
    Lorenz-63). Lorenz, Predictability: a problem partly solved, 1996.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Generator, Tensor

from scidiff.datasets.simulator import Simulator, window
from scidiff.errors import InputError
from scidiff.solvers.lorenz import lorenz63, lorenz96
from scidiff.solvers.stepping import rk4
from scidiff.solvers.transition import Transition

__all__ = ["Lorenz63Windows", "Lorenz96Windows"]


class _Chains(Simulator):
    """Independent stationary chains, computed when first asked for; a tenth is held out.

    ``transition`` and ``start(n, generator)`` say how; ``loc`` and ``scale`` (d,) how states are standardised.
    """

    transition: Transition

    def __init__(self, chains: int, states: int, burn_in: int, dt: float, seed: int) -> None:
        if not (chains >= 2 and states >= 2 and burn_in >= 0 and dt > 0):
            raise ValueError(
                "expected at least 2 chains of 2 states, burn_in >= 0 and dt > 0, got "
                f"{chains}, {states}, {burn_in} and {dt}."
            )
        self.chains, self.states, self.burn_in, self.dt, self.seed = chains, states, burn_in, float(dt), seed

    def start(self, n: int, generator: Generator) -> Tensor:
        """Where chains begin, (n, d)."""
        raise NotImplementedError

    def standardise(self, x: Tensor) -> Tensor:
        """States (..., d) in units of ``u``."""
        return (x - torch.as_tensor(self.loc).to(x)) / torch.as_tensor(self.scale).to(x)

    def simulate(self, n: int, states: int, generator: Generator) -> Tensor:
        """``states`` states in a row of n new chains after ``burn_in`` steps, (n, states, d), float64."""
        x = self.start(n, generator)
        for _ in range(self.burn_in):
            x = self.transition.sample(x, generator)
        return self.transition.trajectory(x, states - 1, generator)

    @cached_property
    def trajectories(self) -> Tensor:
        """All chains (chains, states, d) in units of ``u``, float32; the last tenth is held out."""
        found = self.simulate(self.chains, self.states, Generator().manual_seed(self.seed))
        return self.standardise(found).float()

    @property
    def _apart(self) -> int:
        return max(1, self.chains // 10)

    def _draw(self, pool: Tensor, generator: Generator, crop: tuple[int, ...]) -> Tensor:
        (part,) = window((pool.shape[1],), crop[:1], generator, "a chain")
        item = int(torch.randint(len(pool), (), generator=generator))
        return pool[item, part]

    def __call__(self, generator: Generator, crop: tuple[int, ...]) -> Tensor:
        """One window in units of ``u``, of the chains for training."""
        return self._draw(self.trajectories[: -self._apart], generator, crop)

    @property
    def held_out(self):  # noqa: ANN201 - a source
        return lambda generator, crop: self._draw(self.trajectories[-self._apart :], generator, crop)


class Lorenz63Windows(_Chains):
    r"""Draws (3, T): T states in a row of Lorenz-63.

    Arguments:
        chains, states: Number of chains, and of states kept of each.
        burn_in: Steps before the first kept state.
        dt: Time between two states, :math:`\Delta t`; also the variance of the noise of a transition.
        seed: Of the chains.
    """

    channels = 3
    loc = [0.0, 0.0, 25.0]
    scale = [8.0, 9.0, 8.6]

    def __init__(
        self, chains: int = 1024, states: int = 1024, burn_in: int = 1024, dt: float = 0.025, seed: int = 0
    ) -> None:
        super().__init__(chains, states, burn_in, dt, seed)
        self.transition = Transition(rk4(lorenz63, self.dt), self.dt)

    def start(self, n: int, generator: Generator) -> Tensor:
        e = torch.randn(n, 3, generator=generator, dtype=torch.float64)
        return torch.tensor(self.loc).to(e) + torch.tensor(self.scale).to(e) * e

    def _draw(self, pool: Tensor, generator: Generator, crop: tuple[int, ...]) -> Tensor:
        if len(crop) != 1:
            raise InputError(f"a window of Lorenz-63 has one length, training.crops asks for {tuple(crop)}.")
        return super()._draw(pool, generator, crop).mT

    @property
    def card(self) -> dict[str, Any]:
        return {"variables": ["x", "y", "z"], "dt": self.dt, "law": f"Lorenz-63, transition noise N(0, {self.dt:g})"}


class Lorenz96Windows(_Chains):
    r"""Draws (1, T, N): T states in a row of Lorenz-96, rotated at random along the ring.

    Arguments:
        size: Number N of places on the ring, at least 4.
        forcing: :math:`F`.
        chains, states: Number of chains, and of states kept of each.
        burn_in: Steps before the first kept state.
        dt: Time between two states; also the variance of the noise of a transition.
        seed: Of the chains.
    """

    def __init__(
        self,
        size: int = 40,
        forcing: float = 8.0,
        chains: int = 128,
        states: int = 512,
        burn_in: int = 512,
        dt: float = 0.025,
        seed: int = 0,
    ) -> None:
        super().__init__(chains, states, burn_in, dt, seed)
        if size < 4:
            raise ValueError(f"the ring of Lorenz-96 needs at least 4 places, got {size}.")
        self.size, self.forcing = size, float(forcing)
        # Mean and standard deviation of a place at F = 8 without noise, whatever N.
        self.loc, self.scale = 2.35, 3.65
        self.transition = Transition(rk4(lambda x: lorenz96(x, self.forcing), self.dt), self.dt)

    def start(self, n: int, generator: Generator) -> Tensor:
        return self.forcing + torch.randn(n, self.size, generator=generator, dtype=torch.float64)

    def _draw(self, pool: Tensor, generator: Generator, crop: tuple[int, ...]) -> Tensor:
        if len(crop) != 2 or crop[1] != self.size:
            raise InputError(f"a window of Lorenz-96 is (T, {self.size}), training.crops asks for {tuple(crop)}.")
        field = super()._draw(pool, generator, crop)
        return field.roll(int(torch.randint(self.size, (), generator=generator)), -1)[None]

    @property
    def card(self) -> dict[str, Any]:
        law = f"Lorenz-96, F = {self.forcing:g}, transition noise N(0, {self.dt:g})"
        return {"variables": ["x"], "dt": self.dt, "periodic": True, "law": law}
