"""Blur with borders against the definition of each, entry by entry; decompositions; point-spread functions."""

import math

import numpy as np
import pytest
import torch
from torch import Generator

from scidiff.linalg.solvers import cg
from scidiff.operators import Convolution, Downsampling, LinearMap, ReflectiveConvolution, antialias, psf
from scidiff.operators.blur import BOUNDARIES, blur
from scidiff.operators.fourier_filter import fast_size
from scidiff.testing import check_adjoint, check_batch_independence, check_vjp

F64 = torch.float64


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=F64)


def brute(kernel: np.ndarray, x: np.ndarray, boundary: str) -> np.ndarray:
    """The sum over the kernel, with the field continued as the boundary says."""
    reach = [(k - 1 - k // 2, k // 2) for k in kernel.shape]
    if boundary != "valid":
        mode = {"zero": "constant", "periodic": "wrap", "reflective": "symmetric"}[boundary]
        x = np.pad(x, reach, mode=mode)
    sides = [n - k + 1 for n, k in zip(x.shape, kernel.shape, strict=True)]
    z = np.zeros(sides)
    for j in np.ndindex(kernel.shape):
        first = [k - 1 - i for k, i in zip(kernel.shape, j, strict=True)]
        z += kernel[j] * x[tuple(slice(f, f + n) for f, n in zip(first, sides, strict=True))]
    return z


CASES = [((3, 4), (6, 11)), ((5, 1), (5, 7)), ((4, 5), (9, 5)), ((3,), (8,)), ((2, 3, 2), (4, 5, 3))]


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize(("k", "n"), CASES)
def test_every_boundary_is_its_definition(boundary: str, k: tuple, n: tuple) -> None:
    kernel, x = random(*k), random(*n, seed=1)
    z = blur(kernel, n, boundary)(x[None, None])[0, 0]
    torch.testing.assert_close(z, torch.from_numpy(brute(kernel.numpy(), x.numpy(), boundary)), rtol=0, atol=1e-13)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_adjoint_gradient_batch(boundary: str) -> None:
    for k, n in CASES[:3]:
        operator = blur(random(*k), n, boundary)
        assert check_adjoint(operator, (2, *n)) < 1e-13
        assert check_adjoint(operator, (1, *n), dtype=torch.float32) < 1e-6
        check_adjoint(operator, (1, *n), dtype=torch.complex128)
        check_vjp(operator, random(2, 1, *n, seed=2))
        check_batch_independence(operator, random(3, 1, *n, seed=3))
    channels = blur(random(2, 3, 3), (6, 8), boundary)  # one kernel per channel
    x = random(1, 2, 6, 8)
    one = blur(channels.kernel[1], (6, 8), boundary)
    torch.testing.assert_close(channels(x)[:, 1:], one(x[:, 1:]))


def test_gradients_pass_through_forward_adjoint_and_transforms() -> None:
    """Second derivatives and torch.func, which Newton-like methods use."""
    operator = blur(random(3, 2), (5, 6), "reflective")
    x, v = random(1, 1, 5, 6), random(1, 1, 5, 6, seed=4)

    def energy(x):
        return operator.adjoint(operator(x)).square().sum() / 2

    x.requires_grad_()
    (first,) = torch.autograd.grad(energy(x), x, create_graph=True)
    (second,) = torch.autograd.grad((first * v).sum(), x)
    normal = lambda z: operator.adjoint(operator(z))  # noqa: E731
    torch.testing.assert_close(second, normal(normal(v)))
    torch.testing.assert_close(torch.func.jvp(operator, (x.detach(),), (v,))[1], operator(v))
    rows = torch.func.vmap(operator)(random(4, 1, 1, 5, 6))
    torch.testing.assert_close(rows[2], operator(random(4, 1, 1, 5, 6)[2]))
    torch.testing.assert_close(torch.func.vjp(operator, x.detach())[1](v)[0], operator.adjoint(v))


def test_sizes_of_transforms_are_fast() -> None:
    assert [fast_size(n) for n in (1, 11, 13, 97, 256, 283)] == [1, 12, 14, 98, 256, 288]


def test_bad_kernels_are_refused() -> None:
    with pytest.raises(TypeError, match="must be real"):
        blur(torch.ones(3, 3, dtype=torch.complex64), (8, 8))
    with pytest.raises(ValueError, match="larger than the grid"):
        blur(torch.ones(9, 3), (8, 8), "zero")
    with pytest.raises(ValueError, match="one of valid, periodic, reflective, zero, got 'mirror'"):
        blur(torch.ones(3, 3), (8, 8), "mirror")
    with pytest.raises(ValueError, match=r"measurements \(B, ..., 6, 6\), got \(1, 1, 8, 8\)"):
        blur(torch.ones(3, 3), (8, 8)).adjoint(torch.ones(1, 1, 8, 8))


def test_reflective_decomposition() -> None:
    """Even kernels in the cosine basis: orthonormal, rebuild the operator, singular values of its matrix."""
    even = random(3, 5)
    even = even + even.flip(0)
    operator = ReflectiveConvolution(even + even.flip(1), (5, 8))
    U, s, V = operator.svd()
    x, z = random(2, 1, 5, 8, seed=5), random(2, 1, 5, 8, seed=6)
    torch.testing.assert_close(U(s * V.adjoint(x)), operator(x), rtol=0, atol=1e-12)
    for frame in (U, V):
        torch.testing.assert_close(frame.adjoint(frame(z)), z)
        torch.testing.assert_close((frame(z) * x).sum(), (z * frame.adjoint(x)).sum())
    expected = torch.linalg.svdvals(LinearMap.dense(operator, (1, 5, 8)).matrix)
    torch.testing.assert_close(s.flatten().sort(descending=True).values, expected, rtol=0, atol=1e-12)
    with pytest.raises(TypeError, match="not even along every axis"):
        ReflectiveConvolution(random(3, 3), (5, 8)).svd()


# Point-spread functions


def moments(kernel: torch.Tensor) -> tuple[list[float], list[float]]:
    """Centroid relative to the centre, and variance, along each axis."""
    mean, variance = [], []
    for dim in range(kernel.ndim):
        p = kernel.sum([d for d in range(kernel.ndim) if d != dim]) if kernel.ndim > 1 else kernel
        at = torch.arange(len(p), dtype=F64) - len(p) // 2
        mean.append(float((p * at).sum()))
        variance.append(float((p * at.square()).sum()) - mean[-1] ** 2)
    return mean, variance


def test_widths_are_those_of_the_formulas() -> None:
    """Variance of the shape plus that of the pixel it is averaged over, 1/12 (bilinear shares: about 1/6)."""
    mean, variance = moments(psf.gaussian(1.7, dims=3))
    assert np.allclose(mean, 0, atol=1e-14) and np.allclose(variance, 1.7**2 + 1 / 12, rtol=2e-3)
    mean, variance = moments(psf.disc(4.3))
    assert np.allclose(mean, 0, atol=1e-12) and np.allclose(variance, 4.3**2 / 4 + 1 / 12, rtol=0.01)
    assert float(psf.disc(4.3)[4, 4]) == pytest.approx(1 / (math.pi * 4.3**2), rel=1e-4)
    mean, variance = moments(psf.line(9.0, 30.0))
    along = 81 / 12
    assert np.allclose(mean, 0, atol=1e-12)
    assert np.allclose(variance, [along / 4 + 1 / 6, along * 3 / 4 + 1 / 6], atol=0.05)
    assert int(psf.line(6.0, 0.0).count_nonzero(dim=1).count_nonzero()) == 1  # angle 0 is along x
    for kernel in (psf.gaussian(0.0), psf.disc(0.0), psf.disc(0.3), psf.line(0.0)):
        assert kernel.shape[0] % 2 == 1 and float(kernel.sum()) == pytest.approx(1) and float(kernel.max()) > 0.99


def test_units_of_length() -> None:
    import pint

    units = pint.UnitRegistry()
    a = psf.gaussian(units.Quantity(300, "nm"), pixel=units.Quantity(0.1, "um"))
    torch.testing.assert_close(a, psf.gaussian(3.0))
    torch.testing.assert_close(psf.line(5, units.Quantity(math.pi / 2, "rad")), psf.line(5, 90))
    with pytest.raises(ValueError, match="size of a pixel is not known"):
        psf.disc(units.Quantity(2, "um"))
    with pytest.raises(ValueError, match="expected a quantity that converts to"):
        psf.disc(units.Quantity(2, "kg"), pixel=units.Quantity(1, "um"))
    with pytest.raises(ValueError, match="at least 0, got -1"):
        psf.disc(-1)
    with pytest.raises(ValueError, match="size must be odd"):
        psf.gaussian(1.0, size=4)


def test_walks_and_measured_kernels_are_centred(generator: Generator) -> None:
    a, b = psf.walk(15, Generator().manual_seed(1)), psf.walk(15, Generator().manual_seed(1))
    assert torch.equal(a, b) and not torch.equal(a, psf.walk(15, generator))
    assert a.shape == (15, 15) and float(a.min()) >= 0 and float(a.sum()) == pytest.approx(1)
    assert np.allclose(moments(a)[0], 0, atol=1e-9) and 1 < moments(a)[1][0] + moments(a)[1][1] < 49
    raw = torch.full((9, 12), 0.5)
    raw[1, 2], raw[2, 2], raw[1, 5] = 2.5, 1.5, 4.5
    kernel = psf.measured(raw, background=0.5)
    assert kernel.shape == (3, 5) and float(kernel.sum()) == pytest.approx(1)  # columns 2..5 around 3.71 -> 4
    assert max(map(abs, moments(kernel)[0])) <= 0.5
    with pytest.raises(ValueError, match="negative values, down to -1"):
        psf.measured(torch.tensor([[1.0, -1.0]]))
    with pytest.raises(ValueError, match="zero everywhere"):
        psf.measured(torch.zeros(3, 3))


# Downsampling with filters


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_bicubic_is_that_of_torch_inside(factor: int) -> None:
    n = 12 * factor
    x = random(1, 1, n, n)
    theirs = torch.nn.functional.interpolate(x, scale_factor=1 / factor, mode="bicubic", antialias=True)
    ours = Downsampling(factor, (n, n), kernel="bicubic")(x)
    torch.testing.assert_close(ours[..., 2:-2, 2:-2], theirs[..., 2:-2, 2:-2], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", antialias.FILTERS)
@pytest.mark.parametrize("boundary", ["mirror", "periodic", "valid"])
def test_filters_keep_constants_and_straight_lines(name: str, boundary: str) -> None:
    for factor in (2, 3):
        w = antialias.antialias(factor, name)
        side = 8 * factor + (len(w) - factor if boundary == "valid" else 0)
        A = Downsampling(factor, (side,), kernel=name, boundary=boundary)  # type: ignore[arg-type]
        assert A.coarse == (8,)
        torch.testing.assert_close(A(torch.ones(1, side, dtype=F64)), torch.ones(1, 8, dtype=F64))
        slope = A(torch.arange(side, dtype=F64)[None])[0].diff()
        slope = slope if boundary == "valid" else slope[3:4]  # what sees no border
        torch.testing.assert_close(slope, torch.full_like(slope, factor), rtol=1e-12, atol=1e-12)
        assert check_adjoint(A, (1, side)) < 1e-13
        U, s, V = A.svd()
        x = random(2, side)
        torch.testing.assert_close(U(s * V.adjoint(x)), A(x))


def test_periodic_and_valid_downsampling_are_a_blur_and_a_choice() -> None:
    w = antialias.antialias(2, "bicubic")  # 8 weights
    x = random(1, 12, 16)
    kernel = (w[:, None] * w).flip((0, 1))
    fine = Convolution(kernel, (12, 16))(x)  # coarse entry j sees 2 j - 3 ... 2 j + 4, whose centre is 2 j + 1/2
    found = Downsampling(2, (12, 16), kernel="bicubic", boundary="periodic")(x)
    torch.testing.assert_close(found, fine[:, ::2, ::2], rtol=0, atol=1e-12)
    inside = Downsampling(2, (12 + 6, 16 + 6), kernel="bicubic", boundary="valid")
    wide = torch.nn.functional.pad(x[None], (3, 3, 3, 3), mode="circular")[0]
    torch.testing.assert_close(inside(wide), found)
    with pytest.raises(ValueError, match="multiple of 2 plus 6, got 13"):
        Downsampling(2, (13,), kernel="bicubic", boundary="valid")
    with pytest.raises(ValueError, match="box, gaussian, bicubic, lanczos or a vector"):
        Downsampling(2, (12,), kernel="cubic")  # type: ignore[arg-type]


def test_a_blur_can_be_undone_where_its_spectrum_is_large() -> None:
    """Conjugate gradients on the normal equations with the valid model give the field back from exact data."""
    operator = blur(torch.tensor([[0.0, 0.1, 0.0], [0.1, 0.6, 0.1], [0.0, 0.1, 0.0]], dtype=F64), (9, 12), "reflective")
    x = random(1, 1, 9, 12)
    y = operator(x)
    found, _ = cg(lambda v: operator.adjoint(operator(v)), operator.adjoint(y), iterations=200, tolerance=1e-12)
    torch.testing.assert_close(found, x, rtol=0, atol=1e-8)
