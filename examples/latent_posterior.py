"""Does a latent sampler draw from the posterior, or only near it?

Temperature fields are coded by their leading principal components and seen through overlapping footprints. Code, noise
and operator are linear and Gaussian, so the posterior of the field is known in closed form behind the decoder. Latent
samplers, in the form that follows from the law and as published, are held against it.
"""

from pathlib import Path

import torch

from scidiff import Likelihood, Posterior
from scidiff.noise import GaussianNoise
from scidiff.operators import LinearMap
from scidiff.posterior import PSLD, LatentDAPS, LatentDPS, MemberSampler, ReSample
from scidiff.priors import GaussianPrior, LatentPrior, LinearAutoencoder

MEMBERS = 128
SHAPE, COMPONENTS, SENSORS = (12, 16), 32, 24
NOISE = 0.5  # kelvin; the field's standard deviation is 5
SAMPLERS: dict[str, MemberSampler] = {
    "resample": ReSample(),
    "resample, published": ReSample(form="published"),
    "latent_daps": LatentDAPS(),
    "psld": PSLD(),
    "latent_dps": LatentDPS(),
}
OUTPUT = Path("runs/latent_posterior.png")


def main(
    members: int = MEMBERS,
    samplers: dict[str, MemberSampler] | None = None,
    shape: tuple[int, int] = SHAPE,
    components: int = COMPONENTS,
    sensors: int = SENSORS,
    output: Path = OUTPUT,
) -> dict[str, dict[str, float]]:
    samplers = SAMPLERS if samplers is None else samplers
    generator = torch.Generator().manual_seed(0)
    points = torch.cartesian_prod(*(torch.arange(n).double() for n in shape))
    weather = GaussianPrior(torch.full((1, *shape), 280.0), 25 * torch.exp(-torch.cdist(points, points) / 4))
    autoencoder = LinearAutoencoder.fit(weather.sample(2000, generator), components)
    prior = LatentPrior(autoencoder, autoencoder.code_prior())

    places = torch.rand(sensors, 2, generator=generator).double() * (torch.tensor(shape) - 1)
    footprint = torch.exp(-torch.cdist(places, points).square() / 2)
    operator, noise = LinearMap(footprint / footprint.sum(1, keepdim=True), (1, *shape)), GaussianNoise(NOISE)
    truth = prior.sample(1, generator)
    y = noise.sample(operator(truth), generator)
    posterior, exact = Posterior(prior, Likelihood(operator, noise, y)), prior.condition(operator, noise, y)

    table, means = {}, {}
    for name, sampler in samplers.items():
        ensemble = sampler(posterior, members, torch.Generator().manual_seed(0))
        x, cdf = ensemble.samples[:, 0], exact.marginal_cdf(ensemble.samples[:, 0])
        off = (x.double().mean(0) - exact.mean).square() / exact.variance
        table[name] = {
            "mean error": float(off.mean().sqrt()),
            "trace ratio": float(x.double().var(0).sum() / exact.variance.double().sum()),
            "coverage": float(((cdf > 0.05) & (cdf < 0.95)).double().mean()),
            "chi2": float(((y - operator(x)) / NOISE).square().mean()),
            "network": ensemble.cost.denoiser + ensemble.cost.denoiser_vjp,
            "decoder": ensemble.diagnostics["decoder"] + ensemble.diagnostics["decoder_vjp"],
        }
        means[name] = (x.mean(0)[0], x.std(0)[0])

    print(f"{'sampler':22s}" + "".join(f"{column:>13s}" for column in next(iter(table.values()))))
    for name, row in table.items():
        print(f"{name:22s}" + "".join(f"{value:13.3f}" if value < 20 else f"{value:13.0f}" for value in row.values()))
    print(f"exact draws: mean error {members**-0.5:.3f}, trace ratio 1, coverage 0.9; chi2 1 on average over data")
    draw(truth[0, 0], exact, means, output)
    return table


def draw(
    truth: torch.Tensor, exact: GaussianPrior, means: dict[str, tuple[torch.Tensor, torch.Tensor]], output: Path
) -> None:
    """Means in the first row, spreads in the second."""
    from matplotlib.figure import Figure

    columns = {"exact": (exact.mean[0], exact.variance[0].sqrt()), **means}
    figure = Figure(figsize=(1.9 * (len(columns) + 1), 3.4), dpi=150, layout="constrained")
    axes = figure.subplots(2, len(columns) + 1, squeeze=False)
    low, high, wide = float(truth.min()), float(truth.max()), float(exact.variance.max() ** 0.5) * 1.5
    axes[0, 0].imshow(truth.numpy(), vmin=low, vmax=high)
    axes[0, 0].set_title("truth (K)", fontsize=8)
    for k, (name, (mean, spread)) in enumerate(columns.items(), 1):
        axes[0, k].imshow(mean.numpy(), vmin=low, vmax=high)
        axes[1, k].imshow(spread.numpy(), vmin=0, vmax=wide, cmap="magma")
        axes[0, k].set_title(name, fontsize=8)
    axes[1, 1].set_ylabel("spread (K)", fontsize=8)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    axes[1, 0].axis("off")
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output)


if __name__ == "__main__":
    main()
