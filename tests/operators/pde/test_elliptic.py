"""Poisson and Helmholtz: a manufactured solution and its order, the adjoint, the residual, the SVD, a dense twin."""

import math

import pytest
import torch
from torch import Generator

from scidiff.operators.pde import Helmholtz, Poisson, sine_basis
from scidiff.testing import check_adjoint, check_batch_independence, check_vjp

F64 = torch.float64
GRIDS = [((9,), (2.0,)), ((5, 8), (1.0, 1.5)), ((3, 4, 5), (1.0, 0.5, 2.0))]


def operators(grid, lengths):
    return [Poisson(grid, lengths), Helmholtz(grid, 1.0, lengths), Helmholtz(grid, 11.3, lengths)]


def fields(*shape):
    return torch.randn(*shape, generator=Generator().manual_seed(0), dtype=F64)


@pytest.mark.parametrize("grid, lengths", GRIDS)
def test_adjoint_gradient_and_batch(grid, lengths):
    for operator in operators(grid, lengths):
        check_adjoint(operator, (2, *grid))
        check_vjp(operator, fields(2, 2, *grid))
        check_batch_independence(operator, fields(3, *grid))


@pytest.mark.parametrize("grid, lengths", GRIDS)
def test_solution_solves_the_difference_equation(grid, lengths):
    a = fields(2, *grid)
    for operator in operators(grid, lengths):
        u = operator(a)
        assert float(operator.residual(a, u).abs().max()) < 1e-11 * float(a.abs().max())
        assert float(operator.residual(a, torch.zeros_like(u)).abs().max()) > 0.1
        assert torch.allclose(operator(operator.inverse(a)), a, atol=1e-11)


def test_dense_twin_in_one_dimension():
    """The tridiagonal matrix with -3 in the corners: the value at a wall is the mean of a cell and its mirror image."""
    n, length, k = 6, 1.5, 2.0
    matrix = torch.diag(torch.full((n,), -2.0, dtype=F64))
    matrix += torch.diag(torch.ones(n - 1, dtype=F64), 1) + torch.diag(torch.ones(n - 1, dtype=F64), -1)
    matrix[0, 0] = matrix[-1, -1] = -3
    matrix = matrix * (n / length) ** 2 + k**2 * torch.eye(n, dtype=F64)
    a = fields(4, n)
    expected = torch.linalg.solve(matrix, a.mT).mT
    assert torch.allclose(Helmholtz((n,), k, (length,))(a), expected, atol=1e-12)


def manufactured(grid, lengths, k):
    """u = sin(pi x / L) y (M - y) exp(y): zero on the walls, curved there; and its right-hand side."""
    (n, m), (L, M) = grid, lengths
    x = (torch.arange(n, dtype=F64)[:, None] + 0.5) * L / n
    y = (torch.arange(m, dtype=F64) + 0.5) * M / m
    s, g = torch.sin(math.pi * x / L), y * (M - y) * torch.exp(y)
    second = (M * y - y**2 + 2 * (M - 2 * y) - 2) * torch.exp(y)
    return (s * g)[None], (s * second + (k**2 - (math.pi / L) ** 2) * s * g)[None]


@pytest.mark.parametrize("k", [0.0, 1.0, 4.5])
def test_manufactured_solution_at_second_order(k):
    lengths, errors = (1.0, 1.5), []
    sizes = (12, 24, 48)
    for n in sizes:
        grid = (n, n + n // 3)
        u, a = manufactured(grid, lengths, k)
        errors.append(float((Helmholtz(grid, k, lengths)(a) - u).norm() / u.norm()))
    orders = [math.log2(errors[i] / errors[i + 1]) for i in range(2)]
    assert all(1.9 < order < 2.1 for order in orders), orders
    assert errors[-1] < 3e-3


def test_residual_of_the_true_solution_vanishes_at_second_order():
    """The trap of published guidance: a residual whose size is the same at the solution and at zero.

    A sine continues oddly beyond the walls, so the difference is of second order up to them.
    """
    sizes, inside, zero = (16, 32, 64), [], []
    for n in sizes:
        x = (torch.arange(n, dtype=F64) + 0.5) / n
        u = torch.outer(torch.sin(math.pi * x), torch.sin(2 * math.pi * x))[None]
        operator, a = Poisson((n, n)), -5 * math.pi**2 * u
        inside.append(float(operator.residual(a, u).square().mean().sqrt()))
        zero.append(float(operator.residual(a, torch.zeros_like(u)).square().mean().sqrt()))
    orders = [math.log2(inside[i] / inside[i + 1]) for i in range(2)]
    assert all(1.95 < order < 2.05 for order in orders), orders
    assert inside[-1] < 2e-3 * zero[-1]


@pytest.mark.parametrize("grid, lengths", GRIDS)
def test_singular_value_decomposition(grid, lengths):
    a = fields(2, *grid)
    for operator in operators(grid, lengths):
        U, s, V = operator.svd()
        assert torch.allclose(U(s * V.adjoint(a)), operator(a), atol=1e-12)
        assert torch.allclose(V.adjoint(V(a)), a, atol=1e-12) and torch.allclose(U.adjoint(U(a)), a, atol=1e-12)
        assert bool((s > 0).all())


def test_basis_single_precision_and_devices():
    basis = sine_basis(5)
    assert torch.allclose(basis @ basis.mT, torch.eye(5, dtype=F64), atol=1e-14)
    a = fields(2, 5, 8)
    operator = Poisson((5, 8))
    assert operator(a.float()).dtype == torch.float32
    assert torch.allclose(operator(a.float()).double(), operator(a), atol=1e-6)


def test_wrong_use_is_named():
    with pytest.raises(ValueError, match=r"expected \(B, ..., 5, 8\)"):
        Poisson((5, 8))(fields(2, 8, 5))
    with pytest.raises(ValueError, match="2 positive numbers"):
        Poisson((5, 8), (1.0,))
    standing = float(-Poisson((7,)).eigenvalues[0]) ** 0.5
    with pytest.raises(ValueError, match="standing wave"):
        Helmholtz((7,), standing)
    with pytest.raises(ValueError, match="at least one cell"):
        Poisson(())
