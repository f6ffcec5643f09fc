"""I have a deepinv physics; how do I get a calibrated posterior?

The physics blurs an image and sees every second pixel along each axis, with noise. Its operator and its noise become a
likelihood; a Gaussian law of smooth fields is the prior, so that the posterior is known exactly. Samplers draw from it;
the table says how far their ensembles are from the truth about the truth: mean in posterior standard deviations, total
variance over the exact one, and how often the exact 90 % interval of a pixel holds the draw.
"""

from pathlib import Path

import deepinv
import torch

import scidiff
from scidiff import posterior
from scidiff.interop.deepinv_physics import likelihood_from_deepinv
from scidiff.linalg import Stationary
from scidiff.priors import GaussianPrior
from scidiff.testing import compare_with_exact

SHAPE = (16, 20)
MEMBERS = 128
SAMPLERS = ("mmps", "dps")
NOISE = 0.1
OUTPUT = Path("runs/deepinv_physics.png")


def smooth_fields(shape: tuple[int, int]) -> GaussianPrior:
    """Periodic fields with unit variance and a correlation length of a few pixels."""
    ky, kx = torch.fft.fftfreq(shape[0])[:, None], torch.fft.fftfreq(shape[1])[None]
    spectrum = (1 + (ky.square() + kx.square()) / 0.1**2).pow(-2).double()
    return GaussianPrior(torch.zeros(1, *shape), Stationary((spectrum / spectrum.mean())[None], dims=2))


def main(
    shape: tuple[int, int] = SHAPE,
    members: int = MEMBERS,
    samplers: tuple[str, ...] = SAMPLERS,
    output: Path = OUTPUT,
) -> dict[str, dict[str, float]]:
    # The physics, as a user of deepinv has it, and a measurement made with it.
    physics = deepinv.physics.Downsampling(
        img_size=(1, *shape),
        filter=torch.tensor([[[[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]]]) / 16,
        factor=2,
        noise_model=deepinv.physics.GaussianNoise(NOISE, rng=torch.Generator().manual_seed(1)),
    )
    prior = smooth_fields(shape)
    truth = prior.sample(1, torch.Generator().manual_seed(0)).float()
    y = physics(truth)

    # The three lines that matter.
    likelihood = likelihood_from_deepinv(physics, y, (1, *shape))
    problem = scidiff.Posterior(prior, likelihood)
    draws = {name: posterior.get(name)(problem, members, torch.Generator().manual_seed(2)) for name in samplers}

    exact = prior.condition(likelihood.operator, likelihood.noise, likelihood.y)
    table = {name: compare_with_exact(ensemble.samples[:, 0], exact).as_dict() for name, ensemble in draws.items()}
    ideal = exact.sample(members, torch.Generator().manual_seed(3))
    table["exact"] = compare_with_exact(ideal, exact).as_dict()
    columns = ("mean_error", "trace_ratio", "coverage")
    print(f"{'sampler':10s}" + "".join(f"{c:>13s}" for c in columns))
    for name, scores in table.items():
        print(f"{name:10s}" + "".join(f"{scores[c]:13.3f}" for c in columns))
    print(f"mean_error of {members} exact draws is about {members**-0.5:.3f}; the picture is in {output}")
    picture(truth, physics.A_dagger(y), draws[samplers[0]], samplers[0], output)
    return table


def picture(truth: torch.Tensor, inverse: torch.Tensor, ensemble: scidiff.Ensemble, name: str, output: Path) -> None:
    """Truth, deepinv's least squares, our mean, and how far to trust it."""
    from matplotlib.figure import Figure

    panels = {
        "truth": truth,
        "least squares (A_dagger)": inverse,
        f"mean of {name}": ensemble.mean,
        "spread": ensemble.spread,
    }
    figure = Figure(figsize=(12, 3), layout="constrained")
    for axes, (title, field) in zip(figure.subplots(1, 4), panels.items(), strict=True):
        limits = {"vmin": 0.0} if title == "spread" else {"vmin": -2.5, "vmax": 2.5}
        axes.imshow(field[0, 0].numpy(), cmap="magma" if title == "spread" else "RdBu_r", **limits)
        axes.set_title(title)
        axes.set_axis_off()
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output)


if __name__ == "__main__":
    main()
