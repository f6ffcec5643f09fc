"""Periodic solvers on sides that are odd: the same flow on twice as many points, an even number, and gradients."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from scidiff.operators.pde import (
    AdvectionDiffusion,
    AllenCahn,
    Burgers,
    KuramotoSivashinsky,
    NavierStokes,
    VariableWave,
    Wave,
)
from scidiff.testing import check_vjp


def field(grid: tuple[int, ...], channels: int = 1, waves: int = 2) -> Tensor:
    """The same few waves on any grid of a periodic box, (2, channels, *grid)."""
    generator = torch.Generator().manual_seed(0)
    axes = [2 * math.pi * torch.arange(n, dtype=torch.float64) / n for n in grid]
    mesh = torch.meshgrid(*axes, indexing="ij")
    x = torch.zeros(2, channels, *grid, dtype=torch.float64)
    for row in x.flatten(0, 1):
        for _ in range(4):
            numbers = torch.randint(-waves, waves + 1, (len(grid),), generator=generator).tolist()
            phase = 2 * math.pi * float(torch.rand((), generator=generator))
            row += 0.5 * torch.cos(sum((k * m for k, m in zip(numbers, mesh, strict=True)), torch.zeros(grid)) + phase)
    return x


SOLVERS: list[tuple[str, Callable[[tuple[int, ...]], Any], tuple[int, ...], int]] = [
    ("navier-stokes", lambda g: NavierStokes(g, 10.0, (0.2, 0.4), steps=40, forcing=2, drag=0.1), (45, 51), 1),
    ("burgers 1d", lambda g: Burgers(g, 0.03, 0.1, steps=100), (121,), 1),
    ("burgers 2d", lambda g: Burgers(g, 0.1, 0.05, steps=50), (51, 57), 2),
    ("kuramoto-sivashinsky", lambda g: KuramotoSivashinsky(g[0], 20.0, 1.0, steps=100), (63,), 1),
    ("advection", lambda g: AdvectionDiffusion(g, 0.01, (0.7, -0.4), (0.3, 1.0), lengths=(1.0, 1.3)), (9, 11), 1),
    ("wave", lambda g: Wave(g, 1.3, (0.4, 0.9), lengths=(1.0, 1.3)), (9, 11), 2),
    ("allen-cahn", lambda g: AllenCahn(g, times=0.2, steps=40), (63,), 1),
]


@pytest.mark.parametrize(("name", "make", "grid", "channels"), SOLVERS, ids=[s[0] for s in SOLVERS])
def test_an_odd_grid_and_the_even_one_twice_as_fine_agree(name, make, grid, channels) -> None:
    """Waves far below the limit of either grid: both are exact in space, and every second point is the same."""
    fine = tuple(2 * n for n in grid)
    ours, truth = make(grid)(field(grid, channels)), make(fine)(field(fine, channels))
    common = truth[(..., *(slice(None, None, 2),) * len(grid))]
    moved = float((truth.flatten()[0] - field(fine, channels).flatten()[0]).abs())
    assert moved > 1e-3, "the state has not changed: nothing is tested"
    assert torch.allclose(ours, common, atol=1e-6, rtol=0), f"{name}: {float((ours - common).abs().max()):.1e}"


@pytest.mark.parametrize(
    "operator",
    [NavierStokes((11, 13), 20.0, 0.2, forcing=2), Burgers((11, 13), 0.05, 0.1), KuramotoSivashinsky(13, 20.0, 0.2)],
    ids=["navier-stokes", "burgers", "kuramoto-sivashinsky"],
)
def test_gradients_on_odd_sides(operator) -> None:
    x = field(operator.grid, getattr(operator, "components", 1), 1)
    assert check_vjp(operator, x) < 1e-5


def test_waves_of_varying_speed_on_odd_sides_converge_at_second_order() -> None:
    """Grids three times finer share every third point: the difference to the next one falls to a ninth."""

    def run(n: int) -> Tensor:
        axis = 2 * math.pi * torch.arange(n, dtype=torch.float64) / n
        speed = 1 + 0.3 * torch.cos(axis)[:, None] * torch.sin(axis)
        return VariableWave(speed, 0.2, steps=n)(field((n, n), 2, waves=1))

    coarse, middle, fine = run(15), run(45)[..., ::3, ::3], run(135)[..., ::9, ::9]
    ratio = float((coarse - middle).norm() / (middle - fine).norm())
    assert math.log(ratio, 3) == pytest.approx(2, abs=0.2)
