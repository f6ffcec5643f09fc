"""Can a picture be found from the modulus of its Fourier transform alone?

A detector far behind an object records intensities; the phases are lost, and with them the place of the object and
whether it is upside down. Projections in turn find a field that fits from some starts and not from others. A prior of
such fields takes their place here. The table counts the starts that succeed, the picture shows one of each.
"""

from pathlib import Path
from typing import Any

import torch

from scidiff import posterior
from scidiff.problems.imaging import tensor
from scidiff.problems.phase_baselines import alternating_projections, misfit
from scidiff.problems.phase_retrieval import SUCCESS, PhaseRetrieval

PRIOR = "rings"  # a bundled prior, or a .safetensors file
SOURCE = "rings"
SHAPE = (64, 64)
STARTS = 4
STEPS, ZETA = 200, 1.0  # of DPS; its default kick is too long here, see docs/phase_retrieval.md
OUTPUT = Path("runs/phase_retrieval.png")


def main(
    starts: int = STARTS,
    prior: Any = PRIOR,
    source: str = SOURCE,
    shape: tuple[int, int] = SHAPE,
    steps: int = STEPS,
    output: Path = OUTPUT,
) -> dict[str, int]:
    problem = PhaseRetrieval(shape, source=source, prior=prior, noise=0.05)
    case = problem.case(0)
    observation, truth = problem.read(case.observation), tensor(case.truth["image"])[None, None]
    operator, y = problem.operator(observation), problem.measurement(observation)
    generator = torch.Generator().manual_seed(0)
    fields = {
        "error reduction": alternating_projections(
            operator, y, starts, 0, 500, positive=True, generator=generator
        ).fields,
        "hybrid input-output": alternating_projections(operator, y, starts, positive=True, generator=generator).fields,
    }
    sampler = posterior.get("dps", steps=steps, zeta=ZETA)
    fields["DPS"] = sampler(problem.posterior(observation), starts, generator, batch_size=4).samples[:, 0]

    counts = {}
    print(f"{'method':22s}{'successes':>12s}{'median PSNR':>14s}{'median misfit':>16s}")
    for name, found in fields.items():
        psnr, wrong = problem.member_psnr(found[:, None], truth), misfit(operator, found, y)
        counts[name] = int((psnr >= SUCCESS).sum())
        of = f"{counts[name]} of {starts}"
        print(f"{name:22s}{of:>12s}{float(psnr.median()):14.1f}{float(wrong.median()):16.4f}")
    print(f"a success has {SUCCESS:g} dB after alignment; {output}")
    picture(truth, {name: problem.aligned(found[:1, None], truth)[0] for name, found in fields.items()}, y, output)
    return counts


def picture(truth: torch.Tensor, fields: dict[str, torch.Tensor], y: torch.Tensor, output: Path) -> None:
    from matplotlib.figure import Figure

    panels = {
        "pattern (logarithm)": torch.fft.fftshift(y[0, 0].clamp(min=1e-3 * float(y.max())).log()),
        "truth": truth[0, 0],
    }
    panels |= {f"{name}, first start": field[0, 0] for name, field in fields.items()}
    figure = Figure(figsize=(2.6 * len(panels), 2.9), layout="constrained")
    for axes, (title, values) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        low, high = (None, None) if "pattern" in title else (0, float(truth.max()))
        axes.imshow(values.numpy(), cmap="gray", vmin=low, vmax=high)
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=120)


if __name__ == "__main__":
    main()
