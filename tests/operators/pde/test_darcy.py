"""Darcy's flow: order of accuracy, layers, gradients, residual, an independent reference, one clear error each."""

import math

import numpy as np
import pytest
import torch
from torch import Generator

from scidiff.operators import Darcy, Frozen
from scidiff.solvers.darcy import divergence, pressure
from scidiff.solvers.laplace import BoxLaplacian
from scidiff.testing import check_batch_independence, check_vjp

F64 = torch.float64


def rough(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.where(torch.rand(shape, generator=Generator().manual_seed(seed), dtype=F64) < 0.5, 3.0, 12.0).to(F64)


def manufactured(k: int) -> tuple[Darcy, torch.Tensor, torch.Tensor]:
    """u = sin(pi x / 2) sin(2 pi y), a = 2 + sin(x + 3 y) in a box of sides 2 and 1; unequal cells."""
    h, w = 12 * k, 10 * k
    x = ((torch.arange(h).to(F64) + 0.5) * 2 / h)[:, None]
    y = ((torch.arange(w).to(F64) + 0.5) / w)[None]
    p, q = math.pi / 2, 2 * math.pi
    u = torch.sin(p * x) * torch.sin(q * y)
    a, slope = 2 + torch.sin(x + 3 * y), torch.cos(x + 3 * y)
    f = a * (p**2 + q**2) * u
    f = f - slope * p * torch.cos(p * x) * torch.sin(q * y) - 3 * slope * q * torch.sin(p * x) * torch.cos(q * y)
    return Darcy((h, w), f, (2.0, 1.0)), a[None, None], u[None, None]


def slope(errors: list[float]) -> float:
    return math.log2(errors[-2] / errors[-1])


def test_second_order_and_so_is_the_residual_of_the_true_solution():
    errors, residuals = [], []
    for k in (2, 4, 8):
        darcy, a, u = manufactured(k)
        errors.append(float((darcy(a) - u).square().mean().sqrt()))
        inside = darcy.residual(a, u)[..., 1:-1, 1:-1]  # beside a wall a flux is off by h, over a cell of width h
        residuals.append(float(inside.square().mean().sqrt()))
    assert slope(errors) == pytest.approx(2, abs=0.1) and slope(residuals) == pytest.approx(2, abs=0.1)
    assert residuals[-1] < 0.01 * float(darcy.source.square().mean().sqrt())


def test_residual_of_a_solution_of_a_finer_grid_falls_at_second_order():
    """A solution computed with three times the cells, read at the centres: a residual whose grid spacing is right."""
    found = []
    for k in (2, 4):
        coarse = manufactured(k)
        fine, a, _ = manufactured(3 * k)
        u = fine(a)[..., 1::3, 1::3]
        r = coarse[0].residual(coarse[1], u)[..., 1:-1, 1:-1]
        found.append(float(r.square().mean().sqrt() / coarse[0].source.square().mean().sqrt()))
    assert slope(found) == pytest.approx(2, abs=0.25) and found[-1] < 0.03


def test_the_residual_tells_the_solution_from_zero():
    darcy = Darcy((16, 20), 2.5)
    a = rough(2, 1, 16, 20)
    assert float(darcy.residual(a, darcy(a)).abs().max()) < 1e-8
    assert torch.equal(darcy.residual(a, torch.zeros_like(a)), torch.full_like(a, -2.5))


def test_layers_in_one_dimension_are_exact():
    """-(a u')' = 1 between walls: a u' = c - x with a constant c per cell, so u is known up to the cell's own bulge."""
    n = 24
    a = rough(1, n)
    u = Darcy((n,))(a)[0]
    h, resistance = 1 / n, 1 / a[0]
    edges = torch.arange(n + 1).to(F64) * h
    c = float((resistance * (edges[1:] ** 2 - edges[:-1] ** 2) / 2).sum() / (resistance * h).sum())
    flux = c - edges  # a u' at the faces, exact
    inside = 2 / (1 / a[0, 1:] + 1 / a[0, :-1]) * u.diff() * n
    found = torch.cat([2 * a[0, :1] * u[:1] * n, inside, -2 * a[0, -1:] * u[-1:] * n])
    # the discrete flux differs from the exact one by a constant: source in a cell acts at its centre, O(h^2)
    difference = found - flux
    assert float(difference.std()) < 1e-12 and float(difference.abs().max()) < h
    constant = torch.full((1, n), 3.0, dtype=F64)
    x = (torch.arange(n).to(F64) + 0.5) / n
    exact = x * (1 - x) / 6 + h**2 / 24  # of the scheme: u is off by the same number everywhere
    assert torch.allclose(Darcy((n,))(constant)[0], exact, atol=1e-12)


def test_gradient_in_coefficient_and_source():
    darcy = Darcy((6, 5), torch.rand(6, 5, generator=Generator().manual_seed(3), dtype=F64), (1.0, 2.0))
    a = rough(2, 1, 6, 5)
    assert check_vjp(darcy, a) < 1e-7
    laplacian = BoxLaplacian((6, 5), (1.0, 2.0))
    fields = torch.randn(2, 6, 5, generator=Generator().manual_seed(1), dtype=F64)
    check_vjp(lambda f: pressure(a[:, 0], f, laplacian, 1e-12), fields)
    check_vjp(lambda x: darcy.residual(x, fields[:, None]), a)


def test_the_gradient_can_be_differentiated_again():
    a, laplacian = rough(1, 4, 5).requires_grad_(), BoxLaplacian((4, 5))
    f = torch.ones(1, 4, 5, dtype=F64)
    assert torch.autograd.gradgradcheck(lambda x: pressure(x, f, laplacian, 1e-13), a, atol=1e-7, rtol=1e-5)


def test_rows_types_and_black_box():
    darcy, a = Darcy((8, 6)), rough(3, 1, 8, 6)
    check_batch_independence(darcy, a)
    u = darcy(a)
    single = darcy(a.float())
    assert single.dtype == torch.float32 and torch.allclose(single.to(F64), u, rtol=1e-4, atol=1e-7)
    assert torch.equal(Frozen(darcy)(a), u) and not Frozen(darcy).differentiable
    assert torch.allclose(darcy(a.exp().log().sqrt() ** 2), u, rtol=1e-9)
    contrast = torch.where(a > 5, 1e3, 1.0).to(F64)
    assert float(darcy.residual(contrast, darcy(contrast)).abs().max()) < 1e-9


@pytest.mark.parametrize("name, n, least", [("darcy_train_16", 16, 0.1), ("darcy_test_32", 32, 0.035)])
def test_independent_reference(real_data, name, n, least):
    """Pressures of another program, stored at every (1024 / n)-th of 1024 cells, as fields of zeros and ones.

    The two values of the permeability and the source are not stored. A contrast of 20 fits both files best of 16, 20
    and 24, and one source for both: all that is fitted to 16x16x8 and 32x32x4 numbers. What is left is the interface,
    known to half a stored cell: the error falls with it.
    """
    path = real_data / "pde" / f"{name}.npz"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    count, fine = 128 // n, 128
    with np.load(path) as stored:
        x, y = (torch.as_tensor(stored[key][:count]) for key in "xy")
    place = (torch.arange(n).to(F64) + 0.5 / (1024 // n)) / n
    nearest = ((torch.arange(fine) + 0.5)[:, None] / fine - place).abs().argmin(1)
    around = torch.stack(torch.meshgrid(2 * place - 1, 2 * place - 1, indexing="ij")[::-1], -1)
    errors = {}
    for contrast in (16.0, 20.0, 24.0):
        a = torch.where(x.bool(), contrast, 1.0).to(F64)[:, nearest][:, :, nearest]
        u = Darcy((fine, fine), 51.9, rtol=1e-6)(a[:, None])
        seen = torch.nn.functional.grid_sample(
            u, around.expand(count, n, n, 2), align_corners=False, padding_mode="border"
        )
        errors[contrast] = float(((seen[:, 0] - y).flatten(1).norm(dim=1) / y.to(F64).flatten(1).norm(dim=1)).mean())
    assert min(errors, key=errors.__getitem__) == 20.0 and errors[20.0] < least


@pytest.mark.parametrize(
    "field, message",
    [
        (torch.tensor([[[1.0, -2.0], [1.0, 1.0]]]), "positive and finite, its least value is -2"),
        (torch.tensor([[[1.0, 0.0], [1.0, 1.0]]]), "positive and finite, its least value is 0"),
        (torch.tensor([[[1.0, torch.nan], [1.0, 1.0]]]), "positive and finite, its least value is nan"),
        (torch.ones(1, 2, 3), r"shape \(1, 2, 3\).*expected real numbers \(B, ..., 2, 2\)"),
        (torch.ones(2, 2), "shape"),
    ],
)
def test_bad_fields(field, message):
    with pytest.raises(ValueError, match=message):
        Darcy((2, 2))(field)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"grid": (0, 4)}, "at least one cell"),
        ({"grid": (3, 4), "lengths": (1.0,)}, "2 positive numbers"),
        ({"grid": (3, 4), "source": torch.ones(4, 3)}, "the source has shape"),
        ({"grid": (3, 4), "source": math.inf}, "NaN or infinite"),
        ({"grid": (3, 4), "rtol": 0.0}, "rtol must lie"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        Darcy(**options)


def test_divergence_is_symmetric_and_positive():
    a = rough(1, 3, 4).expand(12, 3, 4)
    matrix = divergence(a, torch.eye(12, dtype=F64).reshape(12, 3, 4), (2.0, 1.0)).reshape(12, 12)
    assert torch.allclose(matrix, matrix.mT) and float(torch.linalg.eigvalsh(matrix).min()) > 0
