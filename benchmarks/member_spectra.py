"""Does a single member look like a state? Power of members divided by power of the truth, by wavenumber.

    python benchmarks/member_spectra.py {slp,t2m} MODEL [MODEL ...] --data DATA [--part test] [--cases 50] [--threads 1]

A score of points is nearly blind to the smallest scales, which hold little variance: an ensemble can be well calibrated
at every point while its members are speckled. Fields are normalised as the forecaster normalises them, freed of their
mean and of their edges (Hann window); spectra are isotropic, averaged over cases, one member each (root 7). The
wavenumber counts waves per grid step, 0.5 the shortest. 1 is a member with the variance of the truth at that scale.
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from scidiff.datasets import part_of, trajectories, with_season
from scidiff.forecast import load_forecaster
from scidiff.metrics import Accumulator, Spectrum, power_spectrum
from scidiff.rng import Streams

FILES = {"slp": "ncep_slp_natl_daily_2001_2008.npz", "t2m": "ncep_t2m_precip_daily_10x12.npz"}
ROOT = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=("slp", "t2m"))
    parser.add_argument("models", nargs="+", metavar="MODEL", help="name of a bundled forecaster, or a file")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--part", choices=("test", "validation"), default="test")
    parser.add_argument("--cases", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    file = arguments.data / FILES[arguments.case]
    ds = part_of(trajectories(arguments.case, file=file, departures=False), arguments.part)
    print(f"{arguments.case}, {arguments.part} part, {arguments.cases} cases, root {ROOT}, threads {arguments.threads}")
    for path in arguments.models:
        model: Any = load_forecaster(path)
        x, forcing = model.spec.to_tensor(ds), model.spec.forcing_tensor(with_season(ds))
        w, h = model.window, model.horizon
        starts = torch.linspace(w, len(x) - h - 1, arguments.cases).long()
        around = starts[:, None] + torch.arange(-w + 1, h + 1)
        with torch.no_grad():
            streams = Streams(ROOT, range(len(starts)))
            members = model.sample(x[around[:, :w]], forcing[around], generator=streams)
        k = power_spectrum(x[:1, 0])[0]
        print(f"\n{path}\n\n| lead | " + " | ".join(f"{v:.2f}" for v in k[1:]) + " |\n|---|" + "---|" * (len(k) - 1))
        for lead in sorted({1, (h + 1) // 2, h}):
            seen = Accumulator([Spectrum(window="hann")])
            seen.update(members[None, :, lead - 1, 0], x[starts + lead, 0])
            own, truth = seen.value(Spectrum(window="hann"))
            print(f"| {lead} | " + " | ".join(f"{v:.2f}" for v in (own / truth)[1:]) + " |")


if __name__ == "__main__":
    main()
