r"""Who computes the cells: this process, or several beside it.

An engine takes a function and the cells and yields ``(index, record)`` as they finish, in any order. A cell does not
know where it runs: the records are the same with every engine (times and memory aside).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from typing import Any

__all__ = ["Engine", "processes", "serial"]

Work = Callable[[Any], dict[str, Any]]
Engine = Callable[[Work, Sequence[Any]], Iterator[tuple[int, dict[str, Any]]]]

ATTEMPTS = 3
"""How often cells are handed out again after a worker died."""


def serial(work: Work, cells: Sequence[Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """One after the other, here."""
    for index, cell in enumerate(cells):
        yield index, work(cell)


def processes(workers: int, threads: int = 1) -> Engine:
    """Several processes of this machine with so many threads each. Cells of a worker that died are handed out again.

    Raises:
        ValueError: fewer than one worker or thread.
        RuntimeError: workers keep dying; a cell that always kills its worker is named.
    """
    if workers < 1 or threads < 1:
        raise ValueError(f"at least one worker and one thread are needed, got {workers} and {threads}.")

    def run(work: Work, cells: Sequence[Any]) -> Iterator[tuple[int, dict[str, Any]]]:
        todo = dict(enumerate(cells))
        others = set(active_children())
        for _ in range(ATTEMPTS):
            with ProcessPoolExecutor(workers, get_context("spawn"), _limit, (threads,)) as pool:
                waiting = {pool.submit(work, cell): index for index, cell in todo.items()}
                try:
                    for future in as_completed(waiting):
                        index = waiting[future]
                        record = future.result()
                        del todo[index]
                        yield index, record
                except BrokenProcessPool:
                    continue
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    ours = set(active_children()) - others
                    for worker in ours:
                        worker.terminate()  # a cell may take hours, and nobody waits for it any more
                    for worker in ours:
                        worker.join()
                    raise
            return
        left = ", ".join(str(getattr(cell, "label", cell)) for cell in list(todo.values())[:3])
        raise RuntimeError(f"workers died {ATTEMPTS} times (out of memory?); not computed: {left}.")

    return run


def _limit(threads: int) -> None:
    """Called in a new worker."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    import torch

    torch.set_num_threads(threads)
