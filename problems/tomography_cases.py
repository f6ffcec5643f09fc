"""Fields with a known answer for tomography: random limbs of ours, or slices of CT volumes. All in Hounsfield units.

Both come on a finer grid than the one they are reconstructed on, with as many fine pixels to a coarse one along both
axes; the coarse truth is their mean, so that the two share their mass and their centre.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from scidiff.errors import InputError

__all__ = ["coarse", "limb", "volume_slice", "volumes"]

AIR = -1000.0


def coarse(field: Tensor, factor: int) -> Tensor:
    """Mean over squares of ``factor`` x ``factor`` pixels, (..., H, W)."""
    return F.avg_pool2d(field[None, None], factor)[0, 0] if field.ndim == 2 else F.avg_pool2d(field, factor)


def limb(size: int, generator: Generator, samples: int = 2) -> Tensor:
    """A random cross-section of a limb: skin, fat, muscles, one or two bones with marrow. (size, size) in HU.

    Ellipses with smoothly perturbed outlines, drawn on a grid ``samples`` times as fine and averaged.
    """
    n = size * samples
    axis = (torch.arange(n, dtype=torch.float64) + 0.5) / n * 2 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    def blob(centre: tuple[float, float], radii: tuple[float, float], turn: float) -> Tensor:
        dy, dx = y - centre[0], x - centre[1]
        a = (math.cos(turn) * dx + math.sin(turn) * dy) / radii[1]
        b = (-math.sin(turn) * dx + math.cos(turn) * dy) / radii[0]
        angle = torch.atan2(b, a)
        outline = sum(
            (
                float(w) * torch.cos(k * angle + 2 * math.pi * float(p))
                for k, w, p in zip((2, 3, 4), draw(3), draw(3), strict=True)
            ),
            torch.zeros_like(a),
        )
        return torch.hypot(a, b) < 1 + 0.04 * outline

    field = torch.full((n, n), AIR, dtype=torch.float64)
    height, width = (0.6 + 0.25 * float(v) for v in draw(2))
    turn = math.pi * float(draw())
    body = blob((0, 0), (height, width), turn)
    field[body] = -100 + 15 * float(draw())
    inner = blob((0, 0), (0.85 * height, 0.85 * width), turn)
    field[inner & body] = 40.0
    for _ in range(7):
        r, t = 0.5 * float(draw()) ** 0.5 + 0.15, 2 * math.pi * float(draw())
        centre = (r * height * math.sin(t), r * width * math.cos(t))
        radii = (0.1 + 0.15 * float(draw()), 0.1 + 0.15 * float(draw()))
        field[blob(centre, radii, math.pi * float(draw())) & inner] = 30 + 40 * float(draw())
    for _ in range(4):  # fat between the muscles
        r, t = 0.6 * float(draw()), 2 * math.pi * float(draw())
        centre = (r * height * math.sin(t), r * width * math.cos(t))
        field[blob(centre, (0.02 + 0.02 * float(draw()), 0.2), math.pi * float(draw())) & inner] = -90.0
    for i in range(1 + int(draw() < 0.5)):
        t = 2 * math.pi * float(draw())
        centre = ((0.12 + 0.25 * i) * math.sin(t), (0.12 + 0.25 * i) * math.cos(t))
        radius, shell = 0.12 + 0.06 * float(draw()), 0.55 + 0.2 * float(draw())
        bone_turn, stretch = math.pi * float(draw()), 0.8 + 0.4 * float(draw())
        field[blob(centre, (radius, radius * stretch), bone_turn)] = 900 + 500 * float(draw())
        field[blob(centre, (shell * radius, shell * radius * stretch), bone_turn)] = 50 + 150 * float(draw())
    return coarse(field, samples).to(torch.float32)


def volumes(source: str | os.PathLike[str]) -> list[Path]:
    """The volume in a file, a DICOM series in a folder, or all volumes (.nii, .nii.gz, .npz) of a folder."""
    path = Path(source)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"{path}: there is no such file or folder of CT volumes.")
    found = sorted(p for p in path.iterdir() if p.name.lower().endswith((".nii", ".nii.gz", ".npz")))
    return found or [path]


def volume_slice(source: str | os.PathLike[str], index: int, pixel: float) -> tuple[Tensor, float, int, str]:
    """One axial slice of a volume in Hounsfield units, padded with air to a square.

    Arguments:
        source: See `volumes`.
        index: Counts through the volumes first, then through slices spread evenly over the middle of each.
        pixel: Wanted side of the pixels of the reconstruction in mm.

    Returns:
        The fine field (n, n), the side of its pixels in mm, how many of them make a pixel of the reconstruction, and
        where it comes from. A volume that is coarser than ``pixel / 1.5`` is interpolated to half its pixels.
    """
    from scidiff.datasets.tomography import read_dicom_series
    from scidiff.datasets.volumes import read_volume

    files = volumes(source)
    path = files[index % len(files)]
    volume = read_dicom_series(path) if path.is_dir() else read_volume(path)
    steps = volume.attrs.get("voxel_size")
    if steps is None:
        raise InputError(f"{path}: 'voxel_size' is not stated; lengths are needed for line integrals.")
    middle = np.linspace(0.2, 0.8, 13)
    place = int(round(float(middle[(5 * (index // len(files)) + 6) % 13]) * (volume.sizes["z"] - 1)))
    image = torch.from_numpy(np.array(volume.values[place], dtype=np.float32)).clamp_min(AIR)
    dy, dx = float(steps[1]), float(steps[2])
    if abs(dy - dx) > 1e-3 * dx:
        size = [round(image.shape[0] * dy / dx), image.shape[1]]
        image = F.interpolate(image[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
    factor = round(pixel / dx)
    if factor < 2:
        factor, dx = 2, dx / 2
        image = F.interpolate(image[None, None], scale_factor=2, mode="bilinear", align_corners=False)[0, 0]
    side = -(-max(image.shape) // (2 * factor)) * 2 * factor
    top, left = ((side - n) // 2 for n in image.shape)
    image = F.pad(image, (left, side - image.shape[1] - left, top, side - image.shape[0] - top), value=AIR)
    return image, dx, factor, f"{path.name}, slice {place}"
