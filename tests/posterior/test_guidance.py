"""Guidance methods: exact where they should be, twins of each other, dense twins of one call."""

import dataclasses

import pytest
import torch
from torch import Generator

from scidiff.benchmark import exact
from scidiff.inference import Cost, Likelihood, Posterior
from scidiff.noise import GaussianNoise, PoissonNoise
from scidiff.operators import JPEG, LinearMap
from scidiff.posterior import DPS, LGD, MMPS, SDA, TMPD, AnnealedDPS, PiGDM, PublishedPiGDM
from scidiff.posterior.base import Run
from scidiff.priors import GaussianPrior
from scidiff.rng import Streams
from scidiff.samplers import DPMSolver
from scidiff.testing import check_posterior, compare_with_exact

F64 = torch.float64


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=F64)


def report(method, problem, members=256, seed=0):
    ensemble = method(problem.posterior, members, Generator().manual_seed(seed))
    return compare_with_exact(ensemble.samples[:, 0], problem.exact)


@pytest.mark.parametrize("method", [PiGDM(covariance="prior"), TMPD(covariance="full")], ids=["pigdm", "tmpd"])
@pytest.mark.parametrize("seed", [0, 1])
def test_exact_with_the_true_covariance(method, seed):
    problem = exact.inpainting(seed)
    check_posterior(method, problem.posterior, problem.exact, members=512)


@pytest.mark.parametrize("seed", [0, 1])
def test_dps_default(seed):
    r = report(DPS(), exact.inpainting(seed), members=512)
    assert r.mean_error <= 0.4
    assert 0.6 < r.trace_ratio < 1.2


@pytest.mark.parametrize(
    "method, limit", [(AnnealedDPS(), 0.3), (PiGDM(), 0.15), (TMPD(), 0.4), (SDA(), 0.3)], ids=repr
)
def test_approximations_are_near(method, limit):
    for problem in (exact.inpainting(), exact.blurred_sensors()):
        r = report(method, problem)
        assert r.mean_error < limit and 0.9 < r.trace_ratio < 1.2


# One guided call against matrices.

d, n, SIGMA = 6, 4, 0.7
A, STD = randn(n, d, seed=1), 0.3 + randn(n, seed=2).abs()
K = torch.cov(randn(d, 20, seed=3))


def small():
    prior = GaussianPrior(randn(d, seed=4), K)
    return Posterior(prior, Likelihood(LinearMap(A), GaussianNoise(STD), randn(1, n, seed=5)))


def call(method, posterior, rows=3):
    run = Run(posterior.tile(rows), Streams(0, range(rows)), Cost())
    u = randn(rows, d, seed=6)
    return u, method.condition(run)(u, torch.tensor(SIGMA, dtype=F64)), run


def dense(likelihood_covariance):
    """D + s^2 J A' (covariance)^-1 (y - A D) in units of the state."""
    posterior = small()
    prior, y = posterior.prior, posterior.likelihoods[0].y
    u, unit, H = randn(3, d, seed=6), K / posterior.prior.scale**2, A * posterior.prior.scale
    J = unit @ torch.linalg.inv(unit + SIGMA**2 * torch.eye(d, dtype=F64))
    D = u @ J.mT
    r = y - D @ H.mT - A @ prior.loc
    S = likelihood_covariance(H, J, r)
    return D + SIGMA**2 * torch.stack([J @ H.mT @ torch.linalg.solve(S[i], r[i]) for i in range(3)])


NOISE, R2 = torch.diag(STD**2), SIGMA**2 / (1 + SIGMA**2)


def along(H, r):
    """The squared gain along the whitened residual, per row."""
    w = r / STD
    return (w / STD @ H).square().sum(1) / w.square().sum(1)


@pytest.mark.parametrize("method, S", [
    (PiGDM(tolerance=0), lambda H, J, r: (NOISE + R2 * H @ H.mT).expand(3, n, n)),
    (PiGDM(covariance="prior", tolerance=0), lambda H, J, r: (NOISE + SIGMA**2 * H @ J @ H.mT).expand(3, n, n)),
    (TMPD(covariance="full"), lambda H, J, r: (NOISE + SIGMA**2 * H @ J @ H.mT).expand(3, n, n)),
    (MMPS(iterations=n, tolerance=0), lambda H, J, r: (NOISE + SIGMA**2 * H @ J @ H.mT).expand(3, n, n)),
    (TMPD(tolerance=0),
     lambda H, J, r: (NOISE + SIGMA**2 * H @ torch.diag(J.sum(1).clamp(min=0)) @ H.mT).expand(3, n, n)),
    (SDA(gamma=0.2), lambda H, J, r: (1 + 0.2 * SIGMA**2 * along(H, r))[:, None, None] * NOISE),
    (AnnealedDPS(), lambda H, J, r: (1 + R2 * along(H, r))[:, None, None] * NOISE),
], ids=["pigdm", "pigdm prior", "tmpd full", "mmps", "tmpd rows", "sda", "dps"])  # fmt: skip
def test_one_call_against_matrices(method, S):
    _, D_y, _ = call(method, small())
    assert torch.allclose(D_y, dense(S), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "problem", [exact.inpainting(dtype=F64), exact.blurred_sensors(dtype=F64)], ids=["mask", "map"]
)
def test_svd_and_conjugate_gradients_agree(problem):
    draws = [
        PiGDM(DPMSolver(8), solver=solver, tolerance=1e-10)(problem.posterior, 3, Generator().manual_seed(0)).samples
        for solver in ("cg", "svd")
    ]
    assert torch.allclose(*draws, rtol=1e-6, atol=1e-6)


def test_published_kick_depends_on_the_number_of_steps_and_the_denoiser_does_not():
    problem = exact.blurred_sensors()
    published = [report(PublishedPiGDM(steps=n), problem).mean_error for n in (100, 1000)]
    ours = [report(PiGDM(DPMSolver(n, stochastic=True)), problem).mean_error for n in (64, 256)]
    assert published[1] > 2 * published[0] > 3 * max(ours)


def test_lgd_with_one_sharp_draw_is_dps():
    """Without spread the deviance is the squared residual: the kick of DPS."""
    run = Run(small().tile(3), Streams(0, range(3)), Cost())
    u = 1e-9 + randn(3, d, seed=6)
    best = torch.stack([p.noise.log_prob(p.y, p.y) for p in run.posterior.likelihoods]).sum(0)
    a = 1e-5  # rho is about a
    _, ours = LGD(draws=1).guide(run, u, a, best)
    _, theirs = DPS().guide(run, u, a, torch.ones(3, dtype=F64))
    assert torch.allclose(ours, theirs, rtol=1e-3)
    assert run.cost.operator_vjp == 2


def test_lgd_averages_likelihoods():
    """Many draws: the kick is along the gradient of the exact mean, N(y; A D, S_y + rho^2 A A')."""
    posterior = small()
    run = Run(posterior.tile(1), Streams(0, [0]), Cost())
    u, a, scale = randn(1, d, seed=6), 0.3, posterior.prior.scale
    best = torch.stack([p.noise.log_prob(p.y, p.y) for p in run.posterior.likelihoods]).sum(0)
    D, gradient = LGD(draws=20000).guide(run, u, a, best)
    H, unit = A * scale, K / scale**2
    J = unit @ torch.linalg.inv(unit + a**2 * torch.eye(d, dtype=F64))
    S = NOISE + a**2 / (1 + a**2) * H @ H.mT
    r = posterior.likelihoods[0].y - D @ H.mT - A @ posterior.prior.loc
    expected = -(r @ torch.linalg.inv(S) @ H @ J)
    cosine = (gradient * expected).sum() / gradient.norm() / expected.norm()
    assert cosine > 0.999


def test_counts():
    """Poisson data: DPS, LGD and MMPS near a brute-force posterior of one number, 40 counts or so."""
    prior = GaussianPrior(torch.tensor([40.0]), torch.tensor([[25.0]], dtype=F64))
    noise, y = PoissonNoise(), torch.tensor([[55.0, 47.0, 52.0]])

    def three(x):
        return x.expand(*x.shape[:-1], 3).clone()

    x = torch.linspace(10, 90, 4001, dtype=F64)[:, None]
    weights = torch.softmax(noise.log_prob(y.double().expand(len(x), 3), three(x)) + prior.log_prob(x), 0)
    mean = weights @ x[:, 0]
    std = (weights @ (x[:, 0] - mean).square()).sqrt()
    posterior = Posterior(prior, Likelihood(three, noise, y))
    for method, limit in ((MMPS(), 0.1), (PiGDM(), 0.15), (SDA(), 0.5), (DPS(steps=200), 0.7), (LGD(steps=200), 0.7)):
        samples = method(posterior, 500, Generator().manual_seed(0)).samples[:, 0, 0].double()
        assert abs(samples.mean() - mean) < limit * std, method


def test_pigdm_restores_jpeg():
    """A smooth field with coarse steps: closer to the truth than the decoded image, and it compresses to almost it."""
    axis = torch.arange(16, dtype=F64)
    points = torch.cartesian_prod(axis, axis)
    cov = torch.exp(-torch.cdist(points, points).square() / 32) + 1e-3 * torch.eye(256)
    prior, operator = GaussianPrior(torch.full((1, 16, 16), 280.0), 25 * cov), JPEG(10, scale=30.0, offset=280.0)
    truth = prior.sample(1, Generator().manual_seed(3))
    y = operator(truth)
    posterior = Posterior(prior, Likelihood(operator, GaussianNoise(0.3), y))
    decoded = (operator.pinv(y) - truth).square().mean().sqrt()
    for method in (PiGDM(DPMSolver(32)), PublishedPiGDM()):
        ensemble = method(posterior, 16, Generator().manual_seed(0))
        errors = (ensemble.samples[:, 0] - truth).square().mean((1, 2, 3)).sqrt()
        assert errors.mean() < 0.8 * decoded
        assert (ensemble.mean - truth).square().mean().sqrt() < 0.6 * decoded
        assert ensemble.cost.operator_vjp == 0
    with pytest.raises(TypeError, match="SDA needs gradient"):
        SDA()(posterior)


def test_prior_covariance_must_exist():
    class Bare:
        affine, shape = True, (d,)

        def denoise(self, u, sigma):
            return u / (1 + sigma**2)

        def decode(self, u):
            return u

    posterior = dataclasses.replace(small(), prior=Bare())
    with pytest.raises(TypeError, match="covariance='published'"):
        PiGDM(covariance="prior")(posterior, 1)


@pytest.mark.parametrize("make, message", [
    (lambda: PiGDM(covariance="white"), "'published' or 'prior'"),
    (lambda: PiGDM(solver="lu"), "'cg' or 'svd'"),
    (lambda: PiGDM(solver="svd", covariance="prior"), "take solver='cg'"),
    (lambda: PiGDM(iterations=0), "iterations"),
    (lambda: PublishedPiGDM(eta=2.0), "eta"),
    (lambda: TMPD(covariance="all"), "'rows' or 'full'"),
    (lambda: TMPD(tolerance=1.0), "tolerance"),
    (lambda: SDA(gamma=-1.0), "gamma"),
    (lambda: LGD(draws=0), "draws"),
    (lambda: LGD(zeta=-1.0), "zeta"),
    (lambda: MMPS(linearisations=0), "linearisations"),
])  # fmt: skip
def test_rejects(make, message):
    with pytest.raises(ValueError, match=message):
        make()
