"""Errors by band against sums written out by hand."""

import math

import pytest
import torch

from scidiff.metrics.bands import BANDS, band_errors


def waves(n: int, m: int, *pairs) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(n, dtype=torch.float64), torch.arange(m, dtype=torch.float64), indexing="ij")
    return sum(a * torch.cos(2 * math.pi * (i * y / n + j * x / m) + 0.3) for a, i, j in pairs)


def test_each_wave_counts_in_its_band():
    """On 32 x 64 points: |k| of (1, 0), (0, 4), (4, 8), (8, 24), (15, 30) in units of Nyquist's."""
    parts = [(2.0, 1, 0), (1.0, 0, 4), (0.5, 4, 8), (0.25, 8, 24), (0.1, 15, 30)]
    kappa = [2 * math.hypot(i / 32, j / 64) for _, i, j in parts]
    assert [sum(k >= e for e in BANDS) - 1 for k in kappa] == [1, 2, 3, 4, 5]
    lost = [0.1, 0.2, 0.3, 0.4, 0.5]
    x = waves(32, 64, *parts)
    estimate = waves(32, 64, *((a * (1 - f), i, j) for (a, i, j), f in zip(parts, lost, strict=True)))
    errors, shares = band_errors(x + 7, estimate + 9, periodic=True)  # the mean does not count
    assert shares[0] < 1e-25
    torch.testing.assert_close(errors[1:], torch.tensor(lost, dtype=torch.float64))
    squares = torch.tensor([a * a for a, _, _ in parts], dtype=torch.float64)
    torch.testing.assert_close(shares[1:], squares / squares.sum())


def test_a_direct_sum_agrees_in_three_dimensions(generator):
    x, y = torch.randn(2, 3, 4, 6, 5, generator=generator, dtype=torch.float64).unbind(0)
    errors, shares = band_errors(x, y, dims=3, periodic=True, edges=(0.0, 0.7, 2.0))
    top, bottom = torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    for k in [(a, b, c) for a in range(4) for b in range(6) for c in range(5)]:
        folded = [min(i, n - i) / n for i, n in zip(k, (4, 6, 5), strict=True)]
        kappa = 2 * math.sqrt(sum(f * f for f in folded))
        if not 0 < kappa < 2:
            continue
        phase = sum(
            i * torch.arange(n).reshape([-1 if d == e else 1 for e in range(3)]) / n
            for d, (i, n) in enumerate(zip(k, (4, 6, 5), strict=True))
        )
        wave = torch.exp(-2j * math.pi * phase.double())
        band = int(kappa >= 0.7)
        top[band] += ((y - x) * wave).sum((1, 2, 3)).abs().square().sum()
        bottom[band] += (x * wave).sum((1, 2, 3)).abs().square().sum()
    torch.testing.assert_close(errors, (top / bottom).sqrt())
    torch.testing.assert_close(shares, bottom / bottom.sum())


def test_the_window_hides_the_jump_at_the_edge():
    """A ramp is coarse, its periodic continuation is not: an estimate without the ramp has its fine structure right."""
    y = torch.linspace(-1, 1, 64, dtype=torch.float64)[:, None].expand(64, 64)
    fine = 0.01 * waves(64, 64, (1.0, 20, 20))
    windowed = band_errors(y + fine, fine)[0][4]
    assert 10 * windowed < band_errors(y + fine, fine, periodic=True)[0][4]


def test_complex_fields_and_wrong_shapes(generator):
    x = torch.randn(2, 8, 8, generator=generator, dtype=torch.complex128)
    errors, _ = band_errors(x, 0.5 * x, periodic=True)
    torch.testing.assert_close(errors[errors.isfinite()], torch.full((int(errors.isfinite().sum()),), 0.5).double())
    with pytest.raises(ValueError, match="one shape"):
        band_errors(x, x[:1])
    with pytest.raises(ValueError, match="ascend"):
        band_errors(x, x, edges=(0.0, 0.0))
