"""Computed tomography against its classical answers: a tooth on a synchrotron, and a patient no prior has seen.

1. tooth.h5, all 181 views, full resolution: our filtered backprojection and that of scikit-image.
2. tooth.h5, a few views, four bins joined: mean of the posterior, total variation and filtered backprojection against
   the filtered backprojection of all views. Photon noise alone does not explain this scan; the model error that is
   added is the one with which total variation predicts views set aside of the other detector row. Total variation also
   gets the weight that is best on that row, of the same tooth, which is more than it would know in earnest. The prior
   was not tuned.
3. Slices of a CT volume that the prior has not seen, from 25 views on a grid twice as coarse as the one they were
   projected on. The error that pixels make and the weight that is best for total variation are
   those of a slice of another patient.

    python benchmarks/ct_quality.py --data FOLDER_WITH_ct [--prior FILE] [--members 8] [--slices 5]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scidiff import problems
from scidiff.datasets.tomography import centre_of_rotation, line_integrals, read_scan
from scidiff.operators.tomography import ParallelBeam
from scidiff.posterior import get
from scidiff.problems.imaging import tensor
from scidiff.problems.tomography_tv import weighted_tv

VIEWS_TOOTH, VIEWS_PATIENT, BINNING = 30, 25, 4
SIZE = 80  # joined bins along the sides of the field; the tooth is 65 wide, all around it is air
MODEL_ERRORS = (0.0, 0.005, 0.01, 0.02)  # standard deviations of line integrals


def relative(a: np.ndarray, b: np.ndarray, where: np.ndarray) -> float:
    return float(np.linalg.norm((a - b)[where]) / np.linalg.norm(b[where]))


def disc(n: int) -> np.ndarray:
    place = np.arange(n) - (n - 1) / 2
    return np.hypot(place[:, None], place) < 0.49 * n


def full_views(tooth: Path) -> None:
    """Our filtered backprojection of all views beside scikit-image's."""
    from skimage.transform import iradon

    scan = line_integrals(read_scan(tooth))
    centre = centre_of_rotation(scan["sinogram"])
    y = tensor(scan["sinogram"][0])[None, None].double()
    # iradon wants the axis in the middle bin (bins // 2): interpolate the detector by the shift, for both.
    bins = y.shape[-1]
    half = int(min(centre, bins - 1 - centre))
    place = centre + np.arange(-half, half + 1)
    shifted = np.stack([np.interp(place, np.arange(bins), row) for row in y[0, 0].numpy()])
    angles, n = scan["angle"].values, 2 * half + 1
    begin = time.perf_counter()
    ours = ParallelBeam((n, n), angles, bins=n, truncation="ignore").fbp(torch.from_numpy(shifted)[None, None])
    seconds = time.perf_counter() - begin
    begin = time.perf_counter()
    theirs = iradon(shifted.T, theta=angles, filter_name="ramp", circle=True)
    other = time.perf_counter() - begin
    # The angle runs the other way round there: the picture is upside down.
    found = min(
        (relative(ours[0, 0].numpy(), turned, disc(n)), name)
        for name, turned in {"as is": theirs, "flipped": theirs[::-1], "mirrored": theirs[:, ::-1]}.items()
    )
    print(f"1. tooth.h5, 181 views, {n} x {n}, axis at bin {centre:.2f}:")
    print(f"   ours against skimage.transform.iradon: relative difference {found[0]:.2e} ({found[1]})", end="; ")
    print(f"{seconds:.2f} s against {other:.2f} s")


def ensemble(problem: Any, observation: Any, sampler: str, members: int, batch: int, **options: Any) -> torch.Tensor:
    method: Any = get(sampler, **options)
    draws = method(problem.posterior(observation), members, torch.Generator().manual_seed(0), batch_size=batch)
    return draws.samples


def result(problem: Any, observation: Any, samples: torch.Tensor) -> Any:
    return observation.assign({problem.field: (("member", "y", "x"), samples[:, 0, 0].numpy())})


def line(label: str, scores: dict[str, float], *keys: str) -> None:
    print(f"   {label:22s}" + "".join(f"{key} {scores[key]:.3f}  " for key in keys if key in scores))


def tuned(tooth: Path, settings: dict[str, Any]) -> tuple[float, float]:
    """On the other row: the model error that views set aside show, and the weight that is then best for TV."""
    found = []
    for error in MODEL_ERRORS:
        problem = problems.get("ct", row=0, model_error=error, **settings)
        observation = problem.read(tooth)
        operator, y = problem.operator(observation), problem.measurement(observation)
        std, water = tensor(observation["noise_std"]), float(observation["water"])
        chi2 = []
        for weight in (4, 16):
            image = weighted_tv(operator, y, std, weight / water)[0].numpy()
            predicted = problem.evaluate(observation.assign({problem.field: (("member", "y", "x"), image)}))
            chi2.append(float(predicted["held_back_chi2_mean"]))
        found.append((abs(np.log(min(chi2))), error, problem, observation))
    _, error, problem, observation = min(found, key=lambda row: row[0])
    truth = observation[["reference"]].rename(reference=problem.field)
    return error, problem.tuned_tv_weight(observation, truth)


def few_views(tooth: Path, prior: str, members: int, samplers: list[str], steps: int | None) -> None:
    settings = {"views": VIEWS_TOOTH, "binning": BINNING, "size": SIZE, "prior": prior}
    error, weight = tuned(tooth, settings)
    problem = problems.get("ct", row=1, tv_weight=weight, model_error=error, **settings)
    observation = problem.read(tooth)
    size = observation.sizes["x"]
    print(f"2. tooth.h5, {VIEWS_TOOTH} views, {size} x {size}, against all 181 views:")
    print(f"   found on the other row: model error {error:g}, TV weight {weight:g}")
    for sampler in samplers:
        begin = time.perf_counter()
        options = {} if steps is None else {"steps": steps}
        draws = ensemble(problem, observation, sampler, members, members, **options)
        seconds = time.perf_counter() - begin
        scores = {k: float(v) for k, v in problem.evaluate(result(problem, observation, draws), observation).items()}
        if sampler == samplers[0]:
            for name in ("fbp", "sirt", "tv"):
                line(name, {k: scores[f"{k}_{name}"] for k in ("psnr", "ssim")}, "psnr", "ssim")
        line(f"{sampler}, mean of {members}", scores, "psnr", "ssim", "chi2", "held_back_chi2_mean", "spread_skill")
        line(f"  in {seconds:.0f} s", scores, "coverage_90", "coverage_90_members", "held_back_coverage_90")


def patient(folder: Path, prior: str, members: int, slices: int, samplers: list[str], steps: int | None) -> None:
    settings: dict[str, Any] = {"views": VIEWS_PATIENT, "prior": prior}
    other = problems.get("ct", data=folder / "sts_010_ct.nii.gz", **settings)
    case = other.case(0)
    residual = other.likelihood(case.observation).difference(
        other.operator(case.observation)(tensor(case.truth[other.field])[None, None])
    )
    photons = tensor(case.observation["noise_std"]).square().mean()
    settings["model_error"] = float((residual.square().mean() - photons).clamp_min(0).sqrt())  # of pixels of 2 mm
    other = problems.get("ct", data=folder / "sts_010_ct.nii.gz", **settings)
    case = other.case(0)
    weight = other.tuned_tv_weight(case.observation, case.truth)
    problem = problems.get("ct", data=folder / "sts_051_ct.nii.gz", tv_weight=weight, **settings)
    print(f"3. sts_051, {slices} slices, {VIEWS_PATIENT} views, 1e5 photons:")
    print(f"   found on another patient: model error {settings['model_error']:.4f}, TV weight {weight:g}")
    table: dict[str, list[dict[str, float]]] = {}
    for index in range(slices):
        case = problem.case(index)
        for sampler in samplers:
            options = {} if steps is None else {"steps": steps}
            draws = ensemble(problem, case.observation, sampler, members, members, **options)
            scores = problem.evaluate(result(problem, case.observation, draws), case.truth)
            found = {k: float(v) for k, v in scores.items()}
            table.setdefault(sampler, []).append(found)
            if sampler == samplers[0]:
                for name in ("fbp", "sirt", "tv"):
                    row = {k: found[f"{k}_{name}"] for k in ("psnr", "ssim")}
                    table.setdefault(name, []).append(row)
    keys = ("psnr", "ssim", "chi2", "coverage_90", "spread_skill")
    for name, rows in table.items():
        line(name, {k: float(np.mean([row[k] for row in rows])) for k in keys if k in rows[0]}, *keys)
    gain = [a["psnr"] - b["psnr"] for a, b in zip(table[samplers[0]], table["tv"], strict=True)]
    print(f"   {samplers[0]} - tv: {np.mean(gain):.2f} dB (from {min(gain):.2f} to {max(gain):.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--prior", default="ct-slices")
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--slices", type=int, default=5)
    parser.add_argument("--samplers", nargs="+", default=["mmps", "dps"])
    parser.add_argument("--steps", type=int, help="steps of the samplers; by default their own")
    parser.add_argument("--parts", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--threads", type=int, default=1)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    print(f"prior {a.prior}, {a.members} members, seed 0, {a.threads} thread(s), steps {a.steps or 'default'}")
    tooth = a.data / "ct" / "raw" / "tooth.h5"
    if 1 in a.parts:
        full_views(tooth)
    if 2 in a.parts:
        few_views(tooth, a.prior, a.members, a.samplers, a.steps)
    if 3 in a.parts:
        patient(a.data / "ct" / "vol", a.prior, a.members, a.slices, a.samplers, a.steps)


if __name__ == "__main__":
    main()
