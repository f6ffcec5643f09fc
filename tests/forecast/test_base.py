"""Streams of forecasters, and the package that is also a function."""

from __future__ import annotations

import pytest
import torch

from scidiff.forecast.base import streams_of
from scidiff.rng import Streams


def test_a_generator_becomes_one_stream_per_row_and_is_not_advanced() -> None:
    g = torch.Generator().manual_seed(3)
    first, second = streams_of(g, 3).randn((2,)), streams_of(g, 2).randn((2,))
    assert torch.equal(first[:2], second)
    assert not torch.equal(first[0], first[1])


def test_streams_must_be_as_many_as_rows() -> None:
    with pytest.raises(ValueError, match="expected 3 streams"):
        streams_of(Streams(0, range(2)), 3)
