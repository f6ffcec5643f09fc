"""Sliced Wasserstein distance against closed forms."""

import math

import pytest
import torch
from scipy.stats import wasserstein_distance
from torch import Generator

from scidiff.metrics import sliced_wasserstein

F64 = torch.float64


def randn(*shape):
    return torch.randn(*shape, generator=Generator().manual_seed(0), dtype=F64)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_a_shift_in_one_dimension(p):
    a = randn(50, 1)
    assert sliced_wasserstein(a, a + 0.7, 5, p) == pytest.approx(0.7, rel=1e-12)
    assert sliced_wasserstein(a, a.flip(0), 5, p) == 0


@pytest.mark.parametrize("counts", [(7, 7), (6, 9), (12, 5)])
def test_transport_on_the_line(counts):
    """Any numbers of samples: scipy's distance between empirical laws."""
    a, b = randn(counts[0], 1), 2 * randn(sum(counts), 1)[counts[0] :] + 0.3
    expected = wasserstein_distance(a[:, 0].numpy(), b[:, 0].numpy())
    assert sliced_wasserstein(a, b, 3) == pytest.approx(expected, rel=1e-12)


def test_a_shift_in_space():
    """E|<theta, h>| = |h| / 2 and E<theta, h>^2 = |h|^2 / 3 for uniform directions in three dimensions."""
    a, h = randn(4, 1, 3), torch.tensor([2.0, -1.0, 2.0], dtype=F64)
    generator = Generator().manual_seed(1)
    assert sliced_wasserstein(a, a + h, 40000, generator=generator) == pytest.approx(1.5, rel=0.01)
    assert sliced_wasserstein(a, a + h, 40000, 2, generator) == pytest.approx(math.sqrt(3), rel=0.01)


def test_bad_use():
    with pytest.raises(ValueError, match="same field"):
        sliced_wasserstein(randn(4, 3), randn(4, 2))
    with pytest.raises(ValueError, match="at least 1"):
        sliced_wasserstein(randn(4, 3), randn(4, 3), p=0.5)
