"""Elliptic problems: the exact posterior, data of a finer grid, pairs, scores, files, one clear error each."""

import json

import numpy as np
import pytest
import torch

import scidiff
from scidiff import problems
from scidiff.errors import InputError
from scidiff.inference import Ensemble
from scidiff.linalg import Dense
from scidiff.noise import GaussianNoise
from scidiff.posterior import MMPS, DiffusionPDE, EnKG
from scidiff.priors import GaussianPrior
from scidiff.samplers import DPMSolver

LINEAR = ["poisson-inverse", "poisson-forward", "helmholtz-inverse", "helmholtz-forward"]
ALL = [*LINEAR, "darcy-inverse", "darcy-forward"]
SMALL = {"size": 12, "points": 20}


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", ALL)
def test_a_case_is_a_solution_seen_at_the_points(name):
    problem = problems.get(name, **SMALL)
    case = problem.case(1)
    a, u = (problem.quantity(case.truth, k) for k in "au")
    assert problem.quantity(case.truth[["a"]], "u").shape == u.shape
    error = float((problem.solver(a) - u).norm() / u.norm())
    assert 1e-6 < error < (0.2 if "darcy" in name else 0.08), "a finer grid made it, so it differs a little"
    same = problems.get(name, **SMALL, finer=1).case(1)
    a, u = (problem.quantity(same.truth, k) for k in "au")
    assert float((problem.solver(a) - u).norm() / u.norm()) < 1e-5
    seen = problem.places(case.observation)
    assert len(seen) == 20
    truth = problem.quantity(case.truth, problem.seen).flatten()[seen]
    misfit = (problem.measurement(case.observation).flatten() - truth) / float(case.observation["noise_std"])
    assert 0.5 < float(misfit.square().mean()) < 2
    assert case.observation.identical(problem.case(1).observation)
    assert not case.observation.equals(problem.case(2).observation)
    relative = float(case.observation["noise_std"]) / float(truth.square().mean().sqrt())
    assert relative == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("name", LINEAR)
def test_exact_is_the_conditioned_prior(name):
    problem = problems.get(name, size=9, points=15, noise=0.05)
    observation = problem.case(0).observation
    part = problem.posterior(observation).likelihoods[0]
    dense = problem.prior.condition(part.operator, GaussianNoise(float(observation["noise_std"])), part.y)
    exact = problem.exact(observation)
    assert torch.allclose(exact.mean.float(), dense.mean, atol=2e-5)
    assert torch.allclose(exact.variance.float(), dense.variance, atol=2e-5)
    # the field that is asked for: operator and solver in the measurement are one
    seen = exact.mean[None] if problem.seen == "a" else problem.solver(exact.mean[None])
    assert torch.allclose(part.operator(exact.mean[None]), seen.flatten(1)[:, problem.places(observation)], atol=1e-12)


@pytest.mark.parametrize("name", ["poisson-inverse", "poisson-forward"])
def test_draws_of_the_exact_posterior_have_the_scores_they_should(name):
    problem = problems.get(name, size=16, points=30)
    case = problem.case(0)
    draws = problem.exact(case.observation).sample(400, rng())[:, None]
    result = case.observation.assign(a=(("member", "y", "x"), draws[:, 0, 0].numpy()))
    scores = {k: float(v) for k, v in problem.evaluate(result, case.truth).items()}
    assert scores["gap"] == pytest.approx(1, abs=0.01)
    assert scores["relative_l2"] == pytest.approx(scores["relative_l2_bayes"], rel=0.05)
    assert scores["relative_l2"] == scores[f"relative_l2_{problem.asked}"]
    assert scores["chi2"] == pytest.approx(1, abs=0.8)
    covered = [
        float(problem.evaluate(Ensemble(problem.exact(c.observation).sample(100, rng())[:, None]), c.truth).coverage_90)
        for c in (problem.case(i) for i in range(20))
    ]
    assert np.mean(covered) == pytest.approx(0.9, abs=0.06)
    wrong = problem.evaluate(result.assign(a=result["a"] + 1.0), case.truth)
    assert float(wrong["gap"]) > 2


def test_mmps_reaches_the_exact_mean():
    problem = problems.get("poisson-inverse", size=16, points=30)
    case = problem.case(0)
    sampler = MMPS(DPMSolver(32, stochastic=True), iterations=16)
    result = scidiff.reconstruct(problem, case.observation, sampler, members=32, truth=case.truth)
    scores = problem.evaluate(result, case.truth)
    assert float(scores["gap"]) < 1.06  # 32 exact draws: 1.016
    assert problem.plot(result) is not None


@pytest.mark.parametrize("coefficient", ["binary", "lognormal"])
def test_darcy_by_gradient_and_as_a_black_box(coefficient):
    problem = problems.get("darcy-inverse", size=10, points=30, noise=0.02, coefficient=coefficient)
    case = problem.case(0)
    for sampler in (MMPS(DPMSolver(8, stochastic=True), iterations=3), EnKG(steps=8, particles=16)):
        result = scidiff.reconstruct(problem, case.observation, sampler, members=16, truth=case.truth)
        scores = {k: float(v) for k, v in problem.evaluate(result, case.truth).items()}
        flat = problem.baselines(case.observation)["homogeneous"].values
        truth = case.truth["a"].values
        assert scores["relative_l2"] < 100 * np.linalg.norm(flat - truth) / np.linalg.norm(truth), sampler
        assert float(result["a"].min()) > 0 and "gap" not in scores
    with pytest.raises(TypeError, match="no closed form"):
        problem.exact(case.observation)


def joint(problem) -> GaussianPrior:
    """The law of (a, u) of a linear problem as a dense Gaussian: exact, and without a network."""
    d = problem.size**2
    eye = torch.eye(d, dtype=torch.float64).reshape(d, 1, *problem.grid)
    root = problem.law().cov.sqrt_matmul(eye).flatten(1)
    u = problem.solver(root.reshape(d, 1, *problem.grid)).flatten(1)
    both = torch.cat([root, u], 1)
    scale = torch.cat([torch.ones(d), torch.full((d,), float(u.square().sum(0).mean().sqrt()))]).double()
    cov = (both / scale).mT @ (both / scale)
    return Scaled(GaussianPrior(torch.zeros(2, *problem.grid), Dense(cov, (2, *problem.grid))), scale)


class Scaled:
    """Channels in units of their own standard deviation, as networks are trained."""

    affine = True

    def __init__(self, prior: GaussianPrior, scale: torch.Tensor) -> None:
        self.prior, self.shape, self.factor = prior, prior.shape, scale.reshape(prior.shape).float()

    def denoise(self, u, sigma):
        return self.prior.denoise(u, sigma)

    def decode(self, u):
        return self.prior.decode(u) * self.factor.to(u)

    def encode(self, x):
        return self.prior.encode(x / self.factor.to(x))


@pytest.mark.parametrize("name", ["poisson-inverse", "poisson-forward"])
def test_pairs(name):
    """The joint prior knows the equation, so its posterior is that of a; the state is 2 fields."""
    plain = problems.get(name, size=8, points=12, noise=0.05, constant=True)
    problem = problems.get(name, size=8, points=12, noise=0.05, state="pair", prior=joint(plain))
    case = problem.case(0)
    assert set(case.truth) == {"a", "u", "pair"} and problem.template(case.observation).shape == (2, 8, 8)
    sampler = MMPS(DPMSolver(32, stochastic=True), iterations=16)
    result = scidiff.reconstruct(problem, case.observation, sampler, members=64, truth=case.truth)
    scores = problem.evaluate(result, case.truth)
    assert float(scores["gap"]) < 1.1
    assert problem.plot(result) is not None
    assert problem.baselines(case.observation)["exact"].sizes == {"quantity": 2, "y": 8, "x": 8}


@pytest.mark.parametrize("name", ["poisson-inverse", "poisson-forward"])
def test_the_solver_repairs_a_prior_of_pairs_that_knows_no_equation(name):
    """With the data predicted from a alone, the answer is that of a's own law, whatever the prior says of u."""
    plain = problems.get(name, size=8, points=12, noise=0.05, constant=True)
    prior = joint(plain)
    cov = prior.prior.cov.dense()
    cov[:64, 64:] *= 0.0
    cov[64:, :64] *= 0.0
    prior.prior = GaussianPrior(torch.zeros(2, 8, 8), Dense(cov, (2, 8, 8)))
    problem = problems.get(name, size=8, points=12, noise=0.05, state="pair", prior=prior)
    case = problem.case(0)
    found = MMPS(DPMSolver(32, stochastic=True), solver="direct")(problem.with_solver(case.observation), 64, rng())
    pairs = problem.solved(found.samples)
    a, u = problem.both(pairs)
    assert torch.allclose(u, problem.solver(a)) and torch.equal(pairs[:, :1], found.samples[:, 0, :1])
    result = case.observation.assign(pair=(("member", *problem.dims), pairs.float().numpy()))
    assert float(problem.evaluate(result, case.truth)["gap"]) < 1.1  # 64 exact draws: 1.008
    with pytest.raises(ValueError, match="in the forward model already"):
        plain.with_solver(case.observation)


def test_the_recommended_solver_is_taken_by_name_and_reaches_the_exact_mean():
    problem = problems.get("helmholtz-inverse", size=24, points=40)
    case = problem.case(0)
    result = scidiff.reconstruct(problem, case.observation, "mmps", members=64, truth=case.truth)
    assert json.loads(result.attrs["configuration"])["sampler"]["solver"] == "direct"
    scores = problem.evaluate(result, case.truth)
    assert float(scores["gap"]) < 1.03  # 64 exact draws: 1.008
    std = problem.exact(case.observation).variance.sqrt()
    inside = (torch.as_tensor(result["a"].values) - problem.exact(case.observation).mean[0]).abs() < 1.645 * std[0]
    assert float(inside.double().mean()) == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize("coefficient", ["binary", "lognormal"])
@pytest.mark.parametrize("name, best", [("darcy-forward", "kriging"), ("darcy-inverse", "most_probable")])
def test_baselines_of_darcy_beat_a_homogeneous_medium(name, best, coefficient):
    problem = problems.get(name, size=8, points=20, coefficient=coefficient, noise=0.02)
    case = problem.case(0)
    found = problem.baselines(case.observation)
    assert list(found) == [best, "homogeneous"]
    truth = case.truth["a"].values
    errors = {k: np.linalg.norm(v.values - truth) / np.linalg.norm(truth) for k, v in found.items()}
    assert errors[best] < 0.75 * errors["homogeneous"] and all(float(v.min()) > 0 for v in found.values())


def test_the_residual_vanishes_at_solutions_and_not_at_zero():
    for name in ("poisson-inverse", "helmholtz-inverse", "darcy-inverse"):
        problem = problems.get(name, size=20, points=10, state="pair", prior="none", finer=1)
        truth = problem.case(0).truth
        pair = torch.cat([problem.quantity(truth, k) for k in "au"], 1)
        pair = torch.cat([pair[:, :1], problem.solver(pair[:, :1])], 1)
        right = problem.residual(torch.cat([pair[:, :1], 0 * pair[:, 1:]], 1)).square().mean().sqrt()
        assert float(problem.residual(pair).square().mean().sqrt()) < 1e-8 and float(right) > 0.3


def test_diffusion_pde_uses_the_residual():
    """A prior that knows a and u but not that they belong together: the equation is what the residual adds.

    Without it the source is guessed from the prior alone; with it the mean is about as good as the exact one.
    """
    plain = problems.get("poisson-inverse", size=8, points=20, noise=0.02, constant=True)
    prior = joint(plain)
    cov = prior.prior.cov.dense()
    cov[:64, 64:] *= 0.0
    cov[64:, :64] *= 0.0
    prior.prior = GaussianPrior(torch.zeros(2, 8, 8), Dense(cov, (2, 8, 8)))
    problem = problems.get("poisson-inverse", size=8, points=20, noise=0.02, state="pair", prior=prior)
    case = problem.case(0)
    errors, residuals = {}, {}
    for weight in (0.0, 1.0):
        sampler = DiffusionPDE(100, residual_weight=weight)
        found = sampler(problem.with_residual(case.observation, 0.05), 16, rng())
        errors[weight] = float(problem.evaluate(found, case.truth)["relative_l2"])
        residuals[weight] = float(problem.residual(found.samples[:, 0]).square().mean().sqrt())
    assert residuals[1.0] < 0.2 * residuals[0.0] and errors[1.0] < 0.5 * errors[0.0]
    x = problem.quantity(case.truth, "a")
    bayes = 100 * float((plain.exact(case.observation).mean - x).norm() / x.norm())
    assert errors[1.0] < 1.2 * bayes
    with pytest.raises(ValueError, match="leaves no residual"):
        plain.with_residual(case.observation)


def test_files_and_configuration(tmp_path):
    problem = problems.get("helmholtz-forward", **SMALL)
    observation = problem.case(0).observation
    path = tmp_path / "points.nc"
    observation.drop_vars("noise_std").to_netcdf(path, engine="h5netcdf")
    read = problem.read(path)
    assert float(read["noise_std"]) == pytest.approx(float(observation["noise_std"]), rel=1e-2)
    again = problems.get("helmholtz-forward", **problem.config())
    assert again.case(0).observation.identical(observation)
    assert problem.check(read)["observations"] == 20


@pytest.mark.parametrize(
    "options, message",
    [
        ({"size": 1}, "size of 2 or more"),
        ({"points": 0}, "size of 2 or more"),
        ({"noise": 0.0}, "noise is a share"),
        ({"state": "u"}, "state must be"),
        ({"finer": 2}, "finer must be odd"),
        ({"coefficient": "ternary"}, "coefficient must be"),
        ({"low": 5.0, "high": 4.0}, "0 < low < high"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        problems.get("darcy-inverse", **options)


def test_bad_observations():
    problem = problems.get("poisson-inverse", **SMALL)
    observation = problem.case(0).observation
    with pytest.raises(InputError, match="the problem's grid is"):
        problem.read(observation.isel(y=slice(5)))
    with pytest.raises(InputError, match="one positive number"):
        problem.read(observation.assign(noise_std=-1.0))
    with pytest.raises(InputError, match="no bundled joint prior"):
        problems.get("helmholtz-inverse", state="pair").posterior(observation)
    with pytest.raises(InputError, match="needs"):
        problems.get("poisson-inverse", **SMALL, prior=problems.get("poisson-inverse", size=9).prior).posterior(
            observation
        )
    darcy = problems.get("darcy-forward", **SMALL)
    seen = darcy.case(0).observation
    with pytest.raises(InputError, match="a permeability must be positive.*has 20 values that are not, the least -1"):
        darcy.read(seen.assign({darcy.measured: -seen[darcy.measured]}))
    with pytest.raises(InputError, match="neither 'u' nor 'pair'"):
        problem.observe(observation)
