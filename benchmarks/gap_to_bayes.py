"""What a network has not learned of a law that is known exactly: the Gaussian random field.

Compares a prior trained by `scidiff train prior examples/priors/gaussian-field.toml` with the exact one:

- denoising error over that of the exact denoiser, by noise level, on the same fields and noise (target: at most 1.03);
- power spectrum of draws over that of the law, in rings that hold over 0.1 % of the variance (target: within 10 %);
- one-point histogram of draws against the normal law, by Kolmogorov's distance (target: less than 0.03);
- entropy, minus the mean of ln p over fields of the law, by the probability-flow ODE (target: within 1 %).

Everything is in units of ``u``; each number has its standard error where it is random.

    python benchmarks/gap_to_bayes.py runs/gaussian-field/prior.safetensors
    python benchmarks/gap_to_bayes.py exact        # the exact denoiser in its place: the error of the check
"""

import argparse
import math

import torch

from scidiff.datasets.gaussian_field import GaussianFields
from scidiff.metrics.spectra import power_spectrum
from scidiff.priors import GaussianPrior, load_pretrained
from scidiff.priors.likelihood import log_prob
from scidiff.samplers import DPMSolver

LEVELS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def exact_prior(source, grid):
    mean = torch.zeros(source.channels, *grid)
    covariance = source.covariance(grid)
    covariance.dtype = mean.dtype
    return GaussianPrior(mean, covariance)


def errors(prior, exact, fields, sigma, generator):
    """Ratio of the mean squared errors, its standard error, and the exact one's mean error over the theory's."""
    noisy = fields + sigma * torch.randn(fields.shape, generator=generator)
    level = torch.tensor(sigma)
    mine, best = (
        torch.cat([(p.denoise(n, level) - u).square().flatten(1).mean(1) for n, u in zip(*parts, strict=True)])
        for p in (prior, exact)
        for parts in [(noisy.split(64), fields.split(64))]
    )
    ratio = float(mine.mean() / best.mean())
    spread = float((mine - ratio * best).std() / best.mean()) / math.sqrt(len(fields))
    return ratio, spread, float(best.mean())


def spectrum(draws, exact_power):
    """Ratio in the rings that hold over 0.1 % of the variance, and its standard error."""
    power = power_spectrum(draws)[1].flatten(0, 1).double()
    kept = exact_power > 1e-3 * exact_power.sum()
    ratio = power.mean(0)[kept] / exact_power[kept]
    return kept.nonzero().flatten(), ratio, power.std(0)[kept] / exact_power[kept] / math.sqrt(len(power))


def kolmogorov(draws):
    """Distance of all numbers of all draws from the standard normal law."""
    x = draws.double().flatten().sort().values
    cdf = torch.special.ndtr(x)
    steps = torch.arange(len(x) + 1, dtype=torch.float64) / len(x)
    return float(torch.maximum((steps[1:] - cdf).max(), (cdf - steps[:-1]).max()))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prior", help="a .safetensors file, a bundled name, or 'exact'")
    parser.add_argument("--grid", type=int, nargs=2, default=[32, 32])
    parser.add_argument("--fields", type=int, default=256, help="held-out fields for the denoising error")
    parser.add_argument("--draws", type=int, default=512)
    parser.add_argument("--steps", type=int, default=40, help="steps of the sampler")
    parser.add_argument("--densities", type=int, default=16, help="fields for the entropy; 0 leaves it out")
    parser.add_argument("--probes", type=int, default=32)
    parser.add_argument("--seed", type=int, default=12345)
    a = parser.parse_args()
    grid = tuple(a.grid)
    if a.prior == "exact":
        source = GaussianFields()
        prior = exact_prior(source, grid)
    else:
        prior = load_pretrained(a.prior)
        source = GaussianFields(**{k: v for k, v in prior.card["data"].items() if k != "kind"})
        prior = prior.rescaled(1 / source.scale)
    exact = exact_prior(source, grid)
    generator = torch.Generator().manual_seed(a.seed)
    fields = torch.stack([source(generator, grid) for _ in range(a.fields)])

    print(f"{a.prior}: {a.fields} fields on {grid[0]}x{grid[1]}, seed {a.seed}")
    worst = 0.0
    for sigma in LEVELS:
        ratio, spread, best = errors(prior, exact, fields, sigma, generator)
        worst = max(worst, ratio)
        print(f"sigma {sigma:5.2f}: exact error {best:.5f}, ratio {ratio:.4f} +- {spread:.4f}")
    print(f"largest ratio {worst:.4f} (target at most 1.03)")

    shape = (source.channels, *grid)
    sampler = DPMSolver(steps=a.steps)
    draws = sampler(prior, shape=shape, members=a.draws, generator=generator).samples[:, 0]
    lam = source.covariance(grid).eigenvalues.expand(source.channels, *grid)
    law = GaussianPrior(torch.zeros(shape), source.covariance(grid)).sample(4096, generator)
    exact_power = (
        power_spectrum(law)[1].flatten(0, 1).double().mean(0) if source.boundary == "reflect" else rings(lam, grid)
    )
    k, ratio, spread = spectrum(draws, exact_power)
    off = (ratio - 1).abs()
    w = int(off.argmax())
    print(f"spectrum of {a.draws} draws, {a.steps} steps, {len(k)} rings: largest deviation at wavenumber {int(k[w])},")
    print(f"  ratio {float(ratio[w]):.4f} +- {float(spread[w]):.4f} (target within 0.10)")
    print(f"histogram: Kolmogorov distance {kolmogorov(draws):.4f} (target 0.03)")

    if a.densities:
        found = log_prob(prior, fields[: a.densities], probes=a.probes, generator=generator, rtol=1e-3, atol=1e-3)
        truth = exact.log_prob(fields[: a.densities]).double()
        d = math.prod(shape)
        entropy = 0.5 * (d * math.log(2 * math.pi * math.e) + float(lam.double().log().sum()))
        # The mean of ln p over the same fields is compared: the entropy without the luck of the fields.
        gap = (truth - found.value).double()
        error = float(gap.std() / math.sqrt(a.densities))
        mean = float(gap.mean())
        print(f"entropy {entropy:.2f} nats, {entropy / d:.4f} per number")
        print(f"  the network's is larger by {mean:.2f} +- {error:.2f}: {100 * mean / abs(entropy):.2f} % (target 1 %)")


def rings(lam, grid):
    """The law's power per ring: Parseval's share of each mode, as in `power_spectrum`."""
    ky, kx = (torch.fft.fftfreq(n, dtype=torch.float64) for n in grid)
    ring = max(1 / n for n in grid)
    index = torch.floor(torch.hypot(ky[:, None], kx[None, :]) / ring + 0.5).long().flatten()
    total = torch.zeros(int(index.max()) + 1, dtype=torch.float64)
    return total.index_add_(0, index, lam[0].double().flatten() / math.prod(grid))


if __name__ == "__main__":
    main()
