"""Does a record ten times as long need more memory? Lorenz-63, block by block, written to Zarr.

    python benchmarks/lorenz_memory.py [--lengths 1000 10000] [--members 4] [--steps 32] [--iterations 4] [--prior NAME]
        [--seed 0] [--folder FOLDER]

Each length runs in a process of its own, whose peak of resident memory is printed, with that of the same process after
importing everything and loading the prior ("before"). Every 8th state is observed (protocol "lo"). log p(x) per
transition: 1.277 for exact draws. With ``--folder`` a stopped run goes on where it was.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path


def peak() -> float:
    """Largest resident memory so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def one(length: int, given: argparse.Namespace, folder: Path) -> dict:
    import numpy as np
    import torch

    from scidiff.assimilation import Observations, StreamingAssimilation
    from scidiff.noise import GaussianNoise
    from scidiff.operators import Mask
    from scidiff.posterior import MMPS
    from scidiff.problems import LorenzAssimilation
    from scidiff.samplers import DPMSolver
    from scidiff.schedules import karras

    torch.set_num_threads(1)
    options = {"prior": given.prior} if given.prior else {}
    problem = LorenzAssimilation("lo", seed=given.seed, **options)
    generator = torch.Generator().manual_seed(given.seed)
    truth = problem.simulator.simulate(1, length, generator)[0].float()
    steps = tuple(range(0, length, 8))
    operator, noise = Mask(torch.tensor([True, False, False])), GaussianNoise(problem.noise)
    y = truth[list(steps), :1] + problem.noise * torch.randn(len(steps), 1, generator=generator)
    predictor = DPMSolver(given.steps, partial(karras, sigma_min=1e-3, sigma_max=20.0), stochastic=True)
    sampler = MMPS(predictor, given.iterations)
    work = StreamingAssimilation(problem.prior, sampler, block=64, overlap=2, lookahead=32)
    problem.prior.of_length(65).denoise(torch.zeros(given.members, 3, 65), torch.tensor(1.0))
    before, begin = peak(), time.perf_counter()
    record = Observations(steps, operator, noise, y[None])
    array = work(record, length, folder / str(length), given.members, generator, resume=True)
    after, total, error = peak(), 0.0, 0.0
    for first in range(0, length - 1, 1000):  # read in pieces, after the peak was taken
        part = torch.from_numpy(np.asarray(array[:, first : first + 1001])).double()
        total += float(problem.model.log_prob(part).mean())
        error += float((part[:, :1000].mean(0) - truth[first : first + 1000]).square().sum())
    return {
        "length": length,
        "before": before,
        "after": after,
        "log_px": total / (length - 1),
        "rmse": (error / (3 * length)) ** 0.5,
        "seconds": time.perf_counter() - begin,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", nargs="*", type=int, default=[1000, 10000])
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--iterations", type=int, default=4, help="of MMPS")
    parser.add_argument("--prior")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one, given, given.folder)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        print(
            f"members {given.members}, steps {given.steps}, iterations {given.iterations}, seed {given.seed}, threads 1"
        )
        print("  states  before, MB  peak, MB  record, MB  log p(x)   RMSE      s")
        for length in given.lengths:
            own = ["--one", str(length), "--folder", str(folder)]
            command = [sys.executable, __file__, *sys.argv[1:], *own]
            r = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
            size = given.members * length * 3 * 4 / 2**20
            print(
                f"{length:8d} {r['before']:11.1f} {r['after']:9.1f} {size:11.2f} {r['log_px']:9.3f} {r['rmse']:6.2f} "
                f"{r['seconds']:6.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
