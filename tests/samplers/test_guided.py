"""Few-step integrators inside posterior samplers, against the exact posterior of a Gaussian field."""

import functools

import pytest
from torch import Generator

from scidiff.benchmark import exact
from scidiff.posterior import MMPS, SDA
from scidiff.samplers import DEIS, DPMSolver2S, DPMSolver3M, DPMSolverSingle, UniPC
from scidiff.testing import compare_with_exact

inpainting = functools.cache(exact.inpainting)


@pytest.mark.parametrize("sampler", [
    DPMSolver2S(49), DPMSolver3M(32), DPMSolverSingle(49), DEIS(32), UniPC(32), UniPC(32, order=2),
], ids=repr)  # fmt: skip
def test_with_mmps(sampler):
    """Ten warm iterations of a solver per call, from one call to the next whatever its level."""
    problem = inpainting()
    ensemble = MMPS(sampler, iterations=10)(problem.posterior, 256, Generator().manual_seed(0))
    assert ensemble.cost.denoiser == sampler.calls == sampler.steps
    report = compare_with_exact(ensemble.samples[:, 0], problem.exact)
    assert report.trace_ratio == pytest.approx(1, abs=0.06)
    assert report.mean_error < 1.6 * report.mean_floor


@pytest.mark.parametrize("sampler", [DPMSolver2S(9), DPMSolver3M(8), DPMSolverSingle(10), DEIS(8), UniPC(8)], ids=repr)
def test_counters_with_sda(sampler):
    ensemble = SDA(sampler)(inpainting().posterior, 2, Generator().manual_seed(0))
    assert ensemble.cost.denoiser == ensemble.cost.denoiser_vjp == sampler.calls
