"""Exact ensembles must come out calibrated, whatever their size; wrong ones must not."""

import math

import pytest
import torch

from scidiff.metrics import coverage, inside_interval, rank_histogram, spread_skill

N = 40_000


def gen(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def exact_ensemble(members: int, seed: int, width: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two rows of unequal scale and offset; the truth from the same law, the members widened by ``width``."""
    scale, offset = torch.tensor([[1.0], [7.0]]), torch.tensor([[0.0], [280.0]])
    draws = torch.randn(members + 1, 2, N, generator=gen(seed), dtype=torch.float64)
    return offset + width * scale * draws[1:], offset + scale * draws[0]


@pytest.mark.parametrize("members", [2, 4, 8, 40])
def test_t_coverage_of_exact_ensembles(members: int) -> None:
    x, y = exact_ensemble(members, members)
    for level in (0.5, 0.9):
        error = 4 * math.sqrt(level * (1 - level) / N)
        assert coverage(x, y, level).sub(level).abs().max() < error


def test_rank_coverage_of_exact_ensembles_without_gaussians() -> None:
    x, y = exact_ensemble(19, 1)
    inside = coverage(x.div(7).exp(), y.div(7).exp(), 0.9, method="rank")  # monotone maps keep ranks
    assert inside.sub(0.9).abs().max() < 4 * math.sqrt(0.09 / N)
    with pytest.raises(ValueError, match="at most 0.778"):
        coverage(x[:8], y, 0.9, method="rank")


def test_coverage_accounts_for_the_noise_of_the_reference() -> None:
    x, y = exact_ensemble(40, 2)
    noise = torch.tensor([[0.8], [5.0]], dtype=torch.float64)
    reference = y + noise * torch.randn(y.shape, generator=gen(3), dtype=torch.float64)
    assert coverage(x, reference, 0.9).max() < 0.85
    assert coverage(x, reference, 0.9, noise_std=noise).sub(0.9).abs().max() < 0.01
    assert spread_skill(x, reference, noise_std=noise).sub(1).abs().max() < 0.02


def test_complex_fields_count_twice_with_the_deviation_per_component() -> None:
    x, y = exact_ensemble(8, 4)
    x2, y2 = exact_ensemble(8, 5)
    z, w = torch.complex(x, x2), torch.complex(y, y2)
    expected = (coverage(x, y) + coverage(x2, y2)) / 2
    torch.testing.assert_close(coverage(z, w), expected)
    assert inside_interval(z, w).shape == (2, N, 2)
    assert spread_skill(z, w).sub(1).abs().max() < 0.02


@pytest.mark.parametrize("members", [2, 8])
def test_spread_skill_is_one_for_exact_ensembles_and_the_ratio_for_narrow_ones(members: int) -> None:
    x, y = exact_ensemble(members, 10 + members)
    assert spread_skill(x, y).sub(1).abs().max() < 0.02
    narrow, y = exact_ensemble(members, 10 + members, width=0.5)
    expected = 0.5 * math.sqrt((1 + 1 / members) / (1 + 0.25 / members))
    assert spread_skill(narrow, y).sub(expected).abs().max() < 0.02


def test_rank_histogram_is_flat_when_exact_and_u_shaped_when_narrow() -> None:
    x, y = exact_ensemble(4, 20)
    counts = rank_histogram(x, y, gen(0))
    assert counts.shape == (2, 5) and bool((counts.sum(1) == N).all())
    chi2 = ((counts - N / 5).square() / (N / 5)).sum(1)
    assert chi2.max() < 23.5  # 99.99 % of chi-squared with 4 degrees of freedom
    x, y = exact_ensemble(4, 20, width=0.5)
    counts = rank_histogram(x, y, gen(0))
    assert bool((counts[:, 0] > 1.5 * counts[:, 2]).all())


def test_ties_are_broken_at_random_and_where_selects() -> None:
    counts = rank_histogram(torch.zeros(3, 1, 4000), torch.zeros(1, 4000), gen(1))
    assert counts.min() > 850
    before = torch.random.get_rng_state()
    ties = torch.zeros(3, 1, 4000), torch.zeros(1, 4000)
    assert torch.equal(rank_histogram(*ties), rank_histogram(*ties))
    assert torch.equal(before, torch.random.get_rng_state())  # no draw from the global generator
    keep = torch.arange(4000) < 100
    assert int(rank_histogram(torch.zeros(3, 1, 4000), torch.zeros(1, 4000), gen(1), where=keep).sum()) == 100


def test_rows_do_not_see_each_other() -> None:
    x, y = exact_ensemble(5, 30)
    for score in (coverage, spread_skill):
        torch.testing.assert_close(score(x, y)[:1], score(x[:, :1], y[:1]))


def test_messages() -> None:
    x, y = exact_ensemble(3, 0)
    with pytest.raises(ValueError, match="0.9 for 90"):
        coverage(x, y, 90)
    with pytest.raises(ValueError, match="both be real or both be complex"):
        coverage(x.to(torch.complex128), y)
    with pytest.raises(ValueError, match="'t' or 'rank'"):
        coverage(x, y, method="quantile")  # type: ignore[arg-type]
