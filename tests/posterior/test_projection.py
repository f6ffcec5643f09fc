"""DDRM, DDNM, DiffPIR and DDS against explicit matrices, exact laws and closed forms."""

import itertools

import pytest
import torch
from torch import Generator

from scidiff.benchmark.exact import blurred_sensors, inpainting
from scidiff.inference import Cost, Likelihood, Posterior
from scidiff.noise import GaussianNoise, PoissonNoise
from scidiff.operators import Convolution, Downsampling, LinearMap, Mask
from scidiff.posterior import DDNM, DDRM, DDS, DiffPIR
from scidiff.posterior.base import Run
from scidiff.posterior.ddnm import replace
from scidiff.posterior.ddrm import restore
from scidiff.posterior.diffpir import closed_form, descend, solve
from scidiff.posterior.spectrum import Spectrum
from scidiff.priors import GaussianPrior
from scidiff.rng import Streams
from scidiff.testing import check_unit_independence, compare_with_exact

F64 = torch.float64
SHAPE, ROWS = (1, 2, 3), 4
SINGULAR = torch.tensor([200.0, 9.0, 1.1, 0.3, 1e-3], dtype=F64)  # in units of the noise, for a field of unit variance


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=F64)


def orthogonal(n: int, seed: int) -> torch.Tensor:
    return torch.linalg.qr(random(n, n, seed=seed)).Q


def matrix(scale: float = 1.0, std: float = 1.0) -> torch.Tensor:
    """A (5, 6) matrix whose whitened form has `SINGULAR`; one direction is not seen."""
    return std / scale * orthogonal(5, 1) * SINGULAR @ orthogonal(6, 2)[:, :5].mT


def posterior(rows: int = ROWS, scale: float = 1.0, std: float = 1.0) -> Posterior:
    root = torch.eye(6, dtype=F64) + 0.4 * random(6, 6, seed=3)
    cov = root @ root.mT
    prior = GaussianPrior(torch.full(SHAPE, 7.0, dtype=F64), scale**2 * cov / cov.trace() * 6)
    A = LinearMap(matrix(scale, std), SHAPE)
    y = A(prior.sample(rows, Generator().manual_seed(4))) + std * random(rows, 5, seed=5)
    return Posterior(prior, Likelihood(A, GaussianNoise(std), y))


def run_of(p: Posterior, seed: int = 0) -> Run:
    return Run(p, Streams(seed, [0], p.batch), Cost())


def dense(p: Posterior) -> tuple[torch.Tensor, torch.Tensor]:
    """Whitened operator in the coordinates of the state, and the whitened residual of u = 0."""
    part = p.likelihoods[0]
    r = (part.y - part.operator(p.prior.decode(torch.zeros(p.batch, *SHAPE, dtype=F64)))) / part.noise.std
    return part.operator.matrix * p.prior.scale / part.noise.std, r


class Basis:
    """In place of random numbers the unit vectors of all that is random, one per row; row 0 has none.

    Whatever is affine in the random numbers then has as its covariance the sum of squares over rows, exactly.
    """

    def __init__(self, first: int, draws: int, size: int) -> None:
        self.rows, self.next, self.size = first + draws * size, first, size

    def __len__(self) -> int:
        return self.rows

    def randn_like(self, u: torch.Tensor) -> torch.Tensor:
        z = torch.zeros(self.rows, self.size, dtype=u.dtype)
        z[self.next : self.next + self.size] = torch.eye(self.size, dtype=u.dtype)
        self.next += self.size
        return z.reshape(u.shape)


class Knows(GaussianPrior):
    """A prior whose denoised state is the truth, which is zero in the unseen direction, as is the mean of the start."""

    truth = (torch.linalg.pinv(matrix()) @ matrix() @ torch.linspace(-1, 2, 6, dtype=F64)).reshape(SHAPE)

    def denoise(self, u, sigma):
        return self.truth.expand_as(u).clone()


METHODS = [
    DDRM(7),
    DDRM(7, eta=0.0),
    DDRM(7, eta=1.0, eta_b=0.6),
    DDNM(7),
    DDNM(6, eta=0.4, stretch=2, repeats=2),
]


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_law_of_the_state_is_exact(method) -> None:
    """With the truth as the denoised state, every level b has the law N(u_0, b^2 I), data noise included."""
    levels = method.levels() if isinstance(method, DDNM) else method.schedule(method.steps).tolist()
    streams = Basis(1 + 5, len(levels) - 1, 6)  # the data noise comes first
    prior = Knows(torch.zeros(SHAPE, dtype=F64), 4.0)
    A = LinearMap(matrix(scale=2.0, std=0.5), SHAPE)
    noise = torch.zeros(len(streams), 5, dtype=F64)
    noise[1:6] = 0.5 * torch.eye(5, dtype=F64)
    y = A(prior.decode(prior.truth[None])) + noise
    visited = []

    def callback(step, steps, sigma, u):
        visited.append(sigma)
        deviation = (u[1:] - u[0]).flatten(1)
        assert torch.allclose(u[0], prior.truth, atol=1e-9 * (1 + sigma))
        covariance = deviation.mT @ deviation
        assert torch.allclose(covariance, sigma**2 * torch.eye(6, dtype=F64), rtol=1e-9, atol=1e-9 * sigma**2)

    method.draw(Run(Posterior(prior, Likelihood(A, GaussianNoise(0.5), y)), streams, Cost(), callback))
    assert visited == levels[1:]
    bounds = 1 / SINGULAR
    assert any(float(bounds[2]) < b < float(bounds[3]) for b in levels)  # both lines of the recipe were used


@pytest.mark.parametrize(("a", "b"), [(80.0, 30.0), (30.0, 2.0), (1.5, 0.5), (0.5, 0.05), (0.05, 0.0)])
@pytest.mark.parametrize(("eta", "eta_b"), [(0.85, 1.0), (0.3, 0.7)])
def test_one_step_of_ddrm_component_by_component(a: float, b: float, eta: float, eta_b: float) -> None:
    p = posterior(scale=3.0, std=0.2)
    M, r = dense(p)
    U, S, Vh = torch.linalg.svd(M)
    u, D = a * random(ROWS, *SHAPE, seed=6), random(ROWS, *SHAPE, seed=7)
    z = Streams(9, [0], ROWS).randn(SHAPE, dtype=F64)
    c_u, c_D, c_z, y = u.flatten(1) @ Vh.mT, D.flatten(1) @ Vh.mT, z.flatten(1) @ Vh.mT, r @ U
    c = torch.empty_like(c_u)
    keep = (1 - eta**2) ** 0.5
    for i in range(6):
        s = float(S[i]) if i < 5 else 0.0
        if s == 0:
            c[:, i] = c_D[:, i] + keep * b / a * (c_u[:, i] - c_D[:, i]) + eta * b * c_z[:, i]
        elif b < 1 / s:
            c[:, i] = c_D[:, i] + keep * b * s * (y[:, i] / s - c_D[:, i]) + eta * b * c_z[:, i]
        else:
            fresh = (b**2 - eta_b**2 / s**2) ** 0.5
            c[:, i] = (1 - eta_b) * c_D[:, i] + eta_b * y[:, i] / s + fresh * c_z[:, i]
    got = restore(Spectrum.of(p), u, D, a, b, Streams(9, [0], ROWS), eta, eta_b)
    assert torch.allclose(got.flatten(1), c @ Vh, rtol=1e-9, atol=1e-9 * max(a, 1))


@pytest.mark.parametrize("b", [2.0, 0.0])
def test_one_step_of_ddnm_with_the_pseudo_inverse(b: float) -> None:
    p, a, eta = posterior(scale=3.0, std=0.2), 5.0, 0.85
    M, r = dense(p)
    u, D = a * random(ROWS, *SHAPE, seed=6), random(ROWS, *SHAPE, seed=7)
    x = D.flatten(1) - (D.flatten(1) @ M.mT - r) @ torch.linalg.pinv(M).mT
    z = Streams(9, [0], ROWS).randn(SHAPE, dtype=F64).flatten(1)
    expected = x + (1 - eta**2) ** 0.5 * b / a * (u - D).flatten(1) + eta * b * z
    got = replace(Spectrum.of(p), u, D, a, b, Streams(9, [0], ROWS), eta)
    assert torch.allclose(got.flatten(1), expected, rtol=1e-8, atol=1e-8)


SEEN = {
    "mask": (lambda: Mask(torch.arange(30).reshape(5, 6) % 3 > 0), (2, 5, 6)),
    "blur": (lambda: Convolution(torch.tensor([[0.2, 0.5, 0.1], [0.0, 0.1, 0.1]]), (5, 6)), (2, 5, 6)),
    "coarse": (lambda: Downsampling((1, 3), (5, 6)), (2, 5, 6)),
    "line": (lambda: Downsampling(2, (8,)), (1, 8)),
    "volume": (lambda: Convolution(torch.ones(2, 2, 1) / 4, (3, 4, 2)), (1, 3, 4, 2)),
}


@pytest.mark.parametrize("name", list(SEEN))
def test_ddnm_explains_the_data_exactly(name: str) -> None:
    build, shape = SEEN[name]
    operator = build()
    prior = GaussianPrior(torch.full(shape, 280.0, dtype=F64), 25.0)
    y = operator(prior.sample(2, Generator().manual_seed(0)))
    draws = DDNM(20, noisy=False)(Posterior(prior, Likelihood(operator, GaussianNoise(0.01), y)), 3).samples
    error = operator(draws.flatten(0, 1)) - y.repeat(3, *[1] * (y.ndim - 1))
    assert float(error.abs().max()) < 1e-9 * 280
    if name != "blur":  # which has an inverse
        assert float(draws.std(0).max()) > 1  # the rest is free


def test_ddnm_plus_is_ddrm_without_travel() -> None:
    p = inpainting().posterior
    ours = DDNM(12, eta=0.6)(p, 3, Generator().manual_seed(0)).samples
    assert torch.equal(ours, DDRM(12, eta=0.6)(p, 3, Generator().manual_seed(0)).samples)


def test_time_travel_visits_each_stretch_again() -> None:
    method = DDNM(5, stretch=2, repeats=2)
    sigma = method.schedule(5).tolist()  # 5 levels, then zero; index 4 - k has k levels below it
    assert method.levels() == [sigma[i] for i in (0, 1, 2, 0, 1, 2, 3, 4, 2, 3, 4, 5)]
    assert DDNM(5).levels() == sigma
    ensemble = method(inpainting().posterior, 2)
    assert ensemble.cost.denoiser == 9


@pytest.mark.parametrize("w", [1e-4, 0.3, 50.0])
def test_proximal_step_of_linear_operators(w: float) -> None:
    """The closed form and conjugate gradients are the solution of the normal equations."""
    p = posterior(scale=3.0, std=0.2)
    M, r = dense(p)
    D = random(ROWS, *SHAPE, seed=7)
    right = (r - D.flatten(1) @ M.mT) @ M
    x = D.flatten(1) + torch.linalg.solve(M.mT @ M + w * torch.eye(6, dtype=F64), right.mT).mT
    assert torch.allclose(closed_form(Spectrum.of(p), D, w).flatten(1), x, rtol=1e-7, atol=1e-7)
    assert torch.allclose(solve(run_of(p), D, w, 60, 1e-12).flatten(1), x, rtol=1e-5, atol=1e-5)


def test_proximal_step_of_nonlinear_operators() -> None:
    """y = x + x^3 / 2, entry by entry: the minimiser is the root of one increasing function."""
    prior = GaussianPrior(torch.zeros(SHAPE, dtype=F64), 1.0)

    def operator(x):
        return x + x**3 / 2

    truth, w = random(ROWS, *SHAPE, seed=1), 0.7
    p = Posterior(prior, Likelihood(operator, GaussianNoise(0.1), operator(truth)))
    D = truth + random(ROWS, *SHAPE, seed=2)
    low, high = torch.full_like(D, -10), torch.full_like(D, 10)
    for _ in range(80):  # bisection of the derivative
        x = (low + high) / 2
        slope = (operator(x) - operator(truth)) / 0.01 * (1 + 1.5 * x**2) + w * (x - D)
        low, high = torch.where(slope < 0, x, low), torch.where(slope < 0, high, x)
    run = run_of(p)
    assert torch.allclose(descend(run, D, w, 12, 20, 1e-12), x, atol=1e-9)
    assert run.cost.operator == 24
    D, values = 5 * random(ROWS, *SHAPE, seed=3), []  # far away, where full steps overshoot
    for newton in range(1, 7):
        v = descend(run, D, w, newton, 20, 1e-12)
        values.append(run.measurement.residual(v).square().sum(1) + w * (v - D).flatten(1).square().sum(1))
    assert all(bool((after <= before).all()) for before, after in itertools.pairwise(values))
    assert bool((values[-1] < 0.9 * values[0]).all())


def test_nonlinear_draws_explain_the_data_in_any_unit() -> None:
    def build(factor: float) -> Posterior:
        prior = GaussianPrior(torch.full((1, 4, 5), 280.0 * factor, dtype=F64), (5.0 * factor) ** 2)

        def operator(x):
            v = (x / factor - 280) / 5
            return v + v**3

        x = prior.sample(1, Generator().manual_seed(0))
        return Posterior(prior, Likelihood(operator, GaussianNoise(0.1), operator(x)))

    check_unit_independence(DiffPIR(5), build, factors=(1e-6,), members=2, tolerance=1e-4)
    p = build(1.0)
    draws = DiffPIR(5)(p, 4, Generator().manual_seed(0)).samples[:, 0]
    assert float(p.likelihoods[0].tile(4).chi2(draws).mean()) < 0.5


def test_diffpir_is_its_formula() -> None:
    """Four steps with explicit matrices; closed form and conjugate gradients."""
    p = posterior(scale=3.0, std=0.2)
    M, r = dense(p)
    method = DiffPIR(4, lam=2.0, zeta=0.3, iterations=60, tolerance=1e-12)
    streams, levels = Streams(0, [0], ROWS), method.schedule(4).tolist()
    u = levels[0] * streams.randn(SHAPE, dtype=F64)
    for a, b in zip(levels, levels[1:], strict=False):
        D = p.prior.denoise(u, torch.tensor(a, dtype=F64)).flatten(1)
        system = M.mT @ M + 2.0 / a**2 * torch.eye(6, dtype=F64)
        x = (D + torch.linalg.solve(system, ((r - D @ M.mT) @ M).mT).mT).reshape(u.shape)
        z = streams.randn(SHAPE, dtype=F64)
        u = x + b * (0.7**0.5 * (u - x) / a + 0.3**0.5 * z)
    assert torch.allclose(method.draw(run_of(p)), u, rtol=1e-4, atol=1e-4)

    masked = inpainting(dtype=F64).posterior
    assert Spectrum.structured(masked) is not None
    assert Spectrum.structured(p) is None
    part = masked.likelihoods[0]
    std = torch.full((32,), 1 / 3, dtype=F64)  # the same noise in a form that keeps no structure
    other = Posterior(masked.prior, Likelihood(part.operator, GaussianNoise(std), part.y))
    assert Spectrum.structured(other) is None
    seed = Generator().manual_seed(0)
    assert torch.allclose(DiffPIR(10)(masked, 2, seed).samples, DiffPIR(10)(other, 2, seed).samples, atol=1e-6)


def test_dds_is_its_formula() -> None:
    """Four steps with explicit matrices, conjugate gradients run to the end."""
    p = posterior(scale=3.0, std=0.2)
    M, r = dense(p)
    method, weight = DDS(4, gamma=0.06, iterations=12, eta=0.7), 0.06
    streams, levels = Streams(0, [0], ROWS), method.schedule(4).tolist()
    u = levels[0] * streams.randn(SHAPE, dtype=F64)
    for a, b in zip(levels, levels[1:], strict=False):
        D = p.prior.denoise(u, torch.tensor(a, dtype=F64))
        right = weight * (r - D.flatten(1) @ M.mT) @ M
        x = D + torch.linalg.solve(torch.eye(6, dtype=F64) + weight * M.mT @ M, right.mT).mT.reshape(u.shape)
        c = 0.7 * b * (1 - b**2 / a**2) ** 0.5
        u = x + (b**2 - c**2) ** 0.5 * (u - D) / a
        u = u + c * streams.randn(SHAPE, dtype=F64) if b > 0 else u
    assert torch.allclose(method.draw(run_of(p)), u, rtol=1e-8, atol=1e-8)


def test_counting_noise() -> None:
    """DDS and DiffPIR weigh counts with their variance: near the best linear estimate, where the prior alone is 9 x."""
    prior = GaussianPrior(torch.full((1, 4, 5), 80.0), 640.0)
    noise, operator = PoissonNoise(), Mask(torch.arange(20).reshape(4, 5) % 2 == 0)
    z = operator(prior.sample(64, Generator().manual_seed(0)))
    z = z.clamp(min=1)
    p = Posterior(prior, Likelihood(operator, noise, noise.sample(z, Generator().manual_seed(1))))
    floor = 1 / (1 / 640 + 1 / 80)
    for method in (DDS(50), DiffPIR(50)):
        draws = method(p, 8, Generator().manual_seed(0)).samples
        assert float((operator(draws.mean(0)) - z).square().mean()) < 1.6 * floor
    with pytest.raises(TypeError, match="needs gaussian"):
        DDRM()(p, 2)


@pytest.mark.parametrize(
    ("method", "mean", "trace", "coverage"),
    [
        (DDRM(), 0.36, (0.8, 0.95), (0.91, 0.96)),
        (DDRM(20, eta=0.85), 0.36, (0.6, 0.75), (0.94, 0.98)),  # the published settings: a third is lost
        (DDNM(), 0.2, (0.6, 0.75), (0.94, 0.98)),
        (DiffPIR(), 0.3, (0.9, 1.1), (0.88, 0.93)),
        (DDS(), 0.45, (0.8, 0.95), (0.92, 0.96)),
    ],
    ids=repr,
)
@pytest.mark.parametrize("seed", [0, 1])
def test_what_they_reach_on_a_gaussian_field(method, mean, trace, coverage, seed) -> None:
    problem = inpainting(seed)
    ensemble = method(problem.posterior, 512, Generator().manual_seed(seed))
    report = compare_with_exact(ensemble.samples[:, 0], problem.exact)
    assert report.mean_error < mean
    assert trace[0] <= report.trace_ratio <= trace[1]
    assert coverage[0] <= report.coverage <= coverage[1]


def test_data_below_the_noise_are_used() -> None:
    """All singular values below the noise at the last levels still move the draws towards the truth."""
    problem = blurred_sensors()
    chi2 = problem.posterior.likelihoods[0].tile(32).chi2
    prior = problem.posterior.prior.sample(32, Generator().manual_seed(0))
    for method in (DDRM(), DDNM(), DDS(), DiffPIR()):
        draws = method(problem.posterior, 32, Generator().manual_seed(0)).samples[:, 0]
        assert float(chi2(draws).mean()) < 0.05 * float(chi2(prior).mean())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DDRM(eta=1.5), "eta must lie"),
        (lambda: DDRM(eta_b=-0.1), "eta_b must lie"),
        (lambda: DDRM(steps=0), "n must lie"),
        (lambda: DDNM(eta=2.0), "eta must lie"),
        (lambda: DDNM(repeats=0), "repeats"),
        (lambda: DiffPIR(lam=0.0), "lam must"),
        (lambda: DiffPIR(newton=0), "iterations and newton"),
        (lambda: DiffPIR(zeta=1.1), "zeta must lie"),
        (lambda: DiffPIR(tolerance=1.0), "tolerance"),
        (lambda: DDS(gamma=-1.0), "gamma and iterations"),
        (lambda: DDS(eta=1.1), "eta must lie"),
    ],
)
def test_wrong_parameters_are_explained(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_operator_without_decomposition_is_refused() -> None:
    prior = GaussianPrior(torch.zeros(1, 4), 1.0)
    p = Posterior(prior, Likelihood(lambda x: x.square(), GaussianNoise(0.1), torch.ones(1, 1, 4)))
    for method in (DDRM(), DDNM()):
        with pytest.raises(TypeError, match="needs linear, svd|needs svd"):
            method(p, 2)
    with pytest.raises(TypeError, match="needs linear"):
        DDS()(p, 2)
    assert DiffPIR(5)(p, 2, Generator().manual_seed(0)).samples.isfinite().all()
