"""Is the bead hollow?

A widefield microscope blurs every plane of a stack into all others. With a stack of a fluorescent bead and the pattern
of one point, the posterior shows which structure the data carry: the ratio of the bead's rim to its middle, with its
spread. Without the two files (set SCIDIFF_DATA) the same is done for simulated spheres, which are filled.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

import scidiff
from scidiff.datasets import read_stack
from scidiff.operators import photon_transfer
from scidiff.posterior import MMPS
from scidiff.problems.imaging import tensor
from scidiff.problems.widefield import WidefieldDeconvolution
from scidiff.samplers import DPMSolver

FOLDER = Path(os.environ.get("SCIDIFF_DATA") or "../shared/data") / "imaging"
STACK, PSF = "bead_widefield_data.tif", "bead_widefield_kernel.tif"
CROP = (slice(13, 41), slice(18, 46), slice(18, 46))  # planes, rows and columns around the bead
MARGIN = (4, 8, 8)
MEMBERS, STEPS, ITERATIONS = 4, 16, 4
OUTPUT = Path("runs/widefield_beads.png")


def main(
    folder: Path = FOLDER,
    crop: tuple[slice, slice, slice] = CROP,
    margin: tuple[int, int, int] = MARGIN,
    members: int = MEMBERS,
    steps: int = STEPS,
    output: Path = OUTPUT,
    **simulated: Any,
) -> float:
    if (folder / STACK).is_file():
        stack = read_stack(folder / STACK)
        camera = photon_transfer(tensor(stack))  # from the whole stack: it needs many voxels
        settings: dict[str, Any] = {"psf": folder / PSF, "gain": camera.gain, "offset": camera.offset}
        problem = WidefieldDeconvolution(margin=margin, **settings)
        observation = problem.read(stack[crop].to_dataset())
    else:
        problem = WidefieldDeconvolution(margin=margin, gain=2.0, offset=100.0, **simulated)
        observation = problem.read(problem.case(0).observation)
    found = problem.check(observation)
    print(", ".join(f"{name} {found[name]:.4g}" for name in ("gain", "offset", "misfit", "prior_length")))
    for text in found["warnings"]:
        print(f"warning: {text}")

    sampler = MMPS(sampler=DPMSolver(steps, stochastic=True), iterations=ITERATIONS)
    result = scidiff.reconstruct(problem, observation, sampler=sampler, members=members)
    members_, classical = result["fluorescence"].values, problem.baselines(observation)["richardson_lucy"].values
    rim = np.array([rim_to_middle(x) for x in members_])
    print(f"{'':18s}{'rim / middle':>14s}")
    print(f"{'Richardson-Lucy':18s}{rim_to_middle(classical):14.2f}")
    print(f"{'posterior':18s}{rim.mean():14.2f} +- {rim.std(ddof=1):.2f} over {members} members; {output}")
    picture(result, classical, problem.margin, output)
    return float(rim.mean())


def rim_to_middle(x: np.ndarray) -> float:
    """Brightest voxel of the plane through the centre of light over the mean of the 3x3 voxels there."""
    bright = np.where(x > 0.3 * x.max(), x, 0)
    z, row, column = (round(float((i * bright).sum() / bright.sum())) for i in np.indices(x.shape))
    return float(x[z].max() / x[z, row - 1 : row + 2, column - 1 : column + 2].mean())


def picture(result: Any, classical: np.ndarray, margin: tuple[int, ...], output: Path) -> None:
    """The brightest plane: data, Richardson-Lucy, mean, one member and spread."""
    from matplotlib.figure import Figure

    inner = tuple(slice(m, n - m) for m, n in zip(margin, classical.shape, strict=True))
    mean = result["fluorescence_mean"].values[inner]
    plane = int(mean.max((1, 2)).argmax())
    panels = {
        "stack": result["stack"].values[plane],
        "Richardson-Lucy": classical[inner][plane],
        "posterior mean": mean[plane],
        "one member": result["fluorescence"].values[0][inner][plane],
        "spread": result["fluorescence_spread"].values[inner][plane],
    }
    figure = Figure(figsize=(2.6 * len(panels), 2.9), layout="constrained")
    for axes, (title, values) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        axes.imshow(values, cmap="magma" if title == "spread" else "gray", vmin=None if title == "stack" else 0)
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=120)


if __name__ == "__main__":
    main()
