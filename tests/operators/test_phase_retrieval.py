"""Diffraction patterns against a discrete Fourier sum written out, their gradients, and what they cannot tell."""

import pytest
import torch

from scidiff.noise import GaussianNoise, PoissonNoise
from scidiff.operators import CodedDiffraction, FourierMagnitude
from scidiff.testing import check_adjoint, check_batch_independence, check_vjp

SHAPE = (5, 8)


def field(kind: str, generator: torch.Generator, shape=(2, 1, *SHAPE)) -> torch.Tensor:
    dtype = torch.complex128 if kind == "complex" else torch.float64
    return torch.randn(shape, generator=generator, dtype=dtype)


def by_sum(x: torch.Tensor, padded: tuple[int, int]) -> torch.Tensor:
    """|sum_r x(r) exp(-2 pi i k r / N)|^2 / number of pixels of the detector, as nested sums over matrices."""
    parts = []
    for n, big in zip(x.shape[-2:], padded, strict=True):
        k, r = torch.arange(big, dtype=torch.float64), torch.arange(n, dtype=torch.float64)
        parts.append(torch.exp(-2j * torch.pi * k[:, None] * r[None] / big))
    wave = torch.einsum("kr,ls,bcrs->bckl", *parts, x.to(torch.complex128))
    return wave.abs().square() / (padded[0] * padded[1])


@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("oversampling", [1.0, 2.0, 1.5, (1.4, 2.25)])
def test_intensity_is_the_fourier_sum(kind, oversampling, generator) -> None:
    x = field(kind, generator)
    operator = FourierMagnitude(SHAPE, oversampling, power=2)
    expected = by_sum(x, operator.padded)
    torch.testing.assert_close(operator(x), expected, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(FourierMagnitude(SHAPE, oversampling)(x), expected.sqrt(), rtol=1e-11, atol=1e-12)
    lit = FourierMagnitude(SHAPE, oversampling, power=1, background=0.3)(x)
    torch.testing.assert_close(lit, (expected + 0.3).sqrt(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kind", ["real", "complex"])
def test_coded_patterns_are_those_of_masked_fields(kind, generator) -> None:
    x, masks = field(kind, generator), field("complex", generator, (3, *SHAPE))
    got = CodedDiffraction(masks, oversampling=1.5, power=2)(x)
    assert got.shape == (2, 1, 3, 8, 12)
    for k, mask in enumerate(masks):
        torch.testing.assert_close(got[:, :, k], by_sum(x * mask, (8, 12)), rtol=1e-12, atol=1e-13)


def test_square_pixels_dim_the_pattern_as_a_finer_grid_says(generator) -> None:
    """A field that is constant on squares of 64x64 fine pixels, against its transform on the fine grid."""
    x, masks = field("real", generator, (1, 1, *SHAPE)), field("complex", generator, (1, *SHAPE))
    got = CodedDiffraction(masks, power=2, fill=1.0)(x)
    fine = torch.kron((x[0, 0] * masks[0]).contiguous(), torch.ones(64, 64).to(masks))
    wave = torch.fft.fft2(fine)[(torch.fft.fftfreq(5) * 5).long() % 320][:, (torch.fft.fftfreq(8) * 8).long() % 512]
    torch.testing.assert_close(got[0, 0, 0], wave.abs().square() / 64**4 / 40, rtol=2e-3, atol=1e-6)


def operators(generator):
    masks = torch.polar(torch.ones(3, *SHAPE).double(), torch.randn(3, *SHAPE, generator=generator).double())
    for power in (1, 2):
        for background in (0.0, 0.2):
            yield FourierMagnitude(SHAPE, 1.7, power, background)
            yield CodedDiffraction(masks, 1.25, power, background, fill=0.9 if power == 1 else 0.0)


@pytest.mark.parametrize("kind", ["real", "complex"])
def test_gradients_against_finite_differences_and_rows_apart(kind, generator) -> None:
    x = field(kind, generator)
    for operator in operators(generator):
        assert check_vjp(operator, x) < 1e-6
        assert check_batch_independence(operator, x) < 1e-12


@pytest.mark.parametrize("kind", ["real", "complex"])
def test_the_wave_is_linear_with_this_adjoint(kind, generator) -> None:
    class Wave:
        def __init__(self, operator):
            self.operator = operator

        def __call__(self, x):
            return self.operator.wave(x)

        def adjoint(self, y):
            return self.operator.wave_adjoint(y, real=kind == "real")

    dtype = torch.complex128 if kind == "complex" else torch.float64
    for operator in operators(generator):
        assert check_adjoint(Wave(operator), (1, *SHAPE), dtype=dtype) < 1e-12


def test_the_gradient_is_finite_and_zero_at_zero_magnitude() -> None:
    """A constant field has a transform that is exactly zero at all but one frequency of its own grid."""
    for x in (torch.ones(1, 1, 4, 8).double(), torch.zeros(1, 1, 4, 8).double(), torch.zeros(1, 1, 4, 8) + 0j):
        operator, v = FourierMagnitude((4, 8), oversampling=1), torch.ones(1, 1, 4, 8).double()
        dark = operator(x) < 1e-14
        assert int(dark.sum()) >= 31
        leaf = x.clone().requires_grad_()
        z = operator(leaf)
        v = torch.where(dark, v, 0).to(z.dtype)
        (gradient,) = torch.autograd.grad(z, leaf, v, create_graph=True)
        assert float(gradient.detach().abs().max()) == 0 == float(operator.vjp(x, v).abs().max())
        (again,) = torch.autograd.grad(gradient.abs().square().sum(), leaf)
        assert bool(torch.isfinite(torch.view_as_real(again) if again.is_complex() else again).all())


def test_ambiguities_leave_the_data_unchanged_and_masks_remove_them(generator) -> None:
    x = torch.zeros(1, 1, 7, 10, dtype=torch.complex128)
    x[..., 2:5, 1:7] = field("complex", generator, (1, 1, 3, 6))
    plain = FourierMagnitude((7, 10))
    coded = CodedDiffraction.random((7, 10), 3, generator)
    turned, moved, flipped = x * 1j**0.7, x.roll((1, 2), (-2, -1)), x.conj().flip(-1, -2).roll((1, 1), (-2, -1))
    for other in (turned, moved, flipped):
        torch.testing.assert_close(plain(other), plain(x), rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(coded(turned), coded(x), rtol=1e-11, atol=1e-12)
    for other in (moved, flipped):
        assert float((coded(other) - coded(x)).norm() / coded(x).norm()) > 0.1


def test_the_projection_has_the_measured_moduli_and_is_nearest(generator) -> None:
    for operator in operators(generator):
        y = operator(field("real", generator))
        w = operator.wave(field("complex", generator))
        projected = operator.project(w, y)
        modulus = (projected.abs().square() + operator.background) ** (operator.power / 2)
        torch.testing.assert_close(modulus, y, rtol=1e-9, atol=1e-12)
        for angle in (-0.3, 0.2):
            other = projected * torch.polar(torch.ones(()).double(), torch.tensor(angle).double())
            assert bool(((other - w).abs() >= (projected - w).abs() - 1e-12).all())


def test_noise_on_amplitudes_and_counts(generator) -> None:
    x = field("real", generator, (1, 1, *SHAPE)).float() * 30
    counts = FourierMagnitude(SHAPE, power=2, background=1.0)
    z = counts(x).expand(4000, -1, -1, -1)
    y = PoissonNoise().sample(z, generator)
    torch.testing.assert_close(y.mean(0), z[0], rtol=0.1, atol=0.2)
    spread = y.sqrt().var(0)[z[0] > 30]
    torch.testing.assert_close(
        spread, torch.full_like(spread, 0.25), rtol=0.15, atol=0
    )  # roots of counts: variance 1/4
    amplitude = FourierMagnitude(SHAPE)(x)
    noisy = GaussianNoise(0.5).sample(amplitude.expand(4000, -1, -1, -1), generator)
    assert abs(float(noisy.var(0).mean()) / 0.25 - 1) < 0.02


def test_single_precision_and_random_masks(generator) -> None:
    operator = CodedDiffraction.random(SHAPE, 2, torch.Generator().manual_seed(3), levels=4)
    same = CodedDiffraction.random(SHAPE, 2, torch.Generator().manual_seed(3), levels=4)
    assert torch.equal(operator.masks, same.masks)
    assert (
        float((operator.masks**4 - 1).abs().max()) < 1e-14
        and len(torch.unique(operator.masks.angle().round(decimals=6))) >= 4
    )
    x = field("real", generator)
    single = operator(x.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), operator(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FourierMagnitude((4, 4), oversampling=0.5), "is 1 or more"),
        (lambda: FourierMagnitude((4, 4), oversampling=(2.0,)), "each of 2 sides"),
        (lambda: FourierMagnitude((4, 4), power=3), "power must be 1"),  # type: ignore[arg-type]
        (lambda: FourierMagnitude((4, 4), background=-1), "background"),
        (lambda: FourierMagnitude(()), "sides"),
        (lambda: CodedDiffraction(torch.ones(4)), r"\(K, \*shape\)"),
        (lambda: CodedDiffraction(torch.full((1, 4, 4), torch.nan)), "NaN"),
        (lambda: CodedDiffraction.random((4, 4), 0), "at least 1 mask"),
        (lambda: CodedDiffraction.random((4, 4), 1, fill=2.0), "fill"),
        (lambda: FourierMagnitude((4, 6))(torch.ones(1, 1, 6, 4)), "expected fields"),
    ],
)
def test_wrong_arguments_are_named(build, message) -> None:
    with pytest.raises(ValueError, match=message):
        build()
