"""Lorenz' systems: fixed points, contraction, conserved energy, order in time; noisy transitions."""

import math

import pytest
import torch
from torch import Generator

from scidiff.solvers import Transition, advance, lorenz63, lorenz96, rk4

F64 = torch.float64


def states(*shape, seed=0):
    return torch.randn(shape, generator=Generator().manual_seed(seed), dtype=F64)


def test_lorenz63_rests_at_its_fixed_points_and_contracts_volumes():
    s, r, b = 9.0, 24.0, 2.0
    c = math.sqrt(b * (r - 1))
    fixed = torch.tensor([[0, 0, 0], [c, c, r - 1], [-c, -c, r - 1]], dtype=F64)
    assert float(lorenz63(fixed, s, r, b).abs().max()) < 1e-12
    jacobian = torch.autograd.functional.jacobian(lambda x: lorenz63(x, s, r, b), states(3))
    assert float(jacobian.trace()) == pytest.approx(-(s + 1 + b), rel=1e-12)
    assert torch.allclose(
        lorenz63(torch.tensor([1.0, 2.0, 3.0], dtype=F64)), torch.tensor([10.0, 23.0, -6.0], dtype=F64)
    )


def test_lorenz96_by_hand_and_its_energy():
    x = states(4, 7)
    by_hand = [[(r[(i + 1) % 7] - r[i - 2]) * r[i - 1] - r[i] + 3.0 for i in range(7)] for r in x]
    assert torch.allclose(lorenz96(x, 3.0), torch.tensor(by_hand, dtype=F64))
    energy = (x * lorenz96(x, 3.0)).sum(-1)
    assert torch.allclose(energy, -x.square().sum(-1) + 3.0 * x.sum(-1), atol=1e-12)


@pytest.mark.parametrize("rate, start", [(lorenz63, 5 * states(2, 3) + 20), (lorenz96, 8 + states(2, 9))])
def test_order_four_in_time(rate, start):
    end = {n: advance(rk4(rate, 0.4 / n), start, n) for n in (128, 256, 512, 4096)}
    errors = [float((end[n] - end[4096]).norm()) for n in (128, 256, 512)]
    slopes = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert slopes == pytest.approx([4, 4], abs=0.2)


def test_transition():
    chain = Transition(rk4(lorenz63, 0.025), 0.025)
    before, after = states(5, 3), states(5, 3, seed=1)
    law = torch.distributions.Normal(rk4(lorenz63, 0.025)(before), math.sqrt(0.025))
    assert torch.allclose(chain.log_prob(after, before), law.log_prob(after).sum(-1))
    x = before[:1].expand(20_000, 3)
    draws = chain.sample(x, Generator().manual_seed(2)) - chain.mean(before[:1])
    assert float((draws.mean(0) / math.sqrt(0.025 / 20_000)).abs().max()) < 4
    assert float((draws.T.cov() / 0.025 - torch.eye(3)).abs().max()) < 0.05
    path = chain.trajectory(before, 6, Generator().manual_seed(3))
    assert path.shape == (5, 7, 3) and torch.equal(path[:, 0], before)
    assert torch.equal(path[:, 1], chain.sample(before, Generator().manual_seed(3)))
    with pytest.raises(ValueError, match="must be positive"):
        Transition(lorenz63, 0.0)
