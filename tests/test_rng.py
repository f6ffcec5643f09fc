"""One stream per row, and no draw from torch's global generator."""

import pytest
import torch

from scidiff.linalg import Dense
from scidiff.noise import GaussianNoise, PoissonNoise
from scidiff.operators.mri import masks
from scidiff.priors import GaussianMixturePrior, GaussianPrior
from scidiff.rng import Streams, member_indices, root_seed


def test_a_member_is_the_same_alone_and_in_company():
    together = Streams(7, [0, 1, 2, 3], batch=2).randn((5,))
    alone = Streams(7, [3], batch=2).randn((5,))
    assert torch.equal(together[6:], alone)
    assert torch.equal(Streams(7, [3], batch=1).randn((5,)), alone[:1])  # of any number of observations
    assert not torch.equal(together[0], together[1])


def test_rows_are_independent_and_normal():
    draws = Streams(0, range(400)).randn((50,), dtype=torch.float64)
    assert abs(float(draws.mean())) < 4 / 20000**0.5
    assert abs(float(draws.var()) - 1) < 4 * (2 / 20000) ** 0.5
    between = (draws[:-1] * draws[1:]).mean()
    assert abs(float(between)) < 4 / 20000**0.5


def test_the_root_is_read_not_advanced():
    g = torch.Generator().manual_seed(5)
    assert root_seed(g) == root_seed(g) == root_seed(torch.Generator().manual_seed(5))
    torch.rand(1, generator=g)
    assert root_seed(g) != root_seed(torch.Generator().manual_seed(5))
    assert root_seed(None) != root_seed(None)


def test_members_are_named_or_counted():
    assert member_indices(3) == [0, 1, 2]
    assert member_indices([5, 2]) == [5, 2]
    for wrong in (0, [], [1, 1], [-1]):
        with pytest.raises(ValueError, match="members must be"):
            member_indices(wrong)


def test_without_a_generator_the_global_one_is_left_alone():
    z = torch.ones(2, 3)
    prior = GaussianPrior(torch.zeros(3), torch.eye(3))
    calls = (
        lambda: GaussianNoise(1.0).sample(z),
        lambda: PoissonNoise(1.0).sample(z),
        lambda: prior.sample(2),
        lambda: GaussianMixturePrior(torch.tensor([0.5, 0.5]), torch.zeros(2, 3), torch.eye(3).expand(2, 3, 3)).sample(
            2
        ),
        lambda: Dense(torch.eye(3)).sample(None),
        lambda: masks.random((32, 32), 4),
    )
    for call in calls:
        before = torch.get_rng_state()
        first, second = call(), call()
        assert torch.equal(torch.get_rng_state(), before)
        assert not torch.equal(torch.as_tensor(first), torch.as_tensor(second))
