"""Simulators of fields: the law they claim, equations that hold, and the same field for the same stream."""

import math

import pytest
import torch

from scidiff.datasets.gaussian_field import GaussianFields
from scidiff.datasets.poisson_pairs import PoissonPairs
from scidiff.datasets.sources import SIMULATORS, training_data
from scidiff.errors import InputError
from scidiff.operators.pde.elliptic import Poisson
from scidiff.priors import GaussianPrior
from scidiff.solvers.laplace import BoxLaplacian

QUICK = {
    "kolmogorov": {"shape": [16, 24], "forcing": 2, "trajectories": 3, "start": 0.4, "stop": 1.6},
    "lorenz63": {"chains": 4, "states": 20, "burn_in": 5},
    "lorenz96": {"chains": 4, "states": 20, "burn_in": 5, "size": 6},
    "rings": {"shape": [20, 24]},
    "compact-sources": {"shape": [20, 24]},
    "vorticity": {"shape": [12, 16], "trajectories": 3, "start": 1.0, "stop": 2.0, "every": 0.5, "forcing": 3},
}
GRID = {"kolmogorov": (3, 16, 24), "vorticity": (12, 16), "lorenz63": (16,), "lorenz96": (9, 6)}


def gen(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", SIMULATORS)
def test_a_field_depends_on_its_stream_alone(kind: str) -> None:
    data, again = (training_data(kind, **QUICK.get(kind, {})) for _ in range(2))
    grid = GRID.get(kind, (20, 24))
    first = data.source(gen(3), grid)
    assert isinstance(first, torch.Tensor) and first.dtype == torch.float32
    assert first.shape == (data.channels, *grid) and bool(torch.isfinite(first).all())
    data.source(gen(4), grid)  # a draw changes nothing for the next
    assert torch.equal(first, data.source(gen(3), grid))
    assert torch.equal(first, again.source(gen(3), grid))
    assert not torch.equal(first, data.source(gen(4), grid))
    stream = gen(3)
    assert torch.equal(data.source(stream, grid), first) and not torch.equal(data.source(stream, grid), first)
    assert data.validation is not None and data.validation(gen(3), grid).shape == first.shape
    for value in (data.loc, data.scale):
        assert isinstance(value, float) or len(value) == data.channels


@pytest.mark.parametrize("kind", SIMULATORS)
def test_wrong_options_are_named(kind: str) -> None:
    with pytest.raises(InputError, match="has no 'nonsense'"):
        training_data(kind, nonsense=1)


@pytest.mark.parametrize(
    ("kind", "options", "match"),
    [
        ("gaussian-field", {"boundary": "open"}, "kind 'gaussian-field': boundary must be 'periodic' or 'reflect'"),
        ("gaussian-field", {"tau": 0.0}, "must be positive"),
        ("poisson-pairs", {"alpha": -1.0}, "must be positive"),
        ("rings", {"shape": [4, 4]}, "at least 8 pixels"),
        ("rings", {"transform": {"kind": "log", "scale": -1.0}}, "scale must be positive"),
        ("patches", {"pictures": ["lena"]}, "no picture 'lena'"),
    ],
)
def test_wrong_values_say_what_is_expected(kind: str, options: dict, match: str) -> None:
    with pytest.raises(InputError, match=match):
        training_data(kind, **options)


@pytest.mark.parametrize(("boundary", "wave"), [("periodic", 2 * math.pi), ("reflect", math.pi)])
@pytest.mark.parametrize("grid", [(6, 9), (15,), (3, 4, 5)])
def test_the_gaussian_field_has_the_covariance_it_claims(boundary: str, wave: float, grid: tuple[int, ...]) -> None:
    """The matrix, built from the modes' formula, and 20000 draws of it."""
    source = GaussianFields(alpha=1.3, tau=4.0, boundary=boundary)
    d = math.prod(grid)
    axes = []
    for n in grid:
        i, k = torch.arange(n).double() + 0.5, torch.arange(n).double()[:, None]
        if boundary == "reflect":
            basis, number = torch.cos(math.pi * k * i / n), k[:, 0]
        else:  # cosines and sines of whole waves; the alternating field for an even number of points
            number = (k[:, 0] + 1).div(2, rounding_mode="floor")
            phase = 2 * math.pi * number[:, None] * (i - 0.5) / n
            basis = torch.where(k % 2 == 0, torch.cos(phase), torch.sin(phase))
            if n % 2 == 0:
                basis[-1] = torch.cos(math.pi * (i - 0.5))
        axes.append((basis / basis.norm(dim=1, keepdim=True), number))
    modes, square = torch.ones(1, 1).double(), torch.zeros(1).double()
    for basis, number in axes:
        modes = torch.kron(modes, basis)
        square = (square[:, None] + (wave * number) ** 2).flatten()
    power = (square + 4.0**2) ** -1.3
    expected = modes.T @ torch.diag(power / power.mean()) @ modes
    covariance = source.covariance(grid)
    torch.testing.assert_close(covariance.dense(), expected, rtol=1e-10, atol=1e-12)
    assert covariance.trace == pytest.approx(d)
    g = gen(0)
    draws = torch.stack([source(g, grid) for _ in range(4000)]).flatten(1).double()
    white = draws @ torch.linalg.inv(torch.linalg.cholesky(expected)).T
    error = white.T @ white / len(white) - torch.eye(d)
    assert error.abs().max() < 5.5 * math.sqrt(2 / len(white))
    assert white.mean(0).abs().max() < 4.5 / math.sqrt(len(white))
    fourth = white.pow(4).mean()  # normal: 3 with deviation sqrt(96 / numbers)
    assert abs(float(fourth) - 3) < 4 * math.sqrt(96 / white.numel())


def test_the_exact_prior_of_the_gaussian_field_denoises_it_at_the_exact_error() -> None:
    grid, sigma = (16, 12), 0.7
    source = GaussianFields(mean=280.0, std=5.0, channels=2)
    covariance = source.covariance(grid)
    prior = GaussianPrior(torch.full((2, *grid), 280.0, dtype=torch.float64), covariance.scaled(25.0))
    g = gen(1)
    u = torch.stack([source(g, grid) for _ in range(200)]).double()
    noisy = u + sigma * torch.randn(u.shape, generator=g, dtype=torch.float64)
    errors = (prior.denoise(noisy, torch.tensor(sigma)) - u).square().flatten(1).mean(1)
    lam = covariance.eigenvalues
    expected = float((lam * sigma**2 / (lam + sigma**2)).mean())
    assert float(errors.mean()) == pytest.approx(expected, abs=4 * float(errors.std()) / math.sqrt(len(errors)))
    assert float(prior.decode(u[:1]).mean()) == pytest.approx(280.0 + 5 * float(u[0].mean()))


def test_finer_grids_of_the_gaussian_field_show_the_same_law() -> None:
    """Covariance at a distance of a quarter of the box, on 16 and on 64 points."""
    source = GaussianFields(alpha=2.0, tau=5.0)
    values = []
    for n in (16, 64):
        kernel = torch.fft.ifftn(source.covariance((n, n)).eigenvalues).real
        values.append(float(kernel[0, n // 4] / kernel[0, 0]))
    assert values[0] == pytest.approx(values[1], rel=0.05) and values[0] > 0.05


@pytest.mark.parametrize("grid", [(7,), (5, 8), (3, 4, 5)])
def test_the_laplacian_of_the_simulators_is_that_of_the_operators(grid: tuple[int, ...]) -> None:
    a = torch.randn(3, *grid, generator=gen(0), dtype=torch.float64)
    torch.testing.assert_close(BoxLaplacian(grid).solve(a), Poisson(grid)(a), rtol=1e-12, atol=1e-14)


def test_poisson_pairs_solve_the_equation_and_have_the_variance_they_claim() -> None:
    grid = (24, 20)
    source = PoissonPairs(alpha=2.0, tau=3.0, shape=grid)
    g = gen(0)
    u = torch.stack([source(g, grid) for _ in range(1500)]).double()
    a, p = (u[:, i] * s for i, s in enumerate(source.scale))
    assert Poisson(grid)(a).sub(p).abs().max() < 2e-6 * p.abs().max()
    # One mode carries most of the variance, so that of 1500 fields is known to some percent.
    per_field = u.square().flatten(2).mean(2)
    error = 4.5 * per_field.std(0) / math.sqrt(len(u))
    assert bool(((per_field.mean(0) - 1).abs() < error).all()) and bool((error < 0.25).all())
    assert u.mean((0, 2, 3)).abs().max() < 0.15


def test_the_variance_of_the_poisson_solution_is_that_of_the_dense_matrices() -> None:
    grid = (5, 8)
    source = PoissonPairs(alpha=1.5, tau=2.0, shape=grid)
    covariance, laplacian = source._parts(grid)
    eye = torch.eye(40, dtype=torch.float64).reshape(40, 5, 8)
    G = laplacian.solve(eye).reshape(40, 40)
    expected = float((G @ covariance.dense() @ G.T).trace()) / 40
    assert source.variance(grid) == pytest.approx(expected, rel=1e-12)
    assert source.scale[1] == pytest.approx(math.sqrt(expected))
    assert PoissonPairs().scale[1] == pytest.approx(PoissonPairs(shape=(128, 128)).scale[1], rel=0.01)
