"""Estimates of means and covariances from fields, and patches cut out of fields."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from scidiff.rng import explicit

__all__ = ["patches", "shrunk_covariance", "stationary_spectrum"]


def shrunk_covariance(data: Tensor, shrinkage: float | None = None) -> Tensor:
    r"""Sample covariance (1 - a) S + a (tr S / d) I of rows (N, d), with 1/(N - 1) in S.

    Arguments:
        data: Rows (N, d).
        shrinkage: Weight a in [0, 1]; None estimates the one that minimises the expected squared error.

    References:
        A well-conditioned estimator for large-dimensional covariance matrices, Ledoit and Wolf, 2004, Lemma 3.2 to 3.4.
    """
    n, d = data.shape
    centred = data - data.mean(0)
    s = centred.mT @ centred / (n - 1)
    mu = s.diagonal().mean()
    target = mu * torch.eye(d, dtype=data.dtype, device=data.device)
    if shrinkage is None:
        spread = (s - target).square().sum()
        fourth = centred.square().sum(1).square().sum()  # sum of ||x x'||^2
        error = (fourth - (n - 2) * s.square().sum()) / n**2  # sum of ||x x' - S||^2 / n^2, multiplied out
        shrinkage = float((error / spread).clamp(0, 1)) if float(spread) > 0 else 1.0
    if not 0 <= shrinkage <= 1:
        raise ValueError(f"shrinkage must lie between 0 and 1, got {shrinkage}.")
    return (1 - shrinkage) * s + shrinkage * target


def stationary_spectrum(data: Tensor, dims: int) -> tuple[Tensor, Tensor]:
    r"""Mean (\*X), constant over space, and power spectrum (\*X) of homogeneous fields (N, \*X)."""
    if not 1 <= dims < data.ndim:
        raise ValueError(f"data of shape {tuple(data.shape)} have no {dims} dimensions of space; give dims.")
    space = tuple(range(-dims, 0))
    mean = data.mean((0, *space), keepdim=True)
    power = torch.fft.fftn(data - mean, dim=space, norm="ortho").abs().square().mean(0)
    mirrored = power
    for dim in space:  # real fields: the periodogram is symmetric but for rounding
        mirrored = mirrored.roll(-1, dim).flip(dim)
    return mean[0].expand(data.shape[1:]).clone(), (power + mirrored) / 2


def patches(fields: Tensor, size: int | tuple[int, ...], n: int, generator: Generator | None = None) -> Tensor:
    r"""Random patches of the last dimensions of ``fields`` (N, \*C, \*grid): (n, \*C, \*size).

    Arguments:
        fields: Fields stacked along the first axis.
        size: Sides of a patch; one number for two equal sides.
        n: Number of patches, each from a random field and place.
        generator: Source of randomness.
    """
    sides = (size, size) if isinstance(size, int) else tuple(size)
    grid = tuple(fields.shape[-len(sides) :])
    if fields.ndim <= len(sides) or any(s < 1 or s > g for s, g in zip(sides, grid, strict=True)):
        raise ValueError(f"patches of {sides} do not fit into fields of shape {tuple(fields.shape)}.")
    device = generator.device if generator is not None else "cpu"
    which = torch.randint(len(fields), (n,), generator=explicit(generator), device=device).tolist()
    corners = [
        torch.randint(g - s + 1, (n,), generator=explicit(generator), device=device).tolist()
        for s, g in zip(sides, grid, strict=True)
    ]
    out = fields.new_empty(n, *fields.shape[1 : fields.ndim - len(sides)], *sides)
    for i, (field, *corner) in enumerate(zip(which, *corners, strict=True)):
        out[i] = fields[(field, ..., *[slice(c, c + s) for c, s in zip(corner, sides, strict=True)])]
    return out
