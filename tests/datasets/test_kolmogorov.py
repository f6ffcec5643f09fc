"""Windows of Kolmogorov flow: symmetries map solutions to solutions, frames are a resolved flow."""

import pytest
import torch

from scidiff.datasets.kolmogorov import KolmogorovWindows, truncated
from scidiff.errors import InputError
from scidiff.solvers import NavierStokes, advance, ifrk4


@pytest.fixture(scope="module")
def flow() -> KolmogorovWindows:
    return KolmogorovWindows((16, 24), forcing=2, trajectories=3, start=0.4, stop=1.6, seed=1)


def test_symmetries_commute_with_the_equation(flow) -> None:
    equation = NavierStokes((16, 24), 1 / 50, 0.1, 2, dtype=torch.float64)
    step = ifrk4(equation, 0.02)

    def later(x):
        return equation.field(advance(step, equation.transform(x), 10))

    x = later(flow.frames[:2, 0].double() * flow.scale)
    for right, down, mirror, turn in (
        (3, 0, False, False),
        (0, 8, False, False),
        (0, 0, True, False),
        (5, 8, True, True),
    ):
        moved = flow.moved(x, right, down, mirror, turn)
        assert torch.allclose(later(moved), flow.moved(later(x), right, down, mirror, turn), atol=1e-10)
        assert float((moved - x).abs().max()) > 0.1
    wrong = x.roll(3, -2)  # not a period of the forcing
    assert float((later(wrong) - later(x).roll(3, -2)).abs().max()) > 0.1


def test_frames_are_one_flow_and_some_are_held_out(flow) -> None:
    assert flow.frames.shape == (2, 7, 16, 24) and flow._apart.shape == (1, 7, 16, 24)
    x = flow(torch.Generator().manual_seed(0), (5, 16, 24))
    assert x.shape == (1, 5, 16, 24)
    assert abs(float(flow.frames.square().mean()) - 1) < 1e-5
    change = (flow.frames[:, 1:] - flow.frames[:, :-1]).norm() / flow.frames.norm()
    assert 0.01 < float(change) < 0.8  # 0.2 apart: neither the same nor another flow
    assert float(flow.frames.mean((2, 3)).abs().max()) < 1e-5
    with pytest.raises(InputError, match="window of Kolmogorov flow is"):
        flow(torch.Generator(), (5, 8, 8))
    with pytest.raises(ValueError, match="multiples of 2 \\* forcing"):
        KolmogorovWindows((18, 24), forcing=4)


def test_truncation_keeps_resolved_waves_and_drops_others() -> None:
    y, x = torch.arange(32).double() / 32 * 2 * torch.pi, torch.arange(48).double() / 48 * 2 * torch.pi
    low = torch.cos(2 * y[:, None] + 3 * x)
    small = truncated(low + torch.cos(7 * y[:, None]) + torch.cos(11 * x), (16, 24))
    assert torch.allclose(small, low[::2, ::2], atol=1e-12)
