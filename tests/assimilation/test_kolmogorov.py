"""The flow problem: coarse frames, baselines that fit the data, and a prior that must be given."""

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
    assert set(found) == {"enks", "strong_4dvar"}


def test_any_window_prior_makes_a_posterior(problem, case) -> None:
    ensemble = SDA(DPMSolver(4, stochastic=True))(problem.posterior(case.observation), 2)
    assert ensemble.samples.shape == (2, 1, 1, 5, 16, 24)
    with pytest.raises(InputError, match="no prior of windows"):
        KolmogorovAssimilation(**SMALL).posterior(case.observation)


def test_bad_input_is_refused(problem, case) -> None:
    late = case.observation.assign_coords(observed_time=case.observation["observed_time"] + 0.05)
    with pytest.raises(InputError, match="off the grid"):
        problem.read(late)
    with pytest.raises(ValueError, match="multiple of coarse"):
        KolmogorovAssimilation(grid=(20, 24))
    with pytest.raises(ValueError, match="fewer than the window"):
        KolmogorovAssimilation(length=3)
