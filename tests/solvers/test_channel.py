"""Poiseuille's profile with order two in space, order three in time, no divergence, no leak, drag of a known disc."""

from __future__ import annotations

import math

import pytest
import torch

from scidiff.solvers.channel import Channel, discs


def advance(channel: Channel, flow, dt: float, steps: int, t: float = 0.0):  # noqa: ANN001, ANN201
    for k in range(steps):
        flow = channel.step(flow, t + k * dt, dt)
    return flow


def test_poiseuille_flow_stays_with_order_two() -> None:
    errors = []
    for rows in (12, 24):
        channel = Channel((rows, rows), 1.0, 0.1)
        u, v = channel.rest()
        u = channel.profile[None, :, None].expand_as(u).clone()
        dt = min(0.02, 0.25 * channel.h**2 / 0.1)
        u, v = advance(channel, (u, v), dt, round(3 / dt))
        errors.append(float((u[0, :, -1] - channel.profile).abs().max()))
        # The pressure falls by 8 nu / H^2 per length.
        fall = channel.pressure((u, v), 3.0)[0].mean(0).diff()[rows // 4 : -rows // 4] / channel.h
    slopes = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert slopes[-1] == pytest.approx(2, abs=0.3) and errors[-1] < 2e-3
    assert fall.mean() == pytest.approx(-0.8, rel=0.02)


def test_order_three_in_time_while_the_inflow_changes() -> None:
    channel = Channel((6, 12), 1.0, 0.02, lambda t: 1 - math.exp(-5 * t))
    fine = advance(channel, channel.rest(), 1 / 320, 320)[0]
    errors = [float((advance(channel, channel.rest(), 1 / k, k)[0] - fine).norm()) for k in (20, 40, 80)]
    slopes = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert slopes == pytest.approx([3, 3], abs=0.2)


def test_no_divergence_no_leak_and_rows_alone() -> None:
    """Two different channels in a batch: each as if it were alone."""
    centres = torch.tensor([[[0.4, 0.8]], [[0.6, 1.1]]], dtype=torch.float64)
    radii = torch.tensor([[0.2], [0.15]], dtype=torch.float64)
    both = Channel((8, 18), 1.0, 0.01, solid=discs(centres, radii))
    flow = advance(both, both.rest(2), 0.03, 12)
    assert float(both.divergence(flow).abs().max()) < 1e-10
    assert float((flow[0] * (1 - both.free_x)).abs().max()) == 0 and int(both.free.eq(0).sum()) == 12
    assert float(flow[0][:, :, -1].sum(-1).sub(both.profile.sum()).abs().max()) < 1e-10  # what goes in comes out
    alone = Channel((8, 18), 1.0, 0.01, solid=discs(centres[1:], radii[1:]))
    torch.testing.assert_close(advance(alone, alone.rest(), 0.03, 12)[0], flow[0][1:], rtol=0, atol=1e-9)
    # The projection is orthogonal: a second one changes nothing, and the pressure's gradient does no work.
    again, _ = both._admit(flow, 1.0)
    torch.testing.assert_close(again[0], flow[0], rtol=0, atol=1e-10)


def test_drag_of_a_disc_at_reynolds_number_20() -> None:
    """Schaefer and Turek's case 2D-1: a drag coefficient of 5.58; here a disc of six cells, within a tenth."""
    solid = discs(torch.tensor([[[0.2, 0.2]]], dtype=torch.float64), torch.tensor([[0.05]], dtype=torch.float64))
    channel = Channel((24, 129), 0.41, 1e-3, lambda t: 0.3 * min(1.0, 2 * t), solid)
    flow = advance(channel, channel.rest(), 0.025, 120)
    assert float(2 * channel.drag(flow, 3.0) / (0.2**2 * 0.1)) == pytest.approx(5.58, rel=0.1)


def test_says_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="at least 4 cells"):
        Channel((2, 10))
