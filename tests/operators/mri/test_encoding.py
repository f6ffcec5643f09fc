"""CartesianMRI against a dense Fourier matrix, deepinv, and the identities of a linear operator."""

import math

import pytest
import torch

from scidiff.operators.mri import CartesianMRI, fft2c, ifft2c, masks
from scidiff.testing import check_adjoint, check_batch_independence, check_vjp

SIZES = [(12, 10), (13, 9), (8, 11)]


def dft(n: int) -> torch.Tensor:
    """Centred orthonormal Fourier matrix, written out."""
    index = torch.arange(n, dtype=torch.float64) - n // 2
    turns = -2 * math.pi * torch.outer(index, index) / n
    return torch.polar(torch.ones_like(turns), turns) / math.sqrt(n)


def make_masks(size, generator):
    height, width = size
    points = torch.rand(height, width, generator=generator) < 0.4
    points[0, 0] = True
    gaps = points.clone()
    gaps[:, 1] = gaps[:, -1] = False
    return {
        "points": points,
        "points, empty columns": gaps,
        "columns": masks.random(size, 2, generator=generator),
        "rows": masks.random(size, 2, axis=-2, generator=generator),
        "one point": torch.zeros(size, dtype=torch.bool).index_put(
            (torch.tensor(2), torch.tensor(3)), torch.tensor(True)
        ),
        "all": torch.ones(size, dtype=torch.bool),
    }


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sets", [1, 2])
@pytest.mark.parametrize("kind", ["points", "points, empty columns", "columns", "rows", "one point", "all"])
def test_is_the_fourier_matrix_and_its_adjoint(size, sets, kind, generator):
    mask = make_masks(size, generator)[kind]
    maps = torch.randn(3, sets, *size, dtype=torch.complex128, generator=generator)
    operator = CartesianMRI(maps, mask)
    x = torch.randn(2, sets, *size, dtype=torch.complex128, generator=generator)
    brute = torch.einsum("kh,bjhw,lw->bjkl", dft(size[0]), (maps * x[:, None]).sum(2), dft(size[1]))
    y = operator(x)
    assert y.shape == (2, 3, int(mask.sum())) == (2, operator.coils, operator.samples)
    assert torch.allclose(y, brute[..., mask], atol=1e-12)
    check_adjoint(operator, operator.shape, dtype=torch.complex128)
    assert torch.allclose(operator.normal(x), operator.adjoint(y), atol=1e-12)
    assert torch.equal(operator.sample(operator.grid(y)), y)
    assert torch.allclose(operator.grid(y), brute * mask, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_fft2c_is_the_centred_matrix_and_unitary(size, generator):
    x = torch.randn(2, *size, dtype=torch.complex128, generator=generator)
    assert torch.allclose(fft2c(x), dft(size[0]) @ x @ dft(size[1]).T, atol=1e-12)
    assert torch.allclose(ifft2c(fft2c(x)), x, atol=1e-12)


def test_same_numbers_as_deepinv(generator):
    physics = pytest.importorskip("deepinv.physics")
    size, coils = (12, 10), 3
    mask = make_masks(size, generator)["points"]
    maps = torch.randn(coils, *size, dtype=torch.complex64, generator=generator)
    x = torch.randn(2, 1, *size, dtype=torch.complex64, generator=generator)
    ours = CartesianMRI(maps, mask)
    theirs = physics.MultiCoilMRI(mask=mask[None, None].float(), coil_maps=maps[None])
    pairs = torch.view_as_real(x[:, 0]).movedim(-1, 1)
    y = theirs.A(pairs)
    assert torch.allclose(ours.grid(ours(x)), torch.complex(y[:, 0], y[:, 1]), atol=1e-5)
    back = theirs.A_adjoint(y)
    assert torch.allclose(ours.adjoint(ours(x))[:, 0], torch.complex(back[:, 0], back[:, 1]), atol=1e-5)


@pytest.mark.parametrize("kind", ["points", "columns"])
def test_gradients_and_rows(kind, generator):
    size = (8, 7)
    maps = torch.randn(2, *size, dtype=torch.complex128, generator=generator)
    operator = CartesianMRI(maps, make_masks(size, generator)[kind])
    x = torch.randn(2, 1, *size, dtype=torch.complex128, generator=generator)
    check_vjp(operator, x)
    check_batch_independence(operator, x)
    check_batch_independence(operator.normal, x)
    check_batch_independence(operator.adjoint, operator(x))


def test_changes_type(generator):
    size = (6, 5)
    maps = torch.randn(2, *size, dtype=torch.complex128, generator=generator)
    operator = CartesianMRI(maps, make_masks(size, generator)["points"])
    single = operator.to(torch.complex64)
    x = torch.randn(1, 1, *size, dtype=torch.complex128, generator=generator)
    y = single(x.to(torch.complex64))
    assert y.dtype == single.adjoint(y).dtype == single.normal(x.to(torch.complex64)).dtype == torch.complex64
    assert torch.allclose(y.to(torch.complex128), operator(x), atol=1e-5)


def test_names_what_is_wrong():
    maps, mask = torch.ones(2, 6, 5, dtype=torch.complex64), torch.ones(6, 5, dtype=torch.bool)
    with pytest.raises(ValueError, match="samples nothing"):
        CartesianMRI(maps, torch.zeros_like(mask))
    with pytest.raises(TypeError, match="boolean"):
        CartesianMRI(maps, mask.float())
    with pytest.raises(TypeError, match="complex"):
        CartesianMRI(maps.real, mask)
    with pytest.raises(ValueError, match=r"\(6, 5\).*\(5, 6\)"):
        CartesianMRI(maps, mask.T)
    with pytest.raises(ValueError, match="coils, sets"):
        CartesianMRI(maps[0], mask)
    operator = CartesianMRI(maps, mask)
    for call in (operator, operator.normal):
        with pytest.raises(ValueError, match=r"\(B, 1, 6, 5\)"):
            call(torch.ones(6, 5, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"\(B, 2, 30\)"):
        operator.adjoint(torch.ones(1, 2, 29, dtype=torch.complex64))
