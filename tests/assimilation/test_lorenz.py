"""The Lorenz problem: the published levels, observations on and off the grid, and a draw of its posterior."""

import numpy as np
import pytest
import torch

from scidiff import posterior
from scidiff.errors import InputError
from scidiff.posterior import SDA
from scidiff.problems import LorenzAssimilation
from scidiff.samplers import DPMSolver


@pytest.fixture(scope="module")
def problem() -> LorenzAssimilation:
    return LorenzAssimilation("lo", prior="mixture", components=4, particles=512, length=33)


def test_a_case_has_the_levels_of_exact_draws() -> None:
    """A truth and its observation have the law of an exact draw and its observation."""
    for protocol, count in (("lo", 9), ("hi", 65)):
        problem = LorenzAssimilation(protocol)
        chains = problem.simulator.simulate(24, 65, torch.Generator().manual_seed(1))
        px, py = problem.model.log_prob(chains).tolist(), []
        for index, x in enumerate(chains):
            truth = problem.template(None).copy(data=x.mT.numpy()).to_dataset()
            seen = problem.observe(truth, torch.Generator().manual_seed(index))
            r = (seen["observation"] - truth["state"]).values / problem.noise
            assert np.isfinite(r).sum() == count
            py.append(-0.5 * float(np.nansum(r**2)) - count * np.log(problem.relative_noise * np.sqrt(2 * np.pi)))
        for found, name, terms in ((px, "log_px", 192), (py, "log_py", count)):
            assert abs(np.mean(found) - problem.levels[name]) < 4 * np.sqrt(terms / 2 / 24)
    assert abs(problem.levels["log_px"] - 81.7) < 0.05  # the published protocol's level


def test_the_smoother_explains_the_data_and_draws_are_scored(problem) -> None:
    case = problem.case(1)
    ensemble = SDA(DPMSolver(8, stochastic=True))(problem.posterior(case.observation), 6)
    assert ensemble.samples.shape == (6, 1, 3, 33)
    data = case.observation.assign(state=(("member", *problem.dims), ensemble.samples[:, 0].numpy()))
    drawn = problem.evaluate(data, case.truth)
    exact = problem.smoother(case.observation, 6).float()
    best = problem.evaluate(case.observation.assign(state=(("member", *problem.dims), exact.numpy())), case.truth)
    assert float(best["w1"]) < 1e-5 < float(best["w1_floor"]) < float(drawn["w1"])
    assert abs(float(best["log_px"]) - problem.levels["log_px"]) < 30 and float(best["rmse"]) < float(drawn["rmse"])


def test_the_bundled_windows_follow_the_equations_and_the_data() -> None:
    """Learned windows: transitions are those of the equations within a quarter of their noise, the data are met. The
    same draws of the mixture, which is locally linear, break the equations a hundred times as much.
    """
    problem = LorenzAssimilation("lo")
    assert (problem.default_sampler, LorenzAssimilation("lo", prior="mixture").recommended) == ("sda", {})
    sampler = posterior.get(problem.default_sampler, **(problem.recommended["sda"] | {"steps": 64}))
    assert isinstance(sampler, SDA) and (sampler.gamma, sampler.sampler.calls) == (0.01, 64)
    excess = {}
    for prior in (None, "mixture"):
        problem = LorenzAssimilation("lo", prior=prior, components=4)
        observation = problem.case(0).observation
        x = sampler(problem.posterior(observation), 4, torch.Generator().manual_seed(0)).samples[:, 0].double()
        found = float(problem.model.log_prob(problem.model.vectors(x)).mean())
        excess[prior] = (problem.levels["log_px"] - found) / 96  # of the variance of a transition
        if prior is None:
            assert problem.prior.size == 33 and problem.k == 8 and problem.stride == 17
            part = problem.observations(observation).likelihood(65).tile(4)
            chi2 = float(part.difference(part.operator(x)).square().mean()) / problem.noise**2
            assert chi2 < 1.5
    assert -0.15 < excess[None] < 0.25 and excess["mixture"] > 100 * abs(excess[None])


def test_baselines_follow_the_truth(problem) -> None:
    case = problem.case(2)
    truth = case.truth["state"].values
    climate = float(np.sqrt(((truth - problem.loc.numpy()[:, None]) ** 2).mean()))
    for name, found in problem.baselines(case.observation).items():
        assert found.dims == problem.dims, name
        assert float(np.sqrt(((found.values - truth) ** 2).mean())) < 0.5 * climate, name


def test_observations_may_be_a_few_times_on_the_grid_only(problem) -> None:
    observation = problem.case(0).observation
    some = observation.isel(time=slice(None, None, 8))
    read = problem.read(some)
    assert np.array_equal(read["observation"].values, observation["observation"].values, equal_nan=True)
    off = some.assign_coords(time=some["time"] + 0.01)
    with pytest.raises(InputError, match="off the grid"):
        problem.read(off)
    with pytest.raises(InputError, match="nothing was observed"):
        problem.read(observation * np.nan)
    with pytest.raises(InputError, match=r"expected \(3, 33\)"):
        problem.read(np.zeros((3, 8)))


def test_the_ring_is_observed_at_every_second_place() -> None:
    problem = LorenzAssimilation("hi", "96", size=6, length=9, components=2)
    case = problem.case()
    assert case.truth["state"].dims == ("time", "place")
    assert np.array_equal(np.isfinite(case.observation["observation"].values[3]), [True, False] * 3)
    given = problem.posterior(problem.read(case.observation))
    assert given.shape == (1, 9, 6) and given.likelihoods[0].y.shape == (1, 9, 3)
    x = torch.as_tensor(case.truth["state"].values)[None, None]
    assert float(given.likelihoods[0].chi2(x)) < 3
    assert torch.allclose(problem.prior.decode(problem.prior.encode(x)), x, atol=1e-4)


def test_bad_arguments_are_refused() -> None:
    for arguments, words in (
        ({"protocol": "mid"}, "'lo' or 'hi'"),
        ({"system": "84"}, "'63' or '96'"),
        ({"length": 4}, "record has 4 states, fewer than the window's"),
    ):
        with pytest.raises(ValueError, match=words):
            LorenzAssimilation(**arguments)
