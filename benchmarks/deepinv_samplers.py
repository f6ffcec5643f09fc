"""Our samplers beside those of deepinv: error, spread, coverage and time on a posterior known exactly.

Same exact prior, operator, data, number of members and network calls on the 8x8 inpainting problem of
`scidiff.benchmark.exact` (field of zero mean and unit variance, so that nobody's default is at a disadvantage; DiffPIR
of deepinv works on images in [0, 1] and gets the field as 0.5 + 0.15 u). Each method at its own default weights; DDRM
twice: with eta = 0.85, which is deepinv's default, in both, and with the default of each. deepinv's DPS runs without
its clip to [-1, 1], which would cut the field.

Columns: mean error in posterior standard deviations (exact draws: `floor`), total variance over the exact one,
coverage of the exact 90 % interval, network calls and vector-Jacobian products per member, milliseconds per network
call for one member and for all of them, and what a call costs one member beyond the bare network: the same number of
forward passes and vector-Jacobian products, nothing else. Times are processor times of one thread, medians of repeated
runs in one process, the two libraries in turn.

    python benchmarks/deepinv_samplers.py             # a few minutes on one thread
    python benchmarks/deepinv_samplers.py --seed 1
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import deepinv
import torch
from deepinv.sampling import (
    DDRM,
    DDPMSolver,
    DiffPIR,
    DPSDataFidelity,
    MomentMatchingDataFidelity,
    PiGDMDataFidelity,
    PosteriorDiffusion,
    VariancePreservingDiffusion,
)
from torch import Generator, Tensor

from scidiff.benchmark.exact import inpainting
from scidiff.posterior import get
from scidiff.samplers.base import level
from scidiff.testing import compare_with_exact

Drawn = tuple[Tensor, int, int]
"""Fields, network calls, vector-Jacobian products."""
Draw = Callable[["Problem", int, int, int], Drawn]


class ExactDenoiser(deepinv.models.Denoiser):
    """The denoiser of an exact prior in deepinv's interface, for fields ``loc + scale * u``."""

    def __init__(self, prior, loc: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        self.prior, self.loc, self.scale = prior, loc, scale
        self.calls = self.products = 0

    def forward(self, x: Tensor, sigma, *args, **kwargs) -> Tensor:
        self.calls += 1
        u = (x - self.loc) / self.scale
        sigma = torch.as_tensor(sigma, dtype=u.dtype).flatten() / self.scale
        out = self.loc + self.scale * self.prior.denoise(u, sigma[0] if sigma.numel() == 1 else sigma)
        if out.requires_grad:
            out.register_hook(self.count)
        return out

    def count(self, gradient: Tensor) -> None:
        """Counts a vector-Jacobian product."""
        self.products += 1


class Problem:
    """The inpainting problem for both libraries."""

    def __init__(self, seed: int) -> None:
        self.ours = inpainting(seed)
        part = self.ours.posterior.likelihoods[0]
        self.mask = part.operator.mask
        self.std = float(part.noise.std)
        self.y = part.y
        self.image = part.operator.adjoint(part.y)

    def physics(self, loc: float = 0.0, scale: float = 1.0):
        """deepinv's inpainting of ``loc + scale * u`` and its data."""
        physics = deepinv.physics.Inpainting(
            img_size=(1, 8, 8),
            mask=self.mask[None].float(),
            noise_model=deepinv.physics.GaussianNoise(scale * self.std),
        )
        return physics, (loc + scale * self.image) * self.mask


def diffusion(fidelity) -> Draw:
    """A method of deepinv's `PosteriorDiffusion`, with the solver and schedule of its DPS class."""

    def draw(problem: Problem, members: int, calls: int, seed: int) -> Drawn:
        denoiser = ExactDenoiser(problem.ours.posterior.prior)
        solver = DDPMSolver(timesteps=torch.linspace(1, 0.0, calls + 1, dtype=torch.float64), rng=torch.Generator())
        method = PosteriorDiffusion(
            data_fidelity=fidelity(denoiser),
            denoiser=denoiser,
            sde=VariancePreservingDiffusion(alpha=1.0, dtype=torch.float64),
            solver=solver,
            minus_one_one=False,
        )
        physics, y = problem.physics()
        y = y.expand(members, -1, -1, -1)
        samples = method(y, physics, x_init=(members, 1, 8, 8), seed=seed, denoise_output=False)
        return samples.detach().float(), denoiser.calls, denoiser.products

    return draw


def ddrm(problem: Problem, members: int, calls: int, seed: int) -> Drawn:
    """deepinv's DDRM with levels spaced as its default, more of them."""
    denoiser = ExactDenoiser(problem.ours.posterior.prior)
    method = DDRM(denoiser, sigmas=torch.logspace(1.9, -2, calls).tolist())
    physics, y = problem.physics()
    samples = method(y.expand(members, -1, -1, -1).contiguous(), physics, seed=seed + 1)
    return samples.float(), denoiser.calls, denoiser.products


def diffpir(problem: Problem, members: int, calls: int, seed: int) -> Drawn:
    """deepinv's DiffPIR, on the field as an image in [0, 1]."""
    loc, scale = 0.5, 0.15
    denoiser = ExactDenoiser(problem.ours.posterior.prior, loc, scale)
    method = DiffPIR(denoiser, deepinv.optim.data_fidelity.L2(), sigma=scale * problem.std, max_iter=calls)
    physics, y = problem.physics(loc, scale)
    samples = method(y.expand(members, -1, -1, -1), physics, seed=seed + 1)
    return (samples.float() - loc) / scale, denoiser.calls, denoiser.products


def ours(name: str, **parameters) -> Draw:
    """One of our samplers with as many network calls."""

    def draw(problem: Problem, members: int, calls: int, seed: int) -> Drawn:
        method = get(name, steps=calls, **parameters)
        ensemble = method(problem.ours.posterior, members, Generator().manual_seed(seed))
        return ensemble.samples[:, 0], ensemble.cost.denoiser, ensemble.cost.denoiser_vjp

    return draw


PAIRS = [
    ("DPS", 1000, ours("dps"), diffusion(lambda d: DPSDataFidelity(d))),
    ("PiGDM", 100, ours("pigdm"), diffusion(lambda d: PiGDMDataFidelity(d))),
    ("MMPS", 64, ours("mmps"), diffusion(lambda d: MomentMatchingDataFidelity(d))),
    ("DDRM", 64, ours("ddrm", eta=0.85), ddrm),
    ("DDRM, own eta", 64, ours("ddrm"), ddrm),
    ("DiffPIR", 100, ours("diffpir"), diffpir),
]


def timed(draw, problem: Problem, members: int, calls: int, seed: int) -> float:
    start = time.process_time()
    draw(problem, members, calls, seed)
    return time.process_time() - start


def bare(problem: Problem, calls: int, products: int) -> float:
    """Seconds of the network alone for one member: forward passes, and the products spread over them."""
    prior = problem.ours.posterior.prior
    u = torch.randn(1, 1, 8, 8, generator=Generator().manual_seed(0))
    sigma = level(u, 1.0)
    start = time.process_time()
    for i in range(calls):
        if not products:
            with torch.no_grad():
                prior.denoise(u, sigma)
            continue
        leaf = u.detach().requires_grad_()
        D = prior.denoise(leaf, sigma)
        for _ in range(products * (i + 1) // calls - products * i // calls):
            torch.autograd.grad(D, leaf, u, retain_graph=True)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--members", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="names of rows")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    problem = Problem(arguments.seed)
    print(
        f"torch {torch.__version__}, deepinv {deepinv.__version__}, 1 thread, seed {arguments.seed}, "
        f"{arguments.members} members, floor of the mean error {arguments.members**-0.5:.3f}\n"
    )
    print(
        "| method | library | mean error | trace ratio | 90 % coverage | calls | VJPs | ms a call, 1 member "
        f"| ms a call, {arguments.members} | beyond the network, ms |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, calls, mine, theirs in PAIRS:
        if arguments.only and name not in arguments.only:
            continue
        draws = {"scidiff": mine, "deepinv": theirs}
        drawn, whole = {}, {}
        for library, draw in draws.items():
            drawn[library] = draw(problem, arguments.members, calls, arguments.seed)
        for library, draw in [*draws.items()] * 3:
            whole.setdefault(library, []).append(timed(draw, problem, arguments.members, calls, arguments.seed))
        single: dict[str, list[float]] = {library: [] for library in draws}
        network: dict[str, list[float]] = {library: [] for library in draws}
        for repeat in range(arguments.repeats + 1):
            for library, draw in draws.items():
                _, used, products = drawn[library]
                seconds = timed(draw, problem, 1, calls, arguments.seed)
                floor = bare(problem, used, products)
                if repeat:
                    single[library].append(seconds)
                    network[library].append(floor)
        for library, (samples, used, products) in drawn.items():
            r = compare_with_exact(samples, problem.ours.exact)
            one, floor = statistics.median(single[library]), statistics.median(network[library])
            print(
                f"| {name} | {library} | {r.mean_error:.3f} | {r.trace_ratio:.3f} | {r.coverage:.3f} | {used} | "
                f"{products} | {1e3 * one / used:.3f} | {1e3 * statistics.median(whole[library]) / used:.2f} | "
                f"{1e3 * (one - floor) / used:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
