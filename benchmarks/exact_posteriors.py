"""How far are the samplers from posteriors that are known exactly?

Three problems on 8x8 pixels, each also in kelvin (280 + 5 u) for the first:

gaussian   correlated Gaussian field, half of the pixels seen with noise 0.1
mixture    three components that differ in mean and covariance, half of the pixels seen with noise 0.3: the data tell
           which component it is, but at large noise levels the law of the field given the state has several modes
modes      nine components far apart, one number seen: three of them explain it. No method that guides one state at a
           time is exact here: it weighs modes before it has visited them

Columns: mean error in posterior standard deviations (root mean square over pixels; `floor` is that of exact draws),
total variance over the exact one, fraction of values in the exact central 90 % interval, denoiser calls and
vector-Jacobian products per member, seconds for all members. The last table has, for the third problem with
six draws of the prior's weights, the distance of the components' shares in the ensemble from the exact ones (total
variation; 0 is exact, `floor` is that of exact draws).

    python benchmarks/exact_posteriors.py            # about a minute on one thread
    python benchmarks/exact_posteriors.py --seed 1
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Generator, Tensor

from scidiff.inference import Likelihood, Posterior
from scidiff.noise import GaussianNoise
from scidiff.operators.linear_map import LinearMap
from scidiff.operators.mask import Mask
from scidiff.posterior import DPS, MMPS
from scidiff.priors import GaussianMixturePrior, GaussianPrior
from scidiff.samplers import DPMSolver, Heun
from scidiff.testing import compare_with_exact

MEMBERS = 512
DPS_MEMBERS = 64  # 1000 steps each
MODES_MEMBERS = 128
INSTANCES = range(6)
METHODS = {
    "MMPS": (MMPS(), MEMBERS),
    "MMPS, ODE": (MMPS(DPMSolver(64)), MEMBERS),
    "MMPS, Heun": (MMPS(Heun(63)), MEMBERS),
    "MMPS, 3 cold iterations": (MMPS(iterations=3, warm=False), MEMBERS),
    "DPS": (DPS(zeta=0.5), DPS_MEMBERS),
}


def covariance(length: float) -> Tensor:
    axis = torch.arange(8, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    return torch.exp(-torch.cdist(points, points) / length)


def fields(n: int, generator: Generator) -> Tensor:
    white = torch.randn(n, 64, generator=generator, dtype=torch.float64)
    return (white @ torch.linalg.cholesky(covariance(8.0)).mT).reshape(n, 1, 8, 8)


def half(generator: Generator) -> Mask:
    return Mask(torch.rand(8, 8, generator=generator) < 0.5)


def gaussian(loc: float = 0.0, scale: float = 1.0):
    generator = Generator().manual_seed(0)
    prior = GaussianPrior(torch.full((1, 8, 8), loc), scale**2 * covariance(2.0))
    return measure(prior, half(generator), 0.1 * scale, generator)


def mixture():
    generator = Generator().manual_seed(0)
    covs = torch.stack([covariance(2.0), 0.5 * covariance(4.0), 0.3 * covariance(1.0)])
    prior = GaussianMixturePrior(torch.tensor([0.5, 0.3, 0.2]), fields(3, generator).float(), covs)
    return measure(prior, half(generator), 0.3, generator)


def modes(instance: int = 0):
    generator = Generator().manual_seed(0)
    p = torch.linalg.qr(fields(2, generator).reshape(2, 64).mT).Q.mT * 8  # two orthogonal patterns, unit mean square
    step = torch.tensor([-4.0, 0.0, 4.0], dtype=torch.float64)
    means = (torch.cartesian_prod(step, step) @ p).reshape(9, 1, 8, 8)
    weights = torch.rand(9, generator=Generator().manual_seed(instance), dtype=torch.float64) ** 2 + 0.02
    prior = GaussianMixturePrior(weights, means.float(), 0.25 * covariance(2.0))
    operator = LinearMap((p.sum(0, keepdim=True) / 64).float(), (1, 8, 8))  # reads the sum of the two amplitudes
    noise = GaussianNoise(0.1)
    y = torch.full((1, 1), 0.1)
    return Posterior(prior, Likelihood(operator, noise, y)), prior.condition(operator, noise, y)


def measure(prior, operator, std: float, generator: Generator):
    noise = GaussianNoise(std)
    y = noise.sample(operator(prior.sample(1, generator)), generator)
    return Posterior(prior, Likelihood(operator, noise, y)), prior.condition(operator, noise, y)


PROBLEMS = {
    "gaussian": gaussian,
    "gaussian, kelvin": lambda: gaussian(280.0, 5.0),
    "mixture": mixture,
    "modes": modes,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    seed = parser.parse_args().seed
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, 1 thread, seed {seed}, {MEMBERS} members ({DPS_MEMBERS} for DPS)\n")
    print("| problem | sampler | mean error | floor | trace ratio | 90 % coverage | calls | VJPs | s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for problem, build in PROBLEMS.items():
        posterior, exact = build()
        for name, (method, members) in METHODS.items():
            members = min(members, MODES_MEMBERS) if problem == "modes" else members
            start = time.perf_counter()
            ensemble = method(posterior, members, Generator().manual_seed(seed))
            seconds = time.perf_counter() - start
            r = compare_with_exact(ensemble.samples[:, 0], exact)
            print(
                f"| {problem} | {name} | {r.mean_error:.3f} | {r.mean_floor:.3f} | {r.trace_ratio:.3f} | "
                f"{r.coverage:.3f} | {ensemble.cost.denoiser} | {ensemble.cost.denoiser_vjp} | {seconds:.1f} |",
                flush=True,
            )
    print("\nmodes: total variation of the components' shares\n")
    print(
        f"| sampler | {' | '.join(f'instance {i}' for i in INSTANCES)} | mean |\n|---|{'---|' * (len(INSTANCES) + 1)}"
    )
    rows: dict[str, list[float]] = {"floor": [], "MMPS": [], "MMPS, ODE": []}
    for instance in INSTANCES:
        posterior, exact = modes(instance)
        truth = shares(posterior, exact.sample(20000, Generator().manual_seed(seed)))
        for name, distances in rows.items():
            generator = Generator().manual_seed(seed + 1)
            if name == "floor":
                samples = exact.sample(MODES_MEMBERS, generator)
            else:
                samples = METHODS[name][0](posterior, MODES_MEMBERS, generator).samples[:, 0]
            distances.append(float((shares(posterior, samples) - truth).abs().sum() / 2))
    for name, distances in rows.items():
        print(f"| {name} | " + " | ".join(f"{d:.2f}" for d in [*distances, sum(distances) / len(distances)]) + " |")


def shares(posterior: Posterior, samples: Tensor) -> Tensor:
    """Fraction of the samples in each component of the prior."""
    return posterior.prior.responsibilities(samples).mean(0)


if __name__ == "__main__":
    main()
