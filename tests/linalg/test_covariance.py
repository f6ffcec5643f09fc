"""Every covariance against its dense matrix, real and complex, one shift or one per row."""

import math

import pytest
import torch
from torch import Generator, Tensor

from scidiff.linalg import Cosine, Covariance, Dense, Diagonal, Isotropic, LowRank, Stationary, as_covariance
from scidiff.rng import Streams

F64, C128 = torch.float64, torch.complex128
SHAPE = (2, 3, 4)


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=dtype)


def spectrum(symmetric: bool = True) -> Tensor:
    lam = torch.rand(2, 3, 4, generator=Generator().manual_seed(3), dtype=F64) + 0.1
    mirrored = lam.roll((-1, -1), (-1, -2)).flip(-1, -2)
    return (lam + mirrored) / 2 if symmetric else lam


def matrix(dtype: torch.dtype = F64) -> Tensor:
    a = randn(24, 24, dtype=dtype)
    return a @ a.mH / 24 + 0.05 * torch.eye(24, dtype=dtype)


COVARIANCES = {
    "isotropic": (lambda: Isotropic(2.5, SHAPE), lambda: 2.5 * torch.eye(24, dtype=F64)),
    "diagonal": (lambda: Diagonal(spectrum(), SHAPE), lambda: torch.diag(spectrum().flatten())),
    "dense": (lambda: Dense(matrix(), SHAPE), matrix),
    "hermitian": (lambda: Dense(matrix(C128), SHAPE), lambda: matrix(C128)),
    "low_rank": (
        lambda: LowRank(randn(3, *SHAPE), 0.3),
        lambda: randn(3, 24).mT @ randn(3, 24) + 0.3 * torch.eye(24, dtype=F64),
    ),
    "low_rank_diagonal": (
        lambda: LowRank(randn(3, *SHAPE), spectrum()),
        lambda: randn(3, 24).mT @ randn(3, 24) + torch.diag(spectrum().flatten()),
    ),
    "cosine": (lambda: Cosine(spectrum(False), dims=2), lambda: cosines(spectrum(False))),
    "stationary": (lambda: Stationary(spectrum(), dims=2), lambda: circulant(spectrum()).real),
    "stationary_complex": (lambda: Stationary(spectrum(False), dims=2), lambda: circulant(spectrum(False))),
}


def cosines(lam: Tensor) -> Tensor:
    """Brute force: sum over modes of the variance times the product of cosines at the centres of both cells."""
    out = torch.zeros(2, 3, 4, 2, 3, 4, dtype=F64)
    for c in range(2):
        for p in range(3):
            for q in range(4):
                rows = torch.tensor([math.cos(math.pi * p * (i + 0.5) / 3) for i in range(3)], dtype=F64)
                columns = torch.tensor([math.cos(math.pi * q * (j + 0.5) / 4) for j in range(4)], dtype=F64)
                mode = torch.outer(rows / rows.norm(), columns / columns.norm())
                out[c, :, :, c] += lam[c, p, q] * torch.einsum("ij,km->ijkm", mode, mode)
    return out.reshape(24, 24)


def circulant(lam: Tensor) -> Tensor:
    """Brute force: covariance of entries i and j of a channel is the kernel at i - j on the periodic grid."""
    kernel = torch.fft.ifftn(lam, dim=(-2, -1))
    out = torch.zeros(2, 3, 4, 2, 3, 4, dtype=C128)
    for c in range(2):
        for i in range(3):
            for j in range(4):
                for k in range(3):
                    for m in range(4):
                        out[c, i, j, c, k, m] = kernel[c, (i - k) % 3, (j - m) % 4]
    return out.reshape(24, 24)


@pytest.fixture(params=list(COVARIANCES))
def pair(request: pytest.FixtureRequest) -> tuple[Covariance, Tensor]:
    make, dense = COVARIANCES[request.param]
    return make(), dense()


def times(m: Tensor, x: Tensor) -> Tensor:
    return (
        x.flatten(1).to(torch.promote_types(m.dtype, x.dtype)) @ m.mT.to(torch.promote_types(m.dtype, x.dtype))
    ).reshape(x.shape)


@pytest.mark.parametrize("dtype", [F64, C128])
def test_products_and_solves(pair: tuple[Covariance, Tensor], dtype: torch.dtype) -> None:
    cov, c = pair
    if cov.complex and dtype is F64:
        with pytest.raises(TypeError, match="complex"):
            cov.matmul(randn(1, *SHAPE))
        return
    x, eye = randn(5, *SHAPE, seed=1, dtype=dtype), torch.eye(24, dtype=F64)
    shifts = torch.tensor([0.0, 1e-3, 0.7, 10.0, 6400.0], dtype=F64)
    assert torch.allclose(cov.dense(), c, atol=1e-12)
    assert torch.allclose(cov.matmul(x), times(c, x), atol=1e-12)
    assert torch.allclose(cov.solve(x), times(torch.linalg.inv(c), x), rtol=1e-9, atol=1e-9)
    for given in (shifts, shifts[2], 0.7):
        every = shifts if given is shifts else shifts[2].expand(5)
        for row, s in enumerate(every):
            inverse = torch.linalg.inv(c + s * eye)
            one = x[row : row + 1]
            assert torch.allclose(cov.solve(x, given)[row], times(inverse, one)[0], rtol=1e-9, atol=1e-9)
            assert torch.allclose(cov.shrink(x, given)[row], times(c @ inverse, one)[0], rtol=1e-9, atol=1e-9)
    flat = x.flatten(1)
    assert torch.equal(cov.solve(flat, 0.7), cov.solve(x, 0.7).flatten(1))  # flattened fields are accepted


def test_determinants_traces_and_diagonals(pair: tuple[Covariance, Tensor]) -> None:
    cov, c = pair
    shifts = torch.tensor([0.0, 0.5, 30.0], dtype=F64)
    eye = torch.eye(24, dtype=F64)
    truth = torch.stack([torch.linalg.slogdet(c + s * eye).logabsdet for s in shifts])
    assert torch.allclose(cov.logdet(shifts), truth, atol=1e-10)
    assert torch.allclose(cov.logdet(0.5), truth[1], atol=1e-10) and cov.logdet().ndim == 0
    assert math.isclose(cov.trace, float(c.diagonal().real.sum()), rel_tol=1e-12)
    assert torch.allclose(cov.diagonal().flatten(), c.diagonal().real, atol=1e-12)
    assert torch.allclose(cov.scaled(3.0).dense(), 3 * c, atol=1e-12)


def test_roots(pair: tuple[Covariance, Tensor]) -> None:
    cov, c = pair
    eye = torch.eye(24, dtype=C128 if cov.complex else F64)
    root = cov.sqrt_matmul(eye).mT
    assert torch.allclose(root @ root.mH, c.to(root.dtype), atol=1e-11)
    assert torch.allclose(cov.whiten(eye).mT @ root, eye, atol=1e-10)
    assert torch.allclose(cov.whiten_adjoint(eye).mT, cov.whiten(eye).mT.mH, atol=1e-11)


def test_samples_have_the_covariance(pair: tuple[Covariance, Tensor]) -> None:
    cov, c = pair
    n = 40_000
    x = cov.sample(Generator().manual_seed(5), n, dtype=C128 if cov.complex else F64).flatten(1)
    estimate = x.mT @ x.conj() / n / (2 if cov.complex else 1)  # per real component
    d = c.diagonal().real
    sd = ((d[:, None] * d + c.abs().square()) / n).sqrt()  # of each entry of the estimate
    assert float(((estimate - c).abs() / sd).max()) < 5  # 576 entries: P(|z| > 5) is 3e-4 in all


def test_streams_make_rows_independent_of_the_batch() -> None:
    cov = Stationary(spectrum(), dims=2)
    together, alone = cov.sample(Streams(7, [0, 1, 2])), cov.sample(Streams(7, [1]))
    assert torch.allclose(together[1:2], alone, atol=1e-14)


def test_gradients_flow_through_shrink(pair: tuple[Covariance, Tensor]) -> None:
    cov, _ = pair
    if cov.complex:
        return
    x = randn(2, *SHAPE).requires_grad_()
    s = torch.tensor([0.3, 2.0], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(cov.shrink, (x, s))
    assert torch.autograd.gradcheck(cov.solve, (x, s))


def test_float32_keeps_its_type(pair: tuple[Covariance, Tensor]) -> None:
    cov, c = pair
    x = randn(2, *SHAPE, dtype=C128 if cov.complex else F64)
    low = x.to(torch.complex64 if cov.complex else torch.float32)
    out = cov.solve(low, torch.tensor([0.1, 6400.0]))
    assert out.dtype == low.dtype
    assert torch.allclose(out.to(x.dtype), cov.solve(x, torch.tensor([0.1, 6400.0], dtype=F64)), rtol=1e-3, atol=1e-5)


def test_singular_covariance() -> None:
    a = randn(24, 3)
    cov = Dense(a @ a.mT)
    x = randn(2, 24, seed=2)
    with pytest.raises(ValueError, match="singular"):
        cov.solve(x)
    projector = a @ torch.linalg.pinv(a)
    assert torch.allclose(cov.shrink(x, 0.0), x @ projector, atol=1e-10)  # the limit of no noise
    assert torch.isfinite(cov.shrink(x, torch.zeros(2, dtype=F64))).all()


def test_power_law_has_the_asked_variance_and_slope() -> None:
    cov = Stationary.power_law((16, 24), exponent=4.0, cutoff=2.0, variance=9.0, channels=2)
    assert cov.shape == (2, 16, 24) and torch.allclose(cov.diagonal(), torch.full((2, 16, 24), 9.0, dtype=F64))
    ratio = float(cov.eigenvalues[0, 6] / cov.eigenvalues[0, 0])
    assert math.isclose(ratio, ((4 + 36) / 4) ** -2, rel_tol=1e-12)


def test_from_kernel_inverts_the_first_row() -> None:
    kernel = torch.fft.ifftn(spectrum(), dim=(-2, -1)).real
    assert torch.allclose(Stationary.from_kernel(kernel, dims=2).dense(), circulant(spectrum()).real, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dense(torch.ones(2, 3)), "square"),
        (lambda: Dense(torch.tensor([[1.0, 0.5], [0.0, 1.0]])), "symmetric"),
        (lambda: Dense(torch.tensor([[1.0, 2.0], [2.0, 1.0]])), "negative eigenvalue"),
        (lambda: Dense(torch.full((2, 2), torch.nan)), "NaN"),
        (lambda: Dense(torch.eye(4), (3,)), "3 entries"),
        (lambda: Diagonal(torch.tensor([1.0, -1.0])), "not negative"),
        (lambda: LowRank(torch.ones(1, 3), 0.0), "positive"),
        (lambda: Stationary(torch.ones(3, 4), (2, 3, 5)), "end with"),
        (lambda: as_covariance(torch.ones(3), (3,)), "Diagonal"),
        (lambda: as_covariance(Isotropic(1.0, (4,)), (3,)), "acts on"),
        (lambda: Isotropic(1.0, (4,)).matmul(torch.ones(2, 3)), "acts on"),
    ],
)
def test_wrong_input_is_explained(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
