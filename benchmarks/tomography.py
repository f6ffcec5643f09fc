"""How fast are projection and adjoint beside deepinv's Tomography and beside the bytes of the stored matrix?

All times are taken in one process with a fixed number of threads, in turns; each is the least processor time of several
calls, because a busy machine only adds to it. deepinv's adjoint is its default, by differentiation of its forward.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import torch

from scidiff.operators import ParallelBeam


def least(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Least processor seconds of every function, called in turns; the first call of each is left out."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(repeats + 1):
        for name, function in functions.items():
            start = time.process_time()
            function()
            if repeat:
                times[name].append(time.process_time() - start)
    return {name: min(values) for name, values in times.items()}


def measure(size: int, views: int, batch: int, repeats: int) -> dict[str, float]:
    """Milliseconds of both libraries on the same fields, all bins that see any part of the field."""
    from deepinv.physics import Tomography

    generator = torch.Generator().manual_seed(0)
    angles = torch.arange(views) * 180 / views
    ours = ParallelBeam((size, size), angles)
    theirs = Tomography(angles=angles, img_width=size, normalize=False)
    x = torch.rand(batch, 1, size, size, generator=generator)
    y, y_theirs = ours(x), theirs.A(x)
    functions: dict[str, Callable[[], object]] = {
        "read the matrix": lambda: ours._matrices(x.device, x.dtype)[0].values().sum(),  # type: ignore[union-attr]
        "forward": lambda: ours(x),
        "adjoint": lambda: ours.adjoint(y),
        "fbp": lambda: ours.fbp(y),
        "deepinv forward": lambda: theirs.A(x),
        "deepinv adjoint": lambda: theirs.A_adjoint(y_theirs),
    }
    with torch.no_grad():
        return {name: 1e3 * seconds for name, seconds in least(functions, repeats).items()}


def main() -> None:
    """Prints times and ratios for both batches or, with --json, one object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--views", type=int, default=90)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    start = time.process_time()
    operator = ParallelBeam((options.size, options.size), torch.arange(options.views) * 180 / options.views)
    operator._matrices(torch.device("cpu"), torch.float32)
    setup = time.process_time() - start
    weights = operator.matrix("float32").nnz
    table = {}
    if not options.json:
        size = f"{options.size} x {options.size} pixels"
        print(f"{size}, {options.views} views, {torch.get_num_threads()} thread(s), float32")
        print(f"{weights} weights, {16e-6 * weights:.0f} MB; matrix and transpose made in {setup:.2f} s")
    for batch in options.batches:
        row = table[batch] = measure(options.size, options.views, batch, options.repeats)
        if not options.json:
            ratios = {name: row[f"deepinv {name}"] / row[name] for name in ("forward", "adjoint")}
            print(f"batch {batch}", *(f"{name} {value:.1f} ms" for name, value in row.items()), sep="  ")
            print(f"batch {batch}", *(f"{name} {value:.1f} times as fast" for name, value in ratios.items()), sep="  ")
    if options.json:
        print(json.dumps({"threads": torch.get_num_threads(), "torch": torch.__version__, "setup_s": setup, **table}))


if __name__ == "__main__":
    main()
