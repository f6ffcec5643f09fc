"""Calibration passes exact draws and finds three samplers that are broken on purpose."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import Generator

from scidiff.benchmark.calibration import Calibration, calibrate, exact_draws, from_prior
from scidiff.benchmark.exact import exponential
from scidiff.benchmark.statistics import holm, uniformity
from scidiff.noise import GaussianNoise
from scidiff.operators import BlackBox, Mask
from scidiff.posterior import MMPS
from scidiff.priors import GaussianPrior

F64 = torch.float64


def problem(operator=None):
    prior = GaussianPrior(torch.full((1, 5, 4), 280.0, dtype=F64), 25 * exponential(5)[:20, :20])
    mask = torch.rand(5, 4, generator=Generator().manual_seed(0)) < 0.5
    return from_prior(prior, operator or Mask(mask), GaussianNoise(5 / 3))


def halved(posterior, members, generator):
    x = exact_draws(posterior, members, generator)
    return x.mean(0) + 0.5 * (x - x.mean(0))


def ignorant(posterior, members, generator):
    x = posterior.prior.sample(members * posterior.batch, generator)
    return x.reshape(members, posterior.batch, *x.shape[1:])


def coupled(posterior, members, generator):
    x = exact_draws(posterior, members, generator)
    return x + 0.5 * (x.mean(1, keepdim=True) - x)


def run(sampler, **more):
    return calibrate(problem(), sampler, generator=Generator().manual_seed(11), **more)


def test_exact_draws_pass():
    found = run(exact_draws)
    assert found.flagged() == [] and found.informed
    assert min(found.p_values.values()) > 0.05


def test_a_sampler_of_the_library_passes():
    assert run(MMPS(), simulations=100).flagged() == []


@pytest.mark.parametrize("sampler", [halved, ignorant, coupled])
def test_broken_samplers_are_found_by_ranks_and_by_tarp(sampler):
    flagged = run(sampler).flagged(1e-3)
    assert {"log likelihood", "distance"} <= set(flagged)  # SBC, TARP
    assert any(name.startswith("projection") for name in flagged) == (sampler is not ignorant)


def test_ranks_of_the_field_alone_cannot_see_that_the_data_are_ignored():
    flagged = run(ignorant).flagged()
    assert not any(name.startswith(("projection", "mean", "energy")) for name in flagged)


def test_without_gradients_the_reference_is_random_and_the_result_says_so():
    mask = torch.ones(5, 4, dtype=torch.bool)
    box = BlackBox(lambda x: x[:, :, mask])
    found = calibrate(problem(box), ignorant, 40, generator=Generator().manual_seed(1))
    assert not found.informed


def test_the_same_generator_gives_the_same_ranks_and_batches_are_reported():
    seen = []
    a = run(exact_draws, simulations=30, batch=20, progress=lambda done, total: seen.append((done, total)))
    b = run(exact_draws, simulations=30, batch=20)
    assert torch.equal(a.ranks, b.ranks) and seen == [(20, 30), (30, 30)]
    data = a.to_dataset()
    assert data["rank"].dims == ("simulation", "quantity") and data.sizes["simulation"] == 30
    assert a.table().count("\n") == 1 + len(a.quantities)


def test_the_curve_of_uniform_ranks_is_the_diagonal():
    ranks = torch.arange(20).repeat(5)[:, None]
    credibility, coverage = Calibration(("distance",), ranks, 19, True).curve()
    np.testing.assert_allclose(coverage, credibility, atol=1e-12)


def test_wrong_requests():
    with pytest.raises(ValueError, match="at least 20"):
        run(exact_draws, simulations=5)
    with pytest.raises(ValueError, match="expected \\(members"):
        run(lambda posterior, members, generator: exact_draws(posterior, members, generator)[:, 0])


def test_uniformity_is_the_chi_square_test():
    assert uniformity(torch.arange(20).repeat(10), 19) == 1
    ranks = torch.cat([torch.arange(20).repeat(10), torch.zeros(20, dtype=torch.long)])
    expected = 220 / 20  # 19 bins with 10, one with 30
    statistic = (19 * (10 - expected) ** 2 + (30 - expected) ** 2) / expected
    from scipy.stats import chi2

    assert uniformity(ranks, 19) == pytest.approx(chi2.sf(statistic, 19))
    assert uniformity(torch.zeros(8, dtype=torch.long), 19) == 1  # too few to say anything


def test_p_values_are_uniform_under_the_null():
    draw = partial(torch.randint, 0, 20, (300,))
    p = [uniformity(draw(generator=Generator().manual_seed(i)), 19) for i in range(200)]
    assert 0.02 <= np.mean(np.array(p) < 0.1) <= 0.18


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_paired_intervals_and_ranks_by_hand():
    from scidiff.benchmark.statistics import against_best, mean_ranks, paired_interval

    a, b = [3.0, 13.0, 103.0, 1003.0], [1.0, 12.0, 100.0, 1001.0]
    mean, low, high = paired_interval(a, b)
    assert mean == 2.0 and 1.0 <= low < 2.0 < high <= 3.0  # cases differ a thousandfold, pairs by 1 to 3
    assert np.isnan(paired_interval([1.0], [0.0])[1])
    values = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, np.nan], [2.0, 2.0, 1.0]], dtype=F64)
    assert mean_ranks(values).tolist() == pytest.approx([(1 + 1 + 2.5) / 3, (2 + 2 + 2.5) / 3, (3 + 3 + 1) / 3])
    better = torch.arange(8, dtype=F64)[:, None] + torch.tensor([0.0, 1.0, 0.5], dtype=F64)
    assert against_best(better) == pytest.approx([1.0, 2 / 256, 2 / 256])  # the sign test of 8 pairs, times two
    assert np.isnan(against_best(better[:5])[1])
