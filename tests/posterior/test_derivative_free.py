"""Methods that know the operator by its values: against closed forms, dense twins, brute force and exact gradients."""

import numpy as np
import pytest
import torch
from torch import Generator

from scidiff.benchmark.exact import blurred_sensors, inpainting
from scidiff.errors import NumericalError
from scidiff.inference import Cost, Likelihood, Posterior
from scidiff.noise import GaussianNoise, PoissonNoise
from scidiff.operators import BlackBox, Frozen
from scidiff.operators.linear_map import LinearMap
from scidiff.posterior import DPG, DPSGSG, EKI, SCG, EnKG
from scidiff.posterior.base import Run
from scidiff.posterior.dpg import policy_gradient
from scidiff.posterior.dps_gsg import smoothed_gradient
from scidiff.posterior.ensemble_kalman import increment, innovations, taper
from scidiff.posterior.queries import deviances
from scidiff.priors import GaussianPrior
from scidiff.rng import Streams
from scidiff.samplers import DPMSolver, Euler
from scidiff.samplers.ddpm import ancestral
from scidiff.schedules import karras, log_linear
from scidiff.testing import check_posterior, compare_with_exact

F64 = torch.float64
SHAPE = (2, 3, 2)


def rng(seed=0):
    return Generator().manual_seed(seed)


def randn(*shape, seed=1):
    return torch.randn(*shape, generator=rng(seed), dtype=F64)


def problem(batch=1, n=5, noise=None, operator=None, std=0.3):
    """A field of 12 numbers with an uneven covariance and n weighted sums of it."""
    root = randn(12, 12, seed=3) / 4 + torch.eye(12, dtype=F64)
    prior = GaussianPrior(torch.zeros(SHAPE, dtype=F64), root @ root.mT)
    operator = operator or LinearMap(randn(n, 12, seed=4), SHAPE)
    y = operator(prior.sample(batch, rng(5))) + std * randn(batch, n, seed=6)
    return Posterior(prior, Likelihood(operator, noise or GaussianNoise(std), y))


def start(posterior, members, root=7, batch_size=None):
    return Run(posterior.tile(members), Streams(root, range(members), posterior.batch), Cost(), None, batch_size)


# The ensemble Kalman update


@pytest.mark.parametrize("n", [4, 30])
@pytest.mark.parametrize("localisation", [0.0, 2.0])
def test_increment_is_the_dense_formula(n, localisation):
    e, z, r = randn(2, 9, 7), randn(2, 9, n, seed=2), randn(2, 9, n, seed=3)
    e, z = e - e.mean(1, keepdim=True), z - z.mean(1, keepdim=True)
    ours = increment(e, z, r, 2.0, localisation)
    for b in range(2):
        E, Z = e[b].numpy(), z[b].numpy()
        gain = E.T @ Z / 8 @ np.linalg.inv(Z.T @ Z / 8 + 2 * np.eye(n))
        if localisation:
            rho = np.corrcoef(E.T, Z.T)[:7, 7:] ** 2
            gain = gain * rho / (rho + 4 * (1 - rho) ** 2 / 8)
        np.testing.assert_allclose(ours[b].numpy(), r[b].numpy() @ gain.T, rtol=1e-8, atol=1e-10)


def test_taper_keeps_what_is_certain():
    weights = taper(torch.tensor([0.0, 0.05, 1.0]), 101, 1.0)
    torch.testing.assert_close(weights, torch.tensor([0.0, 0.2, 1.0]), rtol=0.02, atol=0)


def kalman_twin(posterior, u, a, last, inner, members, root=7):
    """One update of EnKG for one observation, in numpy with dense matrices and the same random numbers."""
    streams, part = Streams(root, range(members), 1), posterior.likelihoods[0]
    D = posterior.prior.denoise(u, torch.tensor(a, dtype=F64))
    solver = DPMSolver(inner, lambda n: log_linear(n, last, a), stochastic=True)
    x = solver.integrate(posterior.prior.denoise, u, streams)
    measure = lambda v: part.operator(posterior.prior.decode(v)).numpy() / 0.3  # noqa: E731
    e, z = (x - D).flatten(1).numpy(), measure(x) - measure(D)
    e, z = e - e.mean(0), z - z.mean(0)
    noise = streams.randn(z.shape[1:], dtype=F64).numpy()
    noise = (noise - noise.mean(0)) * (members / (members - 1)) ** 0.5
    r = part.y.numpy() / 0.3 - measure(x) + noise
    k = members - 1
    return x.flatten(1).numpy() + r @ np.linalg.inv(z.T @ z / k + np.eye(z.shape[1])) @ (z.T @ e / k)


def test_one_update_of_enkg_is_its_dense_twin():
    posterior, K = problem(), 6
    u = 2 * randn(K, *SHAPE, seed=8)
    ours = EnKG(particles=K, inner=3).kalman(start(posterior, K), u, 2.0, 0.1)
    np.testing.assert_allclose(ours.flatten(1).numpy(), kalman_twin(posterior, u, 2.0, 0.1, 3, K), rtol=1e-8)


def test_one_published_update_is_the_double_sum():
    posterior, K, a, b, steps = problem(), 6, 2.0, 1.5, 8
    part, prior, method = posterior.likelihoods[0], posterior.prior, EnKG(6, 8, form="published", updates=1)
    u = 2 * randn(K, *SHAPE, seed=8)
    ours = method.published(start(posterior, K), u, a, b, 3)
    inner = Euler(1 + (steps - 3) // 4, lambda n: karras(n, sigma_max=a))
    z = part.operator(prior.decode(inner.integrate(prior.denoise, u, Streams(0, range(K))))) / 0.3
    c = torch.stack(
        [torch.stack([((z[i] - part.y[0] / 0.3) * (z[j] - z.mean(0))).sum() / K for j in range(K)]) for i in range(K)]
    )
    move = torch.stack([sum(c[i, j] * (u[j] - u.mean(0)) for j in range(K)) for i in range(K)])
    moved = u - 2.0 / c.norm() * move
    D = prior.denoise(moved, torch.tensor(a, dtype=F64))
    torch.testing.assert_close(ours, D + b / a * (moved - D))


class Unnamed:
    """Gaussian noise that does not say so."""

    def __init__(self, std):
        self.std = std

    def sample(self, z, generator=None):
        return z

    def log_prob(self, y, z):
        r = (torch.view_as_real(y - z) if y.is_complex() else y - z) / self.std
        return -0.5 * r.square().flatten(1).sum(1) + 17.0


class Phased:
    """Complex sums of a real field."""

    def __init__(self, inner):
        self.inner = inner

    def __call__(self, x):
        return torch.complex(self.inner(x), 2 * self.inner(x.flip(1)))


@pytest.mark.parametrize("operator", [None, Phased(LinearMap(randn(5, 12, seed=4), SHAPE))], ids=["real", "complex"])
def test_noise_is_linearised_over_the_particles(operator):
    """Independent Gaussian noise is found back from its density, which nobody said to be Gaussian."""
    plain, named = problem(2, noise=Unnamed(0.3), operator=operator), problem(2, operator=operator)
    states = randn(14, *SHAPE, seed=8), randn(14, *SHAPE, seed=9)
    run = start(plain, 7)
    for ours, theirs in zip(innovations(run, *states), innovations(start(named, 7), *states), strict=True):
        if operator:  # real and imaginary parts of all data side by side or in turn
            ours, theirs = ours.sort(-1).values, theirs.sort(-1).values
        torch.testing.assert_close(ours, theirs)
    assert run.cost.operator == 2


@pytest.mark.parametrize("build", [inpainting, blurred_sensors])
def test_enkg_draws_the_exact_posterior_of_gaussians(build):
    problem = build(0)
    limits = {"mean_error": 0.16, "trace_ratio": (0.92, 1.05), "coverage": (0.88, 0.92)}
    check_posterior(EnKG(), problem.posterior, problem.exact, members=512, **limits)


def test_the_published_form_gathers_in_one_place():
    problem = inpainting(0)
    method = EnKG(128, steps=80, schedule=karras, form="published")
    report = compare_with_exact(method(problem.posterior, 128, rng()).samples[:, 0], problem.exact)
    assert report.trace_ratio < 0.4 and report.mean_error > 0.5


@pytest.mark.parametrize("iterations", [1, 4])
def test_eki_draws_the_exact_posterior_of_gaussians(iterations):
    problem = inpainting(0)
    errors = []
    for K in (128, 2048):
        report = compare_with_exact(
            EKI(K, iterations=iterations)(problem.posterior, K, rng()).samples[:, 0], problem.exact
        )
        errors.append(report.mean_error)
    assert 0.92 < report.trace_ratio < 1.08 and 0.88 < report.coverage < 0.92
    assert errors[1] < 0.15 and errors[1] < 0.45 * errors[0]  # the error of sampling falls as the root of K


def test_options_and_diagnostics_of_enkg():
    problem = inpainting(0)
    plain, local, wide = (
        EnKG(32, localisation=ell, inflation=f)(problem.posterior, 32, rng()) for ell, f in ((0, 1), (1, 1), (0, 1.2))
    )
    reports = [compare_with_exact(ensemble.samples[:, 0], problem.exact) for ensemble in (plain, local, wide)]
    assert reports[1].mean_error < reports[0].mean_error
    assert reports[2].trace_ratio > 1.2 * reports[0].trace_ratio
    spread, chi2 = plain.diagnostics["spread"], plain.diagnostics["chi2"]
    assert len(spread) == len(chi2) == 20 and spread[-1] < 0.8 * spread[0] and chi2[-1] < chi2[0]
    torch.testing.assert_close(spread[-1], float(plain.samples.var(0).mean().sqrt()), rtol=0.1, atol=0)


@pytest.mark.parametrize("method", [EnKG(8, 6, 2), EnKG(8, 6, form="published"), EKI(8)], ids=repr)
def test_particles_in_parts(method):
    posterior = problem(2)
    together = method(posterior, 8, rng())
    parts = method(posterior, 8, rng(), batch_size=3)
    torch.testing.assert_close(parts.samples, together.samples)
    assert parts.cost == together.cost


# Search


def test_scg_takes_the_best_of_its_draws():
    posterior, rows, a, b = problem(2), 6, 2.0, 1.5
    u = 2 * randn(rows, *SHAPE, seed=8)
    D = posterior.prior.denoise(u, torch.tensor(a, dtype=F64))
    streams, tiled = Streams(7, range(3), 2), posterior.tile(3)
    draws = [ancestral(u, D, a, b, streams) for _ in range(5)]
    denoised = [posterior.prior.denoise(v, torch.tensor(b, dtype=F64)) for v in draws]
    fits = [tiled.log_likelihood(v) for v in denoised]
    for at_once in (1, 2, 5):
        run = start(posterior, 3)
        state, next_D = SCG(draws=5, at_once=at_once).search(run, u, D, a, b)
        for row in range(rows):
            best = max(range(5), key=lambda j: float(fits[j][row]))
            torch.testing.assert_close(state[row], draws[best][row])
            torch.testing.assert_close(next_D[row], denoised[best][row])
        assert run.cost.denoiser == run.cost.operator == 5


def test_scg_follows_the_data_and_counts():
    posterior = problem()
    one, many = (SCG(100, draws=n)(posterior, 32, rng()) for n in (1, 16))
    fit = [posterior.tile(32).log_likelihood(posterior.prior.encode(e.samples[:, 0])).mean() for e in (one, many)]
    assert fit[1] - fit[0] > 10
    assert many.cost.denoiser == 25 + 74 * 16 + 1 and many.cost.operator == 74 * 16


# Gradients from values


def slope(estimate, exact, counts):
    errors = [float((estimate(m) - exact).flatten(1).norm(dim=1).square().mean().sqrt()) for m in counts]
    return np.polyfit(np.log(counts), np.log(errors), 1)[0], errors[-1] / float(exact.norm(dim=1).mean())


def test_policy_gradient_is_the_gradient_in_expectation():
    """Of E exp(-(|r - rho A e|^2 - |r|^2) / tau), a Gaussian integral, with an error that falls as 1 / sqrt(m)."""
    posterior, rows = problem(), 48
    run, part = start(posterior, rows), posterior.likelihoods[0]
    D, rho, tau = 0.3 * randn(1, *SHAPE, seed=8).expand(rows, *SHAPE), 0.4, 200.0
    A = part.operator.matrix * posterior.prior.scale / 0.3
    r = part.y[0] / 0.3 - A @ D[0].flatten()
    M = torch.eye(5, dtype=F64) + 2 * rho**2 / tau * A @ A.mT
    solved = torch.linalg.solve(M, r)
    mean = torch.exp((r @ r - r @ solved) / tau) / torch.linalg.det(M).sqrt()
    exact = (mean * 2 / tau * A.mT @ solved).expand(rows, 12)
    deviance = deviances(run, D)
    torch.testing.assert_close(deviance, (r @ r).expand(rows))
    ones = torch.ones(rows, dtype=F64)

    def estimate(m):
        return policy_gradient(run, D, rho * ones.reshape(-1, 1, 1, 1), deviance, tau * ones, m).flatten(1)

    order, last = slope(estimate, exact, [64, 256, 1024, 4096])
    assert -0.6 < order < -0.4 and last < 0.15
    assert float((estimate(1024).mean(0) - exact[0]).norm() / exact[0].norm()) < 0.06


@pytest.mark.parametrize("central", [False, True])
def test_smoothed_gradient_is_the_gradient_in_expectation(central):
    posterior, rows = problem(), 48
    run, part = start(posterior, rows), posterior.likelihoods[0]
    D = 0.3 * randn(1, *SHAPE, seed=8).expand(rows, *SHAPE)
    A = part.operator.matrix * posterior.prior.scale / 0.3
    exact = (-2 * A.mT @ (part.y[0] / 0.3 - A @ D[0].flatten())).expand(rows, 12)

    def estimate(m):
        return smoothed_gradient(run, D, deviances(run, D), 0.01, m, central).flatten(1)

    order, last = slope(estimate, exact, [64, 256, 1024, 4096])
    assert -0.6 < order < -0.4 and last < 0.1 * (1 + central)
    assert float((estimate(1024).mean(0) - exact[0]).norm() / exact[0].norm()) < 0.04


def test_deviance_of_counts():
    """Poisson noise: the textbook deviance 2 sum(y log(y / z) - y + z), where constants of the density cancel."""
    y = torch.tensor([[3.0, 0.0, 7.0]], dtype=F64)
    prior = GaussianPrior(torch.full((3,), 5.0, dtype=F64), torch.eye(3, dtype=F64))
    run = start(Posterior(prior, Likelihood(lambda x: x, PoissonNoise(), y)), 2)
    z = prior.decode(randn(2, 3) / 2)
    expected = 2 * (torch.xlogy(y, y / z) - y + z).sum(1)
    torch.testing.assert_close(deviances(run, prior.encode(z)), expected)


@pytest.mark.parametrize("method, limit", [(DPG(), 0.5), (DPSGSG(), 0.6), (SCG(), 0.7)], ids=repr)
def test_heuristics_come_near(method, limit):
    """32 exact draws have a mean error of 0.18; the prior's mean one of about 2."""
    problem = inpainting(0)
    report = compare_with_exact(method(problem.posterior, 32, rng()).samples[:, 0], problem.exact)
    assert report.mean_error < limit and 0.6 < report.trace_ratio < 1.4


# Black boxes

METHODS = [EnKG(8, 5, 2), EKI(8), SCG(8, draws=3), DPG(8, samples=8), DPSGSG(8, queries=8)]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_black_boxes_give_the_ensemble_of_their_torch_twins(method):
    posterior = problem(2)
    part = posterior.likelihoods[0]
    matrix = part.operator.matrix.numpy()
    ours = method(posterior, 5, rng())
    for box in (BlackBox(lambda x: x.reshape(len(x), -1) @ matrix.T), Frozen(part.operator)):
        boxed = method(Posterior(posterior.prior, Likelihood(box, part.noise, part.y)), 5, rng())
        torch.testing.assert_close(boxed.samples, ours.samples, rtol=1e-6, atol=1e-8)
        assert boxed.cost == ours.cost and ours.cost.operator_vjp == 0


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_nan_from_a_black_box_names_field_and_level(method):
    def solver(x):
        return np.where(np.abs(x).max((1, 2, 3))[:, None] > 1e-3, np.nan, x.reshape(len(x), -1)[:, :5])

    posterior = problem()
    part = posterior.likelihoods[0]
    broken = Posterior(posterior.prior, Likelihood(BlackBox(solver), part.noise, part.y))
    with pytest.raises(NumericalError, match=rf"{type(method).__name__}: solver gives NaN.*field 0.*noise level"):
        method(broken, 2, rng())


@pytest.mark.parametrize("call, message", [
    (lambda: EnKG(1), "particles"),
    (lambda: EnKG(inner=1), "inner"),
    (lambda: EnKG(inflation=0.9), "inflation"),
    (lambda: EnKG(localisation=-1.0), "localisation"),
    (lambda: EnKG(form="other"), "'kalman' or 'published'"),
    (lambda: EnKG(strength=0.0), "strength"),
    (lambda: EKI(iterations=0), "iterations"),
    (lambda: SCG(draws=0), "draws"),
    (lambda: SCG(start=1.5), "start"),
    (lambda: DPG(samples=1), "samples"),
    (lambda: DPG(momentum=1.0), "momentum"),
    (lambda: DPSGSG(queries=1, central=True), "queries"),
    (lambda: DPSGSG(mu=0.0), "mu"),
])  # fmt: skip
def test_rejects(call, message):
    with pytest.raises(ValueError, match=message):
        call()
