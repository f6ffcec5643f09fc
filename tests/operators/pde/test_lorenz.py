"""Flow maps of Lorenz' systems: order, composition, gradients, residual, messages."""

import math

import pytest
import torch
from torch import Generator

from scidiff.errors import NumericalError
from scidiff.operators.pde import Lorenz63, Lorenz96
from scidiff.testing import check_vjp

F64 = torch.float64
X63 = 6 * torch.randn(3, 3, generator=Generator().manual_seed(0), dtype=F64) + torch.tensor([0, 0, 25.0], dtype=F64)
X96 = 3 * torch.randn(3, 9, generator=Generator().manual_seed(1), dtype=F64) + 2
CASES = [(Lorenz63, {}, X63), (Lorenz96, {"size": 9}, X96)]


@pytest.mark.parametrize("kind, given, x", CASES)
def test_order_times_gradient_and_residual(kind, given, x):
    fine = kind(times=0.4, dt=0.4 / 4096, **given)(x)
    errors = [float((kind(times=0.4, dt=0.4 / n, **given)(x) - fine).norm()) for n in (128, 256, 512)]
    assert [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)] == pytest.approx([4, 4], abs=0.2)
    both = kind(times=(0.1, 0.25), dt=0.05, **given)(x)
    first = kind(times=0.1, dt=0.05, **given)(x)
    assert torch.equal(both[:, :1], first)
    assert torch.allclose(both[:, 1:], kind(times=0.15, dt=0.05, **given)(first[:, 0]), rtol=1e-12)
    assert check_vjp(kind(times=(0.1, 0.2), **given), x) < 1e-5
    assert check_vjp(kind(times=0.3, segments=3, **given), x) < 1e-5
    sizes = []
    for n in (32, 64, 128):
        operator = kind(times=[0.2 * (i + 1) / n for i in range(n)], dt=0.005, **given)
        snapshots = torch.cat([x[:, None], operator(x)], 1)
        sizes.append(float(operator.residual(snapshots, 0.2 / n).norm()) / n**0.5)
    assert [math.log2(a / b) for a, b in zip(sizes, sizes[1:], strict=False)] == pytest.approx([2, 2], abs=0.2)


def test_messages():
    with pytest.raises(ValueError, match=r"dt must lie in \(0, 0.1\], got 0.2"):
        Lorenz63(dt=0.2)
    with pytest.raises(ValueError, match="at least 4 places"):
        Lorenz96(3)
    with pytest.raises(ValueError, match=r"expected real states \(B, 9\)"):
        Lorenz96(9)(X63)
    with pytest.raises(NumericalError, match="far from the attractor blows up"):
        Lorenz63(1.0, dt=0.1)(1e4 * X63)
    x = X63.clone()
    x[1, 0] = math.nan
    z = Lorenz63(0.1)(x)
    assert torch.isfinite(z[0]).all() and not torch.isfinite(z[1]).any()
