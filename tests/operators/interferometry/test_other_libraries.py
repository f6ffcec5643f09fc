"""The same numbers as ehtim and deepinv, where they are installed."""

import math

import pytest
import torch
from torch import Generator

from scidiff.operators.interferometry import Visibilities

F64 = torch.float64
PIXEL = 1e-11


@pytest.mark.parametrize("square", [False, True])
def test_ehtim(square):
    pytest.importorskip("ehtim", reason="ehtim is not installed or does not import", exc_type=ImportError)
    from ehtim.observing.obs_helpers import ftmatrix
    from ehtim.observing.pulses import deltaPulse2D, rectPulse2D

    uv = 5e9 * torch.randn(11, 2, dtype=F64, generator=Generator().manual_seed(0))
    x = torch.rand(1, 1, 5, 8, dtype=F64, generator=Generator().manual_seed(1))
    matrix = ftmatrix(PIXEL, 8, 5, uv.numpy(), pulse=rectPulse2D if square else deltaPulse2D)
    expected = torch.as_tensor(matrix) @ x.flatten().to(torch.complex128)
    assert torch.allclose(Visibilities(uv, (5, 8), PIXEL, square)(x)[0], expected, rtol=0, atol=1e-12)


def test_deepinv():
    """Its phase is exp(-i w.s) from pixel (H // 2, W // 2) with an orthonormal factor, rows first."""
    pytest.importorskip("torchkbnufft", reason="deepinv's operator needs torchkbnufft", exc_type=ImportError)
    from deepinv.physics import RadioInterferometry

    height, width = 12, 18
    uv = 1.5e10 * torch.randn(11, 2, dtype=F64, generator=Generator().manual_seed(0))
    x = torch.rand(2, 1, height, width, generator=Generator().manual_seed(1))
    turns = uv.flip(1).T * PIXEL  # of row and column, per pixel
    turns = turns - turns.round()
    physics = RadioInterferometry((height, width), (2 * math.pi * turns).float())
    shift = torch.exp(2j * math.pi * (turns * torch.tensor([-0.5, -0.5]).reshape(2, 1)).sum(0))
    theirs = physics.A(x)[:, 0] * math.sqrt(4 * height * width) * shift
    ours = Visibilities(uv, (height, width), PIXEL)(x)
    assert float((ours - theirs).abs().max()) < 2e-3 * float(x.sum((-2, -1)).max())
