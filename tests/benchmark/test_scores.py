"""Scores: exact draws are at the floor, known mistakes are measured as what they are."""

import math

import pytest
import torch
from torch import Generator

from scidiff.benchmark.elliptic import elliptic
from scidiff.benchmark.exact import blur, hartley, inpainting, modes
from scidiff.benchmark.scores import scores
from scidiff.testing import compare_with_exact

F64 = torch.float64


def values(problem, samples):
    return {name: pair[0] for name, pair in scores(problem, samples, Generator().manual_seed(9)).items()}


@pytest.fixture(scope="module")
def field():
    problem = inpainting(seed=3)
    return problem, problem.exact.sample(200, Generator().manual_seed(1)).double()


def test_numbers_are_those_of_the_public_check(field):
    problem, samples = field
    found, report = values(problem, samples), compare_with_exact(samples, problem.exact)
    for name in ("mean_error", "trace_ratio", "coverage"):
        assert found[name] == pytest.approx(getattr(report, name), rel=1e-5)


def test_a_shift_and_a_wrong_spread(field):
    problem, samples = field
    sd = problem.exact.variance.double().sqrt()
    base = values(problem, samples)
    shifted = values(problem, samples + 0.5 * sd)
    assert shifted["mean_error"] == pytest.approx(0.5, abs=2.5 * base["mean_error"] ** 2 + base["mean_error"] / 4)
    assert shifted["gap"] == pytest.approx(math.sqrt(1.25), abs=0.03)
    assert shifted["trace_ratio"] == pytest.approx(base["trace_ratio"], rel=1e-6)
    mean = samples.mean(0)
    wide = values(problem, mean + 2 * (samples - mean))
    assert wide["trace_ratio"] == pytest.approx(4 * base["trace_ratio"], rel=1e-6)
    assert wide["coverage"] == pytest.approx(math.erf(1.6449 / 2 / math.sqrt(2)), abs=0.02)


def test_jackknife_is_the_scatter_of_repetitions(field):
    problem, _ = field
    runs = [scores(problem, problem.exact.sample(100, Generator().manual_seed(s)), Generator()) for s in range(40)]
    for name in ("trace_ratio", "coverage"):
        scatter = torch.tensor([r[name][0] for r in runs]).std()
        claimed = torch.tensor([r[name][1] for r in runs]).mean()
        assert 0.7 < float(claimed / scatter) < 1.5, name


def test_wasserstein_of_modes_and_its_floor():
    problem = blur(size=16)
    ratios = []
    for s in range(8):
        found = values(problem, problem.exact.sample(16, Generator().manual_seed(s)))
        ratios.append((found["distance"] / found["floor"]) ** 2)
    assert sum(ratios) / 8 == pytest.approx(1, abs=0.06)
    samples = problem.exact.sample(4000, Generator().manual_seed(0)).double()
    bias = torch.randn(1, 1, 16, 16, generator=Generator().manual_seed(1), dtype=F64)
    trace = problem.posterior.prior.cov.trace
    expected = float(hartley(bias).square().sum() / trace) ** 0.5
    assert values(problem, samples + bias)["distance"] == pytest.approx(expected, rel=0.02)


def test_a_lost_mode_is_seen():
    problem = modes(1, seed=10)  # five modes
    samples = problem.exact.sample(400, Generator().manual_seed(0))
    found = values(problem, samples)
    assert 0.3 < found["distance"] / found["floor"] < 2
    some = problem.posterior.prior.responsibilities(samples).argmax(1)
    most = samples[some == some.mode().values]
    lost = values(problem, most[torch.arange(400) % len(most)])
    assert lost["distance"] > 4 * lost["floor"]


def test_relative_error_of_what_is_asked_for():
    problem = elliptic("poisson", "forward", size=16, points=20)
    exact = problem.exact
    found = values(problem, torch.stack([exact.mean + 1e-9, exact.mean - 1e-9]))
    assert found["distance"] == pytest.approx(found["floor"], rel=1e-6) and found["gap"] == pytest.approx(1, abs=1e-9)
    truth = problem.readout(problem.truth.double())
    error = (problem.readout(exact.mean[None]) - truth).norm() / truth.norm()
    assert found["floor"] == pytest.approx(float(error), rel=1e-6)


def test_one_member_is_refused(field):
    problem, samples = field
    with pytest.raises(ValueError, match="two members"):
        scores(problem, samples[:1], Generator())
