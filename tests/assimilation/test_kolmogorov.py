"""The flow problem: instruments of three kinds, baselines that fit the data, and windows that must fit."""

import numpy as np
import pytest
import torch

from scidiff.errors import InputError
from scidiff.posterior import SDA
from scidiff.priors import GaussianPrior
from scidiff.problems import KolmogorovAssimilation
from scidiff.samplers import DPMSolver

SMALL = {"grid": (16, 24), "length": 5, "every": 2, "coarse": 4, "members": 24}


@pytest.fixture(scope="module")
def problem() -> KolmogorovAssimilation:
    return KolmogorovAssimilation(GaussianPrior(torch.zeros(1, 3, 16, 24), 10.0), k=1, **SMALL)


@pytest.fixture(scope="module")
def case(problem):
    return problem.case(0)


def test_frames_follow_the_model_and_observations_are_block_means(problem, case) -> None:
    x = torch.as_tensor(case.truth["vorticity"].values).double().flatten(1)
    step = (problem.model.step(x[:-1]) - x[1:]).norm() / (x[1:] - x[:-1]).norm()
    assert float(step) < 0.8  # the coarse model is wrong, but better than no change
    blocks = case.truth["vorticity"].values[::2].reshape(3, 4, 4, 6, 4).mean((2, 4))
    r = case.observation["observation"].values - blocks
    assert 0.08 < float(np.std(r)) < 0.12
    assert abs(float(case.truth["vorticity"].mean())) < 1e-5


def test_four_d_var_fits_the_data(problem, case) -> None:
    found = problem.baselines(problem.read(case.observation), 30)
    fit = problem.evaluate(case.observation.assign(vorticity=found["strong_4dvar"].expand_dims("member")), case.truth)
    none = problem.evaluate(
        case.observation.assign(vorticity=(0 * case.truth["vorticity"]).expand_dims("member")), case.truth
    )
    assert float(fit["residual"]) < 0.6 * float(none["residual"])
    assert set(found) == {"enks", "local_enks", "strong_4dvar", "interpolation"}


def test_any_window_prior_makes_a_posterior(problem, case) -> None:
    ensemble = SDA(DPMSolver(4, stochastic=True))(problem.posterior(case.observation), 2)
    assert ensemble.samples.shape == (2, 1, 1, 5, 16, 24)
    with pytest.raises(InputError, match="5 frames of 32x32 points, but k = 2 and grid = \\(16, 24\\)"):
        KolmogorovAssimilation(**SMALL).posterior(case.observation)


@pytest.mark.parametrize("observed", ["subsampled", "saturating"])
def test_other_instruments_see_the_flow(observed: str, case) -> None:
    problem = KolmogorovAssimilation(
        GaussianPrior(torch.zeros(1, 3, 16, 24), 10.0), k=1, observed=observed, saturation=2.0, noise=0.01, **SMALL
    )
    seen = problem.read(problem.observe(case.truth, torch.Generator().manual_seed(0)))
    w, y = case.truth["vorticity"], seen["observation"]
    exact = w[::2, ::4, ::4] if observed == "subsampled" else 2 * w[::2] / (2 + abs(w[::2]))
    assert 0.007 < float(np.std(y.values - exact.values)) < 0.013
    for dim in ("y", "x"):  # what is seen stands where it was measured
        assert np.allclose(y[f"coarse_{dim}"].values, exact[dim].values)
    ensemble = SDA(DPMSolver(4, stochastic=True))(problem.posterior(seen), 1)
    assert ensemble.samples.shape == (1, 1, 1, 5, 16, 24)
    taper, between = problem._tapers()
    count = exact[0].size
    assert taper.shape == (16 * 24, count) and between.shape == (count, count)
    assert torch.allclose(problem.operator(taper.T.reshape(count, 1, 16, 24)).reshape(count, count), between) or (
        observed == "saturating" and torch.allclose(taper, between)
    )


def test_interpolation_finds_smooth_frames() -> None:
    """A wave that moves little: what is left is the noise and the straight line in time."""
    for observed in ("coarse", "subsampled", "saturating"):
        problem = KolmogorovAssimilation("none", observed=observed, length=9, noise=1e-6, saturation=3.0)
        y, x = (2 * np.pi * np.arange(32) / 32 for _ in range(2))
        frames = np.stack([np.cos(y[:, None] + 2 * x + 0.1) * (1 + 0.1 * t) for t in range(9)])
        truth = problem.template(None).copy(data=frames.astype(np.float32)).to_dataset()
        seen = problem.observations(problem.observe(truth, torch.Generator().manual_seed(0)))
        error = float(np.abs(problem.interpolated(seen).numpy() - frames).max())
        shrunk = 1 - np.sinc(4 / 32) / np.sinc(1 / 32) * np.sinc(8 / 32) / np.sinc(2 / 32)  # means flatten a wave
        assert error < (1.8 * shrunk * 1.05 if observed == "coarse" else 1e-3), observed


def test_bad_input_is_refused(problem, case) -> None:
    late = case.observation.assign_coords(observed_time=case.observation["observed_time"] + 0.05)
    with pytest.raises(InputError, match="off the grid"):
        problem.read(late)
    with pytest.raises(ValueError, match="multiple of coarse"):
        KolmogorovAssimilation(grid=(18, 24))
    with pytest.raises(ValueError, match="fewer than the window"):
        KolmogorovAssimilation(length=3)
