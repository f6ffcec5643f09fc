"""Iterative solvers against dense solutions; rows independent; breakdown without NaN."""

import pytest
import torch
from torch import Generator, Tensor

from scidiff.linalg import cg, gmres, lsqr

F64, C128 = torch.float64, torch.complex128


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=dtype)


def apply(matrix: Tensor, shape: tuple[int, ...]):
    """One matrix per row, (B, m, n), on fields."""
    return lambda x: (matrix @ x.flatten(1)[..., None])[..., 0].reshape(len(x), *shape)


def hermitian(batch: int, d: int, dtype: torch.dtype) -> Tensor:
    a = randn(batch, d, d, dtype=dtype)
    scale = torch.tensor([1.0, 1e4, 1e-4], dtype=F64)[:batch, None, None]  # rows of very different size
    return (a @ a.mH + 0.5 * torch.eye(d, dtype=dtype)) * scale


@pytest.mark.parametrize("dtype", [F64, C128])
@pytest.mark.parametrize("start", [False, True])
def test_cg_solves_systems_of_different_scale(dtype: torch.dtype, start: bool) -> None:
    a, b = hermitian(3, 15, dtype), randn(3, 3, 5, seed=1, dtype=dtype)
    x0 = randn(3, 3, 5, seed=2, dtype=dtype) if start else None
    x, info = cg(apply(a, (3, 5)), b, x0, iterations=60, tolerance=1e-12)
    truth = torch.linalg.solve(a, b.flatten(1)[..., None])[..., 0].reshape(b.shape)
    assert ((x - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)).max() < 1e-9
    assert (info.relative <= 1e-12).all() and (info.iterations < 60).all() and not info.breakdown.any()


def test_cg_residual_is_the_true_one_and_error_follows_the_bound() -> None:
    lam = torch.linspace(1.0, 100.0, 30, dtype=F64)
    q = torch.linalg.qr(randn(30, 30, seed=4))[0]
    a = (q * lam @ q.mT)[None]
    b = randn(1, 30, seed=5)
    truth = torch.linalg.solve(a, b[..., None])[..., 0]

    def energy(e: Tensor) -> float:
        return float((e[0] @ a[0] @ e[0]).sqrt())

    for k in (3, 8, 15):
        x, info = cg(apply(a, (30,)), b, iterations=k)
        assert torch.allclose(info.residual, (b - (a @ x[..., None])[..., 0]).norm(dim=1), rtol=1e-8)
        assert energy(x - truth) <= 2 * ((10 - 1) / (10 + 1)) ** k * energy(truth)  # sqrt of the condition number is 10


def test_preconditioned_cg_needs_one_iteration_with_the_inverse() -> None:
    a, b = hermitian(2, 6, F64), randn(2, 6, seed=1)
    x, info = cg(apply(a, (6,)), b, preconditioner=apply(torch.linalg.inv(a), (6,)), iterations=1)
    assert (info.relative < 1e-12).all()


@pytest.mark.parametrize("dtype", [F64, C128])
@pytest.mark.parametrize("restart", [None, 7])
def test_gmres_solves_nonsymmetric_systems(dtype: torch.dtype, restart: int | None) -> None:
    a = randn(3, 12, 12, dtype=dtype) + 8 * torch.eye(12, dtype=dtype)
    a = a * torch.tensor([1.0, 1e5, 1e-5], dtype=F64)[:, None, None]
    b = randn(3, 3, 4, seed=1, dtype=dtype)
    x, info = gmres(apply(a, (3, 4)), b, iterations=12 if restart is None else 84, restart=restart, tolerance=1e-13)
    truth = torch.linalg.solve(a, b.flatten(1)[..., None])[..., 0].reshape(b.shape)
    assert ((x - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)).max() < 1e-10
    true_residual = (b - apply(a, (3, 4))(x)).flatten(1).norm(dim=1)
    assert torch.allclose(info.residual, true_residual, atol=1e-9)


def test_gmres_minimises_the_residual_over_the_krylov_space() -> None:
    a, b = randn(1, 9, 9) + 3 * torch.eye(9, dtype=F64), randn(1, 9, seed=1)
    x, info = gmres(apply(a, (9,)), b, iterations=4)
    krylov = torch.stack([torch.linalg.matrix_power(a[0], k) @ b[0] for k in range(4)], 1)
    c = torch.linalg.lstsq(a[0] @ krylov, b[0][:, None]).solution
    assert torch.allclose(x[0], (krylov @ c)[:, 0], atol=1e-9)
    assert torch.allclose(info.residual[0], (b[0] - a[0] @ x[0]).norm(), atol=1e-10)


@pytest.mark.parametrize("dtype", [F64, C128])
@pytest.mark.parametrize("damp", [0.0, 0.7])
@pytest.mark.parametrize("sizes", [(14, 8), (5, 8)])
def test_lsqr_is_damped_least_squares(dtype: torch.dtype, damp: float, sizes: tuple[int, int]) -> None:
    m, n = sizes
    a, b = randn(3, m, n, dtype=dtype), randn(3, m, seed=1, dtype=dtype)
    x, info = lsqr(apply(a, (m,)), apply(a.mH, (2, 4)), b, damp=damp, iterations=60)
    stacked = torch.cat([a, damp * torch.eye(n, dtype=dtype).expand(3, n, n)], 1)
    rhs = torch.cat([b, torch.zeros(3, n, dtype=dtype)], 1)
    truth = (torch.linalg.pinv(stacked) @ rhs[..., None])[..., 0]  # minimum norm when undetermined
    assert torch.allclose(x.flatten(1), truth, atol=1e-9)
    residual = (rhs - (stacked @ truth[..., None])[..., 0]).norm(dim=1)
    assert torch.allclose(info.residual, residual, atol=1e-9)


def test_lsqr_stops_by_the_normal_residual() -> None:
    a, b = randn(2, 20, 6), randn(2, 20, seed=1)
    x, info = lsqr(apply(a, (20,)), apply(a.mH, (6,)), b, iterations=200, tolerance=1e-8)
    normal = (a.mH @ (b[..., None] - a @ x[..., None])).norm(dim=(1, 2))
    assert (normal <= 1e-7 * (a.mH @ b[..., None]).norm(dim=(1, 2))).all()
    assert info.calls < 100


def solve_all(a: Tensor, b: Tensor) -> dict[str, Tensor]:
    f, g = apply(a, b.shape[1:]), apply(a.mH, b.shape[1:])
    return {
        "cg": cg(f, b, iterations=6, tolerance=1e-3)[0],
        "gmres": gmres(f, b, iterations=6, restart=2, tolerance=1e-3)[0],
        "lsqr": lsqr(f, g, b, iterations=6, tolerance=1e-3)[0],
    }


@pytest.mark.parametrize("name", ["cg", "gmres", "lsqr"])
def test_rows_do_not_see_each_other(name: str) -> None:
    a, b = hermitian(3, 8, F64), randn(3, 8, seed=1)
    b[1] = 0  # a row with nothing to do
    a[2] = torch.eye(8, dtype=F64)  # a row that converges at once
    together = solve_all(a, b)[name]
    for row in range(3):
        alone = solve_all(a[row : row + 1], b[row : row + 1])[name]
        assert torch.allclose(alone[0], together[row], rtol=1e-10, atol=0)
    assert (together[1] == 0).all() and torch.isfinite(together).all()


def test_converged_rows_stay_as_they_are() -> None:
    a, b = hermitian(2, 8, F64), randn(2, 8, seed=1)
    a[0] = 2 * torch.eye(8, dtype=F64)
    x, info = cg(apply(a, (8,)), b, iterations=30, tolerance=1e-10)
    assert info.iterations[0] == 1 and torch.equal(x[0], b[0] / 2)


def test_cg_reports_negative_curvature() -> None:
    a = torch.stack([torch.eye(4, dtype=F64), -torch.eye(4, dtype=F64)])
    x, info = cg(apply(a, (4,)), torch.ones(2, 4, dtype=F64), iterations=5, tolerance=1e-9)
    assert info.breakdown.tolist() == [False, True]
    assert torch.isfinite(x).all() and (x[1] == 0).all()


def test_gmres_happy_breakdown_keeps_the_exact_solution() -> None:
    x, info = gmres(lambda v: 3 * v, torch.ones(2, 5, dtype=F64), iterations=5)
    assert torch.allclose(x, torch.full((2, 5), 1 / 3, dtype=F64)) and info.breakdown.all()
    assert (info.iterations == 1).all()


def test_float32_reaches_float32_accuracy() -> None:
    a, b = hermitian(1, 20, F64).float(), randn(1, 20).float()
    for x in (cg(apply(a, (20,)), b, iterations=60)[0], gmres(apply(a, (20,)), b, iterations=20)[0]):
        truth = torch.linalg.solve(a.double(), b.double()[..., None])[..., 0]
        assert (x - truth).norm() < 1e-3 * truth.norm() and torch.isfinite(x).all()


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="iterations"):
        cg(lambda v: v, torch.ones(1, 2), iterations=0)
    with pytest.raises(ValueError, match="tolerance"):
        gmres(lambda v: v, torch.ones(1, 2), tolerance=2.0)
