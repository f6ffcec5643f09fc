"""What do few denoiser calls cost? Ten calls of high-order integrators against twenty of DDIM.

For a Gaussian field with the exact denoiser and for every bundled prior, all integrators start from the same noises.

end error   root mean square distance (in u) from the end of the trajectory, found with many more calls: the integrator
            alone, whatever the prior knows
energy      energy distance between draws and data that the prior has not seen (a U-statistic, 0 for the same law)
MMD^2       squared maximum mean discrepancy with a Gaussian kernel as wide as the median distance within the data

Distances are Euclidean over whole fields, divided by the root of the number of values. Intervals are 95 % of the
bootstrap over draws and data. The columns `- DDIM` hold the paired difference to the DDIM of the first row, with the
same resampled draws and data in both: an interval below zero is a better law. `data against data` is what a perfect
sampler gets. Data are what the prior's card holds out; where they are files and no folder is given (--data), the end
error alone is shown. Smooth fields start from larger noise, as in `scidiff assess`.

    python benchmarks/few_step_samplers.py --data FOLDER                     # minutes on one thread for each prior
    python benchmarks/few_step_samplers.py --draws 512 --device cuda         # narrow intervals
"""

from __future__ import annotations

import argparse
import functools
import time
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from scidiff.benchmark.assess import crop_of, fields_of, source_of, strongest
from scidiff.errors import InputError
from scidiff.linalg import Dense
from scidiff.priors import GaussianPrior, load_pretrained
from scidiff.priors.pretrained import bundled
from scidiff.protocols import Prior
from scidiff.rng import Streams
from scidiff.samplers import DDIM, DEIS, DPMSolver, DPMSolver2S, DPMSolver3M, DPMSolverSingle, Heun, Sampler, UniPC
from scidiff.schedules import karras, log_linear

BATCH = 16
RESAMPLES = 1000
GAUSSIAN_DRAWS = 512  # at least: the exact denoiser costs next to nothing
CALLS, DDIM_CALLS, FINE_CALLS = 10, 20, 60


def samplers(sigma_max: float, methods: list[str]) -> list[Sampler]:
    """The first is the reference of the differences: DDIM at the levels that suit it on learned priors."""
    whole = functools.partial(log_linear, sigma_max=sigma_max)
    short = functools.partial(whole, sigma_min=0.01)  # ten steps are too few to go on to 0.002; DDIM's own end is 0.01
    usual = functools.partial(karras, sigma_max=sigma_max)
    found = [
        DDIM(DDIM_CALLS, usual),
        DDIM(DDIM_CALLS, short),
        DDIM(DDIM_CALLS, whole),
        DPMSolver(CALLS, short),
        DPMSolver3M(CALLS, short),
        UniPC(CALLS, short),
        UniPC(CALLS, short, order=2),
        UniPC(CALLS, whole),
        DEIS(CALLS, short),
        DPMSolver2S(CALLS + 1, short),
        DPMSolverSingle(CALLS, short),
        Heun(CALLS + 1, usual),
    ]
    return [s for i, s in enumerate(found) if not (i and methods) or type(s).__name__ in methods]


@dataclass
class Problem:
    """A prior, the shape of its states, and fields it has not seen (None where there are none), as states."""

    prior: Prior
    shape: tuple[int, ...]
    data: Tensor | None
    sigma_max: float = 80.0


def gaussian(draws: int) -> Problem:
    axis = torch.arange(16, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    prior = GaussianPrior(torch.zeros(1, 16, 16), Dense(torch.exp(-torch.cdist(points, points) / 4)))
    return Problem(prior, (1, 16, 16), prior.encode(prior.sample(2 * draws, Generator().manual_seed(10))))


def learned(name: str, draws: int, device: str, folder: str | None) -> Problem:
    prior = load_pretrained(name, device)
    crop = crop_of(prior)
    try:
        data = source_of(prior, folder)
    except InputError as error:
        print(f"no data: {error}\n")
        return Problem(prior, (prior.channels, *crop), None)
    fields = fields_of(data.validation or data.source, crop, 2 * draws, Generator().manual_seed(900_000_000))
    return Problem(prior, (prior.channels, *crop), fields.to(device), max(80.0, round(4 * strongest(fields))))


def ends(sampler: Sampler, problem: Problem, draws: int, seed: int, device: str) -> Tensor:
    """The states at level zero, from noises that depend on the seed and the row alone."""
    parts = []
    for first in range(0, draws, BATCH):
        streams = Streams(seed, range(first, min(first + BATCH, draws)))
        u = sampler.start(streams, problem.shape, device, torch.float32)
        with torch.no_grad():
            parts.append(sampler.integrate(problem.prior.denoise, u, streams))
    return torch.cat(parts)


class Distances:
    """Energy distance and MMD^2 of two clouds, also of resampled ones.

    Pairs of a field with its own copy are left out, so that resampling adds no zero distances.
    """

    def __init__(self, draws: Tensor, data: Tensor, width: float) -> None:
        x, y = (z.flatten(1).double() / z[0].numel() ** 0.5 for z in (draws, data))
        cross, within_x, within_y = torch.cdist(x, y).cpu(), torch.cdist(x, x).cpu(), torch.cdist(y, y).cpu()
        kernel = [torch.exp(-0.5 * (d / width) ** 2) for d in (cross, within_x, within_y)]
        self.tables = {"energy": (2.0, -1.0, [cross, within_x, within_y]), "MMD^2": (-2.0, 1.0, kernel)}

    def __call__(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        """Values for the multiplicities ``a`` (R, draws) and ``b`` (R, data): (R,) each."""

        def within(table: Tensor, w: Tensor) -> Tensor:
            off = table - table.diagonal().diag()
            return ((w @ off) * w).sum(1) / (w.sum(1) ** 2 - w.square().sum(1))

        found = {}
        for name, (between, inside, (cross, x, y)) in self.tables.items():
            mixed = ((a @ cross) * b).sum(1) / (a.sum(1) * b.sum(1))
            found[name] = between * mixed + inside * (within(x, a) + within(y, b))
        return found


def multiplicities(n: int, generator: Generator) -> Tensor:
    """The cloud itself, then bootstrap resamples: (1 + RESAMPLES, n)."""
    picks = torch.randint(0, n, (RESAMPLES, n), generator=generator)
    counts = torch.zeros(RESAMPLES, n, dtype=torch.float64).scatter_add_(1, picks, torch.ones_like(picks).double())
    return torch.cat([torch.ones(1, n, dtype=torch.float64), counts])


def text(values: Tensor) -> str:
    low, high = values[1:].quantile(0.025), values[1:].quantile(0.975)
    return f"{values[0]:.4f} [{low:.4f}, {high:.4f}]"


def measure(problem: Problem, draws: int, seed: int, device: str, methods: list[str]) -> None:
    fine = ends(
        DPMSolver3M(FINE_CALLS, functools.partial(log_linear, sigma_max=problem.sigma_max)),
        problem,
        draws,
        seed,
        device,
    )
    generator = Generator().manual_seed(seed + 1)
    a = multiplicities(draws, generator)
    first: dict[str, Tensor] = {}
    compare, floor = None, ""
    if problem.data is not None:
        data, fresh = problem.data[:draws], problem.data[draws:]
        flat = data.flatten(1).double()
        width = float(torch.pdist(flat).median()) / flat.shape[1] ** 0.5
        b = multiplicities(draws, generator)
        compare = functools.partial(Distances, data=data, width=width)
        same = compare(fresh)(a, b)
        floor = f"| data against data | | | {text(same['energy'])} | | {text(same['MMD^2'])} | | |"
    print("| sampler | calls | end error | energy | - DDIM | MMD^2 | - DDIM | s |\n|---|---|---|---|---|---|---|---|")
    for sampler in [*samplers(problem.sigma_max, methods), None]:
        start = time.perf_counter()
        u = fine if sampler is None else ends(sampler, problem, draws, seed, device)
        seconds = time.perf_counter() - start
        square = (u - fine).flatten(1).square().mean(1).double().cpu()
        error = text(((a @ square) / draws).sqrt())
        cells = ["", "", "", ""]
        if compare is not None:
            found = compare(u)(a, b)
            first = first or found
            cells = [s for k in ("energy", "MMD^2") for s in (text(found[k]), text(found[k] - first[k]))]
        name = f"trajectory ({FINE_CALLS} calls)" if sampler is None else str(sampler)
        calls = FINE_CALLS if sampler is None else sampler.calls
        print(f"| {name} | {calls} | {error} | {' | '.join(cells)} | {seconds:.1f} |", flush=True)
    if floor:
        print(floor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--priors", nargs="*", default=["gaussian", *bundled()], help="gaussian and bundled names")
    parser.add_argument("--methods", nargs="*", default=[], help="classes beside the first DDIM; all when left out")
    parser.add_argument("--data", help="folder of the files that cards name; priors of other files show the end error")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {options.device}, seed {options.seed}")
    for name in options.priors:
        exact = name == "gaussian"
        device, draws = ("cpu", max(options.draws, GAUSSIAN_DRAWS)) if exact else (options.device, options.draws)
        problem = gaussian(draws) if exact else learned(name, draws, device, options.data)
        print(
            f"\n### {name}, state {tuple(problem.shape)}, {draws} draws and fields, from level {problem.sigma_max:g}\n"
        )
        measure(problem, draws, options.seed, device, options.methods)


if __name__ == "__main__":
    main()
