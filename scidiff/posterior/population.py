r"""Samplers whose members interact: populations of K particles that move together.

Member m is particle ``m % K`` of population ``m // K``. A population is computed as a whole, whichever of its members
are asked for, so member 3 is the same alone, with others, or in another run that is resumed. It also means that
fewer members than K cost as much as K: ``cost`` counts the calls of a population per member returned.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from scidiff.failures import Failure
from scidiff.inference import Cost, Ensemble, Posterior
from scidiff.posterior.base import MemberSampler, Run, largest, losses, remaining, summary
from scidiff.protocols import Callback
from scidiff.rng import Streams, member_indices, root_seed

__all__ = ["PopulationSampler", "piecewise"]


def piecewise(run: Run, function: Callable[..., Tensor], *rows: Tensor) -> Tensor:
    r"""``function(run, *rows)`` for ``run.batch_size`` particles at a time; results are stacked.

    The function sees a run whose posterior has the rows at hand and must treat rows independently and draw no random
    numbers. Calls are counted once, as each row passes once.

    Arguments:
        run: Run of the whole population.
        function: Maps the run of a part and row tensors (part * B, ...) to (part * B, ...).
        rows: Tensors whose first dimension is the K * B rows, particle slowest.
    """
    batch = len(run.streams) // len(run.streams.members)
    total = len(run.streams.members)
    size = min(run.batch_size or total, total)
    if size == total:
        return function(run, *rows)
    single = run.posterior.rows(batch)
    results, cost = [], Cost()
    for first in range(0, total, size):
        count = min(size, total - first)
        part = Run(single.tile(count), run.streams, Cost(), batch_size=run.batch_size)
        part.measurement.tell = _shifted(run, first * batch)
        results.append(function(part, *(r[first * batch : (first + count) * batch] for r in rows)))
        run.measurement.sums.extend(part.measurement.sums)
        run.measurement.failed.update({first * batch + row: f for row, f in part.measurement.failed.items()})
        cost = largest([part, Run(single, run.streams, cost)])
    for name, calls in cost.as_dict().items():
        setattr(run.cost, name, getattr(run.cost, name) + calls)
    return torch.cat(results)


def _shifted(run: Run, first: int) -> Callable[[int, Failure], None]:
    return lambda row, failure: run.failed(first + row, failure)


@dataclass(frozen=True)
class PopulationSampler(MemberSampler):
    """A posterior sampler that moves K particles together.

    Arguments:
        particles: Size K of a population, for each observation.
    """

    particles: int = 256

    def __post_init__(self) -> None:
        if self.particles < 2:
            raise ValueError(f"particles must be at least 2, got {self.particles}.")

    @abstractmethod
    def draw(self, run: Run) -> Tensor:
        r"""The K particles of each observation: (K * B, \*S), particle slowest."""

    def __call__(
        self,
        posterior: Posterior,
        members: int | Sequence[int] = 16,
        generator: Generator | None = None,
        batch_size: int | None = None,
        callback: Callback | None = None,
    ) -> Ensemble:
        r"""Draws an ensemble; see `MemberSampler`. ``batch_size`` limits the particles in the network at once."""
        self.check(posterior)
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        root, indices, K = root_seed(generator), member_indices(members), self.particles
        drawn: dict[int, Tensor] = {}
        runs = []
        for population in dict.fromkeys(m // K for m in indices):
            streams = Streams(root, range(population * K, (population + 1) * K), posterior.batch)
            run = Run(posterior.tile(K), streams, Cost(), callback, batch_size)
            u = self._drawn(run)
            wanted = [m for m in indices if m // K == population]
            u = u.detach().unflatten(0, (K, posterior.batch))[[m % K for m in wanted]]
            with torch.no_grad():
                x = posterior.prior.decode(u.flatten(0, 1)).unflatten(0, (len(wanted), posterior.batch))
            drawn.update(zip(wanted, x, strict=True))
            runs.append(run)
        share = K * len(runs) / len(indices)
        cost = Cost(**{name: round(calls * share) for name, calls in largest(runs).as_dict().items()})
        dropped = {run.streams.members[row // posterior.batch] for run in runs for row in run.dropped}
        kept = remaining(indices, dropped, runs)
        diagnostics = {"seed": root, "members": kept, "sampler": repr(self), "particles": K, **summary(runs)}
        return Ensemble(torch.stack([drawn[m] for m in kept]), cost, diagnostics | losses(runs, indices))
