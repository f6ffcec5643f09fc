"""DAPS and PnP-DM against closed forms, dense twins and grids."""

import dataclasses
import functools
import math
from itertools import pairwise

import pytest
import torch
from torch import Generator

from scidiff.benchmark import exact
from scidiff.errors import NumericalError
from scidiff.inference import Cost, Likelihood, Posterior
from scidiff.noise import GaussianNoise, PoissonNoise
from scidiff.operators.linear_map import LinearMap
from scidiff.posterior import DAPS, PnPDM
from scidiff.posterior.base import Run
from scidiff.posterior.lanczos import sqrt_draw
from scidiff.posterior.local import langevin, perturb_and_solve
from scidiff.priors import GaussianPrior
from scidiff.rng import Streams
from scidiff.samplers import DDPM, DPMSolver
from scidiff.schedules import karras, log_linear
from scidiff.testing import check_batch_independence, check_posterior, compare_with_exact

F64 = torch.float64
SHAPE, D, N = (1, 3, 4), 12, 5


def random(*shape, seed=0):
    return torch.randn(shape, generator=Generator().manual_seed(seed), dtype=F64)


def spd(size, seed=0):
    root = random(size, size, seed=seed)
    return root @ root.mT / size + 0.05 * torch.eye(size, dtype=F64)


def problem(std=0.3, prior_cov=None):
    prior = GaussianPrior(torch.zeros(SHAPE, dtype=F64), spd(D) if prior_cov is None else prior_cov)
    operator, noise = LinearMap(random(N, D, seed=1), SHAPE), GaussianNoise(std)
    y = operator(prior.sample(1, Generator().manual_seed(2))) + std * random(1, N, seed=3)
    return Posterior(prior, Likelihood(operator, noise, y)), prior.condition(operator, noise, y)


def at_work(posterior, members):
    return Run(posterior.tile(members), Streams(7, range(members), posterior.batch), Cost())


def dense(posterior, std=0.3):
    """Prior covariance of u, whitened operator on u, whitened data."""
    prior = posterior.prior
    A = posterior.likelihoods[0].operator.matrix.to(F64)
    return prior.covariance / prior.scale**2, A * prior.scale / std, posterior.likelihoods[0].y[0] / std


def root(C):
    values, vectors = torch.linalg.eigh(C)
    return vectors * values.clamp(min=0).sqrt() @ vectors.mT


def test_sqrt_draw_is_the_dense_root():
    C, z = torch.stack([spd(D, seed) for seed in range(3)]), random(3, D)
    w, cut = sqrt_draw(lambda v: torch.einsum("rij,rj->ri", C, v), z, D, 0.0)
    assert torch.allclose(w, torch.einsum("rij,rj->ri", torch.stack([root(c) for c in C]), z), atol=1e-9)
    assert not cut.any()
    C = C - 0.2 * torch.eye(D, dtype=F64)  # negative eigenvalues get no noise
    w, cut = sqrt_draw(lambda v: torch.einsum("rij,rj->ri", C, v), z, D, 0.0)
    assert torch.allclose(w, torch.einsum("rij,rj->ri", torch.stack([root(c) for c in C]), z), atol=1e-6)
    values = torch.linalg.eigvalsh(C)
    assert torch.allclose(cut, -values[:, 0] / values[:, -1])


def test_sqrt_draw_takes_few_products_and_ends_each_row_alone():
    spectra = torch.stack([torch.linspace(1, 2, D), torch.ones(D), torch.logspace(-3, 1, D)]).to(F64)
    calls = 0

    def draw(spectra, z):
        def product(v):
            nonlocal calls
            calls += 1
            return spectra * v

        return sqrt_draw(product, z, 30, 1e-3)[0]

    z = random(3, D)
    assert torch.allclose(draw(spectra[:2], z[:2]), spectra[:2].sqrt() * z[:2], rtol=1e-3, atol=2e-3)
    assert calls <= 6
    check_batch_independence(draw, spectra, z, contrast=1.0)
    assert torch.equal(draw(spectra, torch.zeros_like(z)), torch.zeros_like(z))


def test_sqrt_draw_survives_a_map_that_is_not_symmetric():
    C = spd(D) + 0.05 * random(D, D, seed=5)
    w, _ = sqrt_draw(lambda v: v @ C.mT, random(4000, D), D, 0.0)
    wanted = (C + C.mT) / 2
    assert torch.linalg.norm(w.mT @ w / 4000 - wanted) < 3 * D / 4000**0.5 * wanted.trace() / D


@pytest.mark.parametrize("symmetric", [True, False])
def test_perturb_and_solve_is_matheron(symmetric):
    """Draw by draw equal to the dense formula with the same random numbers."""
    posterior, _ = problem()
    _, A, y = dense(posterior)
    C, x = spd(D, 4), random(6, D)
    run, twin = at_work(posterior, 6), Streams(7, range(6))
    got = perturb_and_solve(
        run, x.reshape(-1, *SHAPE), lambda g: (g.flatten(1) @ C).reshape(g.shape), 40, 1e-13, symmetric
    )
    r = y + twin.randn((N,), dtype=F64) - x @ A.mT
    wanted = x + torch.linalg.solve(A @ C @ A.mT + torch.eye(N, dtype=F64), r.mT).mT @ A @ C
    assert torch.allclose(got.flatten(1), wanted, atol=1e-9)


@pytest.mark.parametrize("a", [0.3, 3.0])
def test_one_level_of_daps_draws_the_conditional_law(a):
    """Mean and covariance of many draws given one noisy state, against p(u0 | u_a, y) by dense algebra."""
    posterior, _ = problem()
    C0, A, y = dense(posterior)
    members, u = 2000, a * random(1, *SHAPE, seed=6)
    method, run, eye = DAPS(lanczos=D, iterations=N, tolerance=1e-6), at_work(posterior, 2000), torch.eye(D, dtype=F64)
    m, C, noise = method.moments(run, u.expand(members, *SHAPE), a)
    x = perturb_and_solve(run, m + noise(), C, N, 1e-6).flatten(1)
    cov = torch.linalg.inv(torch.linalg.inv(C0) + eye / a**2 + A.mT @ A)
    mean = cov @ (u.flatten() / a**2 + A.mT @ y)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(cov), (x - mean).mT, upper=False)
    assert white.mean(1).norm() < 2 * (D / members) ** 0.5  # floor (D / members)^0.5
    assert (white @ white.mT / members - eye).norm() < 1.3 * (D * (D + 1) / members) ** 0.5  # floor without 1.3


def test_likelihood_step_of_pnpdm_draws_its_law():
    posterior, _ = problem()
    _, A, y = dense(posterior)
    members, rho, x = 2000, 0.4, random(1, *SHAPE, seed=6)
    start = x.expand(members, *SHAPE)
    z, _ = PnPDM().likelihood_step(at_work(posterior, members), start, start, rho, start.new_ones(members), True)
    eye = torch.eye(D, dtype=F64)
    cov = torch.linalg.inv(eye / rho**2 + A.mT @ A)
    white = torch.linalg.solve_triangular(
        torch.linalg.cholesky(cov), (z.flatten(1) - cov @ (x.flatten() / rho**2 + A.mT @ y)).mT, upper=False
    )
    assert white.mean(1).norm() < 2 * (D / members) ** 0.5
    assert (white @ white.mT / members - eye).norm() < 1.3 * (D * (D + 1) / members) ** 0.5


@pytest.mark.parametrize("arrived, std, moves", [(True, 0.5, 40), (False, 3.0, 150)])
def test_langevin_keeps_and_finds_the_closed_form(arrived, std, moves):
    """Draws of the law stay draws of it, and states far off become draws. C is not white: every term counts."""
    posterior, _ = problem(std)
    _, A, y = dense(posterior, std)
    members, C, m, eye = 1500, spd(D, 4), random(1, *SHAPE, seed=8), torch.eye(D, dtype=F64)
    run, precision = at_work(posterior, members), torch.linalg.inv(C)
    cov = torch.linalg.inv(precision + A.mT @ A)
    mean, lower = cov @ (precision @ m.flatten() + A.mT @ y), torch.linalg.cholesky(cov)

    def times(matrix):
        return lambda g: (g.flatten(1) @ matrix).reshape(g.shape)

    def draw():
        return times(root(C))(run.streams.randn(SHAPE, dtype=F64))

    start = mean + random(members, D, seed=9) @ lower.mT if arrived else 1 + m.flatten().expand(members, D)
    delta = start.new_full((members,), 0.02 if arrived else 1.0)
    x, delta = langevin(run, m.expand(members, *SHAPE), times(C), draw, start.reshape(-1, *SHAPE), delta, moves)
    white = torch.linalg.solve_triangular(lower, (x.flatten(1) - mean).mT, upper=False)
    assert white.mean(1).norm() < 2 * (D / members) ** 0.5
    assert (white @ white.mT / members - eye).norm() < 1.3 * (D * (D + 1) / members) ** 0.5
    assert (x.flatten(1) - start).square().mean() > 0.1 * cov.diagonal().mean()  # it moved
    assert 0.5 < float(run.notes["acceptance"][-1]) < 0.7
    assert ((delta > 1e-6) & (delta <= 2)).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_daps_draws_the_exact_posterior(seed):
    p = exact.inpainting(seed)
    method, generator = DAPS(steps=30), Generator().manual_seed(seed)
    check_posterior(method, p.posterior, p.exact, generator=generator)  # default limits


@pytest.mark.parametrize("steps", [1, 3])
def test_daps_is_exact_on_gaussians_with_any_levels(steps):
    """No integrator, no error of one; the start at level 80 is the only approximation."""
    posterior, truth = problem()
    method = DAPS(steps, functools.partial(log_linear, sigma_min=0.5), lanczos=D, tolerance=1e-6)
    report = compare_with_exact(method(posterior, 1000, Generator().manual_seed(0)).samples[:, 0], truth)
    assert report.mean_error < 2.2 * report.mean_floor
    assert abs(report.trace_ratio - 1) < 3 * report.trace_floor


def test_published_width_doubles_the_variance_without_data():
    """The recursion of the docstring, on unit variances and no information, with the factor that Euler's method has."""
    posterior, truth = problem(std=1e4, prior_cov=torch.eye(D, dtype=F64))
    levels = functools.partial(log_linear, sigma_min=0.02)
    method = DAPS(60, levels, width="published", ode_steps=40)
    report = compare_with_exact(method(posterior, 200, Generator().manual_seed(0)).samples[:, 0], truth)
    V = 0.0
    for a in levels(60)[:-1].tolist():
        factor, inner = 1.0, karras(40, sigma_min=min(0.01, a / 2), sigma_max=a).tolist()
        for c, d in pairwise(inner):
            factor *= d / c + (1 - d / c) / (1 + c**2)
        V = (V + a**2) * factor**2 + a**2
    assert 2 < V < 2.4  # 60 levels leave it above the fixed point
    assert abs(report.trace_ratio - V) < 3 * V * report.trace_floor


SCHEDULE = functools.partial(log_linear, sigma_min=0.01)
QUICK_PNPDM = PnPDM(DPMSolver(12, SCHEDULE, True), 60, decay=0.9, moves=10)


def test_pnpdm_draws_nearly_the_exact_posterior():
    posterior, truth = problem()
    limits = {"mean_error": 0.12, "trace_ratio": (0.9, 1.1), "coverage": (0.88, 0.92)}
    method = dataclasses.replace(QUICK_PNPDM, iterations=120, decay=0.95)
    check_posterior(method, posterior, truth, members=256, **limits)


def grid_moments(prior, part, y, axis, rho=0.0):
    r"""Mean and covariance of :math:`p(x) \int p(y|z) N(z; x, \rho^2)\,dz` on a grid: the posterior where rho is 0."""
    d = prior.mean.numel()
    points = torch.cartesian_prod(*[axis] * d).reshape(-1, d)
    likelihood = Likelihood(*part, y.expand(len(points), *y.shape)).log_prob(points)
    likelihood = (likelihood - likelihood.max()).exp().reshape([len(axis)] * d)
    if rho > 0:
        kernel = (-(axis[:, None] - axis).square() / (2 * rho**2)).softmax(1)
        for dim in range(d):
            likelihood = torch.tensordot(kernel, likelihood, dims=([1], [dim])).movedim(0, dim)
    density = prior.log_prob(points).exp() * likelihood.flatten()
    weights = density / density.sum()
    mean = weights @ points
    return mean, (points - mean).mT @ (weights[:, None] * (points - mean))


def copies(law, count):
    """Prior of ``count`` independent copies of a Gaussian of few numbers: one state holds many draws."""
    d = law.mean.numel()
    cov = torch.kron(torch.eye(count, dtype=F64), law.covariance)
    return GaussianPrior(torch.zeros(count, d, dtype=F64), cov)


class Bent:
    """A nonlinear instrument that sees a curved combination of two numbers."""

    def __call__(self, x):
        return torch.stack([x[..., 0] + 0.4 * x[..., 1] ** 2, torch.exp(0.5 * x[..., 0])], -1)


class Rate:
    def __call__(self, x):
        return 3 * x.exp()


COUPLED = dataclasses.replace(QUICK_PNPDM, sampler=DPMSolver(20, SCHEDULE, True), iterations=30, rho_min=0.3, decay=0.8)
QUICK = [(DAPS(30), 0.0), (COUPLED, 0.3)]
"""PnP-DM is compared with the law its chain aims at, at a width where it forgets its past within the run."""


@pytest.mark.parametrize("method, rho", QUICK, ids=["daps", "pnpdm"])
def test_nonlinear_problem_with_one_mode_against_a_grid(method, rho):
    one = GaussianPrior(torch.zeros(2, dtype=F64), torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=F64))
    part, y = (Bent(), GaussianNoise(0.3)), torch.tensor([0.9, 1.3], dtype=F64)
    mean, cov = grid_moments(one, part, y, torch.linspace(-6, 6, 401, dtype=F64), rho)
    posterior = Posterior(copies(one, 5), Likelihood(*part, y.expand(1, 5, 2)))
    x = method(posterior, 300, Generator().manual_seed(0)).samples.reshape(-1, 2)
    sd = cov.diagonal().sqrt()
    assert ((x.mean(0) - mean) / sd).abs().max() < 0.12  # Monte Carlo: 0.026 each
    assert ((x.mT.cov() - cov) / sd.outer(sd)).abs().max() < 0.15  # Monte Carlo: 0.037 each


@pytest.mark.parametrize("method, rho", QUICK, ids=["daps", "pnpdm"])
def test_counts_against_a_grid(method, rho):
    one = GaussianPrior(torch.zeros(1, dtype=F64), torch.ones(1, 1, dtype=F64))
    part, y = (Rate(), PoissonNoise()), torch.tensor([9.0], dtype=F64)
    mean, cov = grid_moments(one, part, y, torch.linspace(-6, 6, 2001, dtype=F64), rho)
    posterior = Posterior(copies(one, 6), Likelihood(*part, y.expand(1, 6, 1)))
    x = method(posterior, 300, Generator().manual_seed(0)).samples.flatten()
    assert abs(x.mean() - mean[0]) / cov[0, 0].sqrt() < 0.09  # Monte Carlo: 0.024
    assert abs(x.var() / cov[0, 0] - 1) < 0.12  # Monte Carlo: 0.033


def test_widths_arrive():
    assert PnPDM().widths()[0] == 10
    assert PnPDM().widths()[-1] == pytest.approx(0.1)
    assert PnPDM(iterations=5).widths() == pytest.approx([10 * 0.01 ** (k / 4) for k in range(5)])
    assert len(PnPDM(iterations=1).widths()) == 1


def test_bad_use():
    with pytest.raises(ValueError, match="'exact', 'white' or 'published'"):
        DAPS(width="wide")
    with pytest.raises(ValueError, match="lanczos must be at least 1"):
        DAPS(lanczos=0)
    with pytest.raises(TypeError, match="sigma_max"):
        PnPDM(DDPM(10))
    with pytest.raises(ValueError, match="sigma_min"):
        PnPDM(DPMSolver(10, karras, True), rho_min=0.001)
    with pytest.raises(ValueError, match="decay"):
        PnPDM(decay=1.0)
    with pytest.raises(ValueError, match="rho"):
        PnPDM(rho_min=20.0)


def test_a_likelihood_that_is_not_a_number_is_loud():
    class Broken:
        def __call__(self, x):
            return math.nan * x

    posterior = Posterior(problem()[0].prior, Likelihood(Broken(), PoissonNoise(), torch.ones(1, *SHAPE, dtype=F64)))
    for method in (DAPS(3), PnPDM(iterations=3)):
        with pytest.raises(NumericalError, match="noise level"):
            method(posterior, 2)
