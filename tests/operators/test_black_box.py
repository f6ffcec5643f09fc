"""Black boxes: the same numbers as their torch twins, and one clear error for each thing that can go wrong."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from scidiff.errors import NumericalError
from scidiff.inference import Likelihood
from scidiff.noise import GaussianNoise
from scidiff.operators import BlackBox, Frozen, Mask, Subprocess

PROGRAM = """
import sys, numpy
x = numpy.load(sys.argv[1], allow_pickle=False)
numpy.save(sys.argv[2], x[..., 0, :, :2] ** 3)
"""


def fields(dtype=torch.float64, rows=3):
    return torch.randn(rows, 2, 5, 8, generator=torch.Generator().manual_seed(0), dtype=dtype)


def twin(x):
    return x[..., 0, :, :2] ** 3


def python(program, **options):
    return Subprocess([sys.executable, "-c", program, "{input}", "{output}"], **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_black_boxes_are_their_torch_twins(dtype):
    x = fields(dtype)
    for operator in (BlackBox(twin), BlackBox(twin, batched=False), Frozen(twin), python(PROGRAM)):
        z = operator(x)
        assert operator.differentiable is False and z.dtype == dtype
        torch.testing.assert_close(z, twin(x), rtol=1e-6, atol=0)
    one_by_one = python(PROGRAM, batched=False)(x[:2])
    torch.testing.assert_close(one_by_one, twin(x[:2]), rtol=1e-6, atol=0)


def test_fields_are_given_to_an_executor_at_the_same_time():
    x, both = fields(rows=2), threading.Barrier(2, timeout=20)

    def together(field):
        both.wait()  # one call after the other would wait for ever
        return field[0, :, :2] ** 3

    with ThreadPoolExecutor(2) as threads:
        torch.testing.assert_close(BlackBox(together, batched=False, executor=threads)(x), twin(x), rtol=1e-12, atol=0)
        one_by_one = python(PROGRAM, batched=False, executor=threads)(x)
        torch.testing.assert_close(one_by_one, twin(x), rtol=1e-12, atol=0)
        with pytest.raises(ValueError, match="write batched=False"):
            BlackBox(twin, executor=threads)
    with pytest.raises(TypeError, match="must be a concurrent.futures.Executor, got int"):
        BlackBox(twin, batched=False, executor=2)  # type: ignore[arg-type]


def test_answers_of_other_kinds():
    x = fields(torch.float32)
    assert torch.equal(
        BlackBox(lambda x: (x > 0).sum((1, 2, 3)))(x), (x > 0).sum((1, 2, 3), dtype=torch.float32)[:, None]
    )
    assert torch.allclose(BlackBox(lambda x: float(x.sum()), batched=False)(x), x.sum((1, 2, 3))[:, None], rtol=1e-4)
    z = BlackBox(lambda x: np.fft.fft2(x))(x)
    assert z.dtype == torch.complex64 and torch.allclose(z, torch.fft.fft2(x), atol=1e-4)

    def careless(x):
        x[:] = 0
        return x

    kept = x.clone()
    assert bool((BlackBox(careless)(x) == 0).all()) and torch.equal(x, kept)


def test_black_boxes_hide_what_an_operator_can():
    frozen = Frozen(Mask(torch.ones(5, 8, dtype=torch.bool)))
    assert not hasattr(frozen, "adjoint") and not hasattr(frozen, "svd")
    likelihood = Likelihood(frozen, GaussianNoise(1.0), torch.zeros(3, 2, 40))
    assert not likelihood.linear and not likelihood.differentiable
    assert not frozen(fields().requires_grad_()).requires_grad


def nan(x):
    x[1, 0, 0, 0] = np.nan
    return x


@pytest.mark.parametrize("function, options, error, message", [
    (nan, {}, NumericalError, "nan gives NaN or infinite values for field 1 of 3; .*far from the data"),
    (lambda x: x[:2], {}, ValueError, r"given 3 fields .* shape \(2, 2, 5, 8\).*batched=False"),
    (lambda x: 1.0, {}, ValueError, "one measurement per field"),
    (lambda x: None, {}, TypeError, "NoneType .*return a numpy array of numbers"),
    (lambda x: "solved", {"batched": False}, TypeError, "str for field 0"),
    (lambda x: x.ravel()[: 3 + (x[0, 0, 0] > 0)], {"batched": False}, ValueError, "several shapes"),
])  # fmt: skip
def test_wrong_answers(function, options, error, message):
    with pytest.raises(error, match=message):
        BlackBox(function, **options)(fields())


@pytest.mark.parametrize("program, options, message", [
    ("raise ValueError('no convergence at z = 3')", {}, r"(?s)exit code 1.*Its last lines:.*no convergence at z = 3"),
    ("import time; time.sleep(60)", {"timeout": 0.5}, "longer than timeout=0.5 s"),
    ("pass", {}, "wrote no file {output}"),
    ("import sys; open(sys.argv[2], 'w').write('1 2 3')", {}, "no .npy array of numbers"),
])  # fmt: skip
def test_programs_that_fail(program, options, message):
    with pytest.raises(RuntimeError, match=message):
        python(program, **options)(fields())


def test_programs_that_cannot_be():
    with pytest.raises(RuntimeError, match="cannot be started"):
        Subprocess(["scidiff-no-such-program", "{input}", "{output}"])(fields())
    with pytest.raises(TypeError, match="sequence of arguments"):
        Subprocess("solve {input} {output}")
    with pytest.raises(ValueError, match="has no {output}"):
        Subprocess(["solve", "{input}"])
    with pytest.raises(ValueError, match="timeout"):
        Subprocess(["solve", "{input}", "{output}"], timeout=0)
    with pytest.raises(TypeError, match="callable"):
        BlackBox(3)
