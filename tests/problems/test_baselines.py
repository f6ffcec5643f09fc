"""Total variation against a closed form, a long run and its optimality condition; least squares against a solve."""

import math

import pytest
import torch

from scidiff.operators.identity import Identity
from scidiff.operators.mri import CartesianMRI
from scidiff.problems.baselines import (
    differences,
    differences_adjoint,
    least_squares,
    total_variation,
    zero_filled,
)


def gen(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny_mri(seed: int = 0) -> tuple[CartesianMRI, torch.Tensor]:
    maps = torch.randn(3, 1, 12, 10, generator=gen(seed), dtype=torch.complex128)
    maps = maps / maps.abs().square().sum(0).sqrt()
    mask = torch.rand(12, 10, generator=gen(seed + 1)) < 0.6
    operator = CartesianMRI(maps, mask)
    x = torch.zeros(2, 1, 12, 10, dtype=torch.complex128)
    x[0, 0, 3:9, 2:7] = 1 + 2j
    x[1, 0, 2:5] = -1j
    y = operator(x)
    return operator, y + 0.05 * torch.randn(y.shape, generator=gen(seed + 2), dtype=y.dtype)


def objective(operator: CartesianMRI, y: torch.Tensor, x: torch.Tensor, weight: float) -> torch.Tensor:
    tv = differences(x).abs().square().sum(0).sqrt().flatten(1).sum(1)
    return 0.5 * (operator(x) - y).abs().square().flatten(1).sum(1) + weight * tv


def test_differences_and_their_adjoint() -> None:
    x = torch.randn(2, 1, 5, 8, generator=gen(0), dtype=torch.complex128)
    p = torch.randn(2, 2, 1, 5, 8, generator=gen(1), dtype=torch.complex128)
    left = (differences(x).conj() * p).real.sum()
    torch.testing.assert_close(left, (x.conj() * differences_adjoint(p)).real.sum())
    assert bool((differences(torch.ones(1, 1, 4, 3)) == 0).all())


def test_denoising_a_step_in_closed_form() -> None:
    """In one dimension, a step between plateaus of n and m points loses weight / n below and gains weight / m above."""
    y = torch.zeros(1, 1, 1, 10, dtype=torch.float64)
    y[..., 4:] = 3.0
    x = total_variation(Identity(), y, weight=0.6, iterations=300, tol=0.0)
    expected = torch.where(y > 0, 3.0 - 0.6 / 6, 0.6 / 4).to(y.dtype)
    torch.testing.assert_close(x, expected, atol=1e-6, rtol=0)
    flat = total_variation(Identity(), y, weight=100.0, iterations=300, tol=0.0)
    torch.testing.assert_close(flat, y.mean().expand_as(y), atol=1e-6, rtol=0)


def test_a_complex_step_keeps_its_phase() -> None:
    y = torch.zeros(1, 1, 10, 1, dtype=torch.complex128)
    phase = complex(math.cos(0.7), math.sin(0.7))
    y[:, :, 4:] = 3.0 * phase
    x = total_variation(Identity(), y, weight=0.6, iterations=300, tol=0.0)
    torch.testing.assert_close(x[0, 0, 5, 0], torch.tensor(2.9 * phase, dtype=torch.complex128), atol=1e-6, rtol=0)


def test_convergence_to_a_long_run_and_scale_equivariance() -> None:
    operator, y = tiny_mri()
    weight = 0.05
    best = objective(operator, y, total_variation(operator, y, weight, iterations=300, tol=0.0), weight)
    gaps = []
    for n in (5, 20, 80):
        x = total_variation(operator, y, weight, iterations=n, tol=0.0)
        gaps.append(float((objective(operator, y, x, weight) / best - 1).max()))
    assert gaps[0] < 0.05 and gaps[1] < 2e-3 and gaps[2] < 5e-4
    assert gaps[0] > gaps[1] > gaps[2] > -1e-9
    x = total_variation(operator, y, weight, iterations=10, tol=0.0)
    large = total_variation(operator, 1e4 * y, 1e4 * weight, iterations=10, tol=0.0)
    torch.testing.assert_close(large, 1e4 * x, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(total_variation(operator, y, weight)[:1], total_variation(operator, y[:1], weight))


def test_a_sparse_row_does_not_see_a_loud_one() -> None:
    """The threshold of a row is about its own field, also where few of its points are not zero."""
    y = torch.zeros(2, 1, 12, 20, dtype=torch.float64)
    y[0, 0, 3, 4], y[1] = 1.0, 1e9 * torch.rand(1, 12, 20, generator=gen(1), dtype=torch.float64)
    both = total_variation(Identity(), y, weight=0.05)
    torch.testing.assert_close(both[:1], total_variation(Identity(), y[:1], weight=0.05), rtol=1e-9, atol=1e-9)


def test_no_weight_is_least_squares_and_small_changes_do_not_improve() -> None:
    operator, y = tiny_mri(5)
    weight = 0.05
    x = total_variation(operator, y, weight, iterations=300, tol=0.0)
    value = objective(operator, y, x, weight)
    for seed in range(5):
        other = x + 1e-3 * torch.randn(x.shape, generator=gen(seed), dtype=x.dtype)
        assert bool((objective(operator, y, other, weight) > value).all())


def test_least_squares_against_a_dense_solve() -> None:
    operator, y = tiny_mri(3)
    basis = torch.eye(120, dtype=torch.complex128).reshape(120, 1, 12, 10)
    matrix = operator(basis).flatten(1).mT
    expected = torch.linalg.solve(
        matrix.mH @ matrix + 0.1 * torch.eye(120), (matrix.mH @ y.flatten(1)[..., None])
    ).reshape(2, 1, 12, 10)
    torch.testing.assert_close(least_squares(operator, y, 0.1, 300, 1e-12), expected, atol=1e-8, rtol=0)
    torch.testing.assert_close(least_squares(operator, y, 0.1)[:1], least_squares(operator, y[:1], 0.1))


def test_messages() -> None:
    operator, y = tiny_mri()
    torch.testing.assert_close(zero_filled(operator, y), operator.adjoint(y))
    with pytest.raises(ValueError, match="negative"):
        total_variation(operator, y, -1.0)
    with pytest.raises(ValueError, match="sees nothing"):
        total_variation(operator, 0 * y, 1.0)
