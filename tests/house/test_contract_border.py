"""The contract of problems, `reconstruct` and the top-level names, called literally as an outsider calls them."""

import numpy as np
import pytest
import torch
import xarray as xr

import scidiff
from scidiff.posterior import MMPS
from scidiff.samplers import DPMSolver


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_problems_by_name_and_by_class():
    assert {"gaussian", "mri"} <= set(scidiff.problems.names())
    problem = scidiff.problems.get("mri", acceleration=3, coils=4)
    assert isinstance(problem, scidiff.problems.AcceleratedMRI)
    assert problem.config() == scidiff.problems.AcceleratedMRI(acceleration=3, coils=4).config()


def test_a_problem_from_case_to_scores():
    problem = scidiff.problems.get("gaussian", shape=(5, 8))
    case = problem.case(index=2)
    assert isinstance(case.truth, xr.Dataset) and isinstance(case.observation, xr.Dataset)
    assert case.truth.identical(problem.case(2).truth) and not case.truth.equals(problem.case(3).truth)
    assert all("units" in case.truth[name].attrs for name in (*case.truth.data_vars, *case.truth.coords))
    observation = problem.observe(case.truth)
    assert set(observation.data_vars) == set(case.observation.data_vars)
    ensemble = MMPS()(problem.posterior(case.observation), members=64, generator=rng())
    metrics = problem.evaluate(ensemble, case.truth)
    assert isinstance(metrics, xr.Dataset) and {"rmse", "crps"} <= set(metrics.data_vars)
    by_hand = np.sqrt(((ensemble.mean.squeeze().numpy() - case.truth["temperature"].values) ** 2).mean())
    assert float(metrics["rmse"]) == pytest.approx(by_hand, rel=1e-5)


def test_reconstruct_returns_members_mean_spread_and_provenance(tmp_path):
    from matplotlib.figure import Figure

    problem = scidiff.problems.get("gaussian", shape=(5, 8))
    case = problem.case()
    sampler = MMPS(sampler=DPMSolver(8, stochastic=True), iterations=4)
    result = scidiff.reconstruct(
        problem, case.observation, sampler=sampler, members=5, seed=3, output=tmp_path / "run", figures=False
    )
    field = result["temperature"]
    assert field.dims == ("member", "y", "x") and field.sizes["member"] == 5
    assert field.attrs["units"] == "K" and result["x"].attrs["units"] == "km"
    np.testing.assert_allclose(result["temperature_mean"], field.mean("member"), rtol=1e-6)
    np.testing.assert_allclose(result["temperature_spread"], field.std("member", ddof=1), rtol=1e-3)
    attrs = result.attrs
    assert attrs["version"] == scidiff.__version__
    assert "gaussian" in attrs["problem"] and "[5, 8]" in attrs["problem"]
    assert "mmps" in attrs["sampler"] and '"iterations": 4' in attrs["sampler"] and '"steps": 8' in attrs["sampler"]
    assert attrs["seed"] == 3 and "prior_card" in attrs and '"denoiser": 8' in attrs["cost"]
    assert attrs["wall_time_seconds"] > 0
    assert isinstance(problem.plot(result), Figure)
    direct = sampler(problem.posterior(problem.read(case.observation)), members=5, generator=rng(3))
    np.testing.assert_allclose(field.values, direct.samples[:, 0, 0].numpy(), rtol=1e-5)
    by_name = scidiff.reconstruct(problem, case.observation, sampler="dps", members=1, seed=0)
    assert '"dps"' in by_name.attrs["sampler"]


def test_public_names():
    for name in ("reconstruct", "Likelihood", "Posterior", "Ensemble"):
        assert callable(getattr(scidiff, name))
    for name in ("crps", "spread_skill", "rank_histogram", "energy_score", "coverage", "psnr"):
        assert callable(getattr(scidiff.metrics, name))
    for name in (
        "check_adjoint",
        "check_vjp",
        "check_batch_independence",
        "check_unit_independence",
        "check_posterior",
    ):
        assert getattr(scidiff.testing, name).__doc__
    assert callable(scidiff.priors.load_pretrained)
