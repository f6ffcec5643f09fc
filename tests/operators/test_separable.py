"""Convolution and downsampling: adjoints, decompositions, dense twins; a small Radon transform by dense SVD."""

import math

import pytest
import torch
from torch import Generator

from scidiff.operators import Convolution, Downsampling, LinearMap
from scidiff.testing import check_adjoint, check_batch_independence, check_vjp

F64 = torch.float64


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=F64)


# Name: (operator, shape of a field). Odd and even sides, kernels without symmetry, singular ones, one per channel.
OPERATORS = {
    "convolution 1-D": lambda: (Convolution(random(4), (7,)), (2, 7)),
    "convolution 2-D": lambda: (Convolution(random(3, 4), (5, 8)), (2, 5, 8)),
    "convolution 2-D, full": lambda: (Convolution(random(6, 5), (6, 5)), (1, 6, 5)),
    "convolution 3-D": lambda: (Convolution(random(2, 3, 1), (4, 3, 6)), (1, 4, 3, 6)),
    "convolution, zeros in the spectrum": lambda: (Convolution(torch.ones(1, 2, dtype=F64), (3, 8)), (1, 3, 8)),
    "convolution, mean": lambda: (Convolution(torch.ones(4, 6, dtype=F64), (4, 6)), (1, 4, 6)),
    "convolution, per channel": lambda: (Convolution(random(2, 3, 2), (5, 4)), (2, 5, 4)),
    "downsampling 1-D": lambda: (Downsampling(3, (9,)), (2, 9)),
    "downsampling 2-D": lambda: (Downsampling(2, (6, 8)), (2, 6, 8)),
    "downsampling 2-D, unequal": lambda: (Downsampling((1, 4), (3, 8)), (1, 3, 8)),
    "downsampling 3-D": lambda: (Downsampling((2, 1, 3), (4, 2, 6)), (1, 4, 2, 6)),
    "downsampling, filter": lambda: (Downsampling(2, (6, 8), kernel=random(4)), (1, 6, 8)),
    "downsampling, longer filter": lambda: (Downsampling((3, 1), (9, 11), kernel=random(7)), (1, 9, 11)),
}


@pytest.mark.parametrize("name", list(OPERATORS))
def test_adjoint_gradient_batch(name: str) -> None:
    operator, shape = OPERATORS[name]()
    assert check_adjoint(operator, shape) < 1e-13
    check_adjoint(operator, shape, dtype=torch.complex128)
    check_adjoint(operator, shape, dtype=torch.float32)
    x = random(3, *shape, seed=2)
    check_vjp(operator, x)
    check_batch_independence(operator, x)


@pytest.mark.parametrize("name", list(OPERATORS))
def test_decomposition(name: str) -> None:
    """U and V are orthonormal, rebuild the operator, and have the singular values of its matrix."""
    operator, shape = OPERATORS[name]()
    U, s, V = operator.svd()
    x = random(3, *shape, seed=3)
    c = V.adjoint(x)
    assert torch.allclose(U(s * c), operator(x), atol=1e-12)
    z = random(*c.shape, seed=4)
    assert torch.allclose(V.adjoint(V(z)), z, atol=1e-12)
    assert torch.allclose(U.adjoint(U(z)), z, atol=1e-12)
    y = random(*operator(x).shape, seed=5)  # the frames' adjoints are adjoints
    assert torch.allclose((U(z) * y).sum(), (z * U.adjoint(y)).sum())
    assert torch.allclose((V(z) * x).sum(), (z * V.adjoint(x)).sum())
    matrix = LinearMap.dense(operator, shape).matrix
    expected = torch.linalg.svdvals(matrix)
    found = s.expand(c.shape[1:]).flatten().sort(descending=True).values
    assert torch.allclose(found[: len(expected)], expected, atol=1e-12 * float(expected[0]) + 1e-13)
    complex = torch.complex(x, x.flip(0))
    assert torch.allclose(U(s * V.adjoint(complex)), operator(complex), atol=1e-12)


def test_convolution_is_the_sum() -> None:
    """Against the definition, entry by entry: the kernel's entry side // 2 is the centre."""
    kernel, x = random(3, 4), random(1, 5, 8, seed=1)
    expected = torch.zeros_like(x)
    for i in range(3):
        for j in range(4):
            expected += kernel[i, j] * x.roll((i - 1, j - 2), (-2, -1))
    assert torch.allclose(Convolution(kernel, (5, 8))(x), expected, atol=1e-13)
    point = torch.zeros(1, 5, 8, dtype=F64)
    point[0, 2, 4] = 1
    assert torch.allclose(Convolution(kernel, (5, 8))(point)[0, 1:4, 2:6], kernel, atol=1e-14)


def test_downsampling_is_the_mean() -> None:
    x = random(2, 3, 6, 8)
    box = Downsampling((2, 4), (6, 8))
    assert torch.allclose(box(x), torch.nn.functional.avg_pool2d(x, (2, 4)), atol=1e-14)
    assert box.coarse == (3, 2)
    # a filter: inside the field it is a strided correlation; constants keep their value up to the border
    weights = torch.tensor([0.1, 0.3, 0.4, 0.2], dtype=F64)
    operator = Downsampling(2, (12,), kernel=weights)
    line = random(1, 12, seed=1)
    inside = line[:, 1:].unfold(-1, 4, 2) @ weights  # windows from -1, 1, 3, ...
    assert torch.allclose(operator(line)[:, 1:-1], inside, atol=1e-14)
    first = 0.1 * line[:, 0] + 0.3 * line[:, 0] + 0.4 * line[:, 1] + 0.2 * line[:, 2]
    assert torch.allclose(operator(line)[:, 0], first, atol=1e-14)
    assert torch.allclose(operator(torch.ones(1, 12, dtype=F64)), torch.ones(1, 6, dtype=F64), atol=1e-14)


def radon(size: int, angles: int, bins: int) -> torch.Tensor:
    """Joseph's projector: one ray per bin and angle, linear interpolation across, one sample per row or column."""
    matrix = torch.zeros(angles, bins, size, size, dtype=F64)
    middle = (size - 1) / 2
    for k in range(angles):
        angle = math.pi * k / angles
        cosine, sine = math.cos(angle), math.sin(angle)
        steep = abs(sine) > abs(cosine)  # rays x cos + y sin = t; walk along the axis they follow
        along_ray = abs(sine) if steep else abs(cosine)
        for b in range(bins):
            t = (b - (bins - 1) / 2) * size / bins
            for i in range(size):
                across = (t - (i - middle) * cosine) / sine if steep else (t - (i - middle) * sine) / cosine
                low = math.floor(across + middle)
                part = across + middle - low
                for j, weight in ((low, 1 - part), (low + 1, part)):
                    if 0 <= j < size:
                        row, column = (j, i) if steep else (i, j)  # y is the row, x the column
                        matrix[k, b, row, column] += weight / along_ray
    return matrix.reshape(angles * bins, size * size)


def test_radon_by_dense_decomposition() -> None:
    """A disc's projections are chord lengths, and the dense SVD rebuilds the projector and its rank."""
    size, angles, bins = 12, 5, 9
    operator = LinearMap(radon(size, angles, bins), (1, size, size))
    middle = torch.arange(size, dtype=F64) - (size - 1) / 2
    radius = 4.5
    fine = (torch.arange(20, dtype=F64) + 0.5) / 20 - 0.5
    grid = (middle[:, None] + fine).flatten()
    disc = (grid[:, None] ** 2 + grid**2 < radius**2).to(F64).reshape(size, 20, size, 20).mean((1, 3))
    t = (torch.arange(bins, dtype=F64) - (bins - 1) / 2) * size / bins
    chord = 2 * (radius**2 - t**2).clamp(min=0).sqrt()
    assert float((operator(disc[None, None]).reshape(angles, bins) - chord).abs().max()) < 0.12 * 2 * radius
    assert check_adjoint(operator, (1, size, size)) < 1e-13
    U, s, V = operator.svd()
    x = random(2, 1, size, size)
    assert torch.allclose(U(s * V.adjoint(x)), operator(x), atol=1e-11)
    assert len(s) == torch.linalg.matrix_rank(operator.matrix, rtol=1e-10) <= angles * bins
    c = random(2, len(s), seed=1)
    assert torch.allclose(V.adjoint(V(c)), c, atol=1e-12) and torch.allclose(U.adjoint(U(c)), c, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: Convolution(torch.ones(2, dtype=torch.complex64), (4,)), TypeError, "must be real"),
        (lambda: Convolution(torch.ones(2), (4, 4)), ValueError, "at least 2"),
        (lambda: Convolution(torch.ones(5, 2), (4, 4)), ValueError, "larger than the grid"),
        (lambda: Convolution(torch.ones(2, 2), (4, 5))(torch.ones(1, 5, 4)), ValueError, "expected fields"),
        (lambda: Downsampling(3, (8,)), ValueError, "cannot be divided"),
        (lambda: Downsampling((2, 2), (8,)), ValueError, "one per axis"),
        (lambda: Downsampling(2, (8,), kernel=torch.ones(3)), ValueError, "both even"),
        (lambda: Downsampling(2, (8,), kernel=torch.ones(2, 2)), ValueError, "real vector"),
        (lambda: Downsampling(2, (8,), kernel="cubic"), ValueError, "one of box"),
        (lambda: Downsampling(2, (8, 4))(torch.ones(1, 4, 8)), ValueError, "expected a field"),
        (lambda: Downsampling(2, (8, 4)).adjoint(torch.ones(1, 2, 4)), ValueError, "expected a measurement"),
    ],
)
def test_wrong_input_is_explained(make, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        make()
