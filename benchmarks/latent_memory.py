"""How much memory and time does guidance take at 512 x 512: through a pixel network, or through a decoder?

Each row is a process of its own that loads a bundled prior, notes its memory, and draws one member of a field with a
quarter of its pixels seen, in a few steps: memory does not depend on their number. Peak is the largest resident memory;
"guidance" is what sampling adds to libraries and weights.

    python benchmarks/latent_memory.py [--size 512] [--pixel ct-slices] [--latent ct-latent] [--threads 1]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

METHODS: dict[str, tuple[bool, str, dict[str, Any]]] = {
    "pixel dps": (False, "dps", {"steps": 2}),
    "pixel dps, recomputing": (False, "dps", {"steps": 2}),
    "pixel mmps": (False, "mmps", {"steps": 2, "iterations": 2}),
    "latent dps": (True, "latent_dps", {"form": "published", "steps": 2}),
    "psld": (True, "psld", {"steps": 2}),
    "resample, published": (True, "resample", {"form": "published", "steps": 4, "every": 1, "travel": 1, "newton": 1}),
    "resample, adamw": (True, "resample", {"steps": 2, "width": "white", "optimiser": "adamw", "moves": 3}),
    "resample": (True, "resample", {"steps": 2, "newton": 1, "iterations": 3, "lanczos": 3}),
    "latent daps": (True, "latent_daps", {"steps": 2, "moves": 2, "lanczos": 3}),
}


def peak() -> float:
    """Largest resident memory so far, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(name: str, size: int, pixel: str, codes: str, threads: int) -> dict[str, float]:
    """One method in this process."""
    import torch

    from scidiff import Likelihood, Posterior
    from scidiff.nn.recompute import recomputing
    from scidiff.noise import GaussianNoise
    from scidiff.operators import Mask
    from scidiff.posterior import get
    from scidiff.priors import load_pretrained
    from scidiff.problems.base import states_for

    torch.set_num_threads(threads)
    latent, method, options = METHODS[name]
    prior: Any = load_pretrained(codes if latent else pixel)
    generator = torch.Generator().manual_seed(0)

    def posterior(n: int) -> Posterior:
        mask = torch.rand(n, n, generator=generator) < 0.25
        complex_field = bool((prior.autoencoder if latent else prior).complex)
        y = torch.zeros(1, 1, int(mask.sum()), dtype=torch.complex64 if complex_field else torch.float32)
        shape = states_for(prior, (1, n, n))[1] if latent else (2 if complex_field else 1, n, n)
        noise = 0.1 * float(torch.as_tensor(prior.autoencoder.scale if latent else prior.scale).max())
        return Posterior(prior, Likelihood(Mask(mask), GaussianNoise(noise), y), shape)

    small, large = posterior(64), posterior(size)
    again = recomputing() if name.endswith("recomputing") else nullcontext()
    get(method, **options)(small, 1)  # what libraries load when first used is not guidance
    before = peak()
    begin = time.process_time()
    with again:
        ensemble = get(method, **options)(large, 1, torch.Generator().manual_seed(0))
    seconds = time.process_time() - begin
    counts = ensemble.cost.as_dict()
    passes = counts["denoiser"] + counts["denoiser_vjp"]
    passes += sum(ensemble.diagnostics.get(key, 0) for key in ("decoder", "decoder_vjp", "encoder"))
    return {"before": before, "peak": peak(), "seconds": seconds, "passes": passes}


def apart(job: Callable[[], dict[str, float]]) -> dict[str, float] | str:
    """What a job finds in a process of its own, whose peak is its own; or its error."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, json.dumps(job()).encode())
        except Exception as error:  # noqa: BLE001 - told by the parent
            os.write(writer, json.dumps(f"{type(error).__name__}: {error}").encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as stream:
        return json.loads(stream.read() or '"ended without an answer"')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--pixel", default="ct-slices", help="prior of pixels, by name or path")
    parser.add_argument("--latent", default="ct-latent", help="prior of codes, by name or path")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--samplers", nargs="+", choices=list(METHODS), default=list(METHODS))
    a = parser.parse_args()
    import scidiff.posterior  # noqa: F401 - loaded once for all processes
    import scidiff.priors  # noqa: F401

    print(f"{a.size} x {a.size}, {a.pixel} and {a.latent}, 1 member, {a.threads} thread(s); GiB, processor seconds")
    columns = ("libraries", "peak", "guidance", "share", "run", "passes", "s/pass")
    print(f"{'':22s}" + "".join(f"{name:>10s}" for name in columns))
    base = None
    for name in a.samplers:
        found = apart(lambda name=name: measure(name, a.size, a.pixel, a.latent, a.threads))
        if isinstance(found, str):
            print(f"{name:22s} failed: {found}", flush=True)
            continue
        used = found["peak"] - found["before"]
        base = used if base is None else base
        print(
            f"{name:22s}{found['before']:10.2f}{found['peak']:10.2f}{used:10.3f}{used / base:10.2f}"
            f"{found['seconds']:10.1f}{found['passes']:10.0f}{found['seconds'] / found['passes']:10.3f}",
            flush=True,
        )
    print("share: of the first row; a pass: one through denoiser, decoder or encoder, forward or back")


if __name__ == "__main__":
    main()
