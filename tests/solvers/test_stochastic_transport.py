"""The predictive law against dense matrices, its own semigroup, transport by whole cells, and draws."""

from __future__ import annotations

import math

import pytest
import torch

from scidiff.rng import Streams
from scidiff.solvers.stochastic_transport import StochasticTransport


def dense(law: StochasticTransport, lead: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Matrices of the mean and the covariance, column by column."""
    size = math.prod(law.grid)
    basis = torch.eye(size, dtype=torch.float64).reshape(size, *law.grid)
    return law.mean(basis, lead).reshape(size, size).T, law.covariance(lead).matmul(basis).reshape(size, size)


@pytest.mark.parametrize("grid", [(6, 5), (5, 8), (7,)])
def test_two_steps_are_one_step_twice(grid: tuple[int, ...]) -> None:
    """Mean and covariance of the Markov chain: A_2 = A_1^2, C_2 = C_1 + A_1 C_1 A_1^T."""
    law = StochasticTransport(grid, (0.07, 0.03)[: len(grid)], 3e-3, 0.1, variance=2.0)
    (A, C), (A2, C2) = dense(law, 1), dense(law, 2)
    torch.testing.assert_close(A2, A @ A)
    torch.testing.assert_close(C2, C + A @ C @ A.T)


def test_the_stationary_law_stays(grid=(6, 5)) -> None:
    law = StochasticTransport(grid, (0.07, 0.03), 3e-3, 0.1, variance=2.0)
    A, C = dense(law, 3)
    S = law.stationary.matmul(torch.eye(30, dtype=torch.float64).reshape(30, *grid)).reshape(30, 30)
    torch.testing.assert_close(A @ S @ A.T + C, S)
    assert torch.diagonal(S).tolist() == pytest.approx([2.0] * 30)
    assert law.std(1e6) == pytest.approx(math.sqrt(2.0))


def test_without_diffusion_a_field_moves_by_whole_cells_and_fades() -> None:
    """On odd sides every wave is carried."""
    law = StochasticTransport((5, 7), (1 / 5, 2 / 7), 0.0, 0.3)
    x = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(law.mean(x, 2), math.exp(-0.6) * x.roll((2, 4), (-2, -1)))


def test_a_wave_decays_at_its_rate() -> None:
    law = StochasticTransport((8, 6), (0.0, 0.0), 1e-2, 0.2)
    y, x = torch.meshgrid(torch.arange(8.0).double() / 8, torch.arange(6.0).double() / 6, indexing="ij")
    wave = torch.cos(2 * math.pi * (2 * y + x))
    rate = 0.2 + 1e-2 * (2 * math.pi) ** 2 * 5
    torch.testing.assert_close(law.mean(wave, 1.5), math.exp(-1.5 * rate) * wave)


def test_draws_have_the_law_s_mean_and_covariance() -> None:
    """4000 draws of three steps: covariances within 5 standard errors, which are at most sqrt(2 / n) of a variance."""
    law = StochasticTransport((4, 3), (0.1, 0.05), 5e-3, 0.2)
    n = 4000
    start = law.stationary.sample(torch.Generator().manual_seed(1)).expand(n, 4, 3)
    drawn = law.trajectories(torch.Generator().manual_seed(2), n, 3, start)[:, -1]
    error = (drawn - law.mean(start, 3)).flatten(1)
    C = dense(law, 3)[1]
    assert float(error.mean(0).abs().max()) < 5 * law.std(3) / math.sqrt(n)
    assert float((error.T @ error / n - C).abs().max()) < 5 * law.std(3) ** 2 * math.sqrt(2 / n)


def test_crps_of_the_law_is_that_of_many_draws() -> None:
    """Against the integral of (F(y) - 1[y >= truth])^2, and its mean over truths against s / sqrt(pi)."""
    law = StochasticTransport((4, 3), (0.1, 0.05), 5e-3, 0.2)
    g = torch.Generator().manual_seed(4)
    state = law.stationary.sample(g)
    truth = law.trajectories(g, 1, 2, state)[:, -1]
    y = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    cdf = torch.special.ndtr((y[:, None] - law.mean(state, 2).flatten()) / law.std(2))
    brute = torch.trapezoid((cdf - (y[:, None] >= truth.flatten()).double()).square(), y, dim=0)
    torch.testing.assert_close(law.crps(state, truth, 2).flatten(), brute, rtol=1e-3, atol=1e-4)
    z = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    truths = law.mean(state, 2) + law.std(2) * z[:, None, None]
    weight = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    mean = torch.trapezoid(law.crps(state, truths, 2)[:, 0, 0] * weight, z)
    assert float(mean) == pytest.approx(law.expected_crps(2), rel=1e-8)


def test_a_trajectory_does_not_depend_on_its_neighbours() -> None:
    law = StochasticTransport((4, 3))
    torch.testing.assert_close(
        law.trajectories(Streams(5, range(3)), 3, 2)[1:2], law.trajectories(Streams(5, [1]), 1, 2), rtol=0, atol=1e-14
    )


def test_refuses_what_never_forgets() -> None:
    with pytest.raises(ValueError, match="drag > 0"):
        StochasticTransport((4, 4), drag=0.0)
    with pytest.raises(ValueError, match="2 components"):
        StochasticTransport((4,), (0.1, 0.1))
