"""Visibilities: a point source, the sum written out, an even rectangle, adjoint, units."""

import math

import numpy as np
import pytest
import torch
from torch import Generator

from scidiff.operators.interferometry import TotalFlux, Visibilities, angles, wavelengths
from scidiff.testing import check_adjoint, check_batch_independence, check_vjp

F64 = torch.float64
PIXEL = 1e-11  # radians, about 2 microarcseconds


def random_uv(n: int, seed: int = 0) -> torch.Tensor:
    return 5e9 * torch.randn(n, 2, dtype=F64, generator=Generator().manual_seed(seed))


def random_fields(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(*shape, dtype=F64, generator=Generator().manual_seed(seed))


def test_a_point_source_north_east_of_the_centre():
    """East is left and north is up: the source sits in an upper left pixel, and x, y > 0 in the phase."""
    operator = Visibilities(random_uv(9), (7, 10), PIXEL)
    x = torch.zeros(1, 1, 7, 10, dtype=F64)
    x[0, 0, 1, 2] = 0.6
    east, north = (9 / 2 - 2) * PIXEL, (6 / 2 - 1) * PIXEL
    assert east > 0 and north > 0
    u, v = operator.uv.T
    expected = 0.6 * torch.exp(2j * math.pi * (u * east + v * north))
    assert torch.allclose(operator(x)[0], expected, rtol=0, atol=1e-14)
    y_axis, x_axis = angles((7, 10), PIXEL)
    assert x_axis[2] == pytest.approx(east, rel=1e-14) and y_axis[1] == pytest.approx(north, rel=1e-14)


@pytest.mark.parametrize("square", [False, True])
def test_the_sum_written_out(square):
    uv, x = random_uv(6), random_fields(2, 1, 5, 8)
    operator = Visibilities(uv, (5, 8), (0.7 * PIXEL, PIXEL), square)
    y_axis, x_axis = angles((5, 8), (0.7 * PIXEL, PIXEL))
    expected = torch.zeros(2, 6, dtype=torch.complex128)
    for n, (u, v) in enumerate(uv.tolist()):
        for h in range(5):
            for w in range(8):
                kernel = np.exp(2j * math.pi * (u * float(x_axis[w]) + v * float(y_axis[h])))
                if square:
                    kernel *= np.sinc(u * PIXEL) * np.sinc(v * 0.7 * PIXEL)
                expected[:, n] += kernel * x[:, 0, h, w]
    assert torch.allclose(operator(x), expected, rtol=0, atol=1e-13)


def test_square_pixels_are_the_limit_of_many_points():
    """A rectangle cut into 4, 8, 16 points a side: the error falls with the square of their size."""
    uv, x = random_uv(7), random_fields(1, 1, 3, 4)
    exact = Visibilities(uv, (3, 4), 8 * PIXEL, square=True)(x)
    errors = []
    for k in (4, 8, 16):
        fine = x.repeat_interleave(k, -1).repeat_interleave(k, -2) / k**2
        errors.append(float((Visibilities(uv, (3 * k, 4 * k), 8 * PIXEL / k)(fine) - exact).abs().max()))
    slopes = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert slopes == pytest.approx([2, 2], abs=0.05)


@pytest.mark.parametrize("square", [False, True])
def test_adjoint_gradient_rows_types(square):
    operator = Visibilities(random_uv(11), (5, 8), PIXEL, square)
    assert check_adjoint(operator, (1, 5, 8)) < 1e-12
    assert check_adjoint(operator, (1, 5, 8), dtype=torch.float32) < 1e-6
    x = random_fields(3, 1, 5, 8)
    check_vjp(operator, x)
    check_batch_independence(operator, x)
    assert operator(x.float()).dtype == torch.complex64
    assert torch.allclose(operator(x.float()), operator(x).to(torch.complex64), atol=1e-5)


def test_the_adjoint_is_the_gradient_so_methods_may_use_either():
    operator = Visibilities(random_uv(11), (5, 8), PIXEL)
    x = random_fields(2, 1, 5, 8).requires_grad_()
    y = torch.randn(2, 11, dtype=torch.complex128, generator=Generator().manual_seed(3))
    (gradient,) = torch.autograd.grad(operator(x), x, y)
    assert torch.allclose(gradient, operator.adjoint(y), rtol=0, atol=1e-12)


def test_units():
    pint = pytest.importorskip("pint")
    unit = pint.UnitRegistry()
    uv, x = random_uv(5), random_fields(1, 1, 4, 6)
    plain = Visibilities(uv, (4, 6), 2e-6 / 3600 * math.pi / 180)(x)
    for pixel in (2 * unit.microarcsecond, 2e-3 * unit.milliarcsecond):
        assert torch.allclose(Visibilities(uv, (4, 6), pixel)(x), plain, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="pixel has units 'meter', .* converts to 'radian'"):
        Visibilities(uv, (4, 6), 2 * unit.metre)
    length = np.array([1000.0, -3e6])
    assert wavelengths(length * unit.metre, 230 * unit.GHz) == pytest.approx(length * 230e9 / 299792458.0, rel=1e-14)
    with pytest.raises(ValueError, match="frequency has units .* converts to 'hertz'"):
        wavelengths(length, 1.3 * unit.mm)


def test_wrong_arguments_say_what_to_do():
    with pytest.raises(ValueError, match=r"shape \(n, 2\), got \(3,\)"):
        Visibilities(torch.ones(3), (4, 6), PIXEL)
    with pytest.raises(ValueError, match="NaN or infinite"):
        Visibilities(torch.full((3, 2), torch.nan), (4, 6), PIXEL)
    with pytest.raises(ValueError, match="positive angle"):
        Visibilities(random_uv(3), (4, 6), -PIXEL)
    operator = Visibilities(random_uv(3), (4, 6), PIXEL)
    with pytest.raises(ValueError, match=r"real field \(B, 1, 4, 6\), got torch.float32 \(2, 1, 6, 4\)"):
        operator(torch.ones(2, 1, 6, 4))


def test_total_flux_is_the_visibility_of_no_baseline():
    x = random_fields(3, 1, 5, 8)
    assert torch.allclose(TotalFlux((5, 8))(x), Visibilities(torch.zeros(1, 2), (5, 8), PIXEL)(x).real, atol=1e-13)
    assert check_adjoint(TotalFlux((5, 8)), (1, 5, 8)) < 1e-12
