"""Kriging against conditioning with dense matrices, draws against the covariance, a large grid, bad input."""

import pytest
import torch
from torch import Generator

from scidiff.linalg import laplacian_power
from scidiff.noise import GaussianNoise
from scidiff.operators import LinearMap
from scidiff.priors import GaussianPrior, Kriging

F64 = torch.float64


def rng(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def field(walls: str = "slope", grid: tuple[int, int] = (5, 8)) -> GaussianPrior:
    cov = laplacian_power(grid, 2.0, 3.0, walls, variance=4.0, channels=1)  # type: ignore[arg-type]
    return GaussianPrior(torch.linspace(1, 2, grid[0] * grid[1], dtype=F64).reshape(1, *grid), cov)


PLACES = torch.tensor([3, 17, 4, 39, 22])
STD = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5], dtype=F64)


@pytest.mark.parametrize("walls", ["periodic", "slope", "zero"])
@pytest.mark.parametrize("matrix", [False, True])
def test_against_dense_conditioning(walls, matrix):
    prior = field(walls)
    at = torch.randn(5, 40, generator=rng(), dtype=F64) if matrix else PLACES
    rows = at if matrix else torch.eye(40, dtype=F64)[PLACES]
    y = torch.randn(5, generator=rng(1), dtype=F64)
    found = Kriging(prior, at, STD, y)
    dense = prior.condition(LinearMap(rows, (1, 5, 8)), GaussianNoise(STD), y[None])
    assert torch.allclose(found.mean, dense.mean, atol=1e-10)
    assert torch.allclose(found.variance, dense.variance, atol=1e-10)
    assert torch.allclose(found.covariance, dense.covariance, atol=1e-10)
    x = prior.sample(3, rng(2))
    assert torch.allclose(found.marginal_cdf(x), dense.marginal_cdf(x), atol=1e-8)
    assert torch.allclose(
        found.encode(x).square().mean((1, 2, 3)) * found.scale**2, (x - dense.mean).square().mean((1, 2, 3))
    )


def test_draws_are_those_of_the_posterior():
    found = Kriging(field(), PLACES, STD, torch.zeros(5))
    x = found.sample(40_000, rng()).flatten(1) - found.mean.flatten()
    size = float(found.covariance.diagonal().max())
    assert float((x.mT @ x / 40_000 - found.covariance).abs().max()) < 5 * size * (2 / 40_000) ** 0.5
    assert float(x.mean(0).abs().max()) < 5 * (size / 40_000) ** 0.5


def test_exact_data_are_met_by_the_mean_and_every_draw():
    y = torch.tensor([1.0, 2.0, -1.0, 0.5, 3.0], dtype=F64)
    found = Kriging(field(), PLACES, 0.0, y)
    assert torch.allclose(found.mean.flatten()[PLACES], y, atol=1e-9)
    assert torch.allclose(found.sample(3, rng()).flatten(1)[:, PLACES], y.expand(3, 5), atol=1e-9)
    assert float(found.variance.flatten()[PLACES].abs().max()) < 1e-9


def test_error_of_the_mean_is_the_trace():
    found = Kriging(field(), PLACES, STD, torch.zeros(5))
    x, guess = found.errors(5000, rng())
    assert float((guess - x).square().sum((1, 2, 3)).mean()) == pytest.approx(float(found.variance.sum()), rel=0.05)
    # the same fields and noises, as ratios of norms
    ratio = ((guess - x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)).mean()
    assert found.bayes_error(5000, rng()) == pytest.approx(float(ratio), rel=1e-12)


def test_pieces_change_nothing(monkeypatch):
    from scidiff.priors import kriging

    whole = Kriging(field(), PLACES, STD, torch.ones(5)).mean
    monkeypatch.setattr(kriging, "PIECE", 80)
    assert torch.allclose(Kriging(field(), PLACES, STD, torch.ones(5)).mean, whole, atol=1e-13)


def test_a_large_grid_is_cheap():
    """65 536 points: the covariance would take 34 GB; the values at the points are those of the small system."""
    prior = GaussianPrior(
        torch.zeros(1, 256, 256, dtype=F64), laplacian_power((256, 256), variance=1.0, channels=1, walls="periodic")
    )
    places = torch.randperm(256**2, generator=rng())[:40]
    y = prior.sample(1, rng(1)).flatten()[places] + 0.1 * torch.randn(40, generator=rng(3), dtype=F64)
    found = Kriging(prior, places, 0.1, y)
    draw = found.sample(1, rng(2))
    S = found.lower @ found.lower.mT
    expected = y - 0.01 * torch.linalg.solve(S, y)
    assert torch.allclose(found.mean.flatten()[places], expected, atol=1e-9)
    assert float((draw.flatten()[places] - y).abs().max()) < 0.6


@pytest.mark.parametrize(
    "at, std, y, message",
    [
        (torch.tensor([0, 40]), 0.1, torch.zeros(2), "between 0 and 39"),
        (torch.tensor([0, -1]), 0.1, torch.zeros(2), "between 0 and 39"),
        (torch.ones(2, 39), 0.1, torch.zeros(2), r"matrix \(n, 40\)"),
        (PLACES, 0.1, torch.zeros(4), "5 numbers are measured"),
        (PLACES, -0.1, torch.zeros(5), "must not be negative"),
        (torch.tensor([3, 3]), 0.0, torch.zeros(2), "determine each other"),
    ],
)
def test_bad_input(at, std, y, message):
    with pytest.raises(ValueError, match=message):
        Kriging(field(), at, std, y)


def test_complex_fields_are_refused():
    prior = GaussianPrior(torch.zeros(1, 2, 2, dtype=torch.complex64), 1.0)
    with pytest.raises(TypeError, match="two channels"):
        Kriging(prior, torch.tensor([0]), 0.1, torch.zeros(1))
