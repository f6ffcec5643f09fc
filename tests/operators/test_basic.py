"""Identity, mask and matrix: adjoints, shapes, messages."""

import pytest
import torch
from torch import Generator

from scidiff.operators import Identity, LinearMap, Mask, RealField
from scidiff.testing import check_adjoint, check_batch_independence, check_vjp

F64, C128 = torch.float64, torch.complex128


def mask(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=Generator().manual_seed(0)) > 0.6


def matrix(dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(7, 20, generator=Generator().manual_seed(1), dtype=dtype)


OPERATORS = {
    "identity": lambda: Identity(),
    "mask": lambda: Mask(mask(4, 5)),
    "mask_all": lambda: Mask(mask(1, 4, 5)),
    "matrix": lambda: LinearMap(matrix(F64), (1, 4, 5)),
    "real_field": lambda: RealField(LinearMap(matrix(C128), (1, 4, 5))),
    "matrix_complex_to_real": lambda: LinearMap(matrix(C128), (1, 4, 5), real_fields=True),
}


@pytest.mark.parametrize("name", list(OPERATORS))
def test_adjoint_gradient_and_batch(name: str) -> None:
    operator = OPERATORS[name]()
    assert check_adjoint(operator, (1, 4, 5)) < 1e-14
    x = torch.randn(3, 1, 4, 5, generator=Generator().manual_seed(2), dtype=F64)
    check_vjp(operator, x)
    check_batch_independence(operator, x)


@pytest.mark.parametrize("name", ["identity", "mask", "matrix"])
def test_complex_fields(name: str) -> None:
    check_adjoint(OPERATORS[name](), (1, 4, 5), dtype=C128)
    check_adjoint(LinearMap(matrix(C128), (1, 4, 5)), (1, 4, 5), dtype=C128)


def test_mask_selects_and_returns_in_place() -> None:
    m, x = mask(4, 5), torch.arange(40.0).reshape(2, 4, 5)
    operator = Mask(m)
    assert torch.equal(operator(x), x[:, m])
    assert torch.equal(operator.adjoint(operator(x)), x * m)
    channels = torch.arange(120.0).reshape(2, 3, 4, 5)
    assert operator(channels).shape == (2, 3, int(m.sum()))


def test_linear_map_is_the_matrix() -> None:
    x = torch.randn(2, 4, 5, generator=Generator().manual_seed(3), dtype=F64)
    assert torch.allclose(LinearMap(matrix(F64), (4, 5))(x)[1], matrix(F64) @ x[1].flatten(), atol=1e-12)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: Mask(torch.ones(2, 2)), TypeError, "mask > 0"),
        (lambda: Mask(torch.zeros(2, 2, dtype=torch.bool)), ValueError, "no entry"),
        (lambda: Mask(mask(4, 5))(torch.ones(2, 5, 4)), ValueError, "the mask sees"),
        (lambda: Mask(mask(4, 5)).adjoint(torch.ones(2, 2)), ValueError, "observed entries"),
        (lambda: LinearMap(torch.ones(2, 6), (4, 2)), ValueError, "8 entries"),
        (lambda: LinearMap(torch.ones(6)), ValueError, "two dimensions"),
        (lambda: LinearMap(torch.ones(2, 6), (3, 2))(torch.ones(1, 6)), ValueError, "operator maps"),
        (lambda: LinearMap(torch.ones(2, 6)).adjoint(torch.ones(1, 6)), ValueError, "expected"),
    ],
)
def test_wrong_input_is_explained(make, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        make()


@pytest.mark.parametrize("name", ["identity", "mask", "mask_all", "matrix"])
def test_svd_is_the_operator(name: str) -> None:
    operator = OPERATORS[name]()
    U, s, V = operator.svd()
    x = torch.randn(3, 1, 4, 5, generator=Generator().manual_seed(2), dtype=F64)
    c = V.adjoint(x)
    assert torch.allclose(U(s * c), operator(x), atol=1e-12)
    assert torch.allclose(V.adjoint(V(c)), c, atol=1e-12)
    assert torch.allclose(U.adjoint(U(c)), c, atol=1e-12)


def test_dense_is_the_operator() -> None:
    operator = Mask(mask(4, 5))
    dense = LinearMap.dense(operator, (2, 4, 5), batch=7)
    x = torch.randn(3, 2, 4, 5, generator=Generator().manual_seed(2), dtype=F64)
    assert torch.equal(dense(x), operator(x).flatten(1))
    with pytest.raises(ValueError, match="does not map zero to zero"):
        LinearMap.dense(lambda x: operator(x) + 1, (2, 4, 5))
