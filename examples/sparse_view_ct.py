"""What can be said about the inside of a limb that was X-rayed from 25 directions only?

A random limb is projected on a grid twice as fine as the one it is reconstructed on, photons are counted, and an
ensemble of attenuation maps is drawn that all explain the counts. Filtered backprojection, SIRT and total variation
stand beside it.
"""

from pathlib import Path
from typing import Any

import scidiff
from scidiff import problems

VIEWS = 25
PHOTONS = 1e5  # per detector bin, without the limb
MEMBERS = 4
PRIOR = "ct-slices"  # a bundled prior, a .safetensors file, or any scidiff.protocols.Prior
OUTPUT = Path("runs/sparse_view_ct.png")


def main(
    members: int = MEMBERS, prior: Any = PRIOR, output: Path = OUTPUT, views: int = VIEWS, **settings: Any
) -> dict[str, float]:
    problem = problems.get("ct", views=views, photons=PHOTONS, prior=prior, **settings)
    case = problem.case(0)
    check = problem.check(case.observation)
    print(f"{views} views of {check['bins']} bins, at least {check['photons']:.0f} photons in 95 % of them")

    result = scidiff.reconstruct(problem, case.observation, members=members, truth=case.truth)
    scores = {k: float(v) for k, v in problem.evaluate(result, case.truth).items()}

    print(f"{'':24s}{'PSNR [dB]':>10s}{'SSIM':>8s}")
    rows = {"filtered backprojection": "_fbp", "SIRT": "_sirt", "total variation": "_tv", "mean of the posterior": ""}
    for label, end in rows.items():
        print(f"{label:24s}{scores[f'psnr{end}']:10.2f}{scores[f'ssim{end}']:8.3f}")
    if members > 1:
        print(f"90 % intervals cover {scores['coverage_90']:.1%}; spread over skill {scores['spread_skill']:.2f}")
    output.parent.mkdir(parents=True, exist_ok=True)
    problem.plot(result).savefig(output)
    print(f"the picture is in {output}")
    return scores


if __name__ == "__main__":
    main()
