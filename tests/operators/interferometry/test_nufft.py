"""The fast transform is the exact sum, to its tolerance; so are its adjoint and its derivatives."""

import pytest
import torch
from torch import Generator

from scidiff.errors import MissingPackageError
from scidiff.operators.interferometry import NUFFTVisibilities, Visibilities
from scidiff.testing import check_adjoint, check_batch_independence, check_vjp

F64 = torch.float64
PIXEL = (1.3e-11, 1e-11)


def pair(shape, square=False, tolerance=1e-12):
    pytest.importorskip("finufft", reason="the extra nufft is not installed")
    uv = 2e10 * torch.randn(50, 2, dtype=F64, generator=Generator().manual_seed(0))  # some beyond half a turn a pixel
    return NUFFTVisibilities(uv, shape, PIXEL, square, tolerance), Visibilities(uv, shape, PIXEL, square)


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("shape", [(12, 17), (9, 14)])
def test_equal_to_the_sum(shape, square):
    generator = Generator().manual_seed(1)
    x = torch.rand(3, 1, *shape, dtype=F64, generator=generator)
    y = torch.randn(3, 50, dtype=torch.complex128, generator=generator)
    scale, back_scale = float(x.sum((-2, -1)).max()), float(y.abs().sum(1).max())
    for tolerance in (1e-4, 1e-8, 1e-12):
        fast, exact = pair(shape, square, tolerance)
        assert float((fast(x) - exact(x)).abs().max()) < 3 * tolerance * scale
        assert float((fast.adjoint(y) - exact.adjoint(y)).abs().max()) < 3 * tolerance * back_scale
    assert fast(x.float()).dtype == torch.complex64
    assert float((fast(x.float()) - exact(x)).abs().max()) < 1e-5 * scale


def test_adjoint_gradient_rows_and_second_derivative():
    fast, _ = pair((12, 17))
    assert check_adjoint(fast, (1, 12, 17)) < 1e-11
    check_adjoint(fast, (1, 12, 17), dtype=torch.float32, tolerance=1e-5)
    x = torch.rand(3, 1, 12, 17, dtype=F64, generator=Generator().manual_seed(2))
    check_vjp(fast, x)
    check_batch_independence(fast, x)
    leaf = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(fast(leaf).abs().pow(3).sum(), leaf, create_graph=True)
    direction = torch.randn(g.shape, dtype=F64, generator=Generator().manual_seed(3))
    (hessian,) = torch.autograd.grad((g * direction).sum(), leaf)

    def gradient(z):
        z = z.clone().requires_grad_()
        return torch.autograd.grad(fast(z).abs().pow(3).sum(), z)[0]

    expected = (gradient(x + 1e-5 * direction) - gradient(x - 1e-5 * direction)) / 2e-5
    assert torch.allclose(hessian, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_missing_package_says_how_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "finufft", None)
    with pytest.raises(MissingPackageError, match=r"\[nufft\]"):
        NUFFTVisibilities(torch.ones(1, 2), (4, 4), 1e-11)
