"""The algebra of operators beside that of their matrices; what combinations offer; messages."""

import copy
import functools

import numpy as np
import pytest
import torch
from torch import Generator

from scidiff import Likelihood, Posterior
from scidiff.errors import NumericalError
from scidiff.noise import GaussianNoise
from scidiff.operators import (
    JPEG,
    BlackBox,
    CartesianMRI,
    Convolution,
    Downsampling,
    Identity,
    Linear,
    LinearMap,
    Mask,
    Poisson,
    RealField,
    stack,
)
from scidiff.operators.combined import Composition, Scaled, Sum
from scidiff.placement import fingerprint, place
from scidiff.posterior import DDRM, MMPS
from scidiff.priors import GaussianPrior
from scidiff.samplers import DPMSolver
from scidiff.testing import check_adjoint, check_vjp

F64, C128 = torch.float64, torch.complex128
SHAPE = (4, 6)
close = torch.testing.assert_close


def rng(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def randn(*shape: int, dtype: torch.dtype = F64, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=rng(seed), dtype=dtype)


BLUR = Convolution(randn(3, 2), SHAPE)
OTHER = Convolution(randn(1, 3, seed=2), SHAPE)
SEEN = Mask(torch.rand(SHAPE, generator=rng(3)) > 0.4)
COARSE = Downsampling((2, 3), SHAPE)


def matrix(operator, shape=SHAPE) -> torch.Tensor:
    return LinearMap.dense(operator, shape).matrix


def test_operations_are_those_of_the_matrices() -> None:
    a, b, m = matrix(BLUR), matrix(OTHER), matrix(SEEN)
    for operator, expected in (
        (BLUR @ OTHER, a @ b),
        (SEEN @ BLUR @ OTHER, m @ a @ b),
        (BLUR + OTHER, a + b),
        (BLUR - 0.5 * OTHER + Identity(), a - 0.5 * b + torch.eye(24, dtype=F64)),
        (-BLUR, -a),
        (BLUR * 3 / 2, 1.5 * a),
        (2 * SEEN @ (3 * BLUR), 6 * m @ a),
        (sum([BLUR, OTHER]), a + b),
        (stack([BLUR, SEEN], SHAPE), torch.cat([a, m])),
        ((SEEN @ BLUR).normal(), a.T @ m.T @ m @ a),
        (stack([BLUR, SEEN @ OTHER], SHAPE).normal(), a.T @ a + b.T @ m.T @ m @ b),
        ((2 * BLUR).normal(), 4 * a.T @ a),
    ):
        close(matrix(operator), expected, atol=1e-13, rtol=1e-13, msg=lambda text, o=operator: f"{o!r}: {text}")
        close(operator.dense(SHAPE).matrix, matrix(operator))
        close(matrix(operator.H, operator(randn(1, *SHAPE)).shape[1:]), expected.T, atol=1e-13, rtol=1e-13)


def test_the_adjoint_of_the_adjoint_is_the_operator_itself() -> None:
    for operator in (BLUR, SEEN @ BLUR, BLUR + OTHER, 2 * BLUR, stack([BLUR], SHAPE), Linear(BLUR, SHAPE)):
        assert operator.H.H is operator
    normal = BLUR.normal()
    assert normal.H is normal


def test_chains_are_flat_identities_vanish_and_factors_come_first() -> None:
    chain = SEEN @ (BLUR @ Identity()) @ OTHER
    assert isinstance(chain, Composition) and chain.operators == (SEEN, BLUR, OTHER)
    assert Identity() @ BLUR is BLUR and BLUR @ Identity() is BLUR
    assert isinstance(Identity() @ Identity(), Identity)
    drawn = (2 * SEEN) @ (-3 * BLUR)
    assert isinstance(drawn, Scaled) and drawn.factor == -6 and drawn.operator.operators == (SEEN, BLUR)
    negative = -BLUR
    assert -negative is BLUR
    total = BLUR + (OTHER + BLUR)
    assert isinstance(total, Sum) and len(total.operators) == 3
    jpeg = JPEG(50, 8.0)
    rounded = jpeg @ (2 * Identity())  # not linear: the factor stays inside
    x = randn(1, 8, 16)
    assert torch.equal(rounded(x), jpeg(2 * x)) and not torch.equal(rounded(x), 2 * jpeg(x))


def test_factors_may_be_numbers_of_numpy_and_torch() -> None:
    x = randn(2, *SHAPE)
    for factor in (3, np.float32(3), np.array(3.0), np.array([3]), torch.tensor(3.0)):
        scaled = factor * BLUR
        assert isinstance(scaled, Scaled) and scaled.factor == 3
        close(scaled(x), 3 * BLUR(x))
    turned = 1j * BLUR
    close(turned(x), 1j * BLUR(x))
    check_adjoint(turned, SHAPE, dtype=C128)
    check_adjoint(RealField(turned), SHAPE)


def test_combinations_offer_what_their_parts_allow() -> None:
    def has(operator) -> set[str]:
        return {name for name in ("adjoint", "svd", "vjp") if hasattr(operator, name)}

    square = lambda z: z**2  # noqa: E731
    numpy = BlackBox(np.abs)
    assert has(SEEN @ BLUR) == {"adjoint", "vjp"}  # a mask after a blur mixes its singular vectors
    assert has(SEEN.H @ LinearMap(randn(int(SEEN.mask.sum()), 4))) == {"adjoint", "svd", "vjp"}
    assert has(BLUR @ SEEN.H) == {"adjoint", "vjp"}
    assert has(BLUR @ OTHER) == {"adjoint", "vjp"}
    assert has(COARSE.normal()) == has(-2 * COARSE) == has(COARSE.H) == {"adjoint", "svd", "vjp"}
    assert has(2j * COARSE) == {"adjoint", "vjp"}
    assert has(square @ BLUR) == has(BLUR @ square) == has(BLUR + square) == has(stack([BLUR, square])) == {"vjp"}
    for blind in (numpy @ BLUR, BLUR @ numpy, numpy + BLUR, 2 * numpy, stack([BLUR, numpy]), JPEG(50, 1.0) @ BLUR):
        assert not blind.differentiable and has(blind) == set()
    assert (square @ BLUR).differentiable
    with pytest.raises(AttributeError, match="no adjoint: BlackBox is not linear"):
        _ = (numpy @ BLUR).adjoint
    with pytest.raises(AttributeError, match="no vjp: BlackBox has no derivative"):
        _ = (2 * numpy).vjp
    with pytest.raises(AttributeError, match="BlackBox is not linear"):
        _ = numpy.H
    with pytest.raises(TypeError, match="BlackBox is not linear"):
        numpy.normal()
    with pytest.raises(TypeError, match="BlackBox is not linear"):
        numpy.norm(rng(), shape=SHAPE)


def test_decompositions_of_combinations_are_those_of_the_matrices() -> None:
    inner = LinearMap(randn(5, 4, seed=8))
    left, right = (
        Mask(torch.rand(7, generator=rng(4)).argsort() < 5),
        Mask(torch.rand(6, generator=rng(5)).argsort() < 4),
    )
    rotated = left.H @ inner @ right
    for operator, shape in ((rotated, (6,)), (-3 * rotated, (6,)), (rotated.H, (7,)), (rotated.normal(), (6,))):
        s = operator.svd().s.sort(descending=True).values
        close(s, torch.linalg.svdvals(matrix(operator, shape))[: len(s)])
    zero = (0 * COARSE).svd()
    assert float(zero.s.max()) == 0 and torch.isfinite(zero.U(zero.V.adjoint(randn(1, *SHAPE)))).all()


def test_shapes_that_do_not_fit_are_explained_with_both_names() -> None:
    x = randn(2, *SHAPE)
    with pytest.raises(ValueError, match=r"Convolution does not take the shape \(2, \d+\) that Mask gives: expected"):
        (BLUR @ SEEN)(x)
    with pytest.raises(ValueError, match=r"Mask.adjoint does not take the shape \(2, 4, 6\) that Convolution.adjoint"):
        (BLUR @ SEEN).adjoint(x)
    with pytest.raises(ValueError, match="^x has shape"):  # the caller's own field: no part is to blame
        (BLUR @ SEEN)(randn(2, 3, 3))
    with pytest.raises(RuntimeError, match="product does not take the shape"):

        def product(z):
            return z @ torch.ones(5, 5, dtype=F64)

        (product @ BLUR)(x)
    with pytest.raises(
        ValueError, match=r"Convolution gives the shape \(2, 4, 6\), Downsampling \(2, 2, 2\); only equal"
    ):
        (BLUR + COARSE)(x)
    with pytest.raises(ValueError, match="only equal shapes"):  # would broadcast
        (BLUR + (lambda z: z[:, :1]))(x)

    def full(z):
        raise torch.OutOfMemoryError("no memory")

    with pytest.raises(torch.OutOfMemoryError, match="^no memory$"):
        (full @ BLUR)(x)
    with pytest.raises(NumericalError, match="^partial gives NaN"):
        (BlackBox(functools.partial(np.full_like, fill_value=np.nan)) @ BLUR)(x)


def test_wrong_operands_are_refused_at_once() -> None:
    for operation, message in (
        (lambda: BLUR @ randn(*SHAPE), r"write Convolution\(x\)"),
        (lambda: BLUR @ np.ones(3), "an array"),
        (lambda: BLUR @ 3, "int 3"),
        (lambda: BLUR + 1.0, r"c \* Identity\(\)"),
        (lambda: BLUR - randn(*SHAPE), "an array"),
        (lambda: BLUR * OTHER, "A @ B"),
        (lambda: BLUR * randn(*SHAPE), "one number"),
        (lambda: BLUR * "3", "by a number, got str"),
        (lambda: BLUR * True, "by a number"),
        (lambda: stack(BLUR), r"stack\(\[A, B\]\)"),
        (lambda: stack([]), r"stack\(\[A, B\]\)"),
        (lambda: Linear(3, SHAPE), "must be callable"),
        (lambda: Linear(BlackBox(np.abs), SHAPE), "give its `adjoint`"),
    ):
        with pytest.raises(TypeError, match=message):
            operation()
    with pytest.raises(ValueError, match="finite"):
        BLUR * float("nan")
    with pytest.raises(ZeroDivisionError):
        BLUR / 0


def test_a_stack_gives_the_measurements_back_in_their_shapes() -> None:
    maps = randn(3, *SHAPE, dtype=C128)
    scan = RealField(CartesianMRI(maps, SEEN.mask))
    both = stack([scan, COARSE, SEEN], (1, *SHAPE))
    x = randn(2, 1, *SHAPE)
    y = both(x)
    assert y.is_complex() and y.ndim == 2
    parts = both.split(y)
    for part, operator in zip(parts, both.operators, strict=True):
        assert torch.equal(part, operator(x))  # shape, type and numbers
        if part.is_complex():
            assert part.data_ptr() == y.data_ptr()  # a view
    check_adjoint(both, (1, *SHAPE))
    check_vjp(both, x)
    assert stack([scan, COARSE]).field_shape == (1, *SHAPE)  # the scan accepts no other
    with pytest.raises(ValueError, match=r"expected \(B, \d+\): \d+ of RealField \+ 4 of Downsampling"):
        both.split(y[:, 1:])
    with pytest.raises(ValueError, match=r"shape=\(1, H, W\)"):
        stack([BLUR, SEEN]).split(y)


def test_the_cheap_normal_operator_of_a_part_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    scan = CartesianMRI(randn(3, *SHAPE, dtype=C128), torch.ones(SHAPE, dtype=torch.bool))
    x = randn(2, 1, *SHAPE, dtype=C128)
    expected = OTHER.adjoint(scan.adjoint(scan(OTHER(x))))
    monkeypatch.setattr(CartesianMRI, "__call__", lambda self, x: pytest.fail("a full transform was made"))
    close((scan @ OTHER).normal(x), expected)
    close((-2 * (scan @ OTHER)).normal(x), 4 * expected)
    close((scan @ OTHER).normal()(x), expected)


@pytest.mark.parametrize(
    ("operator", "shape", "dtype"),
    [
        (LinearMap(randn(30, 24), SHAPE), None, F64),
        (LinearMap(randn(9, 24, dtype=C128), SHAPE), None, C128),
        (SEEN @ BLUR, SHAPE, F64),
        (Poisson(SHAPE, (1.0, 0.7)), SHAPE, F64),
        (1e-12 * BLUR, SHAPE, F64),
        (SEEN, SHAPE, F64),
    ],
    ids=["tall", "complex", "composition", "poisson", "tiny", "projection"],
)
def test_norm_is_the_largest_singular_value_from_below(operator, shape, dtype) -> None:
    dense = operator.matrix if isinstance(operator, LinearMap) else matrix(operator)
    exact = float(torch.linalg.matrix_norm(dense, 2))
    for seed in range(3):
        found = operator.norm(rng(seed), iterations=3000, tolerance=1e-6, shape=shape, dtype=dtype)
        assert exact * (1 - 1e-4) <= found <= exact * (1 + 1e-12)
    assert operator.norm(rng(1), iterations=3, shape=shape, dtype=dtype) <= exact * (1 + 1e-12)
    assert operator.norm(rng(7), shape=shape, dtype=dtype) == operator.norm(rng(7), shape=shape, dtype=dtype)


def test_norm_of_nothing_and_of_nonsense() -> None:
    assert (0 * BLUR).norm(rng(), shape=SHAPE) == 0.0
    with pytest.raises(ValueError, match=r"norm\(..., shape="):
        BLUR.norm(rng())
    with pytest.raises(NumericalError, match="NaN or infinite"):
        LinearMap(torch.full((2, 3), torch.inf)).norm(rng())


def test_a_linear_function_gets_the_adjoint_of_its_matrix() -> None:
    def second(x):  # second differences, complex phases
        return (x[..., 2:] - 2 * x[..., 1:-1] + x[..., :-2]) * (1 + 2j)

    for complex_fields in (False, True):
        operator = Linear(second, SHAPE, complex_fields=complex_fields).verify()
        assert check_adjoint(operator, SHAPE, dtype=C128 if complex_fields else F64) < 1e-14
    y = randn(2, 4, 4, dtype=C128).requires_grad_()
    real = Linear(second, SHAPE)
    v = randn(2, *SHAPE, seed=5)
    (back,) = torch.autograd.grad(real.adjoint(y), y, v)  # the gradient of the adjoint is the operator
    close(back, real(v))
    quick = Linear(BLUR, SHAPE, adjoint=BLUR.adjoint).verify()
    assert quick.adjoint(v) is not None and torch.equal(quick.adjoint(v), BLUR.adjoint(v))
    hidden = Linear(BlackBox(lambda x: 2 * x), SHAPE, adjoint=lambda y: 2 * y).verify()
    assert not hidden.differentiable and hasattr(2 * hidden, "adjoint")


def test_functions_that_are_not_linear_are_found() -> None:
    for function, message in (
        (lambda x: x + 1e-6, "not linear"),
        (lambda x: x.abs(), "not linear"),
        (lambda x: x * torch.linalg.vector_norm(x), "not linear"),
    ):
        with pytest.raises(ValueError, match=message):
            Linear(function, SHAPE).verify()
    with pytest.raises(ValueError, match="adjoint of <lambda> is wrong"):
        Linear(lambda x: x.roll(1, -1), SHAPE, adjoint=lambda y: y.roll(1, -1)).verify()
    with pytest.raises(TypeError, match="no gradient flows through <lambda>"):
        Linear(lambda x: 2 * x.detach(), SHAPE).adjoint(randn(2, *SHAPE))
    with pytest.raises(ValueError, match=r"<lambda> gives \(2, 4, 6\)"):
        Linear(lambda x: 2 * x, SHAPE).adjoint(randn(2, 5))


def test_samplers_see_a_combination_as_they_see_its_matrix() -> None:
    operator = 2 * SEEN @ BLUR
    prior = GaussianPrior(torch.zeros(SHAPE, dtype=F64), torch.eye(24, dtype=F64))
    y = operator(prior.sample(1, rng(6)).to(F64))
    ensembles = [
        MMPS(DPMSolver(4))(Posterior(prior, Likelihood(one, GaussianNoise(0.3), y)), members=3, generator=rng()).samples
        for one in (operator, operator.dense(SHAPE))
    ]
    close(ensembles[0], ensembles[1], rtol=1e-5, atol=1e-6)
    inner = LinearMap(randn(int(SEEN.mask.sum()), 24), SHAPE)
    turned = SEEN.H @ inner  # the same numbers at other places
    y = turned(randn(1, *SHAPE))
    one, two = (
        DDRM(steps=4)(Posterior(prior, Likelihood(each, GaussianNoise(0.3), data)), members=3, generator=rng()).samples
        for each, data in ((turned, y), (inner, SEEN(y)))
    )
    close(one, two, rtol=1e-5, atol=1e-6)


def test_combinations_move_and_are_told_apart() -> None:
    operator = SEEN @ BLUR @ OTHER
    prior = GaussianPrior(torch.zeros(SHAPE, dtype=F64), torch.eye(24, dtype=F64))
    posterior = Posterior(prior, Likelihood(operator, GaussianNoise(0.3), operator(randn(1, *SHAPE))))
    moved = place(posterior, torch.device("cpu"), torch.float32).likelihood.operator
    assert moved.operators[1].kernel.dtype == torch.float32 and operator.operators[1].kernel.dtype == F64
    assert moved._first_last[1] is moved.operators[1]
    assert torch.equal(moved.operators[1].arguments["kernel"], moved.operators[1].kernel)  # so that it saves what it is
    close(moved(randn(1, *SHAPE).float()), operator(randn(1, *SHAPE)).float(), rtol=1e-5, atol=1e-5)
    prints = [fingerprint(one) for one in (operator, SEEN @ OTHER @ BLUR, 2 * operator, operator.H, operator.normal())]
    assert len(set(prints)) == len(prints) and fingerprint(copy.copy(operator)) == prints[0]


def test_operators_show_what_they_are_made_of() -> None:
    assert repr(JPEG(quality=20, scale=8.0)) == "JPEG(quality=20, scale=8.0)"
    assert repr(Poisson((4, 6))) == "Poisson(grid=(4, 6))"
    assert repr(-2 * (SEEN @ COARSE.H)).startswith("-2 * (Mask((4, 6), ") and repr(-COARSE).startswith("-Downsampling")
    assert repr((COARSE + COARSE) @ Identity()).count("Downsampling") == 2
    assert repr((lambda z: z) @ Poisson((4, 6)).H) == "<lambda> @ Poisson(grid=(4, 6)).H"
    assert Poisson((4, 6), lengths=(1.0, 2.0)).arguments == {"grid": (4, 6), "lengths": (1.0, 2.0)}
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'mask'"):
        Mask()  # type: ignore[call-arg]
