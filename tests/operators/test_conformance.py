"""Every operator keeps all that `scidiff.testing.check_operator` asks for. One line per operator in CASES."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator

import scidiff.operators as operators
from scidiff.operators import combined
from scidiff.operators.algebra import Algebra
from scidiff.testing import check_operator

F64, C128 = torch.float64, torch.complex128


def rng(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def randn(*shape: int, dtype: torch.dtype = F64, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=rng(seed), dtype=dtype)


def seen(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=rng(2)) > 0.5


@dataclass(frozen=True)
class Case:
    """An operator, made anew for each test, and what `check_operator` must know of it.

    `lazy` holds keyword arguments of `check_operator` that are made when the test runs (`at`, `same`, ...); `lacks` the
    numbers of the report that this operator has not ("vjp" for a black box); all others must have been measured.
    """

    name: str
    factory: Callable[[], Any]
    shape: tuple[int, ...]
    lacks: tuple[str, ...] = ()
    flags: dict[str, Any] = field(default_factory=dict)
    lazy: Callable[[], dict[str, Any]] = dict


NONLINEAR = ("adjoint32", "adjoint64", "normal", "svd", "units")
NO_SVD, NO_PINV = ("svd", "pinv"), ("pinv",)
BLUR = (5, 6)


def blur() -> Any:
    return operators.Convolution(randn(3, 2), BLUR)


def mri(**options: Any) -> Any:
    return operators.CartesianMRI(randn(3, 6, 5, dtype=C128), seen(6, 5), **options)


def rock() -> dict[str, Any]:
    return {"at": (0.3 * randn(3, 1, 6, 5)).exp()}


def rotated() -> Any:
    left, right = operators.Mask(seen(*BLUR)), operators.Mask(seen(4, 5))
    return left.H @ operators.LinearMap(randn(int(left.mask.sum()), int(right.mask.sum()))) @ right


def squared(x: torch.Tensor) -> torch.Tensor:
    return x**2


def difference(x: torch.Tensor) -> torch.Tensor:
    return x[..., 1:] - 2 * x[..., :-1]


CASES = [
    Case("identity", lambda: operators.Identity(), (1, 4, 5), NO_PINV),
    Case("mask", lambda: operators.Mask(seen(4, 5)), (2, 4, 5), NO_PINV),
    Case("matrix", lambda: operators.LinearMap(randn(7, 20), (1, 4, 5)), (1, 4, 5), NO_PINV),
    Case("convolution", blur, (2, *BLUR), NO_PINV),
    Case("convolution of complex fields", blur, BLUR, NO_PINV, {"complex_fields": True}),
    Case("downsampling", lambda: operators.Downsampling((2, 3), (6, 9)), (2, 6, 9), NO_PINV),
    Case("Poisson's equation", lambda: operators.Poisson((6, 5), (1.0, 2.0)), (2, 6, 5), NO_PINV),
    Case("Helmholtz' equation", lambda: operators.Helmholtz((6, 5), 2.0), (1, 6, 5), NO_PINV),
    Case("Darcy's flow", lambda: operators.Darcy((6, 5), 2.0, (1.0, 2.0)), (1, 6, 5), (*NONLINEAR, "pinv"), lazy=rock),
    Case("MRI", mri, (1, 6, 5), NO_SVD, {"complex_fields": True}),
    Case("MRI of real fields", lambda: operators.RealField(mri()), (1, 6, 5), NO_SVD),
    Case("JPEG", lambda: operators.JPEG(50, 8.0, 0.5), (1, 16, 8), (*NONLINEAR, "vjp")),
    Case(
        "numpy function",
        lambda: operators.BlackBox(np.abs),
        (1, 4, 5),
        (*NONLINEAR, "pinv", "vjp"),
        {"storable": False},
    ),
    Case("frozen", lambda: operators.Frozen(blur()), BLUR, (*NONLINEAR, "pinv", "vjp")),
    Case("linear function", lambda: operators.Linear(difference, (4, 5)), (4, 5), NO_SVD, {"storable": False}),
    Case("linear operator by autograd", lambda: operators.Linear(blur(), BLUR), BLUR, NO_SVD),
    Case("stack", lambda: operators.stack([blur(), operators.Mask(seen(*BLUR))], BLUR), BLUR, NO_SVD),
    Case("composition", lambda: operators.Mask(seen(*BLUR)) @ blur() @ blur(), BLUR, NO_SVD),
    Case("composition with an svd", rotated, (4, 5), NO_PINV),
    Case("function of a measurement", lambda: squared @ blur(), BLUR, (*NONLINEAR, "pinv"), {"storable": False}),
    Case("sum", lambda: blur() - 0.5 * operators.Identity(), BLUR, NO_SVD),
    Case("multiple", lambda: -2.5 * blur(), BLUR, NO_PINV),
    Case("complex multiple", lambda: (1 - 2j) * blur(), BLUR, NO_SVD, {"complex_fields": True}),
    Case("adjoint", lambda: operators.Downsampling(2, (6, 8)).H, (3, 4), NO_PINV),
    Case("normal operator", lambda: blur().normal(), BLUR, NO_PINV),
]
# Checked elsewhere: Subprocess starts programs (tests/operators/test_black_box.py).
ELSEWHERE = {"Subprocess"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_conformance(case: Case) -> None:
    operator = case.factory()
    sides = [n for n in case.shape if n > 1]
    assert len(set(sides)) == len(sides), f"take unequal sides, not {case.shape}: symmetry hides mistakes"
    report = check_operator(operator, case.shape, generator=rng(), **case.flags, **case.lazy())
    missing = {name for name, value in report.as_dict().items() if value is None}
    assert missing == set(case.lacks)
    assert isinstance(operator, Algebra) and repr(operator)
    if "adjoint64" not in case.lacks:
        x = torch.ones(2, *case.shape, dtype=C128 if case.flags.get("complex_fields") else F64)
        y = operator(x)
        assert torch.equal(operator.H(y), operator.adjoint(y)) and torch.equal(operator.H.H(x), y)
        assert type(operator.normal()).__name__ == "Normal", "override `_normal(x)`, not `normal`"


def test_every_exported_operator_has_a_case() -> None:
    exported = {
        thing
        for module in (operators, combined)
        for name in module.__all__
        if inspect.isclass(thing := getattr(module, name)) and callable(thing)
    }
    covered = {type(case.factory()) for case in CASES}
    missing = {kind.__name__ for kind in exported - covered} - ELSEWHERE
    assert not missing, f"add a line to CASES for {sorted(missing)}"
