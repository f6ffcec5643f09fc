"""3-D blur against loops, the Born-Wolf pattern against its closed forms, photon transfer against a known camera."""

import math

import numpy as np
import pint
import pytest
import torch
from scipy import signal, special

from scidiff.operators import Background, WidefieldBlur, photon_transfer
from scidiff.operators.psf_widefield import born_wolf, born_wolf_intensity
from scidiff.testing import check_adjoint, check_batch_independence, check_vjp

SHAPE, KERNEL = (4, 5, 6), (3, 4, 5)


def kernel(generator) -> torch.Tensor:
    return torch.rand(KERNEL, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("margin", [0, 1, (1, 0, 2), 5])
def test_blur_is_the_convolution_of_scipy(margin, generator) -> None:
    k = kernel(generator)
    operator = WidefieldBlur(k, SHAPE, margin)
    x = torch.randn(1, 1, *operator.grid, generator=generator, dtype=torch.float64)
    # Where the kernel's centre is side // 2, "full" begins that many entries before the field.
    full = signal.convolve(x[0, 0].numpy(), k.numpy(), mode="full", method="direct")
    at = [n // 2 + m for n, m in zip(KERNEL, operator.margin, strict=True)]
    expected = full[tuple(slice(a, a + n) for a, n in zip(at, SHAPE, strict=True))]
    np.testing.assert_allclose(operator(x)[0, 0].numpy(), expected, rtol=0, atol=1e-12)
    assert check_adjoint(operator, (1, *operator.grid)) < 1e-12
    assert check_adjoint(operator, (2, *operator.grid), dtype=torch.float32) < 1e-5


def test_periodic_blur_wraps_around(generator) -> None:
    k = kernel(generator)
    operator = WidefieldBlur(k, SHAPE, periodic=True)
    x = torch.randn(2, 1, *SHAPE, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(operator(x.roll((1, 2, 3), (-3, -2, -1))), operator(x).roll((1, 2, 3), (-3, -2, -1)))
    torch.testing.assert_close(operator(x).sum(), x.sum() * k.sum())
    assert check_adjoint(operator, (1, *SHAPE)) < 1e-12
    lit = Background(operator, 2.5)
    torch.testing.assert_close(lit(x), operator(x) + 2.5)
    assert not hasattr(lit, "adjoint") and check_vjp(lit, x) < 1e-6 and check_batch_independence(lit, x) < 1e-12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((3, 3), SHAPE), "3 dimensions"),
        ((KERNEL, SHAPE, (1, 1)), "one for each of 3 axes"),
        ((KERNEL, SHAPE, -1), "margin"),
        ((KERNEL, SHAPE, 1, True), "no outside"),
    ],
)
def test_wrong_sizes_are_named(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        WidefieldBlur(torch.ones(arguments[0]), *arguments[1:])
    with pytest.raises(ValueError, match="expected fields"):
        WidefieldBlur(torch.ones(KERNEL), SHAPE)(torch.ones(1, 1, 6, 5, 4))


# Point-spread function

LIGHT = {"wavelength": 0.52, "na": 0.75, "index": 1.33}


def test_in_focus_it_is_the_airy_pattern_and_on_the_axis_a_sinc() -> None:
    r, z = torch.linspace(0.01, 4, 80).double(), torch.linspace(-9, 9, 61).double()
    v = 2 * math.pi * LIGHT["na"] * r / LIGHT["wavelength"]
    airy = (2 * special.j1(v.numpy()) / v.numpy()) ** 2
    np.testing.assert_allclose(born_wolf_intensity(r, torch.zeros(()), **LIGHT).numpy(), airy, rtol=0, atol=1e-12)
    turns = LIGHT["na"] ** 2 * z / (2 * LIGHT["index"] * LIGHT["wavelength"])
    axial = born_wolf_intensity(torch.zeros(()), z, **LIGHT)
    torch.testing.assert_close(axial, torch.sinc(turns).square(), rtol=0, atol=1e-12)
    dark = born_wolf_intensity(torch.tensor(0.6098 * 0.52 / 0.75), torch.zeros(()), **LIGHT)
    assert float(dark) < 1e-7


def test_every_plane_holds_the_same_light_and_voxels_take_means() -> None:
    shape = (5, 81, 63)
    k = born_wolf(shape, (0.8, 0.1, 0.13), **LIGHT, subpixels=1)
    assert float(k.sum()) == pytest.approx(1)
    planes = k.sum((1, 2))
    assert float((planes / planes.mean() - 1).abs().max()) < 0.03  # what falls off the edge of 4 micrometres
    torch.testing.assert_close(k, k.flip(0, 1, 2), rtol=1e-9, atol=1e-15)
    r = torch.hypot(*torch.meshgrid((torch.arange(81) - 40) * 0.1, (torch.arange(63) - 31) * 0.13, indexing="ij"))
    direct = born_wolf_intensity(r, torch.tensor(0.8), **LIGHT)
    torch.testing.assert_close(k[3] / k[2, 40, 31], direct, rtol=0, atol=2e-6)
    fine = born_wolf((1, 27 * 9, 27 * 9), (1.0, 0.03, 0.03), **LIGHT, subpixels=1)[0]
    coarse = born_wolf((1, 27, 27), (1.0, 0.27, 0.27), **LIGHT, subpixels=9)[0]
    means = fine.unflatten(1, (27, 9)).unflatten(0, (27, 9)).sum((1, 3))
    torch.testing.assert_close(coarse, means, rtol=0, atol=2e-6)


def test_lengths_may_be_quantities() -> None:
    unit = pint.UnitRegistry()
    plain = born_wolf((3, 9, 9), (0.5, 0.1, 0.1), **LIGHT)
    same = born_wolf(
        (3, 9, 9), (500 * unit.nm, 0.1 * unit.um, 1e-4 * unit.mm), 520 * unit.nm, na=LIGHT["na"], index=LIGHT["index"]
    )
    torch.testing.assert_close(plain, same)
    for wrong in (0.5 * unit.s, 3 * unit.kelvin):
        with pytest.raises(ValueError, match="wavelength has units"):
            born_wolf((3, 9, 9), (0.5, 0.1, 0.1), wrong, 0.75)
    for arguments, message in (((0.5, 1.4, 1.33), "refractive index"), ((-0.5, 0.7, 1.0), "wavelength")):
        with pytest.raises(ValueError, match=message):
            born_wolf((3, 9, 9), (0.5, 0.1, 0.1), *arguments)


# Camera


@pytest.mark.parametrize(("gain", "offset"), [(0.4, 100.0), (5.0, 0.0)])
def test_photon_transfer_finds_gain_and_offset(gain, offset, generator) -> None:
    ramp = 20 + 400 * torch.linspace(0, 1, 120).double() ** 2
    rate = (ramp[:, None] + 15 * torch.cos(torch.arange(90) / 15)).expand(20, 120, 90)
    rate = rate.clone()
    rate[:, 50:54, 40:44] *= 4  # a few sharp places
    stack = gain * torch.poisson(rate, generator=generator) + offset
    found = photon_transfer(stack)
    assert found.gain == pytest.approx(gain, rel=0.05)
    assert found.offset == pytest.approx(offset, abs=6 * gain)
    assert found.deviation < 0.05


def test_photon_transfer_says_when_there_are_no_counts(generator) -> None:
    ramp = torch.linspace(0, 100, 96).expand(4, 64, 96).double()
    flat = ramp + (2 - ramp / 60) * torch.randn(ramp.shape, generator=generator, dtype=torch.float64)
    with pytest.raises(ValueError, match="does not grow"):
        photon_transfer(flat)
    with pytest.raises(ValueError, match="sides of at least 5"):
        photon_transfer(torch.ones(4, 4, 4))
