"""Random fields in boxes: dense twins, Matern's formula, density, the wall conditions, fields of two grids."""

import math

import pytest
import torch
from scipy.special import gamma, kv
from torch import Generator

from scidiff.linalg import Cosine, Sine, Stationary, laplacian_power, matern, sine_basis
from scidiff.priors import GaussianPrior

F64 = torch.float64
WALLS = {"periodic": Stationary, "slope": Cosine, "zero": Sine}


def rng() -> Generator:
    return Generator().manual_seed(0)


def functions(walls: str, k: int, x: torch.Tensor, length: float) -> list[torch.Tensor]:
    """Orthonormal eigenfunctions of number k in (0, length), and -Laplacian's root."""
    if walls == "slope":
        return [math.sqrt((1 if k == 0 else 2) / length) * torch.cos(math.pi * k * x / length)]
    if walls == "zero":
        return [math.sqrt(2 / length) * torch.sin(math.pi * k * x / length)]
    w = 2 * math.pi * k / length
    pair = [torch.cos(w * x), torch.sin(w * x)]
    return [torch.full_like(x, length**-0.5)] if k == 0 else [math.sqrt(2 / length) * f for f in pair]


@pytest.mark.parametrize("walls", WALLS)
def test_the_covariance_is_the_series_of_eigenfunctions(walls):
    """Sum over modes that the grid resolves, point by point, in a box of sides 1.5 and 1; highest modes left out."""
    grid, lengths = (9, 7), (1.5, 1.0)  # odd: no Fourier mode without a partner
    cov = laplacian_power(grid, 1.5, 2.0, walls, lengths=lengths)
    assert isinstance(cov, WALLS[walls])
    axes = [(torch.arange(n, dtype=F64) + 0.5) * length / n for n, length in zip(grid, lengths, strict=True)]
    total = torch.zeros(63, 63, dtype=F64)
    unit = 2 * math.pi if walls == "periodic" else math.pi
    count = [n // 2 + 1 if walls == "periodic" else n for n in grid]
    first = 1 if walls == "zero" else 0
    for k in range(first, count[0] + first):
        for q in range(first, count[1] + first):
            lam = (unit**2 * ((k / 1.5) ** 2 + q**2) + 4.0) ** -1.5
            for f in functions(walls, k, axes[0], 1.5):
                for g in functions(walls, q, axes[1], 1.0):
                    last = 0.5 if walls == "zero" and k == 9 else 1.0  # sampled, the last sine has twice the norm
                    last *= 0.5 if walls == "zero" and q == 7 else 1.0
                    mode = torch.outer(f, g).flatten()
                    total += last * lam * torch.outer(mode, mode)
    assert torch.allclose(cov.dense(), total, rtol=1e-10, atol=1e-14)
    assert torch.allclose(cov.diagonal().flatten(), total.diagonal(), rtol=1e-10)


@pytest.mark.parametrize("walls", WALLS)
def test_density_root_and_draws_against_the_dense_matrix(walls):
    cov = laplacian_power((4, 5), 1.5, 2.0, walls, variance=2.0, channels=2)
    assert cov.trace / 40 == pytest.approx(2.0, rel=1e-12)
    prior, matrix = GaussianPrior(torch.zeros(2, 4, 5, dtype=F64), cov), cov.dense()
    x = torch.randn(3, 2, 4, 5, generator=rng(), dtype=F64)
    law = torch.distributions.MultivariateNormal(torch.zeros(40, dtype=F64), matrix)
    assert torch.allclose(prior.log_prob(x), law.log_prob(x.flatten(1)), rtol=1e-10)
    assert torch.allclose(cov.sqrt_matmul(cov.sqrt_matmul(x)), cov.matmul(x), atol=1e-12)
    assert torch.allclose(cov.whiten_adjoint(cov.whiten(x)), cov.solve(x), atol=1e-9)
    spectrum = cov.eigenvalues.expand(2, 4, 5).flatten().sort().values
    assert torch.allclose(spectrum, torch.linalg.eigvalsh(matrix), rtol=1e-9)
    draws = prior.sample(20_000, rng()).flatten(1)
    assert float((draws.mT @ draws / 20_000 - matrix).abs().max()) < 5 * float(matrix.diagonal().max()) * 0.01


def test_matern_far_from_walls_has_matern_s_covariance():
    """Periodic and reflecting boxes of 12 correlation lengths, the cells well below one; nu = 3/2."""
    nu, length, n = 1.5, 1.0, 192
    for walls in WALLS:
        cov = matern((n, n), nu, length, walls, variance=None, lengths=(12.0, 12.0))
        spot = torch.zeros(1, n, n, dtype=F64)
        spot[0, n // 2, n // 2] = 1
        row = cov.matmul(spot)[0, n // 2]
        r = torch.arange(0, n // 4).to(F64) * 12.0 / n
        z = (math.sqrt(2 * nu) * r[1:] / length).numpy()
        expected = torch.as_tensor(2 ** (1 - nu) / gamma(nu) * z**nu * kv(nu, z))
        found = row[n // 2 : n // 2 + n // 4] / row[n // 2]
        assert float((found[1:] - expected).abs().max()) < 0.01, walls


def test_walls():
    """Values beside a wall: none, no slope, those of the opposite wall."""
    draws = {w: laplacian_power((200, 8), 3.0, 2.0, w, variance=1.0).sample(rng(), 200, F64) for w in WALLS}
    near = {w: x[:, 0] for w, x in draws.items()}
    step = {w: (x[:, 1] - x[:, 0]).square().mean().sqrt() for w, x in draws.items()}
    assert float(near["zero"].std()) < 0.02 < 0.5 < float(near["slope"].std())
    assert float(step["slope"]) < 0.1 * float((draws["slope"][:, 101] - draws["slope"][:, 100]).std())
    jump = (draws["periodic"][:, 0] - draws["periodic"][:, -1]).square().mean().sqrt()
    assert float(jump) == pytest.approx(float(step["periodic"]), rel=0.2)


@pytest.mark.parametrize("walls", ["slope", "zero"])
def test_two_grids_show_one_law(walls):
    """The variance at the same point, three times finer."""
    coarse, fine = (laplacian_power((n, n), 2.0, 3.0, walls).diagonal() for n in (16, 48))
    assert float((coarse - fine[1::3, 1::3]).abs().max()) < 0.02 * float(fine.max())


def test_without_constant_mode():
    for walls in ("periodic", "slope"):
        cov = laplacian_power((6, 5), tau=0.0, walls=walls, constant=False)
        assert float(cov.sample(rng(), 3, F64).mean((1, 2)).abs().max()) < 1e-14
    same = laplacian_power((6, 5), walls="slope", variance=1.0).eigenvalues
    assert torch.allclose(same, Cosine.matern((6, 5)).eigenvalues, rtol=1e-12)


def test_sines_are_orthonormal():
    assert torch.allclose(sine_basis(7) @ sine_basis(7).mT, torch.eye(7, dtype=F64), atol=1e-14)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"lengths": (1.0,)}, "2 positive numbers"),
        ({"lengths": (1.0, 0.0)}, "2 positive numbers"),
        ({"alpha": 0.0}, "alpha and variance must be positive"),
        ({"variance": -1.0}, "alpha and variance must be positive"),
        ({"tau": 0.0}, "constant mode has no finite variance"),
        ({"walls": "open"}, "walls must be"),
    ],
)
def test_bad_laws(options, message):
    with pytest.raises(ValueError, match=message):
        laplacian_power((4, 5), **options)
    with pytest.raises(ValueError, match="smoothness and length"):
        matern((4, 5), 0.0, 1.0)
