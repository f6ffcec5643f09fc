"""What can be said about a head when only a quarter of its k-space was measured?

A random head is scanned by eight simulated coils, a quarter of the lines is kept, and an ensemble of images is drawn
that all explain what was measured. Where they differ, the scan does not tell. Classical answers stand beside it.
"""

from pathlib import Path
from typing import Any

import scidiff
from scidiff import problems

ACCELERATION = 4
MEMBERS = 8
PRIOR = "head-phantom"  # a bundled prior, a .safetensors file, or any scidiff.protocols.Prior
OUTPUT = Path("runs/reconstruct_mri.png")


def main(
    members: int = MEMBERS,
    prior: Any = PRIOR,
    output: Path = OUTPUT,
    acceleration: float = ACCELERATION,
    **settings: Any,
) -> dict[str, float]:
    problem = problems.get("mri", acceleration=acceleration, prior=prior, **settings)
    case = problem.case(0)
    check = problem.check(case.observation)
    print(f"forward model: chi2 {check['forward_chi2']:.2f} on predicted samples, noise {check['noise_std']:.3g}")

    result = scidiff.reconstruct(problem, case.observation, members=members, truth=case.truth)
    scores = {k: float(v) for k, v in problem.evaluate(result, case.truth).items()}

    print(f"{'':14s}{'PSNR [dB]':>10s}{'SSIM':>8s}{'chi2 of lines set aside':>26s}")
    for label, end in (("zero-filled", "_zero_filled"), ("TV", "_tv"), ("mean", "")):
        aside = scores["held_back_chi2_mean" if not end else f"held_back_chi2{end}"]
        print(f"{label:14s}{scores[f'psnr{end}']:10.2f}{scores[f'ssim{end}']:8.3f}{aside:26.2f}")
    if members > 1:
        print(f"90 % intervals cover {scores['coverage_90']:.1%}; spread over skill {scores['spread_skill']:.2f}")
    output.parent.mkdir(parents=True, exist_ok=True)
    problem.plot(result).savefig(output)
    print(f"the picture is in {output}")
    return scores


if __name__ == "__main__":
    main()
