"""Parseval and single waves."""

import math

import pytest
import torch

from scidiff.metrics import power_spectrum


def test_rings_add_up_to_the_mean_square() -> None:
    x = torch.randn(2, 3, 15, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    _, power = power_spectrum(x, spacing=(0.5, 2.0))
    torch.testing.assert_close(power.sum(-1), x.square().mean((-2, -1)))


@pytest.mark.parametrize("cycles", [(3, 0), (0, 3), (3, 4)])
def test_a_wave_has_its_power_at_its_wavenumber(cycles: tuple[int, int]) -> None:
    height, width, dy, dx = 20, 40, 2.0, 1.0  # the same extent in both directions
    y = torch.arange(height, dtype=torch.float64)[:, None] / height
    x = torch.arange(width, dtype=torch.float64)[None, :] / width
    wave = 1.5 * torch.cos(2 * math.pi * (cycles[0] * y + cycles[1] * x))
    k, power = power_spectrum(wave, spacing=(dy, dx))
    expected = math.hypot(*cycles) / 40
    assert float(k[power.argmax()]) == pytest.approx(expected)
    assert float(power.max()) == pytest.approx(1.5**2 / 2)


def test_messages() -> None:
    with pytest.raises(ValueError, match="two dimensions"):
        power_spectrum(torch.zeros(4))
    with pytest.raises(ValueError, match="positive"):
        power_spectrum(torch.zeros(4, 4), spacing=0.0)
