"""How much slower than its bare FFTs is a blur, and how does it compare with deepinv's?

All ratios are measured in one process with a fixed number of threads; times are medians over interleaved repeats. The
two libraries' numbers are compared before they are timed. "Bare" is the real FFT of the operator's own grid and back.
Usage: python benchmarks/blur.py [--side 256] [--kernel 27] [--repeats 60] [--threads 1]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from scidiff.operators.blur import BOUNDARIES, blur

THEIRS = {"valid": "valid", "periodic": "circular", "zero": "constant"}  # theirs reflects without the border entry


def medians(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of every function, called in turns so that a busy machine slows all alike."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(repeats + 3):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if repeat >= 3:  # the first calls plan the transforms
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def bare(x: Tensor) -> Tensor:
    return torch.fft.irfftn(torch.fft.rfftn(x, dim=(-2, -1)), s=x.shape[-2:], dim=(-2, -1))


def deepinv_blur(kernel: Tensor, boundary: str) -> tuple[Callable, Callable] | None:
    """Forward and adjoint by FFT, the fastest that deepinv 0.5 offers for large kernels."""
    from deepinv.physics import Blur

    if boundary not in THEIRS:
        return None
    physics = Blur(filter=kernel[None, None], padding=THEIRS[boundary], use_fft=True)
    return physics.A, physics.A_adjoint


def measure(boundary: str, side: int, size: int, batch: int, repeats: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(0)
    kernel = torch.rand(size, size, generator=generator)
    kernel /= kernel.sum()
    x = torch.randn(batch, 1, side, side, generator=generator)
    ours = blur(kernel, (side, side), boundary)
    y = ours(x)
    core = getattr(ours, "_filter" if boundary != "periodic" else "_blur")
    z = torch.randn(batch, 1, *core.grid, generator=generator)
    functions: dict[str, Callable[[], object]] = {
        "bare": lambda: bare(z),
        "ours": lambda: ours(x),
        "ours adjoint": lambda: ours.adjoint(y),
    }
    theirs = deepinv_blur(kernel, boundary)
    if theirs is not None:
        forward, adjoint = theirs
        for a, b in ((y, forward(x)), (ours.adjoint(y), adjoint(y))):
            error = float((a - b).norm() / a.norm())
            assert error < 1e-5, f"{boundary}: the libraries differ by {error:.2g}"
        functions |= {"deepinv": lambda: forward(x), "deepinv adjoint": lambda: adjoint(y)}
    with torch.no_grad():
        seconds = medians(functions, repeats)
    return {"bare_ms": 1e3 * seconds["bare"], **{k: v / seconds["bare"] for k, v in seconds.items() if k != "bare"}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("side", 256), ("kernel", 27), ("repeats", 60), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"fields {options.side} x {options.side}, kernel {options.kernel} x {options.kernel}, float32, ", end="")
    print(f"{options.threads} thread(s); times over those of the bare FFTs")
    columns = ("ours", "ours adjoint", "deepinv", "deepinv adjoint")
    print(f"{'boundary':12s}{'batch':>6s}{'bare [ms]':>11s}" + "".join(f"{c:>17s}" for c in columns))
    for boundary in BOUNDARIES:
        for batch in (1, 8):
            row = measure(boundary, options.side, options.kernel, batch, options.repeats)
            values = "".join(f"{row[c]:17.2f}" if c in row else f"{'':>17s}" for c in columns)
            print(f"{boundary:12s}{batch:6d}{row['bare_ms']:11.2f}{values}", flush=True)


if __name__ == "__main__":
    main()
