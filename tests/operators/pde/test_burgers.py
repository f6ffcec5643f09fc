"""Burgers: the exact solution of Cole and Hopf, orders, stability limit, a stored shock, gradients, residual."""

import math

import pytest
import torch
from torch import Generator

from scidiff.errors import NumericalError
from scidiff.operators.pde import Burgers
from scidiff.solvers import advance, cole_hopf, ifrk4
from scidiff.solvers.burgers import Burgers as Equation
from scidiff.testing import check_vjp

F64 = torch.float64


def line(n, length=1.0):
    return length * torch.arange(n, dtype=F64) / n


def waves(n, seed=0, batch=2, std=0.5):
    """Sums of the first waves of a line of length 1, with a mean."""
    x, g = line(n), Generator().manual_seed(seed)
    u = std * torch.randn(batch, 1, generator=g, dtype=F64).expand(batch, n)
    for m in (1, 2, 3):
        a, b = std / m**2 * torch.randn(2, batch, 1, generator=g, dtype=F64)
        u = u + a * torch.cos(2 * math.pi * m * x) + b * torch.sin(2 * math.pi * m * x)
    return u[:, None]


def potential(grid, t, nu):
    """A flow in the plane from phi = 2 + two decaying waves, as (u, v) (1, 2, H, W)."""
    y, x = line(grid[0])[:, None], line(grid[1])[None]
    k = 2 * math.pi
    a = 0.6 * math.exp(-nu * k**2 * t)
    b = 0.5 * math.exp(-nu * 5 * k**2 * t)
    phi = 2 + a * torch.cos(k * x) + b * torch.cos(k * (x + 2 * y))
    px = -a * k * torch.sin(k * x) - b * k * torch.sin(k * (x + 2 * y))
    py = -b * 2 * k * torch.sin(k * (x + 2 * y))
    return torch.stack([-2 * nu * px / phi, -2 * nu * py / phi])[None]


def test_cole_hopf_solves_the_equation():
    """Independent of any solver: time and space derivatives of the formula, by differences and series."""
    u, nu, h = waves(64), 0.05, 1e-4
    at = [cole_hopf(u, nu, 0.2 + i * h, 1.0) for i in (-2, -1, 0, 1, 2)]
    change = (8 * (at[3] - at[1]) - (at[4] - at[0])) / (12 * h)
    k = 2 * math.pi * torch.fft.rfftfreq(64, 1 / 64, dtype=F64)
    series = torch.fft.rfft(at[2])
    ux, uxx = torch.fft.irfft(1j * k * series, 64), torch.fft.irfft(-k.square() * series, 64)
    assert torch.allclose(change, -at[2] * ux + nu * uxx, atol=1e-6)
    assert torch.allclose(cole_hopf(u, nu, 0.0, 1.0), u, atol=1e-12)
    with pytest.raises(ValueError, match="too much for torch.float32"):
        cole_hopf(u.float(), 0.001, 0.1, 1.0)


def test_exact_on_a_line_at_several_times():
    u, nu = waves(192), 0.02
    operator = Burgers((192,), nu, (0.1, 0.3, 0.5), courant=0.2)
    exact = torch.cat([cole_hopf(u, nu, t, 1.0) for t in operator.times], 1)
    assert float((operator(u) - exact).abs().max()) < 2e-7
    for row in range(2):
        assert torch.equal(operator(u[row : row + 1])[0], operator(u)[row])


@pytest.mark.parametrize("scheme", ["ifrk4", "etdrk4"])
def test_order_four_in_time(scheme):
    u, nu = waves(160), 0.02
    exact = cole_hopf(u, nu, 0.4, 1.0)
    errors = [float((Burgers((160,), nu, 0.4, steps=n, scheme=scheme)(u) - exact).norm()) for n in (128, 256, 512)]
    slopes = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert slopes == pytest.approx([4, 4], abs=0.2)


def test_spectral_in_space():
    """The error falls by a constant factor for every few points, faster than any power."""
    fine, errors = cole_hopf(waves(240, batch=1), 0.02, 0.3, 1.0), []
    for n in (20, 40, 60, 80):
        error = Burgers((n,), 0.02, 0.3, courant=0.05)(waves(n, batch=1)) - fine[..., :: 240 // n]
        errors.append(float(error.abs().max()))

    factors = [a / b for a, b in zip(errors, errors[1:], strict=False)]
    assert min(factors) > 10 and errors[-1] < 2e-5, errors


def test_exact_in_the_plane():
    """A gradient flow in two dimensions, unequal sides and grid: signs, axes and order."""
    nu, grid = 0.05, (54, 40)
    start, exact = potential(grid, 0.0, nu), potential(grid, 0.4, nu)
    assert float((Burgers(grid, nu, 0.4, courant=0.1)(start)[:, 0] - exact).abs().max()) < 1e-6
    errors = [float((Burgers(grid, nu, 0.4, steps=n)(start)[:, 0] - exact).norm()) for n in (48, 96)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(4, abs=0.2)


def test_the_stated_limit_is_that_of_stability():
    """Without viscosity the shortest waves on a uniform wind keep their size below the limit, and grow above it."""
    equation = Equation((30,), 0.0, (1.0,))
    wave = 1 + 1e-8 * torch.cos(2 * math.pi * 9 * line(30))
    growth = []
    for courant in (1.35, 1.52):
        w = advance(ifrk4(equation, courant / 30), equation.transform(wave), 60)
        growth.append(float(w[9].abs() / equation.transform(wave)[9].abs()))
    assert growth[0] <= 1 and growth[1] > 10
    with pytest.raises(NumericalError, match=r"crosses 1.5 grid spacings .* Take (\d+) steps"):
        Burgers((30,), 0.0, 1.0, steps=20)(torch.ones(1, 1, 30, dtype=F64))


def test_without_viscosity_energy_is_kept():
    equation = Equation((48,), 0.0, (1.0,))
    w = equation.transform(waves(48)[:, 0])
    u, change = equation.field(w), equation.field(equation.change(w))
    assert float(((u * change).sum(-1) / (u.norm(dim=-1) * change.norm(dim=-1))).abs().max()) < 1e-13


def test_a_stored_shock(real_data):
    """The solution that came with a paper on learning from this equation, viscosity 0.01 / pi."""
    from scipy.io import loadmat

    data = loadmat(real_data / "pde" / "burgers_shock.mat")
    times, x = data["t"].ravel(), torch.as_tensor(data["x"].ravel())
    n, which = 1024, [25, 50, 99]
    start = -torch.sin(math.pi * (2 * line(n) - 1))
    operator = Burgers((n,), 0.01 / math.pi, [float(times[i]) for i in which], lengths=(2.0,))
    series = torch.fft.rfft(operator(start[None, None])[0]) / n
    m = torch.arange(n // 2 + 1)
    waves_at = torch.exp(1j * math.pi * m * (x[:, None] + 1)) * torch.where(m > 0, 2, 1)
    found = (series[:, None] * waves_at).sum(-1).real
    exact = torch.as_tensor(data["usol"][:, which]).mT
    error = (found - exact).norm(dim=1) / exact.norm(dim=1)

    assert float(error.max()) < 1e-3, error


@pytest.mark.parametrize("options", [{}, {"steps": 8, "scheme": "etdrk4"}, {"segments": 3}])
def test_gradient(options):
    assert check_vjp(Burgers((16,), 0.02, (0.1, 0.2), **options), waves(16)) < 1e-5
    assert check_vjp(Burgers((8, 10), 0.05, 0.1, **options), potential((8, 10), 0.0, 0.5)) < 1e-5


def test_residual_of_a_solution_falls_with_the_square_of_the_step():
    u, sizes = waves(64, batch=1), []
    for n in (8, 16, 32):
        exact = torch.cat([cole_hopf(u, 0.05, 0.2 * i / n, 1.0) for i in range(n + 1)], 1)
        sizes.append(float(Burgers((64,), 0.05).residual(exact, 0.2 / n).square().mean().sqrt()))
    slopes = [math.log2(a / b) for a, b in zip(sizes, sizes[1:], strict=False)]
    assert slopes == pytest.approx([2, 2], abs=0.2)
    wrong = Burgers((64,), 0.06).residual(exact, 0.2 / 32)
    assert float(wrong.square().mean().sqrt()) > 20 * sizes[-1]


def test_parameters_with_units():
    pint = pytest.importorskip("pint")
    ureg = pint.UnitRegistry()
    plain = Burgers((16,), 0.02, 0.1, (2.0,))
    same = Burgers((16,), 200 * ureg("cm**2/s"), 100 * ureg.ms, (200 * ureg.cm,))
    u = waves(16)
    assert torch.allclose(plain(u), same(u), rtol=1e-12)
    with pytest.raises(ValueError, match="viscosity has units 'meter', expected"):
        Burgers((16,), 1 * ureg.m)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"viscosity": -1.0}, "must not be negative"),
        ({"times": (0.2, 0.1)}, "positive and increase"),
        ({"lengths": (-1.0,)}, "positive numbers"),
        ({"courant": 3.0}, r"courant must lie in \(0, 1.2\]"),
        ({"scheme": "rk4"}, "ifrk4, etdrk4"),
        ({"steps": 0}, "at least one an observation time"),
    ],
)
def test_wrong_values(options, message):
    with pytest.raises(ValueError, match=message):
        Burgers((16,), **options)
    with pytest.raises(ValueError, match=r"expected real velocity \(B, 1, 16\)"):
        Burgers((16,))(torch.zeros(2, 16))
