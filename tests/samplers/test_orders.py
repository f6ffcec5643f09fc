"""Slopes of the error of deterministic integrators on a mixture of three Gaussians in the plane."""

import dataclasses
import functools
import math

import pytest
import torch

from scidiff.priors import GaussianMixturePrior
from scidiff.samplers import DDIM, DEIS, DPMSolver, DPMSolver2S, DPMSolver3M, DPMSolverSingle, Euler, Heun, UniPC
from scidiff.samplers.exponential import data_weights, noise_weights, phi
from scidiff.schedules import karras, log_linear

WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
MEANS = torch.tensor([[-1.0, 0.4], [1.0, 0.8], [0.2, -1.3]], dtype=torch.float64)
COVS = torch.tensor(
    [[[0.15, 0.05], [0.05, 0.1]], [[0.1, -0.03], [-0.03, 0.2]], [[0.2, 0.0], [0.0, 0.08]]], dtype=torch.float64
)
VALUES, VECTORS = torch.linalg.eigh(COVS)

SIGMA = {"sigma_min": 0.01, "sigma_max": 80.0}
SCHEDULES = {
    "log_linear": functools.partial(log_linear, **SIGMA),
    "karras": functools.partial(karras, rho=7.0, **SIGMA),
}
START = 80 * torch.randn(16, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

ORDERS = [
    (Euler(), 1), (DDIM(), 1), (Heun(), 2), (DPMSolver(), 2), (DPMSolver2S(), 2), (DPMSolver3M(), 3),
    (DPMSolverSingle(order=1), 1), (DPMSolverSingle(order=2), 2), (DPMSolverSingle(order=3), 3),
    (DEIS(order=1), 1), (DEIS(order=2), 2), (DEIS(order=3), 3), (DEIS(order=4), 4),
    (UniPC(order=1, corrector=False), 1), (UniPC(order=2, corrector=False), 2), (UniPC(order=3, corrector=False), 3),
    (UniPC(order=2, corrector=False, B=1), 2),
    (UniPC(order=1), 2), (UniPC(order=2), 3), (UniPC(order=3), 4), (UniPC(order=1, B=1), 2), (UniPC(order=2, B=1), 3),
]  # fmt: skip
"""Integrators and the order that their files claim."""


def denoise(u, sigma):
    """The mixture's denoiser in the eigenvectors of its components, many times faster than the general prior."""
    r = torch.einsum("kij,bki->bkj", VECTORS, u[:, None] - MEANS)
    total = VALUES + sigma**2
    logs = WEIGHTS.log() - 0.5 * (r.square() / total + total.log()).sum(-1)
    inside = MEANS + torch.einsum("kij,bkj->bki", VECTORS, VALUES / total * r)
    return (logs.softmax(-1)[..., None] * inside).sum(1)


@functools.cache
def fine(schedule):
    """The end of the trajectories with the same levels at both ends: error below 1e-10."""
    return UniPC(2000, SCHEDULES[schedule], order=4).integrate(denoise, START, None)


def error(sampler, steps, schedule):
    sampler = dataclasses.replace(sampler, steps=steps, schedule=SCHEDULES[schedule])
    return (sampler.integrate(denoise, START, None) - fine(schedule)).square().mean().sqrt().item()


def slope(errors, sizes):
    x, y = torch.tensor(sizes).double().log(), torch.tensor(errors).double().log()
    x, y = x - x.mean(), y - y.mean()
    return -(x @ y / (x @ x)).item()


def test_the_mixture_is_the_prior():
    prior = GaussianMixturePrior(WEIGHTS, MEANS, COVS)
    u = MEANS.repeat(2, 1) + 0.7
    for sigma in (0.05, 1.0, 30.0):
        x = prior.encode(u) * prior.scale  # the prior's state has another scale and centre
        shifted = prior.denoise(x / prior.scale, torch.tensor(sigma / prior.scale, dtype=torch.float64))
        assert torch.allclose(prior.decode(shifted), denoise(u, sigma), rtol=1e-10)


def test_fine_solves_agree():
    """Another method, another grid: single steps of third order."""
    assert error(DPMSolverSingle(), 3001, "karras") < 3e-7


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("sampler, order", ORDERS, ids=repr)
def test_slope_is_the_order(sampler, order, schedule):
    sizes = [193, 385, 769]  # calls, 1 more than a multiple of 2 and of 3
    if order == 4:  # the corrector reaches it later; without it the first steps, of lower order, show earlier
        sizes = [385, 769, 1537] if isinstance(sampler, UniPC) else [97, 193, 385]
    errors = [error(sampler, n, schedule) for n in sizes]
    assert slope(errors, [n - 1 for n in sizes]) == pytest.approx(order, abs=0.15), errors


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("family", [
    [DPMSolverSingle(order=1), DPMSolverSingle(order=2), DPMSolverSingle(order=3)],
    [DDIM(), DPMSolver(), DPMSolver3M()],
    [DEIS(order=p) for p in (1, 2, 3, 4)],
    [UniPC(order=p, corrector=False) for p in (1, 2, 3)],
    [UniPC(order=p) for p in (1, 2, 3)],
], ids=lambda f: type(f[-1]).__name__)  # fmt: skip
def test_higher_order_is_better_at_equal_calls(family, schedule):
    errors = [error(sampler, 61, schedule) for sampler in family]
    assert all(high < 0.6 * low for low, high in zip(errors, errors[1:], strict=False)), errors


@pytest.mark.parametrize("order", [1, 2, 3])
def test_correctors_help_at_equal_calls(order):
    errors = [error(UniPC(order=order, corrector=c), 61, "log_linear") for c in (False, True)]
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize("sampler", [DPMSolver(), DPMSolver3M(), DEIS(), UniPC(), UniPC(order=2)], ids=repr)
def test_ten_calls_beat_twenty_of_ddim(sampler):
    assert error(sampler, 10, "log_linear") < 0.6 * error(DDIM(), 20, "log_linear")


def test_half_the_quadratic_term_would_lose_an_order():
    """Why `DPMSolver3M` departs from the authors' code: with their weight of the second difference the order is 2."""

    class Published(DPMSolver3M):
        factor = 1.0

        def integrate(self, denoise, u, streams, callback=None, correct=None):
            past = []
            for a, b in self.path():
                past = [(a, denoise(u, a)), *past][:3]
                D, keep = past[0][1], b / a
                part = D
                if b > 0 and len(past) == 3:
                    h = math.log(a / b)
                    r0, r1 = (math.log(past[i + 1][0] / past[i][0]) / h for i in (0, 1))
                    d0, d1 = ((past[i][1] - past[i + 1][1]) / r for i, r in ((0, r0), (1, r1)))
                    D1, D2 = d0 + r0 / (r0 + r1) * (d0 - d1), (d0 - d1) / (r0 + r1)
                    phi2 = 1 + math.expm1(-h) / h
                    part = (1 - keep) * D + phi2 * D1 - self.factor * (phi2 / h - 0.5) * D2
                elif b > 0:
                    weights = data_weights(a, b, [level for level, _ in past])
                    part = torch.stack([w * d for w, (_, d) in zip(weights, past, strict=True)]).sum(0)
                u = keep * u + part
            return u

    sizes = [193, 385, 769]
    errors = []
    for factor, order in ((1.0, 2), (2.0, 3)):
        Published.factor = factor
        errors = [error(Published(), n, "log_linear") for n in sizes]
        assert slope(errors, sizes) == pytest.approx(order, abs=0.15), errors
    assert errors[0] == pytest.approx(error(DPMSolver3M(), sizes[0], "log_linear"), rel=1e-6)


def test_phi_is_its_integral():
    s = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    for z in (-30.0, -2.0, -1e-3, 1e-6, 0.7, 3.0, 9.0):
        assert phi(0, z) == pytest.approx(math.exp(z), rel=1e-13)
        for k in (1, 2, 3, 4, 5):
            integral = (torch.exp((1 - s) * z) * s ** (k - 1)).mean().item() / math.factorial(k - 1)
            assert phi(k, z) == pytest.approx(integral, rel=1e-6), (k, z)


def test_weights_are_exact_for_polynomials_in_the_log():
    """Steps from 3 to 0.5 with four earlier values: b int exp(lam) lam^k dlam and int (log sigma)^k dsigma."""
    a, b, levels = 3.0, 0.5, [3.0, 4.0, 7.0, 11.0]
    sigma = b + (a - b) * (torch.arange(100000, dtype=torch.float64) + 0.5) / 100000
    logs = torch.tensor(levels, dtype=torch.float64).log()
    data, noise = (torch.tensor(f(a, b, levels), dtype=torch.float64) for f in (data_weights, noise_weights))
    for k in range(4):
        area = (a - b) * (b * sigma.log() ** k / sigma**2).mean()
        assert (data * logs**k).sum().item() == pytest.approx(area.item(), rel=1e-8)
        assert (noise * logs**k).sum().item() == pytest.approx((b - a) * (sigma.log() ** k).mean().item(), rel=1e-8)
