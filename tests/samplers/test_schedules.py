"""Schedules against their formulas, written out with plain numbers."""

import math

import pytest
import torch

from scidiff import schedules

ALL = [schedules.karras, schedules.cosine, schedules.log_linear, schedules.uniform, schedules.vp_linear]


@pytest.mark.parametrize("schedule", ALL)
@pytest.mark.parametrize("n", [1, 2, 7, 64])
def test_decreases_to_zero(schedule, n):
    sigma = schedule(n)
    assert sigma.shape == (n + 1,) and sigma.dtype == torch.float64
    assert (sigma.diff() < 0).all() and sigma[-1] == 0


@pytest.mark.parametrize("schedule", ALL[:4])
def test_ends_at_the_given_levels(schedule):
    sigma = schedule(9, sigma_min=0.01, sigma_max=50.0)
    assert sigma[0].item() == pytest.approx(50, rel=1e-9) and sigma[-2].item() == pytest.approx(0.01, rel=1e-9)


def test_karras_formula():
    expected = [(80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(18)] + [0]
    assert schedules.karras(18).tolist() == pytest.approx(expected, rel=1e-12)


def test_cosine_is_even_in_time():
    """Inverting the published alpha-bar at our levels gives evenly spaced times."""
    sigma, s = schedules.cosine(11, 0.01, 20.0)[:-1], 0.008
    f0 = math.cos(s / (1 + s) * math.pi / 2) ** 2
    alpha_bar = 1 / (1 + sigma**2)
    t = (alpha_bar * f0).sqrt().acos() * 2 / math.pi * (1 + s) - s
    assert torch.allclose(t.diff(), t.diff().mean().expand(10), rtol=1e-9)
    assert 0 < t[-1] < t[0] < 1


def test_log_linear_and_uniform():
    assert schedules.log_linear(4, 0.1, 100.0).tolist() == pytest.approx([100, 10, 1, 0.1, 0])
    assert schedules.uniform(4, 1.0, 4.0).tolist() == pytest.approx([4, 3, 2, 1, 0])


def test_vp_linear_is_the_ddpm_grid():
    alpha_bar, expected = 1.0, []
    for t in range(1000):
        alpha_bar *= 1 - (1e-4 + t / 999 * (0.02 - 1e-4))
        expected.append(math.sqrt((1 - alpha_bar) / alpha_bar))
    sigma = schedules.vp_linear()
    assert sigma[:-1].flip(0).tolist() == pytest.approx(expected, rel=1e-9)
    assert sigma[0].item() == pytest.approx(157.4, abs=0.05) and sigma[-2].item() == pytest.approx(0.01, rel=1e-3)
    some = schedules.vp_linear(100)
    assert set(some.tolist()) <= set(sigma.tolist()) and some[0] == sigma[0] and some[-2] == sigma[-2]


@pytest.mark.parametrize("call", [
    lambda: schedules.karras(0),
    lambda: schedules.karras(4, sigma_min=2.0, sigma_max=1.0),
    lambda: schedules.log_linear(4, sigma_min=0.0),
    lambda: schedules.vp_linear(1001),
    lambda: schedules.vp_linear(10, beta_min=0.5, beta_max=0.1),
])  # fmt: skip
def test_rejects(call):
    with pytest.raises(ValueError, match="must|at least"):
        call()
