r"""Cells on a Dask cluster: many machines, workers that may die, the same records.

The scheduler hands a cell of a worker that died to another one. Cells are written where they are computed, so the
folder of a benchmark must be on a file system that all workers see; without an output folder nothing is written and
records come back over the network.

References:
    Dask: parallel computation with blocked algorithms and task scheduling (Rocklin, 2015).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from scidiff.benchmark.engines import Engine
from scidiff.optional import optional

__all__ = ["connected", "dask"]


def dask(scheduler: str | Any = None, workers: int = 2, threads: int = 1, retries: int = 2) -> Engine:
    """Cells as tasks of Dask distributed.

    Arguments:
        scheduler: Address of a scheduler that runs already (``"tcp://host:8786"``), the file it has written
            (``"scheduler.json"``), a ``distributed.Client``, or None for a cluster of processes on this machine, which
            ends with the run.
        workers: Processes of the local cluster.
        threads: Threads of torch per task.
        retries: How often a cell whose task raised is tried again; cells of dead workers are always handed on.

    Raises:
        MissingPackageError: `distributed` is not installed (extra ``dask``).
        InputError: no scheduler answers at the address.
    """
    distributed = optional("distributed", "dask")

    def run(work: Callable[[Any], dict[str, Any]], cells: Sequence[Any]) -> Iterator[tuple[int, dict[str, Any]]]:
        with connected(scheduler, workers) as client:
            tasks = client.map(_Limited(work, threads), cells, pure=False, retries=retries)
            place = {task.key: index for index, task in enumerate(tasks)}
            try:
                for task, record in distributed.as_completed(tasks, with_results=True):
                    yield place[task.key], record
            except BaseException:
                client.cancel(tasks)
                raise

    return run


@contextmanager
def connected(scheduler: str | Any = None, workers: int = 2) -> Iterator[Any]:
    """A client of a Dask scheduler, for a while; arguments and errors are those of `dask`."""
    distributed = optional("distributed", "dask")
    with ExitStack() as held:
        if scheduler is None:
            cluster = distributed.LocalCluster(
                n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None
            )
            yield held.enter_context(distributed.Client(held.enter_context(cluster)))
        elif isinstance(scheduler, str):
            yield held.enter_context(_connect(distributed, scheduler))
        else:
            yield scheduler


def _connect(distributed: Any, address: str) -> Any:
    from scidiff.errors import InputError

    try:
        if address.endswith(".json"):
            return distributed.Client(scheduler_file=address, timeout="20s")
        return distributed.Client(address, timeout="20s")
    except (OSError, TimeoutError, ValueError) as error:
        raise InputError(
            f"no Dask scheduler answers at {address} ({error}); start one with `dask scheduler`, workers with "
            "`dask worker ADDRESS`, or leave the address out for a cluster of this machine."
        ) from error


class _Limited:
    """The work of a task, on a fixed number of threads."""

    def __init__(self, work: Callable[[Any], dict[str, Any]], threads: int) -> None:
        self.work, self.threads = work, threads

    def __call__(self, cell: Any) -> dict[str, Any]:
        import torch

        torch.set_num_threads(self.threads)
        return self.work(cell)
