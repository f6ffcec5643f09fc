"""The flow map: exact vortices, accuracy, gradients, steps that each field chooses for itself, residual."""

import math

import pytest
import torch

from scidiff.errors import NumericalError
from scidiff.linalg.stationary import Stationary
from scidiff.operators.pde import NavierStokes
from scidiff.solvers import advance, ifrk4
from scidiff.testing import check_vjp


def turbulence(grid, n, seed=0, std=3.0):
    law = Stationary.power_law(grid, exponent=6.0, cutoff=3.0, variance=std**2)
    return law.sample(torch.Generator().manual_seed(seed), n, torch.float64)[:, None]


def test_taylor_green_at_several_times():
    operator = NavierStokes((24, 24), reynolds=20.0, times=(0.3, 0.5, 2.0), forcing=0)
    y = 2 * math.pi * torch.arange(24, dtype=torch.float64) / 24
    start = (torch.cos(2 * y)[:, None] * torch.cos(2 * y))[None, None]
    exact = torch.cat([start * math.exp(-8 * t / 20) for t in operator.times], 1)
    assert torch.allclose(operator(start), exact, atol=1e-12)


def test_steps_chosen_by_the_flow_are_accurate_and_independent_of_the_batch():
    operator = NavierStokes((32, 40), times=(0.4, 1.0), courant=0.4)
    x = torch.cat([turbulence((32, 40), 2), turbulence((32, 40), 2, 1, std=8.0)])
    z = operator(x)
    equation = operator.equation(torch.float64)
    for t, found in zip(operator.times, z.unbind(1), strict=True):
        truth = equation.field(advance(ifrk4(equation, t / 600), equation.transform(x[:, 0]), 600))
        error = (found - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)
        assert float(error.max()) < 5e-4, error
    for row in range(4):
        assert torch.equal(operator(x[row : row + 1])[0], z[row])
    single = operator(x.float())
    assert single.dtype == torch.float32 and torch.allclose(single.double(), z, atol=2e-3 * float(z.std()))


@pytest.mark.parametrize("options", [{}, {"steps": 30}, {"steps": 30, "scheme": "etdrk4"}, {"segments": 3}])
def test_gradient(options):
    operator = NavierStokes((12, 16), times=(0.2, 0.3), forcing=2, drag=0.1, **options)
    assert check_vjp(operator, turbulence((12, 16), 2)) < 1e-5


def test_too_long_a_step_says_how_many_are_needed():
    x = turbulence((32, 32), 1, std=20.0)
    with pytest.raises(NumericalError, match=r"crosses .* Take (\d+) steps") as error:
        NavierStokes((32, 32), steps=4)(x)
    count = int(str(error.value).split("Take ")[1].split()[0])
    assert torch.isfinite(NavierStokes((32, 32), steps=2 * count)(x)).all()


def test_a_state_that_is_not_finite_stays_so_and_harms_no_other():
    x = turbulence((16, 16), 2)
    x[1, 0, 3, 4] = math.nan
    z = NavierStokes((16, 16), forcing=2)(x)
    assert torch.isfinite(z[0]).all() and not torch.isfinite(z[1]).any()


def test_residual_of_a_solution_falls_with_the_square_of_the_step():
    x = turbulence((24, 32), 1)
    sizes = []
    for n in (8, 16, 32):
        operator = NavierStokes((24, 32), times=[0.4 * (i + 1) / n for i in range(n)], steps=64)
        snapshots = torch.cat(
            [operator.equation(x.dtype).field(operator.equation(x.dtype).transform(x)), operator(x)], 1
        )
        sizes.append(float(operator.residual(snapshots, 0.4 / n).square().mean().sqrt()))
    slopes = [math.log2(a / b) for a, b in zip(sizes, sizes[1:], strict=False)]
    assert slopes == pytest.approx([2, 2], abs=0.2)
    still = snapshots[:, :1].expand(-1, 3, -1, -1)
    assert float(operator.residual(still, 0.4 / 32).square().mean().sqrt()) > 100 * sizes[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"times": (1.0, 0.5)}, "times must be positive and increase"),
        ({"reynolds": 0.0}, "reynolds must be positive"),
        ({"times": (0.5, 1.0), "steps": 1}, "at least one an observation time"),
        ({"scheme": "euler"}, "ifrk4, etdrk4"),
        ({"forcing": 9}, "wavenumber must lie in"),
    ],
)
def test_wrong_values(options, message):
    with pytest.raises(ValueError, match=message):
        NavierStokes((16, 20), **options)


def test_wrong_field():
    with pytest.raises(ValueError, match=r"expected real vorticity \(B, 1, 16, 20\)"):
        NavierStokes((16, 20))(torch.zeros(1, 16, 20))
