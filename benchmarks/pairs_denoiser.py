"""How much of the law of pairs has a prior learned? Its denoising error beside the least possible, level by level.

    python benchmarks/pairs_denoiser.py [--prior poisson-pairs] [--fields 16] [--seed 0] [--threads 1]

The pairs are Gaussian, so the least error is known: in the prior's own units (each sine its own) source and solution
differ in sign only, and the best denoiser is that of one field with two noisy views. ``ratio``: mean squared error of
the network over that of the exact denoiser, on the same noised fields, for the whole pair and for the part of it in the
4x4, 8x8 and 16x16 longest sines, which hold most of what few points can tell.
"""

import argparse

import torch

from scidiff.datasets.poisson_pairs import PoissonPairs
from scidiff.linalg.cosine import cosine_basis
from scidiff.linalg.sine import sine_basis
from scidiff.priors.pretrained import load_pretrained

LEVELS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
BANDS = (4, 8, 16)


class Exact:
    """E[u0 | u] of one field of the pair, from the eigenvectors of its covariance among sines, parity by parity."""

    def __init__(self, law: PoissonPairs, n: int) -> None:
        covariance, _ = law._parts((n, n))
        units = law.units_on((n, n)).deviations[0].double()
        mixing = sine_basis(n) @ cosine_basis(n).mT
        spectrum = covariance.eigenvalues.reshape(n, n)
        self.blocks = []
        for p in (0, 1):
            for q in (0, 1):  # sine k + 1 shares its parity with cosine k
                A, B = mixing[p::2, p::2], mixing[q::2, q::2]
                root = torch.einsum("ik,jl,kl->ijkl", A, B, spectrum[p::2, q::2].sqrt())
                root = (root / units[p::2, q::2, None, None]).flatten(2).flatten(0, 1)
                values, vectors = torch.linalg.eigh(root @ root.mT)
                self.blocks.append((p, q, values.clamp(min=0), vectors))
        self.S = sine_basis(n)

    def __call__(self, u: torch.Tensor, sigma: float) -> torch.Tensor:
        mean = self.S @ (u[:, 0] - u[:, 1]) @ self.S.mT / 2
        found = torch.zeros_like(mean)
        for p, q, values, V in self.blocks:
            part = mean[:, p::2, q::2]
            shrunk = (part.flatten(1) @ V * (values / (values + sigma**2 / 2))) @ V.mT
            found[:, p::2, q::2] = shrunk.reshape(part.shape)
        x = self.S.mT @ found @ self.S
        return torch.stack([x, -x], 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", default="poisson-pairs")
    parser.add_argument("--fields", type=int, default=16)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    prior = load_pretrained(given.prior)
    if prior.modes is None:
        raise SystemExit(f"{given.prior} has one unit for all waves; this comparison needs units of sines.")
    law, n = PoissonPairs(modes=True, shape=(given.size, given.size)), given.size
    exact, generator, S = Exact(law, n), torch.Generator().manual_seed(given.seed), sine_basis(n)
    x = torch.stack([law(generator, (n, n)) for _ in range(given.fields)]).double()
    print(f"prior {given.prior}, {given.fields} pairs on {n}x{n}, seed {given.seed}, threads {given.threads}")
    print(f"{'level':>6s} {'least error':>11s} {'ratio':>7s} " + " ".join(f"{f'{b}x{b}':>7s}" for b in BANDS))
    for level in LEVELS:
        u = x + level * torch.randn(x.shape, generator=generator, dtype=torch.float64)
        best = S @ (exact(u, level) - x) @ S.mT
        mine = S @ (prior.denoise(u.float(), torch.tensor(level)).double() - x) @ S.mT
        ratios = [float(mine[..., :b, :b].square().sum() / best[..., :b, :b].square().sum()) for b in (n, *BANDS)]
        least = float(best.square().mean().sqrt())
        print(f"{level:6.2f} {least:11.4f} {ratios[0]:7.3f} " + " ".join(f"{r:7.3f}" for r in ratios[1:]), flush=True)


if __name__ == "__main__":
    main()
