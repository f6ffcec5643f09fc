"""Darcy's flow: a manufactured solution and its order, layers, a dense twin, the law of the pairs."""

import math

import pytest
import torch

from scidiff.datasets.darcy_pairs import DarcyPairs
from scidiff.errors import NumericalError
from scidiff.operators.pde.elliptic import Poisson
from scidiff.solvers.darcy import divergence, solve


def gen(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rough(grid: tuple[int, ...], n: int = 2, seed: int = 0) -> torch.Tensor:
    r = torch.rand(n, *grid, generator=gen(seed), dtype=torch.float64)
    return torch.where(r < 0.5, 3.0, 12.0).double()


@pytest.mark.parametrize("grid", [(7,), (5, 8), (3, 4, 5)])
def test_a_constant_permeability_is_poisson(grid: tuple[int, ...]) -> None:
    f = torch.randn(3, *grid, generator=gen(1), dtype=torch.float64)
    a = torch.full_like(f, 2.5)
    torch.testing.assert_close(solve(a, f, rtol=1e-13), -Poisson(grid)(f) / 2.5, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(
        divergence(a, f, (1.0,) * len(grid)), -2.5 * Poisson(grid).inverse(f), rtol=1e-10, atol=1e-10
    )


def test_the_solution_of_the_dense_matrix() -> None:
    grid = (5, 8)
    a, f = rough(grid, 1), torch.randn(1, *grid, generator=gen(2), dtype=torch.float64)
    eye = torch.eye(40, dtype=torch.float64).reshape(40, *grid)
    matrix = divergence(a.expand(40, *grid), eye).reshape(40, 40).T
    torch.testing.assert_close(matrix, matrix.T)
    assert float(torch.linalg.eigvalsh(matrix).min()) > 0
    expected = torch.linalg.solve(matrix, f.flatten()).reshape(1, *grid)
    torch.testing.assert_close(solve(a, f, rtol=1e-12), expected, rtol=1e-9, atol=1e-13)


def test_second_order_for_a_manufactured_solution() -> None:
    """u = sin(pi x) sin(2 pi y), a = 2 + sin(pi x + y); unequal numbers of cells."""
    errors = []
    for k in (1, 2, 4):
        h, w = 12 * k, 16 * k
        x = ((torch.arange(h).double() + 0.5) / h)[:, None]
        y = ((torch.arange(w).double() + 0.5) / w)[None, :]
        p, q = math.pi, 2 * math.pi
        u = torch.sin(p * x) * torch.sin(q * y)
        s, c = torch.sin(p * x + y), torch.cos(p * x + y)
        a = 2 + s
        f = a * (p**2 + q**2) * u - p * c * p * torch.cos(p * x) * torch.sin(q * y)
        f = f - c * q * torch.sin(p * x) * torch.cos(q * y)
        found = solve(a.expand(1, h, w), f.expand(1, h, w), rtol=1e-11)[0]
        errors.append(float((found - u).square().mean().sqrt()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.15)
    assert math.log2(errors[1] / errors[2]) == pytest.approx(2, abs=0.1)


def test_layers_are_exact_where_the_mean_must_be_harmonic() -> None:
    """Without a source between two walls kept apart: the flux through layers in series is one number.

    In one dimension -(a u')' = 1 gives the flux (i/n - c) at face i; the discrete fluxes must be these.
    """
    n = 20
    a = torch.where(torch.arange(n) % 3 == 0, 3.0, 12.0).double()[None]
    u = solve(a, torch.ones_like(a), rtol=1e-13)[0]
    inside = -2 / (1 / a[0, 1:] + 1 / a[0, :-1]) * u.diff() * n
    flux = torch.cat([-2 * a[0, :1] * u[:1] * n, inside, 2 * a[0, -1:] * u[-1:] * n])
    torch.testing.assert_close(flux.diff(), torch.full((n,), 1 / n, dtype=torch.float64), rtol=1e-9, atol=0)
    resistance = 1 / (2 * n * a[0])  # half a cell
    pressure = -(flux[:-1] * resistance).cumsum(0) - torch.cat([flux[:1] * 0, flux[1:-1] * resistance[:-1]]).cumsum(0)
    torch.testing.assert_close(u, pressure, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("grid", [(64, 64), (20, 48)])
def test_the_residual_is_small_rows_are_alone_and_steps_are_few(grid: tuple[int, int], monkeypatch) -> None:
    a = torch.cat([rough(grid), torch.full((1, *grid), 3.0, dtype=torch.float64)])
    f = torch.ones_like(a)
    calls = []
    from scidiff.solvers import darcy

    real = darcy._divergence
    monkeypatch.setattr(darcy, "_divergence", lambda t, p: calls.append(1) or real(t, p))
    u = solve(a, f, rtol=1e-8)
    assert len(calls) <= 22, "a third per step: 8 decades take 17 steps, and some for the constant"
    residual = (divergence(a, u) - f).flatten(1).norm(dim=1) / f.flatten(1).norm(dim=1)
    assert residual.max() < 1.1e-8
    for i in range(3):
        torch.testing.assert_close(solve(a[i : i + 1], f[i : i + 1], rtol=1e-8)[0], u[i], rtol=1e-12, atol=0)
    scaled = solve(7 * a, 7e5 * f, rtol=1e-8)
    torch.testing.assert_close(scaled, 1e5 * u, rtol=1e-10, atol=0)


def test_the_pairs_follow_the_law() -> None:
    grid = (24, 30)
    source = DarcyPairs(shape=grid)
    assert source.loc[0] == 7.5 and source.scale[0] == 4.5  # type: ignore[index]
    g = gen(0)
    u = torch.stack([source(g, grid) for _ in range(300)]).double()
    assert set(u[:, 0].unique().tolist()) == {-1.0, 1.0}
    share = (u[:, 0] > 0).double().flatten(1).mean(1)
    assert abs(float(share.mean()) - 0.5) < 4 * float(share.std()) / math.sqrt(300)
    assert abs(float(u[:, 1].mean())) < 0.1 and float(u[:, 1].std()) == pytest.approx(1, abs=0.1)
    x = u * torch.tensor(source.scale).double().reshape(2, 1, 1) + torch.tensor(source.loc).double().reshape(2, 1, 1)
    residual = divergence(x[:, 0], x[:, 1]) - 1
    assert float(residual.square().mean().sqrt()) < 1e-3, "single precision, times the square of the cells"
    exact = solve(x[:, 0].round(), torch.ones_like(x[:, 0]), rtol=1e-11)
    assert float((x[:, 1] - exact).abs().max()) < 3e-5 * float(exact.max())


def test_what_cannot_be_solved_is_loud(monkeypatch) -> None:
    from scidiff.solvers import darcy

    a = rough((8, 9), 1)
    with monkeypatch.context() as patch, pytest.raises(NumericalError, match="not solved to 1e-10 in 5 steps"):
        patch.setattr(darcy, "STEPS", 5)
        solve(a, torch.ones_like(a), rtol=1e-10)
    a[0, 3, 3] = 0.0
    with pytest.raises(ValueError, match="must be positive and finite, its least value is 0"):
        solve(a, torch.ones_like(a))
    with pytest.raises(ValueError, match="0 < low < high"):
        DarcyPairs(low=3.0, high=2.0)
