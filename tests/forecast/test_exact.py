"""The exact forecaster draws from the law, row by row, in the caller's units."""

from __future__ import annotations

import math

import torch

from scidiff.forecast import ExactForecaster
from scidiff.metrics import crps
from scidiff.rng import Streams
from scidiff.solvers import StochasticTransport

LAW = StochasticTransport((4, 6), (0.1, 0.05), 2e-3, 0.1, variance=4.0)


def test_members_score_what_the_law_scores() -> None:
    """Fair CRPS over 256 states and 30 members against s / sqrt(pi), whose standard error is below 2 %."""
    g = torch.Generator().manual_seed(0)
    truth = LAW.trajectories(g, 256, 3)
    u = (truth - 1.0) / 2.0
    model = ExactForecaster(LAW, 3, loc=1.0, scale=2.0)
    state = u[None, :, :1, None].expand(30, -1, -1, -1, -1, -1).flatten(0, 1)
    members = model.sample(state, generator=g).unflatten(0, (30, 256))[:, :, :, 0] * 2.0 + 1.0
    score = crps(members, truth[:, 1:]).mean((0, 2, 3))
    # loc is not zero, and the law's mean is: members must come back to zero, not to loc.
    expected = torch.tensor([LAW.expected_crps(lead) for lead in (1, 2, 3)]).double()
    torch.testing.assert_close(score, expected, rtol=0.03, atol=0.0)


def test_rows_are_independent_of_their_neighbours_and_of_the_type() -> None:
    state = torch.randn(3, 1, 2, 4, 6, generator=torch.Generator().manual_seed(1))
    model = ExactForecaster(LAW, 2)
    whole = model.sample(state, generator=Streams(7, range(3)))
    assert whole.dtype == torch.float32 and whole.shape == (3, 2, 2, 4, 6)
    torch.testing.assert_close(whole[1:2], model.sample(state[1:2], generator=Streams(7, [1])), rtol=0, atol=1e-6)
    assert not torch.allclose(whole[:, 0, 0] - LAW.mean(state[:, 0, 0]), whole[:, 0, 1] - LAW.mean(state[:, 0, 1]))


def test_corrections_come_before_the_next_step() -> None:
    model = ExactForecaster(LAW, 2)
    state = torch.randn(2, 1, 1, 4, 6, generator=torch.Generator().manual_seed(1))
    seen = []

    def correct(x: torch.Tensor, lead: float) -> torch.Tensor:
        seen.append(lead)
        return x + 100.0

    plain = model.sample(state, generator=Streams(7, range(2)))
    moved = model.sample(state, generator=Streams(7, range(2)), correct=correct)
    assert seen == [1.0, 2.0]
    torch.testing.assert_close(moved[:, 1], plain[:, 1] + 100 + 100 * math.exp(-0.1), rtol=1e-4, atol=1e-3)
