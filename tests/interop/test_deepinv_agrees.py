"""Where scidiff and deepinv have the same instrument they give the same numbers; conventions are stated."""

import pytest
import torch
from torch import Generator

deepinv = pytest.importorskip("deepinv")

from deepinv import physics as P  # noqa: E402

from scidiff.interop.deepinv_physics import from_deepinv  # noqa: E402
from scidiff.operators import Convolution, Downsampling, Identity, Mask  # noqa: E402
from scidiff.operators.mri import CartesianMRI  # noqa: E402

F64 = torch.float64
GRID = (8, 10)


def randn(*shape, seed=0, dtype=F64):
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=dtype)


def both_ways(ours, theirs, x, y):
    torch.testing.assert_close(theirs(x), ours(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(theirs.adjoint(y), ours.adjoint(y), rtol=0, atol=1e-12)


@pytest.mark.parametrize("sides", [(3, 3), (5, 3), (4, 2)])
def test_periodic_blur(sides):
    """Both convolve (they do not correlate), and both count from entry side // 2 of the kernel, odd or even."""
    kernel = randn(*sides, seed=1)
    x = randn(2, 1, *GRID)
    ours = Convolution(kernel, GRID)
    blurs = {
        "BlurFFT": P.BlurFFT((1, *GRID), kernel[None, None]),
        "Blur": P.Blur(kernel[None, None], padding="circular"),
    }
    for physics in blurs.values():
        both_ways(ours, from_deepinv(physics, (1, *GRID)), x, randn(2, 1, *GRID, seed=2))


def test_downsampling_by_a_mean():
    """Means over blocks are deepinv's Downsampling with a box as its filter; its default filter is none at all."""
    ours = Downsampling(2, GRID)
    x = randn(2, 1, *GRID)
    theirs = from_deepinv(P.Downsampling((1, *GRID), filter=torch.full((1, 1, 2, 2), 0.25, dtype=F64), factor=2),
                          (1, *GRID))  # fmt: skip
    both_ways(ours, theirs, x, randn(2, 1, 4, 5, seed=2))


def test_mask():
    """deepinv keeps zeros where nothing is seen; Mask measures the seen entries only."""
    seen = randn(*GRID) > 0.2
    theirs = from_deepinv(P.Inpainting((1, *GRID), mask=seen[None].to(F64)), (1, *GRID), observed=seen[None])
    x, ours = randn(3, 1, *GRID, seed=2), Mask(seen)
    assert torch.equal(theirs(x), ours(x)[:, 0])
    assert torch.equal(theirs.adjoint(ours(x)[:, 0]), ours.adjoint(ours(x)))
    assert torch.equal(from_deepinv(P.Denoising(), (1, *GRID))(x), Identity()(x))


@pytest.mark.parametrize("coils", [1, 3])
def test_multi_coil_mri(coils):
    """Both use centred orthonormal transforms; deepinv has two channels and zeros, CartesianMRI the samples."""
    maps = randn(coils, 6, 9, seed=1, dtype=torch.complex128)
    seen = randn(6, 9) > 0
    physics = P.MultiCoilMRI(mask=seen.to(F64), coil_maps=maps[None].to(torch.complex128), img_size=(2, 6, 9))
    theirs = from_deepinv(physics, (1, 6, 9), complex_channels=True, observed=seen.expand(1, coils, 6, 9))
    ours = CartesianMRI(maps, seen)
    x = randn(2, 1, 6, 9, seed=3, dtype=torch.complex128)
    torch.testing.assert_close(theirs(x), ours(x).flatten(1), rtol=0, atol=1e-12)
    y = ours(x + 1)
    torch.testing.assert_close(theirs.adjoint(y.flatten(1)), ours.adjoint(y), rtol=0, atol=1e-12)
    full = from_deepinv(physics, (1, 6, 9), complex_channels=True)
    torch.testing.assert_close(full(x)[:, 0], ours.grid(ours(x)), rtol=0, atol=1e-12)


def test_single_coil_mri():
    seen = randn(6, 9) > 0
    theirs = from_deepinv(P.MRI(mask=seen.to(F64)), (1, 6, 9), complex_channels=True)
    ours = CartesianMRI(torch.ones(1, 6, 9, dtype=torch.complex128), seen)
    x = randn(2, 1, 6, 9, seed=3, dtype=torch.complex128)
    torch.testing.assert_close(theirs(x), ours.grid(ours(x)), rtol=0, atol=1e-12)
