"""Langevin corrections: what they repair, what they leave, streams and counters."""

import math

import pytest
import torch
from torch import Generator

from scidiff.benchmark import exact
from scidiff.posterior import MMPS, PiGDM
from scidiff.priors import GaussianPrior
from scidiff.rng import Streams
from scidiff.samplers import (
    DDIM,
    DDPM,
    DEIS,
    DPMSolver,
    DPMSolver2S,
    DPMSolver3M,
    DPMSolverSingle,
    Euler,
    Heun,
    PredictorCorrector,
    UniPC,
)
from scidiff.testing import compare_with_exact

PRIOR = GaussianPrior(torch.zeros(1, 8, 8), exact.exponential())
ALL = [Euler(6), DDIM(6, eta=0.5), DDPM(6), Heun(7), DPMSolver(6), DPMSolver(6, stochastic=True)]
ALL += [DPMSolver2S(7), DPMSolver3M(6), DPMSolverSingle(7), DEIS(6), UniPC(6)]


def trace(sampler):
    return sampler(PRIOR, members=256, generator=Generator().manual_seed(0)).samples.flatten(1).var(0).sum().item() / 64


@pytest.mark.parametrize("predictor", [Euler(16), DDPM(20), DDIM(16, eta=1.0), Heun(15)], ids=repr)
def test_corrections_repair_coarse_steps(predictor):
    errors = [abs(trace(predictor) - 1)]
    errors += [abs(trace(PredictorCorrector(predictor=predictor, corrections=k, snr=0.3)) - 1) for k in (1, 4)]
    assert errors[2] < 0.8 * errors[0] and errors[2] < errors[1]


def test_multistep_predictors_do_not_extrapolate_noise():
    """With the noise extrapolated the excess of the variance would be 0.19 larger."""
    sampler = PredictorCorrector(predictor=DPMSolver(16, stochastic=True))
    assert abs(trace(sampler) - trace(sampler.predictor)) < 0.12


@pytest.mark.parametrize("predictor", [DPMSolver3M(16), DEIS(16), UniPC(16), UniPC(16, order=2)], ids=repr)
def test_few_step_predictors_do_not_extrapolate_noise(predictor):
    assert abs(trace(PredictorCorrector(predictor=predictor)) - trace(predictor)) < 0.08


@pytest.mark.parametrize("predictor", [DPMSolver(8), DPMSolver3M(8), DEIS(8), UniPC(8)], ids=repr)
def test_vanishing_corrections_are_none(predictor):
    x = [
        s(PRIOR, members=2, generator=Generator().manual_seed(0)).samples
        for s in (predictor, PredictorCorrector(predictor=predictor, snr=1e-6))
    ]
    assert torch.allclose(x[0], x[1], atol=1e-3)


def test_many_corrections_reach_the_law_of_the_level():
    """At one level: from a wrong mean and no variance to the Gaussian, as wide as the file says."""
    variance, sigma, rows = 0.5, 1.0, 500

    def denoise(u, s):
        return u * variance / (variance + s**2)

    class Still(Euler):
        def levels(self):
            return [2.0, sigma, 0.0]

        def integrate(self, denoise, u, streams, callback=None, correct=None):
            assert correct is not None
            return correct(torch.full_like(u, 3.0), sigma)[0]

    sampler = PredictorCorrector(predictor=Still(2), corrections=150, snr=0.3)
    u = sampler.integrate(denoise, torch.zeros(rows, 64), Streams(0, range(rows)))
    w2 = variance + sigma**2
    epsilon = 2 * 0.3**2 * w2  # |s|^2 / d = 1 / w2
    expected = w2 / (1 - epsilon / (2 * w2)) * (1 + 2 / 64)
    assert abs(u.mean()) < 0.02
    assert u.var().item() == pytest.approx(expected, rel=0.02)


def test_step_is_bounded_where_few_directions_are_narrow():
    """One of 1000 numbers is known: without the bound its step would be about 50 times too long and diverge."""
    scale = torch.ones(1000)
    scale[0] = 0.0

    def denoise(u, s):
        return u * scale**2 * 1e4 / (scale**2 * 1e4 + s**2)

    sampler = PredictorCorrector(predictor=DPMSolver(16), corrections=5)
    u = sampler.integrate(
        denoise, 80 * torch.randn(4, 1000, generator=Generator().manual_seed(0)), Streams(0, range(4))
    )
    assert u[:, 0].abs().max() < 0.1


@pytest.mark.parametrize("predictor", ALL, ids=repr)
def test_counters_callbacks_streams(predictor):
    sampler, seen = PredictorCorrector(predictor=predictor, corrections=2), []
    g = Generator().manual_seed(1)
    four = sampler(PRIOR, members=4, generator=g, callback=lambda step, steps, sigma, u: seen.append(sigma))
    assert four.cost.denoiser == sampler.calls == predictor.calls + 2 * (predictor.intervals - 1)
    assert seen == predictor.levels()[1:]
    alone = sampler(PRIOR, members=[3], generator=g).samples
    split = sampler(PRIOR, members=4, generator=g, batch_size=3).samples
    assert torch.allclose(alone, four.samples[3:], atol=1e-3) and torch.allclose(split, four.samples, atol=1e-3)


@pytest.mark.parametrize("method", [MMPS, PiGDM])
def test_with_guidance(method):
    problem = exact.inpainting()
    reports = []
    for sampler in (DDIM(16, eta=1.0), PredictorCorrector(predictor=DDIM(16, eta=1.0), corrections=3)):
        ensemble = method(sampler)(problem.posterior, 256, Generator().manual_seed(0))
        assert ensemble.cost.denoiser == sampler.calls
        reports.append(compare_with_exact(ensemble.samples[:, 0], problem.exact))
    assert reports[0].trace_ratio + 0.1 < reports[1].trace_ratio < 1.1
    assert reports[1].mean_error < 0.3 and not math.isnan(reports[1].coverage)


@pytest.mark.parametrize("make, message", [
    (lambda: PredictorCorrector(corrections=0), "corrections"),
    (lambda: PredictorCorrector(snr=0.0), "snr"),
])  # fmt: skip
def test_rejects(make, message):
    with pytest.raises(ValueError, match=message):
        make()
