"""What does a guided step cost beside the network?

One DPS step (network forward and input-gradient backward, operator, kick, noise) and one MMPS call with one iteration,
each over one network forward plus one input-gradient backward, at 128x128 with a small plain U-Net. The three are
timed in turns in one process and their medians compared; processor time stands beside wall time for busy machines.

    python benchmarks/guidance_step.py
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import Generator, Tensor, nn

from scidiff.inference import Cost, Likelihood, Posterior
from scidiff.noise import GaussianNoise
from scidiff.operators.mask import Mask
from scidiff.posterior import DPS, MMPS
from scidiff.posterior.base import Run
from scidiff.rng import Streams
from scidiff.samplers.base import level
from scidiff.samplers.ddpm import ancestral

CHANNELS, SIZE = 2, 128


class Block(nn.Module):
    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(1, inside), nn.SiLU(), nn.Conv2d(inside, outside, 3, padding=1),
            nn.GroupNorm(8, outside), nn.SiLU(), nn.Conv2d(outside, outside, 3, padding=1),
        )  # fmt: skip
        self.skip = nn.Conv2d(inside, outside, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.body(x)


class Network(nn.Module):
    """A two-level U-Net as a prior; its weights are random, which does not change its speed."""

    affine = True
    shape = (CHANNELS, SIZE, SIZE)

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.first, self.down = Block(CHANNELS, width), Block(width, 2 * width)
        self.middle, self.up = Block(2 * width, 2 * width), Block(3 * width, width)
        self.last = nn.Conv2d(width, CHANNELS, 3, padding=1)

    def denoise(self, u: Tensor, sigma: Tensor) -> Tensor:
        scale = (1 + sigma**2).rsqrt()
        fine = self.first(u * scale)
        coarse = self.middle(self.down(nn.functional.avg_pool2d(fine, 2)))
        out = self.up(torch.cat([fine, nn.functional.interpolate(coarse, scale_factor=2)], 1))
        return scale**2 * u + sigma * scale * self.last(out)

    def decode(self, u: Tensor) -> Tensor:
        return u

    def encode(self, x: Tensor) -> Tensor:
        return x


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--members", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    prior, members = Network(), arguments.members
    generator = Generator().manual_seed(0)
    operator = Mask(torch.rand(SIZE, SIZE, generator=generator) < 0.5)
    y = operator(torch.randn(1, *prior.shape, generator=generator))
    posterior = Posterior(prior, Likelihood(operator, GaussianNoise(0.1), y)).tile(members)
    run = Run(posterior, Streams(0, range(members)), Cost())
    a, b = 2.0, 1.9
    u = a * torch.randn(members, *prior.shape, generator=generator)
    dps, one = DPS(zeta=0.5), torch.ones(members)
    guided = MMPS(iterations=1, warm=False).condition(run)

    def network() -> None:
        leaf = u.detach().requires_grad_()
        D = prior.denoise(leaf, level(u, a))
        torch.autograd.grad(D, leaf, u)

    def step() -> None:
        with torch.no_grad():
            D, gradient = dps.guide(run, u, a, one)
            ancestral(u, D, a, b, run.streams) - dps.zeta * ((1 + a**2) * (1 + b**2)) ** 0.5 * gradient

    def call() -> None:
        with torch.no_grad():
            guided(u, level(u, a))

    tasks = {"network forward + input gradient": network, "DPS step": step, "MMPS call, 1 iteration": call}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in tasks}
    for repeat in range(arguments.repeats + 3):
        for name, task in tasks.items():
            start, used = time.perf_counter(), time.process_time()
            task()
            if repeat >= 3:
                times[name].append((time.perf_counter() - start, time.process_time() - used))
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in times.items()}
    base = medians["network forward + input gradient"]
    weights = sum(w.numel() for w in prior.parameters())
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), {members} member(s), {SIZE}x{SIZE}, "
        f"{weights} weights, median of {arguments.repeats}\n"
    )
    print("| task | wall ms | ratio | processor ms | ratio |\n|---|---|---|---|---|")
    for name, (wall, used) in medians.items():
        print(f"| {name} | {1000 * wall:.1f} | {wall / base[0]:.3f} | {1000 * used:.1f} | {used / base[1]:.3f} |")


if __name__ == "__main__":
    main()
