"""What was in front of the camera when the hand shook?

A window of a photograph is blurred by the path of a trembling hand and made noisy; an ensemble of sharp pictures is
drawn that all explain it, also a little beyond the frame, where light came from too. Classical answers stand beside it.
"""

from pathlib import Path
from typing import Any

import scidiff
from scidiff import problems

KERNEL, WIDTH = "walk", 9  # or the path of a measured point-spread function
NOISE = 0.01  # standard deviation, for grey values between 0 and 1
MEMBERS = 8
PRIOR = "patches"  # a bundled prior, a .safetensors file, or any scidiff.protocols.Prior
OUTPUT = Path("runs/deblur_photograph.png")


def main(
    members: int = MEMBERS,
    prior: Any = PRIOR,
    output: Path = OUTPUT,
    kernel: str = KERNEL,
    width: float = WIDTH,
    noise: float = NOISE,
    **settings: Any,
) -> dict[str, float]:
    problem = problems.get("deblurring", kernel=kernel, width=width, noise=noise, prior=prior, **settings)
    case = problem.case(0)
    result = scidiff.reconstruct(problem, case.observation, members=members, truth=case.truth)
    scores = {k: float(v) for k, v in problem.evaluate(result, case.truth).items()}

    print(f"{'':18s}{'PSNR [dB]':>10s}{'RMSE':>8s}")
    for label in ("wiener", "richardson_lucy", "tv", "mean"):
        end = "" if label == "mean" else f"_{label}"
        print(f"{label.replace('_', ' '):18s}{scores[f'psnr{end}']:10.2f}{scores[f'rmse{end}']:8.4f}")
    print(f"members explain the photograph with chi2 {scores['chi2']:.2f}")
    if members > 1:
        print(f"90 % intervals cover {scores['coverage_90']:.1%}; spread over skill {scores['spread_skill']:.2f}")
    output.parent.mkdir(parents=True, exist_ok=True)
    problem.plot(result).savefig(output)
    print(f"the picture is in {output}")
    return scores


if __name__ == "__main__":
    main()
