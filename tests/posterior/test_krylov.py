"""The row-by-row solvers against dense solves."""

import pytest
import torch
from torch import Generator

from scidiff.posterior.krylov import Solution, conjugate_gradients, dot, gmres

N = 7


def system(symmetric, rows=3):
    g = Generator().manual_seed(0)
    B = torch.randn(rows, 4, N, generator=g, dtype=torch.float64)
    M = torch.eye(N, dtype=torch.float64) + B.mT @ B
    if not symmetric:
        M = M + 0.3 * torch.randn(rows, N, N, generator=g, dtype=torch.float64)
    r = torch.randn(rows, N, generator=g, dtype=torch.float64)
    return M, B, r


def solver_input(M, B):
    def product(p):
        return (M @ p[:, :, None])[:, :, 0], (B @ p[:, :, None])[:, :, 0]

    return product


@pytest.mark.parametrize("solve, symmetric", [(conjugate_gradients, True), (gmres, True), (gmres, False)])
@pytest.mark.parametrize("warm", [False, True])
def test_solves_and_returns_the_image(solve, symmetric, warm):
    M, B, r = system(symmetric)
    x = Solution.zero(r, (4,))
    product = solver_input(M, B)
    if warm:
        x.along(r.flip(1), dot(r.flip(1), r), product, torch.ones(3, 1, dtype=torch.bool))
    solve(x, product, torch.zeros(3, 1, dtype=torch.float64), N)
    exact = torch.linalg.solve(M, r)
    assert torch.allclose(x.v, exact, atol=1e-9)
    assert torch.allclose(x.image, (B @ exact[:, :, None])[:, :, 0], atol=1e-9)
    assert torch.allclose(x.r, r - product(x.v)[0], atol=1e-9)
    assert not x.broken.any()


@pytest.mark.parametrize("solve", [conjugate_gradients, gmres])
def test_rows_end_on_their_own(solve):
    M, B, r = system(True)
    M[0] = torch.eye(N)
    r[2] = 0
    stop = 1e-6 * dot(r, r).sqrt()
    x = Solution.zero(r, (4,))
    solve(x, solver_input(M, B), stop, 20)
    assert x.used[:, 0].tolist() == [1, 5, 0]  # 4 eigenvalues other than 1
    for row in range(3):
        alone = Solution.zero(r[row : row + 1], (4,))
        solve(alone, solver_input(M[row : row + 1], B[row : row + 1]), stop[row : row + 1], 20)
        assert torch.allclose(alone.v, x.v[row : row + 1], atol=1e-12)


def test_indefinite_row_keeps_what_it_has():
    M, B, r = system(True)
    M[1] = M[1] - 30 * torch.eye(N)
    x = Solution.zero(r, (4,))
    conjugate_gradients(x, solver_input(M, B), torch.full((3, 1), 1e-9, dtype=torch.float64), 20)
    assert x.broken[:, 0].tolist() == [False, True, False]
    assert torch.isfinite(x.v).all() and x.v[1].abs().max() < 10 * r[1].abs().max()
    assert torch.allclose(x.v[0], torch.linalg.solve(M[0], r[0]), atol=1e-7)
