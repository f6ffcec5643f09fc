"""Kuramoto-Sivashinsky: linear growth, stored chaos, orders, gradients, residual."""

import math

import pytest
import torch
from torch import Generator

from scidiff.errors import NumericalError
from scidiff.operators.pde import KuramotoSivashinsky
from scidiff.testing import check_vjp

F64 = torch.float64


def waves(n, length, batch=2, std=1.0):
    x, g = 2 * math.pi * torch.arange(n, dtype=F64) / n, Generator().manual_seed(0)
    u = torch.zeros(batch, n, dtype=F64)
    for m in range(1, 5):
        a, b = std * torch.randn(2, batch, 1, generator=g, dtype=F64)
        u = u + a * torch.cos(m * x) + b * torch.sin(m * x)
    return u[:, None]


def test_small_waves_grow_and_decay_at_their_rates():
    n, length = 32, 20.0
    x = length * torch.arange(n, dtype=F64) / n
    for m in (1, 2, 5):
        k = 2 * math.pi * m / length
        start = 1e-9 * torch.cos(k * x + 0.3)
        found = KuramotoSivashinsky(n, length, (1.0, 3.0))(start[None, None])[0]
        for t, u in zip((1.0, 3.0), found, strict=True):
            assert torch.allclose(u, start * math.exp((k**2 - k**4) * t), rtol=1e-7, atol=1e-16)


def test_a_uniform_wind_carries_the_field_along():
    """Galilei: a field on a wind c is the field without it, moved by c t."""
    n, length, c, t = 96, 22.0, 1.375, 4.0
    u = waves(n, length)
    moved = KuramotoSivashinsky(n, length, t, courant=0.1)(u + c) - c
    assert c * t / length * n == pytest.approx(24)
    still = KuramotoSivashinsky(n, length, t, courant=0.1)(u)
    assert torch.allclose(moved, still.roll(24, -1), atol=1e-5)


@pytest.mark.parametrize("scheme", ["etdrk4", "ifrk4"])
def test_order_four_in_time(scheme):
    u = waves(32, 22.0, std=0.5)
    fine = KuramotoSivashinsky(32, 22.0, 2.0, steps=2048)(u)
    counts = (64, 128, 256) if scheme == "etdrk4" else (256, 512, 1024)
    errors = [float((KuramotoSivashinsky(32, 22.0, 2.0, steps=n, scheme=scheme)(u) - fine).norm()) for n in counts]
    slopes = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert slopes == pytest.approx([4, 4], abs=0.2)


def test_spectral_in_space():
    fine = KuramotoSivashinsky(240, 22.0, 2.0, courant=0.4)(waves(240, 22.0))
    errors = [
        float((KuramotoSivashinsky(n, 22.0, 2.0, steps=400)(waves(n, 22.0)) - fine[..., :: 240 // n]).abs().max())
        for n in (24, 40, 60)
    ]
    assert errors[0] > 10 * errors[1] > 100 * errors[2] and errors[2] < 1e-5


def test_stored_chaos(real_data):
    """A stored run, u_t + a u u_x + b u_xx + c u_xxxx = 0 with a = 5/pi, b = 5/(3 pi^2), c = 5/(27 pi^4) on a line of
    length 2: in units of length sqrt(c/b) = 1/(3 pi), time c/b^2 = 1/15 and speed b^1.5/(a c^0.5) = 1."""
    from scipy.io import loadmat

    data = loadmat(real_data / "pde" / "ks.mat")
    u = torch.as_tensor(data["uu"][:-1].T.copy())
    times, which = data["tt"].ravel(), [20, 60, 200]
    operator = KuramotoSivashinsky(512, 6 * math.pi, [15 * float(times[i]) for i in which], courant=0.7)
    error = (operator(u[None, :1])[0] - u[which]).norm(dim=1) / u[which].norm(dim=1)
    assert float(error.max()) < 1e-4, error


def test_gradient_and_limit():
    u = waves(16, 20.0, std=0.5)
    assert check_vjp(KuramotoSivashinsky(16, 20.0, (0.5, 1.5)), u) < 1e-5
    assert check_vjp(KuramotoSivashinsky(16, 20.0, 1.5, steps=12, segments=3), u) < 1e-5
    with pytest.raises(NumericalError, match=r"crosses .* Take (\d+) steps"):
        KuramotoSivashinsky(64, 20.0, 10.0, steps=20)(waves(64, 20.0))
    with pytest.raises(ValueError, match="at least 8 points"):
        KuramotoSivashinsky(4)


def test_residual_of_a_solution_falls_with_the_square_of_the_step():
    u, sizes = KuramotoSivashinsky(48, 22.0, 1.0, steps=200)(waves(48, 22.0, batch=1)), []
    for n in (8, 16, 32):
        operator = KuramotoSivashinsky(48, 22.0, [0.4 * (i + 1) / n for i in range(n)], steps=64)
        start = operator.equation(F64).field(operator.equation(F64).transform(u))
        snapshots = torch.cat([start, operator(u)], 1)
        sizes.append(float(operator.residual(snapshots, 0.4 / n).square().mean().sqrt()))
    slopes = [math.log2(a / b) for a, b in zip(sizes, sizes[1:], strict=False)]
    assert slopes == pytest.approx([2, 2], abs=0.2)
