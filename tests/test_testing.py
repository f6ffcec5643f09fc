"""Each public check passes on a right part and fails on a broken one."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from scidiff.inference import Ensemble, Likelihood, Posterior
from scidiff.noise import GaussianNoise
from scidiff.operators.linear_map import LinearMap
from scidiff.operators.mask import Mask
from scidiff.priors import GaussianMixturePrior, GaussianPrior
from scidiff.testing import (
    PosteriorReport,
    check_adjoint,
    check_batch_independence,
    check_posterior,
    check_unit_independence,
    check_vjp,
    compare_with_exact,
)

F64, C128 = torch.float64, torch.complex128


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=dtype)


class Fourier:
    """Unitary transform times a complex weight."""

    def __init__(self, adjoint_weight: complex = 2 - 1j, shift: float = 0.0) -> None:
        self.adjoint_weight, self.shift = adjoint_weight, shift

    def __call__(self, x: Tensor) -> Tensor:
        return (2 + 1j) * torch.fft.fft2(x, norm="ortho") + self.shift

    def adjoint(self, y: Tensor) -> Tensor:
        return self.adjoint_weight * torch.fft.ifft2(y, norm="ortho")


class OnReal(Fourier):
    """The same on real fields."""

    def adjoint(self, y: Tensor) -> Tensor:
        return super().adjoint(y).real


class Forgetful(Fourier):
    """Changes its state when called."""

    calls = 0

    def __call__(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.calls * super().__call__(x)


def test_check_adjoint_accepts_right_ones() -> None:
    assert check_adjoint(Fourier(), (3, 4), dtype=C128) < 1e-14
    assert check_adjoint(OnReal(), (3, 4)) < 1e-14
    assert check_adjoint(Fourier(), (3, 4), dtype=torch.complex64) < 1e-5


@pytest.mark.parametrize(
    ("operator", "dtype", "message"),
    [
        (Fourier(2 + 1j), C128, "not the adjoint"),  # conjugate forgotten
        (Fourier(1.001 * (2 - 1j)), C128, "not the adjoint"),
        (Fourier(shift=0.1), C128, "not linear"),
        (Fourier(), F64, "real part"),
        (Forgetful(), C128, "changes its state"),
    ],
)
def test_check_adjoint_finds_faults(operator: Fourier, dtype: torch.dtype, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_adjoint(operator, (3, 4), dtype=dtype)


def test_check_adjoint_finds_a_wrong_shape() -> None:
    operator = LinearMap(randn(3, 8), (2, 4))
    flat = type("Flat", (LinearMap,), {"adjoint": lambda self, y: LinearMap.adjoint(self, y).flatten(1)})
    check_adjoint(operator, (2, 4))
    with pytest.raises(AssertionError, match="shape"):
        check_adjoint(flat(randn(3, 8), (2, 4)), (2, 4))


def test_check_vjp_accepts_nonlinear_and_complex_operators() -> None:
    assert check_vjp(lambda x: torch.sin(x) * x.flip(-1), randn(2, 3, 4)) < 1e-9
    assert check_vjp(lambda x: x.abs().square(), randn(2, 3, 4, dtype=C128)) < 1e-9  # intensity of a complex field
    assert check_vjp(lambda x: (1e-9 * x).exp(), 1e9 * randn(2, 3)) < 1e-9  # whatever the units


def cut(x: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.sin(x)


def half_cut(x: Tensor) -> Tensor:
    return torch.sin(x) + x.detach().square()


class OwnVJP:
    """A gradient of its own, times a factor."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, x: Tensor) -> Tensor:
        return x.square()

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        return self.factor * x * v


def test_check_vjp_finds_faults() -> None:
    x = randn(2, 3)
    with pytest.raises(AssertionError, match="no gradient flows"):
        check_vjp(cut, x)
    with pytest.raises(AssertionError, match="wrong"):
        check_vjp(half_cut, x)
    check_vjp(OwnVJP(2.0), x)
    with pytest.raises(AssertionError, match="vjp of OwnVJP is wrong"):
        check_vjp(OwnVJP(2.001), x)
    black_box = OwnVJP(2.0)
    black_box.differentiable = False
    with pytest.raises(TypeError, match="differentiable"):
        check_vjp(black_box, x)


@pytest.mark.parametrize(
    "coupled",
    [
        lambda x: x / x.norm(),  # a norm over the batch
        lambda x: x - x.mean(0),
        lambda x: x.clamp(-float(x.abs().max()) / 2, float(x.abs().max()) / 2),
        lambda x: torch.cat([x[1:], x[:1]]),
    ],
)
def test_check_batch_independence_finds_coupling(coupled: Callable[[Tensor], Tensor]) -> None:
    x = randn(3, 2, 4)
    check_batch_independence(lambda u: u / u.flatten(1).norm(dim=1).reshape(-1, 1, 1), x)
    with pytest.raises(AssertionError, match="coupled"):
        check_batch_independence(coupled, x)


def test_check_batch_independence_needs_a_batch() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        check_batch_independence(lambda x: x, randn(1, 3))


def problem(factor: float = 1.0, batch: int = 1) -> tuple[Posterior, list[GaussianPrior]]:
    a = randn(24, 24)
    prior = GaussianPrior(factor * (280 + randn(4, 6)), factor**2 * 25 * (a @ a.mT / 24 + 0.1 * torch.eye(24)))
    mask = Mask(torch.rand(4, 6, generator=Generator().manual_seed(3)) > 0.5)
    noise = GaussianNoise(factor * 1.5)
    y = factor * (mask(280 + 5 * randn(batch, 4, 6, seed=5)) + randn(batch, int(mask.mask.sum()), seed=6))
    return Posterior(prior, Likelihood(mask, noise, y)), [prior.condition(mask, noise, one) for one in y]


def exact_sampler(scale: float = 1.0, shift: float = 0.0, unit: float = 0.0):
    """Draws from the exact posterior, then widens, shifts (in standard deviations), or adds a fixed number of units."""

    def sample(posterior: Posterior, members: int, generator: Generator) -> Ensemble:
        likelihood = posterior.likelihoods[0]
        columns = []
        for y in likelihood.y:
            exact = posterior.prior.condition(likelihood.operator, likelihood.noise, y)
            deviation = exact.sample(members, generator) - exact.mean
            sd = exact.variance.sqrt()
            columns.append(exact.mean + scale * deviation + shift * sd + unit)
        return Ensemble(torch.stack(columns, 1))

    return sample


def test_check_posterior_accepts_exact_draws_of_one_and_several_fields() -> None:
    posterior, (exact,) = problem()
    report = check_posterior(exact_sampler(), posterior, exact, members=512)
    assert isinstance(report, PosteriorReport) and math.isclose(report.mean_floor, 512**-0.5)
    assert abs(report.mean_error - report.mean_floor) < 0.015
    assert abs(report.trace_ratio - 1) < 4 * report.trace_floor
    posterior, exacts = problem(batch=3)
    assert check_posterior(exact_sampler(), posterior, exacts, members=512).members == 512
    with pytest.raises(ValueError, match="3 fields"):
        check_posterior(exact_sampler(), posterior, exacts[0])


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (exact_sampler(shift=0.1), "mean error"),
        (exact_sampler(scale=math.sqrt(0.5)), r"trace ratio 0\.\d+ outside .*coverage"),  # half the variance
        (exact_sampler(scale=1.1), "trace ratio"),
        (exact_sampler(scale=0.9), "coverage"),
        (exact_sampler(scale=0.0), "trace ratio 0.0000"),
        (exact_sampler(unit=math.nan), "mean error nan"),
    ],
)
def test_check_posterior_finds_bias_and_wrong_spread(broken, message: str) -> None:
    posterior, (exact,) = problem()
    with pytest.raises(AssertionError, match=message):
        check_posterior(broken, posterior, exact)


def test_check_posterior_of_a_mixture_uses_its_marginals() -> None:
    """A Gaussian of the right mean and covariance fails where the posterior has two modes."""
    means = torch.tensor([[[-3.0, 1.0]], [[3.0, -1.0]]], dtype=F64)
    prior = GaussianMixturePrior(torch.tensor([0.4, 0.6]), means, 0.3 * torch.eye(2, dtype=F64))
    operator, noise, y = Mask(torch.tensor([False, True])), GaussianNoise(3.0), torch.zeros(1, 1, dtype=F64)
    posterior = Posterior(prior, Likelihood(operator, noise, y))
    exact = prior.condition(operator, noise, y)
    wide = {"mean_error": 0.1, "trace_ratio": (0.9, 1.1), "members": 4000}

    def right(posterior: Posterior, members: int, generator: Generator) -> Ensemble:
        return Ensemble(exact.sample(members, generator)[:, None])

    def gaussian(posterior: Posterior, members: int, generator: Generator) -> Ensemble:
        return Ensemble(GaussianPrior(exact.mean, exact.covariance).sample(members, generator)[:, None])

    check_posterior(right, posterior, exact, **wide)
    with pytest.raises(AssertionError, match="coverage"):
        check_posterior(gaussian, posterior, exact, **wide)


def test_report_by_brute_force() -> None:
    _, (exact,) = problem()
    x = 0.8 * (exact.sample(50, Generator().manual_seed(1)) - exact.mean) + exact.mean + 1
    report = compare_with_exact(x, exact, level=0.8)
    sd = exact.covariance.diagonal().sqrt().reshape(4, 6)
    z = (x - exact.mean) / sd
    assert math.isclose(report.mean_error, float(z.mean(0).square().mean().sqrt()), rel_tol=1e-9)
    assert math.isclose(report.trace_ratio, float(x.var(0).sum() / sd.square().sum()), rel_tol=1e-9)
    half = math.sqrt(2) * float(torch.erfinv(torch.tensor(0.8, dtype=F64)))
    assert math.isclose(report.coverage, float((z.abs() <= half).to(F64).mean()), rel_tol=1e-9)


def test_trace_floor_is_the_scatter_of_exact_ensembles() -> None:
    _, (exact,) = problem()
    ratios, floor = [], 0.0
    for seed in range(300):
        report = compare_with_exact(exact.sample(40, Generator().manual_seed(seed)), exact)
        ratios.append(report.trace_ratio)
        floor = report.trace_floor
    scatter = float(torch.tensor(ratios).std())
    assert abs(scatter / floor - 1) < 4 / math.sqrt(600)


def test_check_unit_independence() -> None:
    def build(factor: float) -> Posterior:
        return problem(factor)[0]

    assert check_unit_independence(exact_sampler(), build) < 1e-9

    def clipped(posterior: Posterior, members: int, generator: Generator) -> Ensemble:
        ensemble = exact_sampler()(posterior, members, generator)
        return Ensemble(ensemble.samples.clamp(-285, 285))

    for broken in (exact_sampler(unit=0.5), clipped):
        with pytest.raises(AssertionError, match="units"):
            check_unit_independence(broken, build)


def test_check_unit_independence_reads_the_generator_without_advancing_it() -> None:
    generator = Generator().manual_seed(3)
    before = generator.get_state()
    check_unit_independence(exact_sampler(), lambda f: problem(f)[0], generator=generator)
    assert torch.equal(before, generator.get_state())
