"""JPEG: the transform, the table, the pseudo-inverse, units."""

import math

import pytest
import torch
from torch import Generator

from scidiff.operators import JPEG
from scidiff.testing import check_batch_independence


def field(*shape):
    return torch.randn(*shape, generator=Generator().manual_seed(0), dtype=torch.float64)


def test_one_cosine_is_one_coefficient():
    """cos((2i+1) 3 pi/16) down, constant across: amplitude times (1/2)(8/2)(sqrt 8) in place (3, 0)."""
    i = torch.arange(8, dtype=torch.float64)
    x = 100 * torch.cos((2 * i + 1) * 3 * math.pi / 16)[:, None].expand(8, 8)
    y = JPEG(50, scale=255.0)(x[None, None])
    expected = torch.zeros(8, 8, dtype=torch.float64)
    expected[3, 0] = round(100 * 2 * math.sqrt(8) / 14)
    assert torch.equal(y[0, 0, 0, 0], expected)


def test_tables_of_known_qualities():
    assert JPEG(50, 1.0).table[0].tolist() == [16, 11, 10, 16, 24, 40, 51, 61]
    assert JPEG(10, 1.0).table[0].tolist() == [80, 55, 50, 80, 120, 200, 255, 255]
    assert bool((JPEG(100, 1.0).table == 1).all())


@pytest.mark.parametrize("quality", [5, 50, 95])
def test_pseudo_inverse(quality):
    operator, x = JPEG(quality, scale=6.0), field(2, 3, 16, 24)
    y = operator(x)
    assert y.shape == (2, 3, 2, 3, 8, 8)
    assert torch.equal(operator(operator.pinv(y)), y)
    error = (operator.pinv(y) - x).unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8)).flatten(-3, -3)
    largest = (operator.table * 6 / 255).norm() / 2  # every coefficient off by half a step
    assert error.transpose(-3, -2).flatten(-2).norm(dim=-1).max() <= largest


def test_units_and_batches():
    x = field(3, 1, 8, 16)
    assert torch.equal(JPEG(30, 6.0)(x), JPEG(30, 30.0, 280.0)(280 + 5 * x))
    assert torch.allclose(JPEG(30, 30.0, 280.0).pinv(JPEG(30, 6.0)(x)), 280 + 5 * JPEG(30, 6.0).pinv(JPEG(30, 6.0)(x)))
    check_batch_independence(JPEG(30, 6.0), x)


@pytest.mark.parametrize("call, message", [
    (lambda: JPEG(0, 1.0), "between 1 and 100"),
    (lambda: JPEG(50, 0.0), "scale must be positive"),
    (lambda: JPEG(50, 1.0)(torch.zeros(1, 1, 8, 9)), "multiples of 8"),
    (lambda: JPEG(50, 1.0).pinv(torch.zeros(1, 8, 8)), "expected"),
])  # fmt: skip
def test_rejects(call, message):
    with pytest.raises(ValueError, match=message):
        call()
