"""A forecast of very many steps: does it keep the climate, does memory stay flat, does a killed run go on to the bit?

    python benchmarks/long_rollout.py [MODEL] [--steps 10000] [--members 4] [--seed 0] [--threads 1] [--out FOLDER]

MODEL is a forecaster of the case `stochastic-transport`, whose stationary law is known exactly; default is the bundled
one. Every forecast runs in a process of its own, through `scidiff.forecast` into a Zarr store:

- the first tenth of the steps, then all of them: the largest resident memory of both processes, and how it developed;
- all of them once more, killed (SIGKILL) when a third of the windows is done, resumed, and compared bit by bit.

What is compared with the exact law: the variance of the field and its spectrum in rings of wavenumber, averages over
members, points and steps, in each tenth of the forecast but the first 100 steps, in which the initial state is
forgotten. The aim is a ratio between 0.9 and 1.1. The same numbers of as many exact draws show the noise of the
estimate: successive states remember each other, so a tenth of the forecast holds far fewer independent fields than
steps.
"""

import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import torch
import xarray as xr

import scidiff
from scidiff.datasets import trajectories
from scidiff.datasets.stochastic_transport import law_of
from scidiff.forecast import load_forecaster
from scidiff.forecast.loading import load_model
from scidiff.metrics import power_spectrum
from scidiff.rng import Streams
from scidiff.solvers.stochastic_transport import StochasticTransport

FORGOTTEN = 100  # steps; the drag forgets all but exp(-0.04 * 100) = 2 % of the initial state
TENTHS = 10
PROCESS = "one forecast, in a process of its own; internal"


def initial(model: str) -> xr.Dataset:
    """One test state, of another seed than that of the training."""
    grid = load_model(model)[1].grid.shape
    return trajectories("stochastic-transport", grid=grid, times=2, train=1, validation=0, test=1, seed=99)


def one(arguments: argparse.Namespace) -> None:
    """The forecast of this process; prints its seconds and its largest resident memory in MB."""
    start = initial(arguments.model).isel(trajectory=-1, drop=True).isel(time=[0])
    began = time.perf_counter()
    threading.Thread(target=watched, args=(sizes := [],), daemon=True).start()
    scidiff.forecast(
        arguments.model,
        start,
        lead_times=arguments.steps,
        members=arguments.members,
        seed=arguments.seed,
        output=arguments.one,
        resume=True,
    )
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(time.perf_counter() - began, largest, *(f"{max(part):.0f}" for part in np.array_split(sizes, 4) if len(part)))


def watched(sizes: list[float]) -> None:
    """Appends the resident memory of this process in MB, five times a second (Linux)."""
    while True:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        sizes.append(pages * resource.getpagesize() / 2**20)
        time.sleep(0.2)


def command(arguments: argparse.Namespace, steps: int, store: Path) -> list[str]:
    own = [sys.executable, "-W", "ignore", __file__, arguments.model, "--one", str(store), "--steps", str(steps)]
    for name in ("members", "seed", "threads"):
        own += [f"--{name}", str(getattr(arguments, name))]
    return own


def finished(arguments: argparse.Namespace, steps: int, store: Path) -> tuple[float, float, str]:
    """Seconds, MB, and MB in quarters of the time, of a forecast that is let run."""
    done = subprocess.run(command(arguments, steps, store), check=True, capture_output=True, text=True)
    seconds, memory, *quarters = done.stdout.split()
    return float(seconds), float(memory), ", ".join(quarters)


def killed(arguments: argparse.Namespace, store: Path) -> int:
    """Kills a forecast when a third of it is in its restart file, and gives the windows that it had finished."""
    running = subprocess.Popen(command(arguments, arguments.steps, store), stdout=subprocess.DEVNULL)
    kept = store.with_name(f".{store.name}.restart") / "tile_00000.npz"
    done, wanted = 0, arguments.steps // (3 * load_forecaster(arguments.model).horizon)
    while done < wanted and running.poll() is None:
        time.sleep(0.05)
        if kept.exists():  # replaced as a whole, never half written
            with np.load(kept) as found:
                done = int(found["windows"])
    if running.poll() is not None:
        raise SystemExit("the forecast ended before it was to be killed; give more --steps")
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    return done


def climate(fields: np.ndarray, law: StochasticTransport) -> tuple[list[float], np.ndarray]:
    """Variance and spectrum of (members, steps, y, x), divided by those of the law, in each tenth of the steps."""
    exact = law.stationary.eigenvalues  # of every wavenumber; their mean is the variance
    # A field whose coefficients have exactly the expected power goes through the same rings.
    expected = power_spectrum(torch.fft.ifft2((exact.double() / exact.numel()).sqrt(), norm="forward"))[1]
    variances, spectra = [], []
    for part in np.array_split(fields[:, FORGOTTEN:], TENTHS, axis=1):
        x = torch.from_numpy(part).double()
        variances.append(float(x.square().mean() / exact.mean()))
        spectra.append((power_spectrum(x)[1].mean((0, 1)) / expected).numpy())
    return variances, np.array(spectra)


def rows(name: str, fields: np.ndarray, law: StochasticTransport, rings: int) -> None:
    variances, spectra = climate(fields, law)
    whole = spectra.mean(0)
    print(
        f"\n{name}: variance / exact in each tenth: {' '.join(f'{v:.3f}' for v in variances)}; mean "
        f"{np.mean(variances):.3f}"
    )
    print(f"spectrum / exact, waves per box 0 to {rings - 1}: {' '.join(f'{v:.3f}' for v in whole[:rings])}")
    last = spectra[-3:].mean(0) / spectra[:3].mean(0)
    print(f"last three tenths / first three: {' '.join(f'{v:.3f}' for v in last[:rings])}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="stochastic-transport")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/long_rollout"))
    parser.add_argument("--one", type=Path, help=PROCESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.one is not None:
        one(arguments)
        return
    shutil.rmtree(arguments.out, ignore_errors=True)
    arguments.out.mkdir(parents=True)
    model, law = load_forecaster(arguments.model), law_of(initial(arguments.model))
    print(
        f"{arguments.model}: {arguments.steps} steps, {arguments.members} members, seed {arguments.seed}, threads "
        f"{arguments.threads}, {model.network_calls} network call(s) for {model.horizon} steps\n"
    )
    print("| steps | seconds | largest resident memory | in quarters of the time, MB |\n|---|---|---|---|")
    for steps in (arguments.steps // 10, arguments.steps):
        seconds, memory, quarters = finished(arguments, steps, arguments.out / f"{steps}.zarr")
        print(f"| {steps} | {seconds:.0f} | {memory:.0f} MB | {quarters} |", flush=True)
    unbroken = scidiff_open(arguments.out / f"{arguments.steps}.zarr")
    rings = min(law.grid) // 2 + 1
    rows("forecast", unbroken, law, rings)
    exact = law.trajectories(Streams(arguments.seed, range(arguments.members)), arguments.members, arguments.steps)
    rows("as many exact draws", exact[:, 1:].numpy(), law, rings)
    windows = killed(arguments, arguments.out / "killed.zarr")
    finished(arguments, arguments.steps, arguments.out / "killed.zarr")
    same = np.array_equal(scidiff_open(arguments.out / "killed.zarr"), unbroken)
    print(f"\nkilled after {windows} windows and resumed: {'the same to the bit' if same else 'NOT the same'}")


def scidiff_open(store: Path) -> np.ndarray:
    """Members, steps and grid of a finished store."""
    with xr.open_zarr(store, chunks=None) as found:
        return found["tracer"].isel(init_time=0).values


if __name__ == "__main__":
    main()
