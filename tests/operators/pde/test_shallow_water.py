"""Shallow water: linear waves, a jet at rest, conserved energy and mass, order, gradients, residual, messages."""

import math

import pytest
import torch
from torch import Generator

from scidiff.errors import NumericalError
from scidiff.operators.pde import ShallowWater
from scidiff.solvers import advance, ifrk4
from scidiff.solvers.shallow_water import ShallowWater as Equation
from scidiff.testing import check_vjp

F64 = torch.float64
GRID, SIDES = (18, 24), (2.0, 3.0)


def plane(grid=GRID, lengths=SIDES):
    y, x = (L * torch.arange(n, dtype=F64) / n for n, L in zip(grid, lengths, strict=True))
    return y[:, None], x[None]


def waves(batch=1, std=0.05, grid=GRID, seed=0):
    y, x = plane(grid)
    g, z = Generator().manual_seed(seed), torch.zeros(batch, 3, *grid, dtype=F64)
    for p in (-1, 0, 1):
        for q in (0, 1):
            a, b = std * torch.randn(2, batch, 3, 1, 1, generator=g, dtype=F64)
            phase = 2 * math.pi * (p * y / SIDES[0] + q * x / SIDES[1])
            z = z + a * torch.cos(phase) + b * torch.sin(phase)
    return z


def test_small_waves_obey_their_dispersion_relation():
    """Inertia-gravity waves: frequency, and how height and both velocities go together, to fourth order in time."""
    H, g, f, amplitude = 0.8, 9.0, 3.0, 1e-8
    y, x = plane()
    p, q = 2 * math.pi / SIDES[0], 2 * math.pi * 2 / SIDES[1]
    square = p**2 + q**2
    omega = math.sqrt(f**2 + g * H * square)

    def state(t):
        phase = q * x + p * y - omega * t
        c, s = amplitude * torch.cos(phase), amplitude * torch.sin(phase)
        u = (omega * q * c - f * p * s) / (H * square)
        v = (omega * p * c + f * q * s) / (H * square)
        return torch.stack([c, u, v])[None]

    errors = []
    for n in (40, 80, 160):
        operator = ShallowWater(GRID, H, g, f, times=0.7, lengths=SIDES, steps=n)
        errors.append(float((operator(state(0.0))[:, 0] - state(0.7)).abs().max()) / amplitude)
    slopes = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert slopes[0] == pytest.approx(4, abs=0.2) and errors[-1] < 1e-5


def test_a_jet_rests():
    """A strong jet along x in balance with the slope of its height; a nonlinear state at rest."""
    H, g, f = 1.0, 5.0, 4.0
    y, x = plane()
    k = 2 * math.pi / SIDES[0]
    u = (0.8 * torch.cos(k * y)).expand(GRID)
    eta = (-f / g * 0.8 * torch.sin(k * y) / k).expand(GRID)
    jet = torch.stack([eta, u, torch.zeros(GRID, dtype=F64)])[None]
    found = ShallowWater(GRID, H, g, f, times=(0.5, 2.0), lengths=SIDES)(jet)
    assert float((found - jet[:, None]).abs().max()) < 1e-9
    mirrored = jet * torch.tensor([1.0, -1.0, 1.0], dtype=F64).reshape(3, 1, 1)
    wrong = ShallowWater(GRID, H, g, f, times=0.5, lengths=SIDES)(mirrored)
    assert float((wrong - mirrored[:, None]).abs().max()) > 0.1


def test_energy_and_mass_are_conserved():
    equation = Equation(GRID, 1.0, 5.0, 2.0, 0.0, SIDES)
    w = equation.transform(waves(2, 0.06))
    change, h = equation.change(w), 1e-5
    rate = (equation.energy(w + h * change) - equation.energy(w - h * change)) / (2 * h)
    size = (
        equation.field(change).square().mean((-3, -2, -1)).sqrt() * equation.field(w).square().mean((-3, -2, -1)).sqrt()
    )
    assert float((rate / size).abs().max()) < 1e-8
    drift = []
    for n in (80, 160):
        end = advance(ifrk4(equation, 1.0 / n), w, n)
        drift.append(float((equation.energy(end) / equation.energy(w) - 1).abs().max()))
        mass = equation.field(end)[:, 0].mean((-2, -1)) - equation.field(w)[:, 0].mean((-2, -1))
        assert float(mass.abs().max()) < 1e-14
    assert float((equation.field(end) - equation.field(w)).abs().max()) > 0.05, "the water must move"
    assert drift[1] < 1e-4 and drift[0] > 20 * drift[1], drift
    damped = Equation(GRID, 1.0, 5.0, 2.0, 0.05, SIDES)
    assert bool((damped.energy(advance(ifrk4(damped, 0.01), w, 20)) < equation.energy(w)).all())


def test_orders_in_time_and_space():
    x, given = waves(), (1.0, 5.0, 2.0, 0.05)
    fine = ShallowWater(GRID, *given, 0.3, SIDES, steps=192)(x)
    errors = [float((ShallowWater(GRID, *given, 0.3, SIDES, steps=n)(x) - fine).norm()) for n in (20, 40)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(4, abs=0.2)
    truth, errors = ShallowWater((48, 40), *given, 0.3, SIDES, steps=48)(waves(grid=(48, 40))), []
    for grid in ((12, 10), (16, 20), (24, 20)):
        found = ShallowWater(grid, *given, 0.3, SIDES, steps=48)(waves(grid=grid))
        errors.append(float((found - truth[..., :: 48 // grid[0], :: 40 // grid[1]]).abs().max()))
    assert errors[0] > 3 * errors[1] > 15 * errors[2], errors


def test_gradient_and_residual():
    x = waves(2, grid=(8, 9))
    assert check_vjp(ShallowWater((8, 9), 1.0, 5.0, 2.0, 0.01, (0.1, 0.2), SIDES), x) < 1e-5
    assert check_vjp(ShallowWater((8, 9), 1.0, 5.0, times=0.2, lengths=SIDES, steps=6, segments=3), x) < 1e-5
    sizes = []
    for n in (16, 32, 64):
        times = [0.2 * (i + 1) / n for i in range(n)]
        operator = ShallowWater(GRID, 1.0, 5.0, 2.0, 0.01, times, SIDES, steps=64)
        snapshots = torch.cat([waves()[:, None], operator(waves())], 1)
        sizes.append(float(operator.residual(snapshots, 0.2 / n).square().mean().sqrt()))
    slopes = [math.log2(a / b) for a, b in zip(sizes, sizes[1:], strict=False)]
    assert slopes == pytest.approx([2, 2], abs=0.2)


def test_messages():
    with pytest.raises(ValueError, match="depth > 0"):
        ShallowWater(GRID, -1.0)
    with pytest.raises(ValueError, match=r"expected real height and velocity \(B, 3, 18, 24\)"):
        ShallowWater(GRID)(torch.zeros(1, 18, 24))
    with pytest.raises(NumericalError, match="deep somewhere at time 0"):
        ShallowWater(GRID)(waves(std=2.0))
    with pytest.raises(NumericalError, match=r"flow and waves cross .* Take (\d+) steps"):
        ShallowWater(GRID, times=1.0, steps=10)(waves())
