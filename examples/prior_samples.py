"""What does a prior believe? Draws fields from it before any measurement is seen.

Look at the samples of a prior before you trust an answer built on it: what they never show, the answer will not show
unless the data insist.
"""

from pathlib import Path

import torch

from scidiff.priors import load_pretrained
from scidiff.samplers import DPMSolver

PRIOR = "head-phantom"  # a bundled prior or a .safetensors file
SHAPE = (128, 112)
MEMBERS = 6
STEPS = 32
OUTPUT = Path("runs/prior_samples.png")


def main(
    prior: str = PRIOR,
    shape: tuple[int, int] = SHAPE,
    members: int = MEMBERS,
    steps: int = STEPS,
    output: Path = OUTPUT,
) -> torch.Tensor:
    law = load_pretrained(prior)
    sampler = DPMSolver(steps)
    generator = torch.Generator().manual_seed(0)
    ensemble = sampler(law, shape=(law.channels, *shape), members=members, generator=generator, batch_size=1)
    images = ensemble.samples[:, 0, 0].abs()

    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.2 * members, 3), layout="constrained")
    for axes, image in zip(figure.subplots(1, members, squeeze=False)[0], images, strict=True):
        axes.imshow(image.numpy(), cmap="gray", vmin=0, vmax=float(images.quantile(0.995)))
        axes.set_axis_off()
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=80)
    spread = ensemble.spread[0].square().mean().sqrt()
    print(f"{members} draws from {prior}, {ensemble.cost.denoiser} network calls each; spread {spread:.3f}; {output}")
    return ensemble.samples


if __name__ == "__main__":
    main()
