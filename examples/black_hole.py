"""Is there a ring around the black hole of M87, and how large is it?

The Event Horizon Telescope looked at M87* in April 2017. Nobody knows the phases of its telescopes' gains, so only
closure quantities are used. An ensemble of images is drawn that all explain them; the ring is measured in each. Without
the data (folder DATA), a crescent is simulated instead, with the same kind of noise and gains.
"""

import os
from pathlib import Path
from typing import Any

import scidiff
from scidiff import posterior, problems

DATA = Path(os.environ.get("SCIDIFF_DATA", "data")) / "eht" / "m87" / "SR1_M87_2017_101_lo.csv"  # 11 April, low band
PRIOR = "rings"  # a bundled prior, a .safetensors file, any prior, or "generic", which knows no rings
MEMBERS = 8
STEPS, ITERATIONS = 32, 6
OUTPUT = Path("runs/black_hole.png")


def main(
    data: Path | None = DATA,
    prior: Any = PRIOR,
    members: int = MEMBERS,
    steps: int = STEPS,
    iterations: int = ITERATIONS,
    output: Path = OUTPUT,
    **settings: Any,
) -> dict[str, float]:
    problem = problems.get("black-hole", prior=prior, source="crescent", **settings)
    truth = None
    if data is not None and data.is_file():
        observation = problem.read(data)
    else:
        case = problem.case(0)
        truth, observation = case.truth, case.observation
    sampler = posterior.get("mmps", steps=steps, iterations=iterations)
    result = scidiff.reconstruct(problem, observation, sampler, members=members, truth=truth)
    output.parent.mkdir(parents=True, exist_ok=True)
    problem.plot(result).savefig(output)

    table = problem.members(result)
    print(f"{'member':>6s} {'chi2 phases':>12s} {'chi2 amplitudes':>16s} {'kept':>5s} {'ring':>5s} {'diameter':>9s}")
    for m in range(members):
        row = table.isel(member=m)
        print(
            f"{m:6d} {float(row['chi2_closure_phase']):12.2f} {float(row['chi2_log_closure_amplitude']):16.2f}"
            f" {'yes' if row['kept'] else 'no':>5s} {'yes' if row['is_ring'] else 'no':>5s}"
            f" {float(row['diameter']):9.1f}"
        )
    scores = {name: float(value) for name, value in problem.evaluate(result, truth).items()}
    print(
        f"kept {scores['kept']:.0f} of {members}; ring of {scores['ring_diameter']:.1f} "
        f"+- {scores['ring_diameter_spread']:.1f} microarcseconds (M87*, published: 42 +- 3); "
        f"the picture is in {output}"
    )
    return scores


if __name__ == "__main__":
    main()
