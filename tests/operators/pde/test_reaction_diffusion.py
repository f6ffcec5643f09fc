"""Reaction and diffusion: exact solutions of uniform and of linear reactions, free energy, a stored run, orders."""

import math

import pytest
import torch
from torch import Generator

from scidiff.errors import NumericalError
from scidiff.operators.pde import AllenCahn, GrayScott, ReactionDiffusion
from scidiff.solvers.reaction_diffusion import allen_cahn, gray_scott
from scidiff.testing import check_vjp

F64 = torch.float64


def smooth(*shape, seed=0):
    x = torch.randn(shape, generator=Generator().manual_seed(seed), dtype=F64)
    n = shape[-1]
    return torch.fft.irfft(torch.fft.rfft(x) * (torch.arange(n // 2 + 1) < 4), n)


def test_a_uniform_phase_follows_its_exact_solution_to_fourth_order():
    r, t, u0 = 2.0, 1.0, torch.tensor([0.1, -0.4, 1.5], dtype=F64)
    exact = u0 * math.exp(r * t) / (1 + u0**2 * (math.exp(2 * r * t) - 1)).sqrt()
    x = u0.reshape(3, 1, 1, 1).expand(3, 1, 8, 9)
    for scheme in ("etdrk4", "ifrk4"):
        errors = [
            float((AllenCahn((8, 9), 0.1, r, t, steps=n, scheme=scheme)(x)[:, 0, 0, 0] - exact).norm())
            for n in (32, 64, 128)
        ]
        slopes = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
        assert slopes == pytest.approx([4, 4], abs=0.2)
    assert torch.allclose(AllenCahn((8, 9), 0.1, r, t)(x)[:, 0, 3, 4], exact, atol=1e-4)


def test_an_interface_rests():
    """Two tanh fronts far apart stay where they are, and the fields are found to the accuracy of the grid."""
    n, L, D, r = 256, 8.0, 0.05, 1.0
    x = L * torch.arange(n, dtype=F64) / n
    width = math.sqrt(2 * D / r)
    u = torch.tanh((x - 2) / width) - torch.tanh((x - 6) / width) - 1
    errors = []
    for m in (64, 128, 256):
        start = u[:: n // m][None, None]
        errors.append(float((AllenCahn((m,), D, r, 3.0, (L,))(start) - start).abs().max()))
    assert errors[2] < 2e-4 and errors[0] > 10 * errors[1]


def test_linear_reactions_are_exact_waves():
    """Two species that turn into each other: every wave follows the exponential of a matrix."""
    A, D = torch.tensor([[-0.3, 1.0], [-1.2, 0.1]], dtype=F64), (0.02, 0.05)
    n, t, k = 24, 1.5, 2 * math.pi * 2
    start = torch.tensor([[0.7], [-0.4]], dtype=F64) * torch.cos(k * torch.arange(n, dtype=F64) / n + 0.2)
    exact = torch.linalg.matrix_exp((A - torch.diag(torch.tensor(D, dtype=F64)) * k**2) * t) @ start
    errors = []
    for m in (16, 32, 64):
        operator = ReactionDiffusion((n,), D, lambda x: torch.einsum("ij,bj...->bi...", A, x), 2.0, t, steps=m)
        errors.append(float((operator(start[None])[0, 0] - exact).norm()))
    slopes = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert slopes == pytest.approx([4, 4], abs=0.2)


def test_free_energy_falls_at_the_rate_of_the_square_of_the_change():
    operator = AllenCahn((64,), 0.01, 2.0)
    equation = operator.equation(F64)
    w = equation.transform(smooth(2, 64)).requires_grad_()

    def energy(w):
        u, ux = equation.field(w), equation.field(1j * equation.k[0] * w)
        return (0.005 * ux.square() + 0.5 * (1 - u.square()).square()).mean(-1)

    change = (equation.linear * w + equation.change(w)).detach()
    h = 1e-4
    with torch.no_grad():
        rate = (energy(w + h * change) - energy(w - h * change)) / (2 * h)
        assert torch.allclose(rate, -equation.field(change).square().mean(-1), rtol=1e-6)


def test_rates_bound_the_reactions():
    for (reaction, rate), shape in ((allen_cahn(2.0, 1), (1, 5)), (gray_scott(0.04, 0.06, 1), (1, 2, 5))):
        for seed in range(4):
            x = 1.5 * torch.randn(shape, generator=Generator().manual_seed(seed), dtype=F64)
            jacobian = torch.autograd.functional.jacobian(reaction, x).reshape(x.numel(), -1)
            assert float(torch.linalg.eigvals(jacobian).abs().max()) <= float(rate(x)) * (1 + 1e-12)
    u, v = torch.tensor([0.5, 0.25], dtype=F64).reshape(2, 1)
    found = gray_scott(0.04, 0.06, 1)[0](torch.stack([u, v])[None])
    assert torch.allclose(found.flatten(), torch.tensor([-0.03125 + 0.02, 0.03125 - 0.025], dtype=F64))


def test_gray_scott_is_of_fourth_order_and_rests():
    n, times = 32, 4.0
    x = torch.stack([1 - 0.4 * smooth(1, n).square(), 0.3 * smooth(1, n, seed=1).square()], 1)
    make = lambda **options: GrayScott((n,), (2e-2, 1e-2), 0.4, 0.2, times, **options)  # noqa: E731
    fine = make(steps=1024)(x)
    errors = [float((make(steps=m)(x) - fine).norm()) for m in (32, 64, 128)]
    slopes = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert slopes == pytest.approx([4, 4], abs=0.2)
    bare = torch.stack([torch.ones(1, n, dtype=F64), torch.zeros(1, n, dtype=F64)], 1)
    assert torch.allclose(GrayScott((n,))(bare)[:, 0], bare, atol=1e-12)


def test_a_stored_run(real_data):
    """u_t = 1e-4 u_xx + 5 (u - u^3) on a line of length 2 from x^2 cos(pi x), with sharp interfaces."""
    from scipy.io import loadmat

    data = loadmat(real_data / "pde" / "allen_cahn.mat")
    times, which, n = data["tt"].ravel(), [50, 100, 200], 2048
    x = 2 * torch.arange(n, dtype=F64) / n - 1
    start = (x.square() * torch.cos(math.pi * x))[None, None]
    operator = AllenCahn((n,), 1e-4, 5.0, [float(times[i]) for i in which], (2.0,))
    exact = torch.as_tensor(data["uu"][:, which]).mT
    error = (operator(start)[0, :, :: n // 512] - exact).norm(dim=1) / exact.norm(dim=1)
    assert float(error.max()) < 1e-3, error


def test_gradient_residual_and_limit():
    x = smooth(2, 1, 16)
    assert check_vjp(AllenCahn((16,), 0.01, 2.0, (0.1, 0.3)), x) < 1e-5
    assert check_vjp(GrayScott((16,), times=2.0, steps=8, segments=3), smooth(2, 2, 16).abs()) < 1e-5
    sizes = []
    for n in (8, 16, 32):
        operator = AllenCahn((32,), 0.01, 2.0, [0.4 * (i + 1) / n for i in range(n)], steps=64)
        u = smooth(1, 1, 32)
        start = operator.equation(F64).field(operator.equation(F64).transform(u))
        residual = operator.residual(torch.cat([start, operator(u)], 1), 0.4 / n)
        sizes.append(float(residual.square().mean().sqrt()))
    slopes = [math.log2(a / b) for a, b in zip(sizes, sizes[1:], strict=False)]
    assert slopes == pytest.approx([2, 2], abs=0.2)
    with pytest.raises(NumericalError, match=r"fastest time in a step of .* Take (\d+) steps"):
        AllenCahn((16,), 0.01, 100.0, steps=10)(x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AllenCahn((16,), -1.0), "diffusivities must not be negative"),
        (lambda: AllenCahn((16,), rate=0.0), "rate must be positive"),
        (lambda: GrayScott((16,), feed=-1.0), "feed and kill"),
        (lambda: GrayScott((4,)), "at least 8 points"),
        (lambda: GrayScott((16,))(torch.zeros(1, 1, 16)), r"expected real species \(B, 2, 16\)"),
    ],
)
def test_wrong_values(make, message):
    with pytest.raises(ValueError, match=message):
        make()
