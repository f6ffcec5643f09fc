"""The Stein discrepancy against automatic differentiation of its definition, and against laws that differ."""

from __future__ import annotations

import pytest
import torch
from torch import Generator

from scidiff.metrics.stein import kernel_stein_discrepancy

F64 = torch.float64


def normal(m, d, seed, scale=1.0):
    return scale * torch.randn(m, d, generator=Generator().manual_seed(seed), dtype=F64)


def test_the_kernel_is_the_definition():
    x, c = normal(6, 3, 0), 1.3
    s = -x + 0.3 * torch.sin(x)

    def kernel(a, b):
        return (c**2 + (a - b).square().sum()).rsqrt()

    total = 0.0
    for i in range(6):
        for j in range(6):
            if i == j:
                continue
            a, b = x[i].clone().requires_grad_(), x[j].clone().requires_grad_()
            k = kernel(a, b)
            ga, gb = torch.autograd.grad(k, (a, b), create_graph=True)
            trace = sum(torch.autograd.grad(gb[n], a, retain_graph=True)[0][n] for n in range(3))
            total += float((k * s[i] @ s[j] + s[i] @ gb + s[j] @ ga + trace).detach())
    found = kernel_stein_discrepancy(x, s, length=c)
    assert found.squared == pytest.approx(total / 30, rel=1e-12)


def test_draws_of_the_law_pass_and_others_do_not():
    x = normal(400, 16, 1)
    assert kernel_stein_discrepancy(x, -x).p_value > 0.05
    for other in (0.5 * x, x + 0.5, 1.5 * x):
        assert kernel_stein_discrepancy(other, -other).p_value < 0.01


def test_its_size_is_honest():
    p = [kernel_stein_discrepancy(x, -x, bootstraps=200).p_value for x in (normal(60, 4, i + 10) for i in range(100))]
    assert sum(v < 0.1 for v in p) <= 20


def test_fields_and_refusals():
    x = normal(8, 12, 3).reshape(8, 1, 3, 4)
    assert kernel_stein_discrepancy(x, -x) == kernel_stein_discrepancy(x.flatten(1), -x.flatten(1))
    with pytest.raises(ValueError, match="one shape"):
        kernel_stein_discrepancy(x, x[:4])
    with pytest.raises(ValueError, match="at least 4"):
        kernel_stein_discrepancy(x[:3], x[:3])
