"""Integrators against closed forms: order of convergence, exact moments, counters, streams."""

import dataclasses
import functools
import math

import pytest
import torch

from scidiff.errors import NumericalError
from scidiff.rng import Streams
from scidiff.samplers import (
    DDIM,
    DDPM,
    DEIS,
    DPMSolver,
    DPMSolver2S,
    DPMSolver3M,
    DPMSolverSingle,
    Euler,
    Heun,
    UniPC,
)
from scidiff.samplers.base import level
from scidiff.schedules import karras, log_linear

VARIANCE = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)
MEAN = torch.tensor([0.3, -1.0, 0.0], dtype=torch.float64)
FINE = functools.partial(karras, sigma_min=1e-5, sigma_max=20.0)

ODE = [Euler(), DDIM(), Heun(), DPMSolver()]
SDE = [DDPM(), DDIM(eta=0.7), Heun(S_churn=10.0), DPMSolver(stochastic=True)]
FEW = [
    DPMSolver2S(),
    DPMSolver3M(),
    DPMSolverSingle(order=2),
    DPMSolverSingle(),
    DEIS(),
    UniPC(),
    UniPC(corrector=False),
]
ids = repr


class Gaussian:
    """Independent components with the flow in closed form."""

    affine = True
    shape = (3,)
    dtype = torch.float64

    def denoise(self, u, sigma):
        return MEAN + VARIANCE / (VARIANCE + sigma**2) * (u - MEAN)

    def decode(self, u):
        return 280 + 5 * u

    def flow(self, u, sigma):
        return MEAN + (VARIANCE / (VARIANCE + sigma**2)).sqrt() * (u - MEAN)


class Bimodal:
    """An even mixture of N(-1, 0.3^2) and N(1, 0.3^2), on the line."""

    affine = True
    shape = (1,)

    def denoise(self, u, sigma):
        v = 0.09 + sigma**2
        mean = torch.tanh(u / v)
        return mean * sigma**2 / v + u * 0.09 / v

    def decode(self, u):
        return u


class Fixed:
    """Stands for `Streams`: row 1 + i gets 1 in draw i, all else is 0."""

    def __init__(self):
        self.draws = 0

    def randn_like(self, u):
        z = torch.zeros_like(u)
        self.draws += 1
        z[self.draws] = 1
        return z


def with_budget(sampler, intervals, schedule=FINE):
    calls = 2 if isinstance(sampler, Heun | DPMSolver2S) else getattr(sampler, "order", 1)
    calls = calls if isinstance(sampler, Heun | DPMSolver2S | DPMSolverSingle) else 1
    return dataclasses.replace(sampler, steps=calls * (intervals - 1) + 1, schedule=schedule)


def slope(errors, sizes):
    x = torch.tensor([math.log(n) for n in sizes])
    y = torch.tensor([math.log(e) for e in errors])
    x, y = x - x.mean(), y - y.mean()
    return -(x @ y / (x @ x)).item()


@pytest.mark.parametrize("sampler, order", list(zip(ODE, [1, 1, 2, 2], strict=True)), ids=ids)
def test_order_on_gaussian(sampler, order):
    prior, sizes = Gaussian(), [40, 80, 160, 320]
    u = 20 * torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    errors = [
        (with_budget(sampler, n).integrate(prior.denoise, u, None) - prior.flow(u, 20.0)).abs().max().item()
        for n in sizes
    ]
    assert slope(errors, sizes) == pytest.approx(order, abs=0.15), errors


@pytest.mark.parametrize("sampler, order", list(zip(ODE, [1, 1, 2, 2], strict=True)), ids=ids)
def test_order_on_mixture(sampler, order):
    prior, sizes = Bimodal(), [60, 120, 240]
    u = 20 * torch.linspace(-1.5, 1.5, 7, dtype=torch.float64)[:, None]
    exact = with_budget(Heun(), 1500).integrate(prior.denoise, u, None)
    errors = [(with_budget(sampler, n).integrate(prior.denoise, u, None) - exact).abs().max().item() for n in sizes]
    assert slope(errors, sizes) == pytest.approx(order, abs=0.25), errors


def exact_variance(sampler):
    """Variance of the draws for a Gaussian prior without any Monte Carlo: the run is linear in all its noises."""
    rows = 2 * len(sampler.levels()) + 1
    first = sampler.levels()[0]
    u = torch.zeros(rows, 3, dtype=torch.float64)
    u[0] = first
    noises = Fixed()
    draws = sampler.integrate(lambda u, s: Gaussian().denoise(u + MEAN, s) - MEAN, u, noises)
    return draws[: 1 + noises.draws].square().sum(0)


@pytest.mark.parametrize("sampler, order", list(zip(SDE, [1, 1, 1, 2], strict=True)), ids=ids)
def test_variance_converges(sampler, order):
    sizes = [50, 100, 200, 400]
    schedule = functools.partial(karras, sigma_min=1e-4, sigma_max=200.0)
    errors = [(exact_variance(with_budget(sampler, n, schedule)) / VARIANCE - 1).abs().max().item() for n in sizes]
    assert errors[-1] < 0.04
    assert slope(errors, sizes) > order - 0.2, errors


def test_variance_of_coarse_ddpm_is_the_known_recursion():
    """v_b = (1 - t (1 - k))^2 v_a + b^2 t with k = v / (v + a^2)."""
    sampler = DDPM(steps=20, schedule=karras)
    levels = sampler.levels()
    v = torch.full_like(VARIANCE, levels[0] ** 2)
    for a, b in zip(levels, levels[1:], strict=False):
        t = 1 - b**2 / a**2
        v = (1 - t * (1 - VARIANCE / (VARIANCE + a**2))) ** 2 * v + b**2 * t
    assert torch.allclose(exact_variance(sampler), v, rtol=1e-12)


def test_monte_carlo_moments():
    """The whole call, in the field's units: 280 + 5 u."""
    generator = torch.Generator().manual_seed(1)
    samples = DPMSolver(32, stochastic=True)(Gaussian(), members=1000, generator=generator).samples
    assert samples.shape == (1000, 1, 3) and samples.dtype == torch.float64
    u = (samples[:, 0] - 280) / 5
    assert ((u.mean(0) - MEAN) / (VARIANCE / 1000).sqrt()).abs().max() < 3.5
    assert (u.var(0) / VARIANCE - 1).abs().max() < 0.15


def test_ddim_joins_euler_and_ddpm():
    prior, u = Gaussian(), 80 * torch.ones(2, 3, dtype=torch.float64)

    def run(sampler):
        return sampler.integrate(prior.denoise, u, Streams(3, [0, 1]))

    assert torch.allclose(run(DDIM(20, karras)), run(Euler(20, karras)), rtol=1e-12)
    assert torch.allclose(run(DDIM(20, karras, eta=1.0)), run(DDPM(20, karras)), rtol=1e-12)


@pytest.mark.parametrize("sampler", ODE + SDE + FEW, ids=ids)
def test_last_step_is_the_denoised_state(sampler):
    """On a strongly uneven grid the step to zero must have its own size."""
    seen = {}

    def denoise(u, sigma):
        seen["D"] = Gaussian().denoise(u, sigma)
        return seen["D"]

    def uneven(n):
        return torch.tensor([50.0, 1.0, 0.7, 0.01, 0.0], dtype=torch.float64)

    sampler = with_budget(sampler, 4, uneven)
    u = sampler.integrate(denoise, 50 * torch.ones(2, 3, dtype=torch.float64), Streams(0, [0, 1]))
    assert torch.allclose(u, seen["D"], rtol=1e-12)


@pytest.mark.parametrize("sampler", ODE + SDE + FEW, ids=ids)
@pytest.mark.parametrize("steps", [1, 2, 3, 9, 10])
def test_counts_denoiser_calls(sampler, steps):
    sampler = dataclasses.replace(sampler, steps=steps)
    ensemble = sampler(Gaussian(), members=2, generator=torch.Generator())
    expected = 2 * ((steps + 1) // 2) - 1 if isinstance(sampler, Heun) else steps
    assert ensemble.cost.denoiser == sampler.calls == expected <= steps


@pytest.mark.parametrize("sampler", ODE + SDE + FEW, ids=ids)
def test_members_do_not_depend_on_the_batch(sampler):
    sampler = dataclasses.replace(sampler, steps=9)
    g = torch.Generator().manual_seed(5)
    four = sampler(Gaussian(), members=4, generator=g).samples
    again = sampler(Gaussian(), members=4, generator=g).samples
    assert torch.equal(four, again)
    split = sampler(Gaussian(), members=4, generator=g, batch_size=3).samples
    alone = sampler(Gaussian(), members=[3], generator=g).samples
    assert torch.allclose(split, four, rtol=1e-12) and torch.allclose(alone, four[3:], rtol=1e-12)
    other = sampler(Gaussian(), members=4, generator=torch.Generator().manual_seed(6)).samples
    assert not torch.allclose(other, four)


@pytest.mark.parametrize("sampler", ODE + SDE + FEW, ids=ids)
def test_not_finite_is_an_error_with_method_and_level(sampler):
    sampler = dataclasses.replace(sampler, steps=9, schedule=log_linear)

    def denoise(u, sigma):
        return u * (torch.nan if sigma < 1 else 0.5)

    with pytest.raises(NumericalError, match=rf"{type(sampler).__name__}.*noise level \d"):
        sampler.integrate(denoise, torch.ones(2, 3), Streams(0, [0, 1]))


def test_error_names_the_first_bad_level():
    def denoise(u, sigma):
        return u * (torch.nan if 0.9 < sigma < 1.1 else 0.5)

    with pytest.raises(NumericalError, match="noise level 1;"):
        Euler(5, lambda n: torch.tensor([100.0, 10, 1, 0.1, 0.01, 0])).integrate(denoise, torch.ones(1, 2), None)


def test_callback_sees_every_step():
    seen = []
    sampler = Heun(9)
    sampler(Gaussian(), members=2, generator=torch.Generator(), callback=lambda i, n, s, u: seen.append((i, n, s)))
    assert [i for i, _, _ in seen] == [1, 2, 3, 4, 5] and {n for _, n, _ in seen} == {5}
    assert [s for _, _, s in seen] == sampler.levels()[1:]


@pytest.mark.parametrize("sampler", [DPMSolver2S(9), DPMSolver2S(10), DPMSolverSingle(9), DPMSolverSingle(12)], ids=ids)
def test_budget_of_single_steps_is_divided_as_said(sampler):
    """Calls at each level: whole steps first, the rest in one of lower order, one for the step to zero."""
    seen, last = [], []
    order = getattr(sampler, "order", 2)

    def denoise(u, sigma):
        seen.append(float(sigma))
        return Gaussian().denoise(u, sigma)

    sampler.integrate(denoise, torch.ones(1, 3, dtype=torch.float64), None, lambda i, n, s, u: last.append(len(seen)))
    whole, rest = divmod(sampler.steps - 1, order)
    assert [b - a for a, b in zip([0, *last], last, strict=False)] == [order] * whole + [rest] * (rest > 0) + [1]
    assert seen == sorted(seen, reverse=True) and set(sampler.levels()[:-1]) <= {s for s in seen}


def test_callback_can_stop():
    def stop(step, steps, sigma, u):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Euler(3)(Gaussian(), callback=stop)


@pytest.mark.parametrize("call, message", [
    (lambda: Euler(0), "at least 1"),
    (lambda: DDIM(eta=1.5), "between 0 and 1"),
    (lambda: Heun(S_churn=-1.0), "negative"),
    (lambda: UniPC(order=0), "at least 1"),
    (lambda: UniPC(B=3), "1 or 2"),
    (lambda: DEIS(order=0), "at least 1"),
    (lambda: DPMSolverSingle(order=4), "1, 2 or 3"),
    (lambda: DDIM(eta=0.5).encode(Gaussian(), torch.ones(1, 3)), "eta=0"),
    (lambda: DDIM().encode(Gaussian(), torch.ones(1, 3), iterations=-1), "negative"),
    (lambda: Euler(3, lambda n: torch.tensor([1.0, 2.0, 0.0])), "decrease"),
    (lambda: Euler(3)(Gaussian(), shape=(4,)), r"\(3,\).*\(4,\)"),
    (lambda: Euler(3)(Gaussian(), members=0), "at least 1"),
    (lambda: Euler(3)(Gaussian(), batch_size=0), "at least 1"),
    (lambda: Euler(3)(type("Any", (Gaussian,), {"shape": None})()), "give shape="),
])  # fmt: skip
def test_rejects(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_repr_names_the_schedule():
    assert repr(Euler(3)) == "Euler(steps=3, schedule=karras)"
    assert repr(Euler(3, functools.partial(karras, rho=5.0))) == "Euler(steps=3, schedule=partial(karras, rho=5.0))"


def test_level_has_type_and_device():
    assert level(torch.zeros(2, dtype=torch.float64), 0.5).dtype == torch.float64
