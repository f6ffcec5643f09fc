"""Which coil maps explain a raw scan best? Chi2 per degree of freedom of fits and held-back predictions.

Run ``python benchmarks/mri_forward_model.py SCAN.npy``: an array (coil, ky, kx) of centred k-space. Two protocols:
points that are zero in every coil were not measured ("missing"), or they are data ("measured": what is usually called
fully sampled). Near 1, maps and noise explain the data; held-back numbers carry one standard error.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scidiff.operators.mri import calibration_noise, estimate_noise, held_back_chi2, ifft2c, masks, prewhiten
from scidiff.operators.mri.espirit import espirit


def crude_maps(kspace: Tensor, mask: Tensor) -> Tensor:
    """Low-resolution coil images over their root sum of squares, without ESPIRiT."""
    rows, cols = masks.calibration_region(mask)
    window = torch.zeros(mask.shape)
    window[rows, cols] = torch.outer(
        torch.hann_window(rows.stop - rows.start, periodic=False),
        torch.hann_window(cols.stop - cols.start, periodic=False),
    )
    image = ifft2c(kspace * window)
    return image / image.abs().square().sum(0).sqrt()


def pixelwise_chi2(kspace: Tensor, maps: Tensor) -> float:
    """Misfit of the pixel-by-pixel least-squares fit of whitened, fully sampled data, per degree of freedom."""
    image = ifft2c(kspace).permute(1, 2, 0)[..., None]
    columns = maps.permute(2, 3, 0, 1)
    gram = columns.mH @ columns
    ridge = 1e-3 * gram.diagonal(dim1=-2, dim2=-1).real.mean() * torch.eye(gram.shape[-1])
    fit = columns @ torch.linalg.solve(gram + ridge, columns.mH @ image)
    parameters = torch.linalg.solve(gram + ridge, gram).diagonal(dim1=-2, dim2=-1).real.sum()
    freedom = 2 * (image.numel() - float(parameters))
    return float((image - fit).abs().square().sum()) / freedom


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scan", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--acceleration", type=float, default=4.0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    raw = torch.from_numpy(np.load(options.scan, allow_pickle=False)).to(torch.complex64)
    mask = raw.abs().sum(0) > 0
    noise = estimate_noise(raw, mask)
    (kspace,) = prewhiten(noise.covariance, raw)
    level = calibration_noise(kspace, mask, generator=torch.Generator().manual_seed(0))
    print(f"{options.scan.name}: {tuple(raw.shape)}, {float(mask.double().mean()):.1%} of the points are not zero")
    rows, cols = masks.calibration_region(mask)
    print(f"calibration region {rows.stop - rows.start} x {cols.stop - cols.start}")
    print(f"noise per real component from {noise.source}, {noise.samples} samples: ", noise.std.numpy().round(5))
    print(f"calibration matrix: {level:.3f} times that")
    print("estimates if zeros are data:", estimate_noise(raw, torch.ones_like(mask)).candidates)

    lines = masks.random(mask.shape, options.acceleration, generator=torch.Generator().manual_seed(0))
    choices: dict[str, Callable[[Tensor], Tensor]] = {"crude, no ESPIRiT": lambda m: crude_maps(kspace * m, m)}
    for kernel in (4, 5, 6, 7, 8):
        choices[f"kernel {kernel}"] = lambda m, k=kernel: espirit(kspace * m, m, kernel=k).maps
    for threshold in (0.005, 0.01, 0.02, 0.05):
        choices[f"threshold {threshold}"] = lambda m, t=threshold: espirit(kspace * m, m, threshold=t).maps
    for size in (16, 20):
        choices[f"centre {size} x {size}"] = lambda m, s=size: espirit(kspace * m, m, calibration=(s, s)).maps
    choices["cropped at 0.9"] = lambda m: espirit(kspace * m, m, crop=0.9).maps
    choices["two sets, faded"] = lambda m: espirit(kspace * m, m, sets=2).maps
    choices["two sets everywhere"] = lambda m: espirit(kspace * m, m, sets=2, soft=None).maps
    print("zeros missing (held back, outside the calibration region, raw, fit); whole array as data (pixelwise); maps")
    print(f"from all data or from {options.acceleration:g}x random lines of it (lines: held back, fit)")
    columns = ("held back", "outside", "raw", "fit", "pixelwise", "lines: held", "lines: fit")
    print(f"{'maps':28s}", *(f"{name:>12s}" for name in columns))
    for name, choose in choices.items():
        maps = choose(mask)
        check = held_back_chi2(kspace, mask, maps, generator=torch.Generator().manual_seed(0))
        row = [check.held_back, check.held_back_outside, check.held_back_raw, check.fit]
        row.append(pixelwise_chi2(kspace, maps if maps.ndim == 4 else maps[:, None]))
        both = mask & lines
        try:
            part = held_back_chi2(kspace, both, choose(both), generator=torch.Generator().manual_seed(0))
            row += [part.held_back, part.fit]
        except ValueError:  # the lines leave too small a centre
            row += [float("nan")] * 2
        print(f"{name:28s}", *(f"{value:12.3f}" for value in row), flush=True)
    maps = espirit(kspace * lines, lines).maps
    check = held_back_chi2(kspace, lines, maps, generator=torch.Generator().manual_seed(0))
    print(
        f"zeros measured, {options.acceleration:g}x lines, defaults: held back {check.held_back:.3f} "
        f"+- {check.held_back_error:.3f}, fit {check.fit:.3f}; "
        f"whole reference by these maps, pixelwise {pixelwise_chi2(kspace, maps):.3f}"
    )


if __name__ == "__main__":
    main()
