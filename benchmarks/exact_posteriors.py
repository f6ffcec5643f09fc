"""How far are the samplers from posteriors that are known exactly?

Three problems on 8x8 pixels, each also in kelvin (280 + 5 u) for the first:

gaussian   correlated Gaussian field, half of the pixels seen with noise 0.1
mixture    three components that differ in mean and covariance, half of the pixels seen with noise 0.3: the data tell
           which component it is, but at large noise levels the law of the field given the state has several modes
modes      nine components far apart, one number seen: three of them explain it. Every method that guides one state at a
           time fails here: it cannot weigh modes it has not visited

Columns: mean error in posterior standard deviations (root mean square over pixels; `floor` is that of exact draws),
total variance over the exact one, fraction of values in the exact central 90 % interval, denoiser calls and
vector-Jacobian products per member, seconds for all members. The last table has the shares of the three components.

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
MODES_MEMBERS = 256
METHODS = {
    "MMPS": (MMPS(), MEMBERS),
    "MMPS, ODE": (MMPS(DPMSolver(64)), MEMBERS),
    "MMPS, Heun": (MMPS(Heun(63)), MEMBERS),
    "MMPS, 3 cold iterations": (MMPS(iterations=3, warm=False), MEMBERS),
    "DPS": (DPS(), DPS_MEMBERS),
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


def modes():
    generator = Generator().manual_seed(0)
    p = torch.linalg.qr(fields(2, generator).reshape(2, 64).mT).Q.mT * 8  # two orthogonal patterns, unit mean square
    step = torch.tensor([-4.0, 0.0, 4.0], dtype=torch.float64)
    means = (torch.cartesian_prod(step, step) @ p).reshape(9, 1, 8, 8)
    weights = torch.rand(9, generator=generator, dtype=torch.float64) ** 2 + 0.02
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
    weights = []
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
            if problem == "modes":
                shares = posterior.prior.responsibilities(ensemble.samples[:, 0]).mean(0).tolist()
                weights.append((name, shares))
    truth = posterior.prior.responsibilities(exact.sample(20000, Generator().manual_seed(seed))).mean(0).tolist()
    seen = [k for k, share in enumerate(truth) if share > 0.01]
    print("\nmodes: share of each component in the ensemble\n")
    print("| sampler | " + " | ".join(f"{k + 1}" for k in seen) + " | others |\n|---|" + "---|" * (len(seen) + 1))
    for name, shares in [("exact", truth), *weights]:
        row = [shares[k] for k in seen]
        print(f"| {name} | " + " | ".join(f"{s:.2f}" for s in [*row, 1 - sum(row)]) + " |")


if __name__ == "__main__":
    main()
