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
from scidiff.samplers import DDIM, DPMSolver
from scidiff.testing import check_posterior, compare_with_exact

F64 = torch.float64


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=F64)


def report(method, problem, members=256, seed=0):
    ensemble = method(problem.posterior, members, Generator().manual_seed(seed))
    return compare_with_exact(ensemble.samples[:, 0], problem.exact)


@pytest.mark.parametrize("method, seed", [
    (PiGDM(covariance="prior"), 0), (PiGDM(covariance="prior"), 1), (TMPD(covariance="full"), 0)
], ids=["pigdm0", "pigdm1", "tmpd0"])  # fmt: skip
def test_exact_with_the_true_covariance(method, seed):
    problem = exact.inpainting(seed)
    check_posterior(method, problem.posterior, problem.exact, members=512)


@pytest.mark.parametrize("seed", [0, 1])
def test_dps_default(seed):
    r = report(DPS(), exact.inpainting(seed), members=96)
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
    assert torch.allclose(draws[0], draws[1], rtol=1e-6, atol=1e-6)


def test_published_steps_against_the_denoiser():
    """Two steps by hand, with the g of the denoiser form."""
    a, b = 2.0, 0.7
    posterior = small()
    method = PublishedPiGDM(2, eta=0.0, schedule=lambda n: torch.tensor([a, b, 0.0]), tolerance=0)
    ours = method.draw(Run(posterior.tile(3), Streams(0, range(3)), Cost()))
    run = Run(posterior.tile(3), Streams(0, range(3)), Cost())
    guided = PiGDM(tolerance=0).condition(run)
    u = a * run.streams.randn((d,), dtype=F64)
    for start, end in ((a, b), (b, 0.0)):
        sigma = torch.tensor(start, dtype=F64)
        D = run.denoise(u, sigma)
        kick = (guided(u, sigma) - D) / (1 + start**2)  # r2 J' g
        u = D + end / start * (u - D) + (1 + end**2) ** 0.5 * kick
    assert torch.allclose(ours, u, rtol=1e-6)


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
    prior, wide = GaussianPrior(torch.zeros(d, dtype=F64), K), 2.0
    posterior = Posterior(prior, Likelihood(LinearMap(A), GaussianNoise(wide), randn(1, n, seed=5)))
    run = Run(posterior, Streams(0, [0]), Cost())
    u, a = randn(1, d, seed=6), 0.7
    best = torch.stack([p.noise.log_prob(p.y, p.y) for p in run.posterior.likelihoods]).sum(0)
    D, gradient = LGD(draws=4000).guide(run, u, a, best)
    H, unit = A * prior.scale, K / prior.scale**2
    J = unit @ torch.linalg.inv(unit + a**2 * torch.eye(d, dtype=F64))
    r = posterior.likelihoods[0].y - D @ H.mT

    def cosine(rho2):
        expected = -(r @ torch.linalg.inv(wide**2 * torch.eye(n, dtype=F64) + rho2 * H @ H.mT) @ H @ J)
        return (gradient * expected).sum() / gradient.norm() / expected.norm()

    assert cosine(a**2 / (1 + a**2)) > 0.999 > cosine(0.0)


def test_counts_are_weighed_by_their_variance_at_the_data():
    """More than one count everywhere: DPS sees Gaussian noise of variance y."""
    prior, y = GaussianPrior(torch.full((d,), 40.0), 25 * K), 40 + 5 * randn(1, d, seed=7).float()
    draws = [
        DPS(steps=30)(Posterior(prior, Likelihood(lambda x: x, noise, y)), 3, Generator().manual_seed(0)).samples
        for noise in (PoissonNoise(), GaussianNoise(y[0].sqrt()))
    ]
    assert torch.allclose(draws[0], draws[1], rtol=1e-5)


def test_counts_against_brute_force():
    """One unknown number, three counts of it."""
    prior = GaussianPrior(torch.tensor([40.0]), torch.tensor([[25.0]], dtype=F64))
    noise, y = PoissonNoise(), torch.tensor([[55.0, 47.0, 52.0]])

    def three(x):
        return x.expand(*x.shape[:-1], 3).clone()

    x = torch.linspace(10, 90, 4001, dtype=F64)[:, None]
    weights = torch.softmax(noise.log_prob(y.double().expand(len(x), 3), three(x)) + prior.log_prob(x), 0)
    mean = weights @ x[:, 0]
    std = (weights @ (x[:, 0] - mean).square()).sqrt()
    posterior = Posterior(prior, Likelihood(three, noise, y))
    for method in (MMPS(), PiGDM()):
        samples = method(posterior, 500, Generator().manual_seed(0)).samples[:, 0, 0].double()
        assert abs(samples.mean() - mean) < 0.15 * std, method
        assert 0.85 < samples.std() / std < 1.15, method


def test_pigdm_restores_jpeg():
    """Coarse steps on a smooth field: every member compresses to the data, their mean is closer than the decoder."""
    axis = torch.arange(16, dtype=F64)
    points = torch.cartesian_prod(axis, axis)
    cov = torch.exp(-torch.cdist(points, points).square() / 32) + 1e-3 * torch.eye(256)
    prior, operator = GaussianPrior(torch.full((1, 16, 16), 280.0), 25 * cov), JPEG(10, scale=30.0, offset=280.0)
    truth = prior.sample(1, Generator().manual_seed(3))
    y = operator(truth)
    posterior = Posterior(prior, Likelihood(operator, GaussianNoise(0.3), y))
    decoded = (operator.pinv(y) - truth).square().mean().sqrt()
    for method in (PiGDM(DDIM(100, eta=1.0)), PublishedPiGDM()):
        ensemble = method(posterior, 16, Generator().manual_seed(0))
        assert torch.equal(operator(ensemble.samples[:, 0]), y.expand(16, *y.shape[1:]))
        assert (ensemble.mean - truth).square().mean().sqrt() < 0.85 * decoded
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

        def encode(self, x):
            return x

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
