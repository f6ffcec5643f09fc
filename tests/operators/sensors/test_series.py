"""Trajectories, gaps and nonlinear sensors: against loops, closed forms and finite differences."""

import numpy as np
import pytest
import torch

from scidiff.operators import (
    Clipped,
    Convolution,
    Exceeds,
    OverTime,
    Points,
    Saturating,
    Speed,
    Squared,
    StationSeries,
    Subsampling,
)
from scidiff.operators.sensors import frames_at
from scidiff.testing import check_adjoint, check_vjp

F64 = torch.float64


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def points():
    return Points((np.arange(4.0), np.arange(6.0)), ([0.5, 2.2, 3.0], [4.9, 0.0, 1.5]))


def test_over_time_is_a_loop_over_frames():
    x, frame = randn(2, 5, 1, 4, 6), Convolution(randn(3, 2, seed=1), (4, 6))
    operator = OverTime(Squared() @ frame, 5, observed=[0, 2, 3])
    loop = torch.stack([frame(x[:, t]).square() for t in (0, 2, 3)], 1)
    assert torch.allclose(operator(x), loop, atol=1e-13)
    check_vjp(operator, x)
    assert not hasattr(operator, "adjoint")
    check_adjoint(OverTime(points(), 5, [1, 4]), (5, 1, 4, 6))
    assert OverTime(Exceeds(0.0), 5).differentiable is False
    assert OverTime(Subsampling(2, (4, 6)), 5).rows_orthonormal


def test_stations_with_gaps_see_what_was_reported():
    x, sensors = randn(2, 5, 4, 6), points()
    data = sensors(x)
    data[:, 1, 2] = data[:, 4, 0] = np.nan
    reported = torch.isfinite(data[0])
    operator = StationSeries(sensors, reported)
    z = operator(x)
    assert z.shape == (2, 13) and torch.equal(z, operator.values(data))
    full = operator.series(z)
    assert torch.equal(full.isnan(), data.isnan()) and torch.equal(full[~full.isnan()], data[~data.isnan()])
    # the order is time first
    assert torch.equal(z[:, :3], data[:, 0])


def test_times_of_observations():
    days = np.arange("1993-01-01", "1993-01-11", 2, dtype="datetime64[D]")
    assert frames_at(days[[1, 4]].astype("datetime64[ns]"), days) == [1, 4]
    assert frames_at([0.0, 0.3 - 1e-12], 0.1 * np.arange(4)) == [0, 3]
    with pytest.raises(ValueError, match="1 of 2 observation times .*: 0.25; frames run from 0.0 to .*Add time"):
        frames_at([0.1, 0.25], 0.1 * np.arange(4))
    with pytest.raises(ValueError, match="1993-01-04.*frames run from 1993-01-01 to 1993-01-09"):
        frames_at(np.array(["1993-01-04"], dtype="datetime64[D]"), days)


def test_values_and_slopes_of_nonlinear_sensors():
    x = randn(3, 2, 4, 5)
    assert torch.allclose(Speed()(x)[:, 0], (x[:, 0] ** 2 + x[:, 1] ** 2).sqrt())
    assert torch.allclose(Saturating()(x), x / (1 + x.abs()))
    assert torch.allclose(Saturating(3.0)(x), 3 * Saturating()(x / 3)) and float(Saturating(3.0)(1e9 * x).max()) < 3
    assert torch.equal(Clipped(high=0.2)(x), x.minimum(torch.tensor(0.2, dtype=F64)))
    assert torch.equal(Exceeds(0.2)(x) == 1, x > 0.2)
    for operator in (Speed(), Saturating(0.7), Squared(), Clipped(-8.0, 9.0)):
        check_vjp(operator, x)


def test_derivatives_where_there_is_none():
    """At rest the speed has slope 0, beyond its ends a clipped sensor too: finite, never NaN."""
    x = torch.zeros(1, 2, 3, requires_grad=True)
    (g,) = torch.autograd.grad(Speed()(x).sum(), x)
    assert torch.equal(g, torch.zeros_like(g))
    x = torch.tensor([[-2.0, 0.0, 2.0]], requires_grad=True)
    (g,) = torch.autograd.grad(Clipped(-1.0, 1.0)(x).sum(), x)
    assert g.tolist() == [[0.0, 1.0, 0.0]]


@pytest.mark.parametrize("make, message", [
    (lambda: OverTime(Squared(), 3, [0, 0]), "increasing indices from 0 to 2"),
    (lambda: OverTime(Squared(), 3, [1, 3]), "increasing indices"),
    (lambda: OverTime(Squared(), 3)(torch.ones(1, 2, 4)), r"expected a trajectory \(B, 3, ...\)"),
    (lambda: StationSeries(points(), torch.ones(5, 4, dtype=torch.bool)), "4 stations, Points has 3"),
    (lambda: StationSeries(points(), torch.zeros(5, 3, dtype=torch.bool)), "no station reported"),
    (lambda: StationSeries(points(), torch.ones(5, 3)), "must be boolean"),
    (lambda: Speed(0), "dim 0 counts independent fields"),
    (lambda: Saturating(0.0), "scale must be positive"),
    (lambda: Clipped(), "needs an end"),
    (lambda: Clipped(1.0, 1.0), "low must be below high"),
    (lambda: Exceeds(float("nan")), "threshold must be finite"),
])  # fmt: skip
def test_one_clear_error_each(make, message):
    with pytest.raises(ValueError, match=message):
        make()
