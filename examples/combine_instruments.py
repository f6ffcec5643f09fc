"""What do two instruments know together that each alone does not?

A camera sees a temperature field blurred and coarse, a few stations see it sharply at points. The forward models are
put together with `@` and `stack`; prior and noise are Gaussian, so every posterior is known in closed form and MMPS,
which sees all measurements side by side, can be checked. The table says how much of the spread of the prior is left.
"""

from pathlib import Path

import torch

from scidiff import Likelihood, Posterior, operators
from scidiff.linalg import Stationary
from scidiff.noise import GaussianNoise
from scidiff.posterior import MMPS
from scidiff.priors import GaussianPrior
from scidiff.testing import compare_with_exact

SHAPE = (20, 24)
LENGTH = 3.0  # over which temperatures are alike, in pixels
STATIONS = 30
NOISE = 0.05
MEMBERS = 128
OUTPUT = Path("runs/instruments.safetensors")


def main(
    shape: tuple[int, int] = SHAPE, stations: int = STATIONS, members: int = MEMBERS, output: Path = OUTPUT
) -> dict[str, dict[str, float]]:
    seed = torch.Generator().manual_seed
    ky, kx = torch.fft.fftfreq(shape[0])[:, None].double(), torch.fft.fftfreq(shape[1])[None].double()
    spectrum = (1 + (2 * torch.pi * LENGTH) ** 2 * (ky.square() + kx.square())) ** -2.0
    prior = GaussianPrior(torch.zeros(1, *shape), Stationary(spectrum / spectrum.mean(), dims=2))

    blur = operators.Convolution(torch.ones(5, 5) / 25, shape)
    camera = operators.Downsampling(4, shape) @ blur
    places = torch.zeros(shape, dtype=torch.bool).flatten()
    places[torch.randperm(len(places), generator=seed(1))[:stations]] = True
    sensors = operators.Mask(places.reshape(shape))
    both = operators.stack([camera, sensors], (1, *shape))
    output.parent.mkdir(parents=True, exist_ok=True)
    both.save(output)
    both = operators.load(output)  # as another program would

    truth, noise, table = prior.sample(1, seed(2)), GaussianNoise(NOISE), {}
    for name, operator in {"camera": camera, "stations": sensors, "both": both}.items():
        y = noise.sample(operator(truth), seed(3))
        ensemble = MMPS()(Posterior(prior, Likelihood(operator, noise, y)), members=members, generator=seed(4))
        exact = prior.condition(operator, noise, y)
        report = compare_with_exact(ensemble.samples[:, 0], exact)
        table[name] = {
            "numbers": float(y[0].numel()),
            "norm": operator.norm(seed(5), shape=(1, *shape)),
            "spread left": float((exact.variance.mean() / prior.variance.mean()).sqrt()),
            "mean error": report.mean_error,
            "trace ratio": report.trace_ratio,
        }
    print(f"{both!r}: {output}")
    print(f"{'instrument':12s}" + "".join(f"{column:>13s}" for column in table["both"]))
    for name, row in table.items():
        print(f"{name:12s}" + "".join(f"{value:13.3f}" for value in row.values()))
    print(f"mean error of {members} exact draws is about {members**-0.5:.3f}, their trace ratio 1")
    return table


if __name__ == "__main__":
    main()
