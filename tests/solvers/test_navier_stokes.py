"""The Navier-Stokes solver: exact flows, conserved quantities, order in time."""

import math

import pytest
import torch

from scidiff.solvers import NavierStokes, advance, etdrk4, ifrk4


def axes(grid: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    y, x = (2 * math.pi * torch.arange(n, dtype=torch.float64) / n for n in grid)
    return y[:, None], x[None, :]


def turbulent(solver: NavierStokes, seed: int = 0, batch: int = 2) -> torch.Tensor:
    """Random waves of wavenumber 1 to 4."""
    y, x = axes(solver.grid)
    g = torch.Generator().manual_seed(seed)
    w = torch.zeros(batch, *solver.grid, dtype=torch.float64)
    for p in range(-4, 5):
        for q in range(1, 5):
            a, b = torch.randn(2, batch, 1, 1, generator=g, dtype=torch.float64)
            w = w + 0.5 * (a * torch.cos(p * y + q * x) + b * torch.sin(p * y + q * x))
    return solver.transform(w)


def run(solver: NavierStokes, w: torch.Tensor, time: float, steps: int, scheme=ifrk4) -> torch.Tensor:
    return advance(scheme(solver, time / steps), w, steps)


@pytest.mark.parametrize("grid", [(24, 32), (15, 20)])
def test_the_taylor_green_vortex_decays_exactly(grid: tuple[int, int]) -> None:
    nu, mu, time = 0.05, 0.2, 3.0
    solver = NavierStokes(grid, nu, mu, forcing=0)
    y, x = axes(grid)
    start = 2 * torch.cos(2 * x) * torch.cos(2 * y)
    found = solver.field(run(solver, solver.transform(start), time, 20))
    torch.testing.assert_close(found, start * math.exp(-(8 * nu + mu) * time), rtol=0, atol=1e-13)


def test_velocity_and_vorticity_belong_together() -> None:
    """A stream function given by hand: signs and axes."""
    solver = NavierStokes((24, 32), 0.01, forcing=0)
    y, x = axes((24, 32))
    w = solver.transform((1 + 9) * torch.sin(x) * torch.cos(3 * y))  # psi = sin x cos 3y
    u, v = solver.velocity(w)
    torch.testing.assert_close(u, -3 * torch.sin(x) * torch.sin(3 * y))
    torch.testing.assert_close(v, -torch.cos(x) * torch.cos(3 * y))
    assert float(solver.energy(w)) == pytest.approx((9 + 1) / 8)
    assert float(solver.enstrophy(w)) == pytest.approx(100 / 8)


def test_a_wave_is_carried_by_a_shear() -> None:
    """The quadratic term against the product of the exact fields, here free of truncation."""
    solver = NavierStokes((24, 32), 0.0, forcing=0)
    y, x = axes((24, 32))
    w = solver.transform(torch.sin(2 * y) + torch.cos(x + y))
    psi_y = torch.cos(2 * y) / 2 - torch.sin(x + y) / 2
    psi_x = -torch.sin(x + y) / 2
    wx, wy = -torch.sin(x + y), 2 * torch.cos(2 * y) - torch.sin(x + y)
    torch.testing.assert_close(solver.field(solver.change(w)), -(psi_y * wx - psi_x * wy), rtol=0, atol=1e-13)


def test_the_forced_laminar_flow_grows_exactly_and_to_fourth_order() -> None:
    nu, mu, m, time = 0.1, 0.3, 3, 2.0
    solver = NavierStokes((16, 20), nu, mu, forcing=m)
    y, _ = axes((16, 20))
    rate = nu * m**2 + mu
    exact = (-m * torch.cos(m * y) * (1 - math.exp(-rate * time)) / rate).expand(16, 20)
    zero = torch.zeros(16, 7, dtype=torch.complex128)
    errors = [float((solver.field(run(solver, zero, time, n)) - exact).abs().max()) for n in (4, 8, 16)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(4, abs=0.15)
    assert math.log2(errors[1] / errors[2]) == pytest.approx(4, abs=0.1)


@pytest.mark.parametrize("scheme", [ifrk4, etdrk4])
def test_order_in_time_of_a_turbulent_flow(scheme) -> None:
    solver = NavierStokes((32, 36), 0.01, 0.1, forcing=4)
    w = turbulent(solver)
    found = {n: solver.field(run(solver, w, 0.5, n, scheme)) for n in (32, 64, 128, 1024)}
    errors = [float((found[n] - found[1024]).norm()) for n in (32, 64, 128)]
    slopes = [math.log2(errors[0] / errors[1]), math.log2(errors[1] / errors[2])]
    assert slopes == pytest.approx([4, 4], abs=0.25)


def test_without_viscosity_energy_and_enstrophy_are_conserved() -> None:
    """The truncated equations conserve both exactly: the change is that of the time step, of high order."""
    solver = NavierStokes((32, 36), 0.0, forcing=0)
    w = turbulent(solver, seed=3)
    drift = []
    for steps in (32, 64):
        end = run(solver, w, 1.0, steps)
        assert (solver.field(end) - solver.field(w)).norm() > 0.5 * solver.field(w).norm(), "the flow must move"
        drift.append([float((f(end) / f(w) - 1).abs().max()) for f in (solver.energy, solver.enstrophy)])
    assert max(drift[1]) < 2e-6 and sum(drift[0]) > 10 * sum(drift[1]) > 0
    # The rate of change itself, without a time step: <psi, dw> and <w, dw> vanish.
    change, psi = solver.field(solver.change(w)), solver.field(w * solver.inverse)
    for weight in (psi, solver.field(w)):
        rate = (weight * change).mean((-2, -1)) / (
            weight.square().mean((-2, -1)) * change.square().mean((-2, -1))
        ).sqrt()
        assert rate.abs().max() < 1e-14


def test_the_product_is_free_of_aliasing() -> None:
    """On a finer grid with the same modes kept, the change of these modes is the same."""
    coarse, fine = NavierStokes((15, 18), 0.01, forcing=0), NavierStokes((30, 36), 0.01, forcing=0)
    y, x = axes((15, 18))
    g = torch.Generator().manual_seed(1)
    w = coarse.transform(torch.randn(15, 18, generator=g, dtype=torch.float64))
    modes = torch.fft.fftfreq(15, 1 / 15).long(), torch.arange(6)
    big = torch.zeros(30, 12, dtype=torch.complex128)
    big[modes[0][:, None], modes[1][None]] = 4 * w * coarse.kept
    found = fine.change(big)[modes[0][:, None], modes[1][None]] / 4 * coarse.kept
    torch.testing.assert_close(found, coarse.change(w), rtol=0, atol=1e-11)


def test_a_mirrored_flow_solves_the_equations() -> None:
    """The symmetries used for the draws commute with the solver, up to the phase of the forcing."""
    solver = NavierStokes((16, 24), 0.02, 0.1, forcing=2)
    start = solver.field(turbulent(solver, batch=1)[0])

    def later(field: torch.Tensor) -> torch.Tensor:
        return solver.field(run(solver, solver.transform(field), 0.5, 40))

    images = {
        "along x": lambda f: f.roll(5, 1),
        "a period of the forcing": lambda f: f.roll(8, 0),
        "mirror": lambda f: -f.flip(1).roll(4, 0),
        "turn": lambda f: f.roll((-1, -1), (0, 1)).flip(0, 1),
    }
    for name, image in images.items():
        error = (later(image(start)) - image(later(start))).abs().max()
        if name == "turn":  # flip(0, 1) maps point 0 to the last one: the phase moves by one point
            forced = solver.force
            moved = solver.transform(solver.field(forced).roll(-1, 0).flip(0))
            torch.testing.assert_close(moved, forced, rtol=0, atol=1e-10)
        assert error < 1e-10, name


def test_wrong_values_say_what_is_expected() -> None:
    with pytest.raises(ValueError, match="wavenumber must lie in"):
        NavierStokes((12, 16), 0.1, forcing=4)
    with pytest.raises(ValueError, match="at least 8 points each"):
        NavierStokes((4, 16), 0.1)
    with pytest.raises(ValueError, match="must not be negative"):
        NavierStokes((12, 16), -0.1)
    with pytest.raises(ValueError, match=r"forcing has the grid \(8, 8\)"):
        NavierStokes((12, 16), 0.1, forcing=torch.zeros(8, 8))


def smooth(solver: NavierStokes, seed: int, batch: int = 2) -> torch.Tensor:
    """A truncated series with all of its waves."""
    g = torch.Generator().manual_seed(seed)
    return solver.transform(torch.randn(batch, *solver.grid, generator=g, dtype=torch.float64))


@pytest.mark.parametrize("segments", [1, 3])
def test_the_gradient_without_a_graph_is_that_of_the_graph(segments: int) -> None:
    """Of one change, and of steps with everything kept and with checkpoints."""
    solver = NavierStokes((12, 16), 0.05, 0.1, forcing=2)
    w, g = smooth(solver, 0).requires_grad_(), smooth(solver, 1) * (1 + 2j)
    (expected,) = torch.autograd.grad(solver.change(w), w, g)
    torch.testing.assert_close(solver.recorded(w.detach())[1](g), expected, rtol=0, atol=1e-12)
    step, end = ifrk4(solver, 0.05), w
    for _ in range(5):
        end = step(end)
    (expected,) = torch.autograd.grad(end, w, g)
    (found,) = torch.autograd.grad(advance(step, w, 5, segments), w, g)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_steps_can_be_differentiated_twice_and_by_torch_func() -> None:
    solver = NavierStokes((8, 9), 0.05, forcing=2)
    step, w, h = ifrk4(solver, 0.1), smooth(solver, 0, 1), smooth(solver, 1, 1)
    assert torch.autograd.gradgradcheck(lambda z: advance(step, z, 1, 1), w.clone().requires_grad_(), fast_mode=True)

    def later(z: torch.Tensor) -> torch.Tensor:
        return advance(step, z, 3, 1)

    moved = torch.func.jvp(later, (w,), (h,))[1]
    torch.testing.assert_close((later(w + 1e-6 * h) - later(w - 1e-6 * h)) / 2e-6, moved, rtol=0, atol=1e-7)
    back = torch.func.vjp(later, w)[1](h)[0]  # <h, J h> both ways, real and imaginary parts counted alike
    assert float((back.conj() * h).sum().real) == pytest.approx(float((h.conj() * moved).sum().real), rel=1e-9)
