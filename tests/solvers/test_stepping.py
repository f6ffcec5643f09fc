"""Time steps on equations with known solutions, their orders, and gradients with little memory."""

import math

import pytest
import torch

from scidiff.solvers import advance, etdrk4, ifrk4, rk4
from scidiff.solvers.periodic import Periodic


class Logistic:
    """w' = -a w + w^2 has the solution a / (1 + (a / w0 - 1) exp(a t))."""

    def __init__(self, a):
        self.linear = -torch.tensor(a, dtype=torch.float64)

    def change(self, w):
        return w.square()

    def exact(self, w, t):
        a = -self.linear
        return a / (1 + (a / w - 1) * torch.exp(a * t))


@pytest.mark.parametrize("scheme", [ifrk4, etdrk4, "rk4"])
def test_order_four(scheme):
    equation = Logistic([0.5, 3.0])
    w = torch.tensor([0.3, 1.2], dtype=torch.float64)
    errors = []
    for n in (40, 80, 160):
        if scheme == "rk4":
            step = rk4(lambda v: equation.linear * v + equation.change(v), 1.5 / n)
        else:
            step = scheme(equation, 1.5 / n)
        errors.append(float((advance(step, w, n) - equation.exact(w, 1.5)).abs().max()))
    slopes = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert slopes == pytest.approx([4, 4], abs=0.2)


def test_linear_parts_are_exact_and_stiffness_costs_nothing():
    """With N = 0 one step is exact; ETD keeps a fixed point where |L| dt = 1000, the integrating factor does not."""

    class Relaxing:
        linear = -torch.tensor([1.0, 1000.0], dtype=torch.float64)

        def change(self, w):
            return torch.tensor([2.0, 3000.0], dtype=torch.float64).expand_as(w)

    fixed = torch.tensor([2.0, 3.0], dtype=torch.float64)
    assert torch.allclose(etdrk4(Relaxing(), 1.0)(fixed), fixed, rtol=1e-12)
    assert abs(float(ifrk4(Relaxing(), 1.0)(fixed)[1] - 3)) > 1
    still = Logistic([0.7])
    still.change = torch.zeros_like
    for scheme in (ifrk4, etdrk4):
        assert float(scheme(still, 2.0)(torch.ones(1, dtype=torch.float64))) == pytest.approx(math.exp(-1.4), rel=1e-14)


def test_gradients_do_not_depend_on_how_much_is_kept():
    equation = Logistic([0.5, 3.0])
    step, gradients = ifrk4(equation, 0.05), []
    for segments in (1, 3, 7, None):
        w = torch.tensor([0.3, 1.2], dtype=torch.float64, requires_grad=True)
        end = advance(step, w, 22, segments)
        gradients.append(torch.autograd.grad(end.square().sum(), w)[0])
    assert all(torch.equal(g, gradients[0]) for g in gradients[1:])
    t, h = 22 * 0.05, 1e-6
    start = torch.tensor([0.3, 1.2], dtype=torch.float64)
    truth = (equation.exact(start + h, t).square() - equation.exact(start - h, t).square()) / (2 * h)
    assert torch.allclose(gradients[0], truth, rtol=1e-6)
    second = []
    for segments in (1, 5):
        w = start.clone().requires_grad_()
        (g,) = torch.autograd.grad(advance(step, w, 22, segments).square().sum(), w, create_graph=True)
        second.append(torch.autograd.grad(g.sum(), w)[0])
    assert torch.allclose(second[0], second[1], rtol=1e-12) and float(second[0].abs().min()) > 0
    with pytest.raises(ValueError, match="not be negative"):
        advance(step, start, -1)


def test_periodic_series_differentiate_exactly():
    box = Periodic((9, 12), lengths=(3.0, 5.0))
    y = 3.0 * torch.arange(9, dtype=torch.float64)[:, None] / 9
    x = 5.0 * torch.arange(12, dtype=torch.float64)[None] / 12
    p, q = 2 * math.pi * 2 / 3.0, 2 * math.pi * 3 / 5.0
    field = torch.sin(p * y) * torch.cos(q * x)
    w = box.transform(field)
    assert torch.allclose(box.field(w), field, atol=1e-14)
    assert torch.allclose(box.field(1j * box.k[0] * w), p * torch.cos(p * y) * torch.cos(q * x), atol=1e-13)
    assert torch.allclose(box.field(-box.square * w), -(p**2 + q**2) * field, atol=1e-12)
    for grid, lengths in (((3, 8), None), ((8, 8), (1.0,)), ((8, 8), (1.0, -1.0))):
        with pytest.raises(ValueError, match="grid must have|lengths must be"):
            Periodic(grid, lengths)
