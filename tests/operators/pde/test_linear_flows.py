"""Heat, advection and waves: exact solutions, one time after another, orders of leapfrog, energy, residuals."""

import math

import pytest
import torch
from torch import Generator

from scidiff.operators.pde import AdvectionDiffusion, Heat, VariableWave, Wave

F64 = torch.float64


def randn(*shape, seed=0):
    return torch.randn(shape, generator=Generator().manual_seed(seed), dtype=F64)


def plane(grid, lengths):
    y, x = (L * torch.arange(n, dtype=F64) / n for n, L in zip(grid, lengths, strict=True))
    return y[:, None], x[None]


def test_a_wave_decays_and_travels_exactly():
    grid, lengths, kappa, c, r = (9, 14), (2.0, 3.0), 0.03, (0.4, -0.7), 0.2
    y, x = plane(grid, lengths)
    p, q = 2 * math.pi * 2 / 2.0, 2 * math.pi * 3 / 3.0
    times = (0.3, 1.1)
    exact = [
        math.exp(-(kappa * (p**2 + q**2) + r) * t) * torch.cos(p * (y - c[0] * t) + q * (x - c[1] * t) + 0.4)
        for t in times
    ]
    found = AdvectionDiffusion(grid, kappa, c, times, r, lengths)(torch.cos(p * y + q * x + 0.4)[None, None])
    assert torch.allclose(found, torch.stack(exact)[None], atol=1e-13)


def test_a_gaussian_spreads():
    """In a wide box a bump stays a bump: width and place grow as in the plane without borders."""
    n, L, kappa, c, s, t = 128, 24.0, 0.3, 1.5, 0.8, 2.0
    x = L * torch.arange(n, dtype=F64) / n

    def bump(centre, variance):
        return torch.exp(-(x - centre).square() / (2 * variance)) / variance**0.5

    found = AdvectionDiffusion((n,), kappa, (c,), t, 0.0, (L,))(bump(9.0, s**2)[None, None])[0, 0]
    assert torch.allclose(found, bump(9.0 + c * t, s**2 + 2 * kappa * t), atol=1e-12)


@pytest.mark.parametrize(
    "make",
    [
        lambda times: AdvectionDiffusion((6, 9), 0.01, (0.5, 0.3), times, 0.1),
        lambda times: Heat((7, 9), 0.01, times, (1.0, 2.0)),
    ],
)
def test_times_compose(make):
    x = randn(2, 1, *make(1.0).grid)
    both = make((0.2, 0.5))(x)
    assert torch.allclose(both[:, 1:], make(0.3)(both[:, :1]), rtol=1e-12, atol=1e-14)
    assert torch.allclose(both[:, :1], make(0.2)(x), rtol=1e-12, atol=1e-14)
    assert float((both[:, 1:] - x).abs().max()) > 0.1


def test_residuals_fall_with_the_square_of_the_step():
    x, v = randn(1, 1, 8, 9), randn(1, 2, 8, 9)
    x = Heat((8, 9), 0.05, 0.1)(x)
    v = Wave((8, 9), 1.0, 0.1)(torch.cat([x, x.roll(3, -1)], 1))[:, 0]
    flow, wave = AdvectionDiffusion((8, 9), 0.05, (0.5, 1.0)), Wave((8, 9), 0.8)
    sizes = []
    for n in (16, 32, 64):
        times = [0.2 * (i + 1) / n for i in range(n)]
        fields = torch.cat([x, AdvectionDiffusion((8, 9), 0.05, (0.5, 1.0), times)(x)], 1)
        states = torch.cat([v[:, None], Wave((8, 9), 0.8, times)(v)], 1)
        found = flow.residual(fields, 0.2 / n), wave.residual(states, 0.2 / n)
        sizes.append([float(r.square().mean().sqrt()) for r in found])
    for a, b, c in zip(*sizes, strict=True):
        assert [math.log2(a / b), math.log2(b / c)] == pytest.approx([2, 2], abs=0.2)
    still = fields[:, :1].expand(-1, 5, -1, -1)
    assert float(flow.residual(still, 0.2 / 64).square().mean().sqrt()) > 30 * sizes[-1][0]


def test_standing_and_travelling_waves():
    grid, lengths, c = (9, 10), (2.0, 3.0), 1.3
    y, x = plane(grid, lengths)
    p, q = 2 * math.pi * 2 / 2.0, 2 * math.pi / 3.0
    w = c * math.hypot(p, q)
    times = (0.4, 3.7)

    def state(t):
        phase = p * y - q * x - w * t
        return torch.stack([torch.cos(phase), w * torch.sin(phase)])

    found = Wave(grid, c, times, lengths)(state(0.0)[None])
    assert torch.allclose(found, torch.stack([state(t) for t in times])[None], atol=1e-12)
    drift = Wave(grid, c, 2.0, lengths)(torch.stack([torch.ones(grid), 3 * torch.ones(grid)])[None].double())
    assert torch.allclose(drift[0, 0, 0], torch.full(grid, 7.0, dtype=F64)), "the mean moves freely"
    operator, z = Wave(grid, c, times, lengths), randn(2, 2, *grid)
    assert torch.allclose(operator.energy(operator(z)), operator.energy(z)[:, None].expand(2, 2), rtol=1e-12)


def test_leapfrog_is_of_second_order_in_space_and_time():
    """A standing wave of uniform speed, and a manufactured one of a speed that varies along x."""
    errors = []
    for n in (24, 48, 96):
        y, x = plane((n // 2, n), (1.0, 2.0))
        p, q = 2 * math.pi, math.pi
        w = 0.9 * math.hypot(p, q)
        shape = torch.cos(p * y) * torch.cos(q * x)
        start = torch.stack([shape, torch.zeros_like(shape)])[None]
        exact = torch.stack([math.cos(w * 0.8) * shape, -w * math.sin(w * 0.8) * shape])[None]
        operator = VariableWave(torch.full((n // 2, n), 0.9, dtype=F64), 0.8, (1.0, 2.0))
        errors.append(float((operator(start)[:, 0] - exact).abs().max()))
    slopes = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert slopes == pytest.approx([2, 2], abs=0.2)
    rates = []
    for n in (32, 64, 128):  # (c^2 u')' by hand
        x = torch.arange(n, dtype=F64) / n
        k = 2 * math.pi
        square = 2 + torch.sin(k * x)
        exact = k * torch.cos(k * x) * k * torch.cos(k * x) - square * k**2 * torch.sin(k * x)
        found = VariableWave(square.sqrt(), 0.1).acceleration(torch.sin(k * x)[None])
        rates.append(float((found - exact).abs().max()))
    slopes = [math.log2(a / b) for a, b in zip(rates, rates[1:], strict=False)]
    assert slopes == pytest.approx([2, 2], abs=0.2)


def test_leapfrog_keeps_energy_and_says_when_it_is_unstable():
    speed = 1 + 0.5 * torch.rand(12, 10, generator=Generator().manual_seed(1), dtype=F64)
    x = Heat((12, 10), 0.01, 0.1)(randn(2, 2, 12, 10).flatten(0, 1)[:, None]).reshape(2, 2, 12, 10)
    drift = []
    for steps in (400, 800):
        operator = VariableWave(speed, 5.0, steps=steps)
        drift.append(float((operator.energy(operator(x)[:, 0]) / operator.energy(x) - 1).abs().max()))
    assert drift[1] < 0.02 and drift[0] / drift[1] == pytest.approx(4, abs=1)
    times = (0.3, 0.7)
    assert VariableWave(speed, times, steps=500)(x).shape == (2, 2, 2, 12, 10)
    fast = torch.full((12, 10), 1.5, dtype=F64)
    enough = math.ceil(5.0 * 1.5 * math.hypot(12, 10))
    assert VariableWave(fast, 5.0, steps=enough).courant <= 1
    with pytest.raises(ValueError, match=rf"{enough - 6} steps give .* take {enough} steps"):
        VariableWave(fast, 5.0, steps=enough - 6)
    checkerboard = (-1.0) ** (torch.arange(12)[:, None] + torch.arange(10)[None])
    state = torch.stack([checkerboard, torch.zeros(12, 10)])[None].double()
    stable = VariableWave(fast, 5.0, steps=enough)(state)
    assert float(stable.abs()[:, :, 0].max()) < 1.001
    beyond = VariableWave(fast, 5.0, steps=enough)
    beyond._spans = [(enough, 5.0 / enough * 1.02)]
    assert float(beyond(state).abs()[:, :, 0].max()) > 1e3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Heat((8,), -1.0), "must not be negative"),
        (lambda: AdvectionDiffusion((8, 9), 0.1, (1.0,)), "2 velocities"),
        (lambda: Heat((8,), 0.1, (1.0, 0.5)), "positive and increase"),
        (lambda: Heat((8,))(torch.zeros(1, 8)), r"expected real fields \(B, 1, 8\)"),
        (lambda: Heat((8,)).adjoint(torch.zeros(1, 2, 8)), r"expected real fields \(B, 1, 8\)"),
        (lambda: Wave((8,), 0.0), "speed must be positive"),
        (lambda: Wave((8,), lengths=(1.0, 2.0)), "lengths must be 1 positive"),
        (lambda: Wave((8,))(torch.zeros(1, 1, 8)), r"expected real fields \(B, 2, 8\)"),
        (lambda: VariableWave(torch.tensor([1.0, -1.0, 1.0, 1.0])), "not negative"),
    ],
)
def test_wrong_values(make, message):
    with pytest.raises(ValueError, match=message):
        make()
