"""How much memory and time does guidance take at 512 x 512: through a pixel network, or through a decoder?

Each row is a process of its own that builds networks with random weights, notes its memory, and draws one member in a
few steps; memory does not depend on the number of steps, and the time of a step does not depend on weights. The pixel
network has the size of a bundled prior; the latent one has the same widths on codes, behind a convolutional
autoencoder. Peak is the largest resident memory; "guidance" is what sampling adds to libraries and weights.

    python benchmarks/latent_memory.py [--size 512] [--like ct-slices] [--patch 4] [--threads 1]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

METHODS: dict[str, tuple[bool, str, dict[str, Any]]] = {
    "pixel dps": (False, "dps", {"steps": 2}),
    "pixel mmps": (False, "mmps", {"steps": 2, "iterations": 2}),
    "latent dps": (True, "latent_dps", {"form": "published", "steps": 2}),
    "psld": (True, "psld", {"steps": 2}),
    "resample, published": (True, "resample", {"form": "published", "steps": 4, "every": 1, "travel": 1, "newton": 1}),
    "resample, adamw": (True, "resample", {"steps": 2, "width": "white", "optimiser": "adamw", "moves": 3}),
    "resample": (True, "resample", {"steps": 2, "newton": 1, "iterations": 3, "lanczos": 3}),
    "latent daps": (True, "latent_daps", {"steps": 2, "moves": 2, "lanczos": 3}),
}
LATENT = 4
AUTOENCODERS = {2: (32, 64, 96), 4: (64, 96)}
"""Widths by patch, both of stride 8; the finest level lives on a half or a quarter of the grid."""


def peak() -> float:
    """Largest resident memory so far, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(name: str, size: int, like: str, patch: int, threads: int) -> dict[str, float]:
    """One method in this process."""
    import torch

    from scidiff import Likelihood, Posterior
    from scidiff.nn.autoencoder import ConvAutoencoder
    from scidiff.nn.unet import UNet
    from scidiff.noise import GaussianNoise
    from scidiff.operators import Mask
    from scidiff.posterior import get
    from scidiff.priors import DiffusionPrior, LatentPrior
    from scidiff.priors.autoencoder import FieldAutoencoder
    from scidiff.priors.pretrained import read_card

    torch.set_num_threads(threads)
    latent, method, options = METHODS[name]
    arguments = {k: v for k, v in read_card(like)["network"].items() if k != "kind"}
    mask = torch.rand(size, size, generator=torch.Generator().manual_seed(0)) < 0.25
    likelihood = Likelihood(Mask(mask), GaussianNoise(0.1), torch.zeros(1, 1, int(mask.sum())))
    prior: Any
    if latent:
        autoencoder = FieldAutoencoder(ConvAutoencoder(1, LATENT, AUTOENCODERS[patch], patch=patch))
        codes = UNet(**{**arguments, "inputs": LATENT, "outputs": LATENT, "patch": 1})
        prior = LatentPrior(autoencoder, DiffusionPrior(codes, LATENT))
        shape = prior.state_shape((1, size, size))
    else:
        prior, shape = DiffusionPrior(UNet(**{**arguments, "inputs": 1, "outputs": 1}), 1), (1, size, size)
    small = 64 if not latent else 128
    tiny = Posterior(
        prior,
        Likelihood(Mask(mask[:small, :small]), GaussianNoise(0.1), torch.zeros(1, 1, int(mask[:small, :small].sum()))),
        (shape[0], *(n * small // size for n in shape[1:])),
    )
    get(method, **options)(tiny, 1)  # what libraries load when first used is not guidance
    before = peak()
    begin = time.perf_counter()
    ensemble = get(method, **options)(Posterior(prior, likelihood, shape), 1, torch.Generator().manual_seed(0))
    seconds = time.perf_counter() - begin
    calls = ensemble.cost.as_dict()
    return {"before": before, "peak": peak(), "seconds": seconds, **calls}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--like", default="ct-slices", help="bundled prior whose size the networks have")
    parser.add_argument("--patch", type=int, choices=list(AUTOENCODERS), default=4, help="of the autoencoder")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--samplers", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--one", choices=list(METHODS), help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.one:
        print(json.dumps(measure(a.one, a.size, a.like, a.patch, a.threads)))
        return
    print(f"{a.size} x {a.size}, size of {a.like}, patch {a.patch}, 1 member, {a.threads} thread(s); GiB and seconds")
    print(f"{'':22s}{'libraries':>10s}{'peak':>8s}{'guidance':>10s}{'share':>8s}{'run':>8s}{'s per pass':>12s}")
    base = None
    for name in a.samplers:
        command = [sys.executable, str(Path(__file__)), "--one", name]
        command += ["--size", str(a.size), "--like", a.like, "--patch", str(a.patch), "--threads", str(a.threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{name:22s} failed: {done.stderr.strip().splitlines()[-1]}")
            continue
        found = json.loads(done.stdout)
        used = found["peak"] - found["before"]
        base = used if base is None else base
        passes = found["denoiser"] + found["denoiser_vjp"] + found["operator"] + found["operator_vjp"]
        print(
            f"{name:22s}{found['before']:10.2f}{found['peak']:8.2f}{used:10.2f}{used / base:8.2f}"
            f"{found['seconds']:8.1f}{found['seconds'] / passes:12.3f}",
            flush=True,
        )
    print("share: of the first row; a pass: a call or a product of network or operator (with the decoder)")


if __name__ == "__main__":
    main()
