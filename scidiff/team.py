"""Processes that work on one task: what `torchrun` starts.

The environment says how many there are (``WORLD_SIZE``) and which one this is (``RANK``). Alone, everything here does
nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["barrier", "joined", "place"]


def place() -> tuple[int, int]:
    """This process's number, counted from 0, and how many there are."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def joined(device: object = "cpu") -> Iterator[tuple[int, int]]:
    """Joins the group that `torchrun` announces, and leaves it; gives this process's number and how many there are.

    Arguments:
        device: Where the processes compute; on GPUs they talk through NCCL.
    """
    rank, size = place()
    if size == 1:
        yield 0, 1
        return
    import torch.distributed as dist

    dist.init_process_group("nccl" if str(device).startswith("cuda") else "gloo")
    try:
        yield rank, size
    finally:
        dist.destroy_process_group()


def barrier() -> None:
    """Waits for the other processes, if there are any."""
    if place()[1] > 1:
        import torch.distributed as dist

        dist.barrier()
