"""How much slower than its bare FFTs is the MRI operator, and how does it compare with deepinv's MultiCoilMRI?

All ratios are measured in one process with a fixed number of threads; times are medians over interleaved repeats.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from scidiff.operators.mri import CartesianMRI, masks


def medians(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of every function, called in turns so that a busy machine slows all alike."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(repeats + 2):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if repeat >= 2:  # the first two calls plan the transforms
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def measure(mask: Tensor, coils: int, batch: int, repeats: int) -> dict[str, float]:
    """Times relative to the bare FFTs of all coils (forward: one fft2, normal: fft2 and ifft2)."""
    from deepinv.physics import MultiCoilMRI

    generator = torch.Generator().manual_seed(0)
    height, width = mask.shape
    maps = torch.randn(coils, height, width, dtype=torch.complex64, generator=generator)
    x = torch.randn(batch, 1, height, width, dtype=torch.complex64, generator=generator)
    ours = CartesianMRI(maps, mask)
    theirs = MultiCoilMRI(mask=mask[None, None].float(), coil_maps=maps[None])
    x_theirs = torch.view_as_real(x[:, 0]).movedim(-1, 1).contiguous()
    y, y_theirs = ours(x), theirs(x_theirs)
    coil_images = torch.randn(batch, coils, height, width, dtype=torch.complex64, generator=generator)
    functions: dict[str, Callable[[], object]] = {
        "fft": lambda: torch.fft.fft2(coil_images, norm="ortho"),
        "ours": lambda: ours(x),
        "ours adjoint": lambda: ours.adjoint(y),
        "ours normal": lambda: ours.normal(x),
        "deepinv": lambda: theirs.A(x_theirs),
        "deepinv adjoint": lambda: theirs.A_adjoint(y_theirs),
        "deepinv normal": lambda: theirs.A_adjoint(theirs.A(x_theirs)),
    }
    with torch.no_grad():
        seconds = medians(functions, repeats)
    bare = seconds.pop("fft")
    ratios = {name: value / bare / (2 if "normal" in name else 1) for name, value in seconds.items()}
    return {"fft_ms": 1e3 * bare, **ratios}


def main() -> None:
    """Prints one table and, with --json, one object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs=2, default=(230, 180))
    parser.add_argument("--coils", type=int, default=8)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    shape = tuple(options.size)
    generator = torch.Generator().manual_seed(1)
    cases = {
        "all points": torch.ones(shape, dtype=torch.bool),
        "random lines 4x": masks.random(shape, 4.0, generator=generator),
        "Poisson disc 8x": masks.poisson_disc(shape, 8.0, calibration=24, generator=generator),
    }
    table = {name: measure(mask, options.coils, options.batch, options.repeats) for name, mask in cases.items()}
    if options.json:
        print(json.dumps({"threads": torch.get_num_threads(), "torch": torch.__version__, **table}))
        return
    print(f"{shape}, {options.coils} coils, batch {options.batch}, {torch.get_num_threads()} thread(s), complex64")
    print("cost in units of the bare FFTs of all coils (one fft2; for `normal` fft2 and ifft2)")
    for name, row in table.items():
        print(f"{name:16s}", *(f"{key} {value:.2f}" for key, value in row.items()), sep="  ")


if __name__ == "__main__":
    main()
