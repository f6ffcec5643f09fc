"""Scores of many cases: against other libraries, the batch formula, closed forms, and the coverage of intervals."""

import math

import numpy as np
import pytest
import torch
import xarray as xr

from scidiff.metrics import (
    ACC,
    CRPS,
    RMSE,
    Accumulator,
    Bias,
    Brier,
    Energy,
    Ranks,
    Reliability,
    Spectrum,
    Spread,
    SpreadSkill,
    block_bootstrap,
    brier_score,
    crps,
    energy_score,
    gaussian_crps,
    power_spectrum,
    rank_histogram,
    rmse,
    spread_skill,
)


def gen(seed):
    return torch.Generator().manual_seed(seed)


def ensemble(members=7, cases=6, shape=(5, 8), seed=0):
    """Members and truth from one law, with a common signal; float64."""
    signal = torch.randn(cases, *shape, generator=gen(seed), dtype=torch.float64)
    noise = torch.randn(members + 1, cases, *shape, generator=gen(seed + 1), dtype=torch.float64)
    return signal + noise[1:], signal + noise[0]


AREA = torch.tensor([0.2, 0.7, 1.0, 0.8, 0.3], dtype=torch.float64)[:, None]
METRICS = [CRPS(), CRPS(0.95), RMSE(), Bias(), Spread(), SpreadSkill(), SpreadSkill("debiased"), ACC(), Brier(0.5)]
METRICS += [Brier(0.5, False), Reliability(0.5, 4), Ranks(), Energy(), Spectrum(window="hann")]


# Other libraries


@pytest.mark.parametrize(("fair", "method"), [(True, "fair"), (False, "ecdf")])
def test_crps_and_brier_are_those_of_scores(fair, method):
    probability = pytest.importorskip("scores.probability")
    x, y = ensemble()
    x[2] = x[1]  # ties
    fcst = xr.DataArray(x.numpy(), dims=("member", "case", "y", "x"))
    obs = xr.DataArray(y.numpy(), dims=("case", "y", "x"))
    weight = xr.DataArray(AREA[:, 0].numpy(), dims="y")
    mine = Accumulator([CRPS(fair), Brier(0.5, fair)])
    mine.update(x, y, AREA)
    for metric, theirs in zip(
        mine.metrics,
        (
            probability.crps_for_ensemble(fcst, obs, "member", method=method, preserve_dims="all"),
            probability.brier_score_for_ensemble(fcst, obs, "member", 0.5, fair_correction=fair, preserve_dims="all"),
        ),
        strict=True,
    ):
        assert mine.value(metric).item() == pytest.approx(float(theirs.weighted(weight).mean()), rel=1e-12)


@pytest.mark.parametrize(("fair", "estimator"), [(True, "fair"), (False, "nrg")])
def test_crps_and_energy_are_those_of_scoringrules(fair, estimator):
    rules = pytest.importorskip("scoringrules")
    x, y = ensemble()
    theirs = rules.crps_ensemble(y.numpy(), x.numpy(), m_axis=0, estimator=estimator, backend="numpy")
    assert np.allclose(crps(x, y, fair), theirs, rtol=1e-12)
    flat = x.flatten(2).transpose(0, 1).numpy()
    theirs = rules.es_ensemble(y.flatten(1).numpy(), flat, estimator=estimator, backend="numpy")
    assert np.allclose(energy_score(x, y, fair), theirs, rtol=1e-12)
    if fair:
        mine = Accumulator([Energy()])
        mine.update(x, y)
        assert mine.value(Energy()).item() == pytest.approx(theirs.mean() / math.sqrt(40), rel=1e-12)


def test_gaussian_crps_is_that_of_scoringrules_and_of_many_members():
    rules = pytest.importorskip("scoringrules")
    mean, std, y = torch.tensor([0.3, -2.0]), torch.tensor([0.5, 3.0]), torch.tensor([1.0, 0.0])
    mine = gaussian_crps(mean.double(), std.double(), y.double())
    assert np.allclose(mine, rules.crps_normal(y.numpy(), mean.numpy(), std.numpy(), backend="numpy"), rtol=1e-6)
    x = mean + std * torch.randn(100_000, 2, generator=gen(0))
    assert torch.allclose(crps(x, y), mine.float(), rtol=0.01)


def test_almost_fair_is_the_mixture_and_its_closed_form():
    x, y = ensemble()
    mixed = crps(x, y, 0.95)
    assert torch.allclose(mixed, 0.95 * crps(x, y) + 0.05 * crps(x, y, False), rtol=1e-12)
    members, epsilon = len(x), 0.05 / len(x)
    pairs = (x[:, None] - x[None]).abs().sum((0, 1))
    formula = (x - y).abs().mean(0) - (1 - epsilon) * pairs / (2 * members * (members - 1))
    assert torch.allclose(mixed, formula, rtol=1e-12)
    with pytest.raises(ValueError, match="share between 0 and 1"):
        crps(x, y, 2.0)


def test_fair_brier_does_not_depend_on_the_number_of_members():
    """E of the fair score is p (1 - p) for an exact ensemble, of the other p (1 - p) (1 + 1 / M)."""
    p = 0.5 * math.erfc(0.5 / math.sqrt(2))
    y = torch.randn(200_000, generator=gen(9))
    for members in (2, 6):
        x = torch.randn(members, 200_000, generator=gen(members))
        assert brier_score(x, y, 0.5).mean().item() == pytest.approx(p * (1 - p), rel=0.02)
        biased = brier_score(x, y, 0.5, fair=False).mean().item()
        assert biased == pytest.approx(p * (1 - p) * (1 + 1 / members), rel=0.02)


# Streaming


def test_streaming_is_the_batch_formula():
    """In batches of 1, 2 and 3 cases the same numbers as at once, for every metric."""
    x, y = ensemble()
    climatology = torch.full((5, 8), 0.1, dtype=torch.float64)
    once, many = Accumulator(METRICS), Accumulator(METRICS, series=True)
    once.update(x, y, AREA, climatology)
    for part in (slice(0, 1), slice(1, 3), slice(3, 6)):
        many.update(x[:, part], y[part], AREA, climatology)
    for metric in METRICS:
        torch.testing.assert_close(many.value(metric), once.value(metric), rtol=1e-12, atol=1e-14, equal_nan=True)
        assert all(len(series) == 6 for series in many.series(metric).values())


def test_values_are_the_functions_of_the_same_name():
    x, y = ensemble(cases=1)
    one = Accumulator(METRICS)
    one.update(x, y, AREA, torch.zeros(5, 8))
    assert one.value(RMSE()) == pytest.approx(rmse(x.mean(0), y, AREA).item(), rel=1e-12)
    assert one.value(SpreadSkill()) == pytest.approx(spread_skill(x, y, where=AREA).item(), rel=1e-12)
    weight = AREA.expand(5, 8).numpy()
    m, t = x.mean(0)[0].numpy(), y[0].numpy()
    expected = (weight * m * t).sum() / np.sqrt((weight * m * m).sum() * (weight * t * t).sum())
    assert one.value(ACC()).item() == pytest.approx(expected, rel=1e-12)
    assert one.value(Bias()).item() == pytest.approx(np.average(m - t, weights=weight), rel=1e-10)
    flat = Accumulator([Ranks(), Spectrum()])
    flat.update(x, y)
    assert torch.allclose(flat.value(Ranks()) * 40, rank_histogram(x, y)[0].double())
    members, truth = flat.value(Spectrum())
    assert torch.allclose(truth, power_spectrum(y)[1][0])
    assert torch.allclose(members, power_spectrum(x)[1].mean((0, 1)))


@pytest.mark.parametrize("members", [2, 5, 20])
def test_spread_skill_of_an_exact_ensemble_is_one(members):
    """For every number of members; the plain ratio would be sqrt(M / (M + 1)), 0.82 for two."""
    x, y = ensemble(members, 2000, (4, 5), seed=3)
    found = Accumulator([SpreadSkill(), SpreadSkill("debiased"), Spread(), RMSE()])
    found.update(x, y)
    assert found.value(SpreadSkill()) == pytest.approx(1, abs=0.02)
    assert found.value(SpreadSkill("debiased")) == pytest.approx(1, abs=0.03)
    plain = (found.value(Spread()) / found.value(RMSE())).item()
    assert plain == pytest.approx(math.sqrt(members / (members + 1)), abs=0.02)


def test_missing_points_are_left_out():
    x, y = ensemble()
    x[:, :, 1:3, 2], y[:, 1:3, 2] = math.nan, math.nan
    keep = torch.ones(5, 8, dtype=torch.bool)
    keep[1:3, 2] = False
    found, alone = Accumulator(METRICS[:-1]), Accumulator(METRICS[:-1])
    found.update(x, y, AREA, torch.zeros(5, 8))
    alone.update(x[..., keep], y[..., keep], AREA.expand(5, 8)[keep], torch.zeros(38))
    for metric in METRICS[:-1]:
        if not isinstance(metric, Ranks):
            torch.testing.assert_close(found.value(metric), alone.value(metric), rtol=1e-12, atol=0, equal_nan=True)
    assert found.value(Ranks()).sum() == pytest.approx(1)
    with pytest.raises(ValueError, match="no point"):
        found.update(x, torch.full_like(y, math.nan))


def test_ties_are_broken_at_random_and_the_same_in_any_batch():
    x, y = torch.zeros(3, 4000, 2), torch.zeros(4000, 2)
    found = Accumulator([Ranks()])
    for part in torch.arange(4000).split(1000):
        found.update(x[:, part], y[part])
    assert torch.allclose(found.value(Ranks()), torch.full((4,), 0.25, dtype=torch.float64), atol=0.02)
    whole = Accumulator([Ranks()])
    whole.update(x, y)
    assert torch.allclose(whole.value(Ranks()), found.value(Ranks()), rtol=1e-12)


def test_reliability_of_an_exact_and_of_a_sure_ensemble():
    x, y = ensemble(40, 400, (6, 5), seed=11)
    exact, sure = Accumulator([Reliability(0.5)]), Accumulator([Reliability(0.5)])
    exact.update(x, y)
    sure.update(x.mean(0) + 0.2 * (x - x.mean(0)), y)
    weight, share, event = exact.value(Reliability(0.5))
    assert weight.sum() == pytest.approx(1) and (share - event).abs().max() < 0.08
    weight, share, event = sure.value(Reliability(0.5))
    assert (share - event)[-1] > 0.1 and (share - event)[0] < -0.05


# Intervals


def test_bootstrap_of_independent_cases_is_the_textbook_interval():
    x = torch.randn(400, 3, generator=gen(1), dtype=torch.float64)
    low, high = block_bootstrap(x, 1, draws=4000)
    half = 1.96 * x.std(0) / 20
    assert torch.allclose(low, x.mean(0) - half, atol=0.012) and torch.allclose(high, x.mean(0) + half, atol=0.012)


def test_blocks_cover_what_single_cases_miss():
    """AR(1) with 0.8: the mean of 300 cases is in the interval of blocks about as often as said, of cases much less."""
    hits = {1: 0, 25: 0}
    for seed in range(100):
        noise = torch.randn(400, generator=gen(seed), dtype=torch.float64)
        series = [noise[0]]
        for value in noise[1:]:
            series.append(0.8 * series[-1] + value)
        series = torch.stack(series)[100:]
        for block in hits:
            low, high = block_bootstrap(series, block, draws=200, generator=gen(seed))
            hits[block] += bool(low < 0 < high)
    assert hits[1] < 65 and hits[25] >= 83


def test_interval_of_a_ratio_and_wrong_arguments():
    x, y = ensemble(10, 300, (3, 4), seed=5)
    found = Accumulator([SpreadSkill()], series=True)
    found.update(x, y)
    low, high = block_bootstrap(found.series(SpreadSkill()), 5, SpreadSkill().value)
    assert low < found.value(SpreadSkill()) < high and high - low < 0.15
    for call, words in [
        (lambda: block_bootstrap(torch.zeros(4), 5), "between 1 and"),
        (lambda: block_bootstrap({"a": torch.zeros(4)}, 1), "function"),
        (lambda: block_bootstrap(torch.zeros(4), 1, level=1.0), "level"),
        (lambda: Accumulator([RMSE()]).value(RMSE()), "no case"),
        (lambda: Accumulator([ACC()]).update(x, y), "needs a climatology"),
        (lambda: Accumulator([Spread()]).update(x[:1], y), "at least 2 members"),
        (lambda: Accumulator([RMSE()]).series(RMSE()), "series=True"),
        (lambda: Accumulator([RMSE()]).update(x[..., 0], y), "members come first"),
    ]:
        with pytest.raises(ValueError, match=words):
            call()
