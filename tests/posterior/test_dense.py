"""Few numbers measured: matrices in measurement space against the closed form and against iterations."""

import pytest
import torch
from torch import Generator

from scidiff.inference import Cost, Likelihood, Posterior
from scidiff.linalg import Dense, laplacian_power
from scidiff.noise import GaussianNoise
from scidiff.operators import LinearMap
from scidiff.posterior import MMPS
from scidiff.posterior.base import Run
from scidiff.posterior.dense import Factorised, factorised, measured_rows, scaled
from scidiff.priors import GaussianPrior, TransformedPrior
from scidiff.rng import Streams
from scidiff.samplers import DPMSolver
from scidiff.transforms import Log

F64 = torch.float64
GRID = (6, 9)


def covariance(kind):
    cov = laplacian_power(GRID, 2.0, 3.0, variance=2.0, channels=1)
    return cov if kind == "cosines" else Dense(cov.dense(), (1, *GRID))


def posterior(kind="cosines", n=7, batch=1, std=0.01, prior=None):
    prior = prior or GaussianPrior(torch.full((1, *GRID), 3.0, dtype=F64), covariance(kind))
    matrix = torch.randn(n, 54, generator=Generator().manual_seed(1), dtype=F64)
    operator = LinearMap(matrix, (1, *GRID))
    x = prior.sample(batch, Generator().manual_seed(2)).double()
    y = operator(x) + std * torch.randn(batch, n, generator=Generator().manual_seed(3), dtype=F64)
    return Posterior(prior, Likelihood(operator, GaussianNoise(std), y), (1, *GRID))


def run_of(p, members=3):
    return Run(p.tile(members), Streams(0, range(members), p.batch), Cost())


@pytest.mark.parametrize("kind", ["cosines", "dense"])
def test_the_direct_solver_gives_the_conditional_mean_of_every_level(kind):
    """E[u0 | u, y] with two independent observations of u0, as a linear system of 54 unknowns."""
    p = posterior(kind)
    run = run_of(p)
    solve, K = Factorised(run), covariance(kind).dense() / p.prior.scale**2
    part = p.likelihoods[0]
    A = part.operator.matrix.double() * p.prior.scale / 0.01
    u = torch.randn(3, 1, *GRID, generator=Generator().manual_seed(4), dtype=F64) * 2
    data = (part.y - part.operator(torch.full((1, 1, *GRID), 3.0, dtype=F64))) / 0.01
    for sigma in (0.05, 1.0, 20.0):
        D = p.prior.denoise(u, torch.tensor(sigma, dtype=F64))
        found = D + solve(run.measurement.residual(D), torch.tensor(sigma, dtype=F64))[1]
        precision = torch.linalg.inv(K) + torch.eye(54, dtype=F64) / sigma**2 + A.mT @ A
        right = u.flatten(1) / sigma**2 + data @ A
        assert torch.allclose(found.flatten(1), torch.linalg.solve(precision, right.mT).mT, atol=1e-5)
    if kind == "cosines":
        assert len(solve.used) > 0.9 * 54, "rough measurements see all waves"


def test_smooth_measurements_leave_short_waves_out_and_lose_nothing():
    p = posterior()
    smooth = covariance("cosines").matmul(p.likelihoods[0].operator.matrix.double())
    smooth = covariance("cosines").matmul(smooth) * 1e-2
    y = LinearMap(smooth, (1, *GRID))(p.prior.sample(1, Generator().manual_seed(2)))
    p = Posterior(p.prior, Likelihood(LinearMap(smooth, (1, *GRID)), GaussianNoise(1.0), y), (1, *GRID))
    run = run_of(p)
    solve = Factorised(run)
    assert 3 < len(solve.used) < 45
    G = measured_rows(run)
    sigma = torch.tensor(3.0, dtype=F64)
    M = torch.eye(7, dtype=F64) + 9 * G.flatten(1) @ p.prior.denoise(G, sigma).flatten(1).mT
    r = torch.randn(3, 7, generator=Generator().manual_seed(5), dtype=F64)
    assert torch.allclose(solve(r, sigma)[0], torch.linalg.solve(M, r.mT).mT, atol=1e-3)


@pytest.mark.parametrize("solver, iterations", [("direct", 1), ("scaled", 7), ("gmres", 8), ("cg", 16)])
def test_all_solvers_draw_the_same_members(solver, iterations):
    """With the iterations that each needs for 7 numbers, the direct one none."""
    p = posterior()
    exact = MMPS(DPMSolver(12, stochastic=True), solver="direct")(p, 3, Generator().manual_seed(0)).samples
    method = MMPS(DPMSolver(12, stochastic=True), iterations, solver, tolerance=0.0, warm=False)
    found = method(p, 3, Generator().manual_seed(0), batch_size=2).samples
    assert float((found - exact).abs().max()) < 2e-3 * float(exact.std())


def test_the_preconditioner_is_exact_for_a_white_state_and_saves_iterations_near_one():
    white = GaussianPrior(torch.zeros(1, *GRID, dtype=F64), 2.0)
    p = posterior(prior=white, std=1e-3)
    options = {"tolerance": 1e-8, "warm": False}
    one = MMPS(DPMSolver(8), 1, "scaled", **options)(p, 2, Generator().manual_seed(0))
    assert one.diagnostics["residual"] < 1e-8 and one.cost.denoiser_vjp == 8
    warm = MMPS(DPMSolver(8), 7, "scaled", tolerance=1e-8)(p, 2, Generator().manual_seed(0))
    assert torch.allclose(warm.samples, one.samples, atol=1e-6)
    near = GaussianPrior(torch.zeros(1, *GRID, dtype=F64), laplacian_power(GRID, 0.3, 3.0, variance=1.0, channels=1))
    p = posterior(prior=near, std=1e-3)
    left = {
        solver: MMPS(DPMSolver(16), 3, solver, **options)(p, 4, Generator().manual_seed(0)).diagnostics["residual"]
        for solver in ("gmres", "scaled")
    }
    assert left["scaled"] < 0.2 * left["gmres"]


def test_where_it_does_not_apply_the_others_take_over():
    positive = TransformedPrior(GaussianPrior(torch.zeros(1, *GRID, dtype=F64), covariance("cosines")), Log())
    two = posterior(batch=2)
    for p in (posterior(prior=positive, std=0.5), two):
        assert factorised(run_of(p)) is None and scaled(run_of(p)) is None
        direct, plain = (
            MMPS(DPMSolver(4, stochastic=True), 3, solver)(p, 2, Generator().manual_seed(0)).samples
            for solver in ("direct", "gmres")
        )
        assert torch.equal(direct, plain)
    with pytest.raises(ValueError, match="solver must be one of gmres, cg, scaled, direct, got 'lu'"):
        MMPS(solver="lu")
