"""Baselines against closed forms: the law of an autoregression, the exact law of a stirred field, a moving picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from scidiff.datasets import part_of, split_times, trajectories, with_season
from scidiff.datasets.stochastic_transport import law_of
from scidiff.errors import InputError
from scidiff.forecast import (
    Analogues,
    Climatology,
    DampedPersistence,
    LinearInverseModel,
    OpticalFlow,
    Persistence,
    StateSpec,
)
from scidiff.forecast.optical_flow import carry, motion
from scidiff.metrics import crps
from scidiff.rng import Streams
from scidiff.solvers import StochasticTransport


def ar1(r: torch.Tensor, v: torch.Tensor, rows: int, steps: int, seed: int = 0) -> torch.Tensor:
    """Stationary series (rows, steps, *r.shape) of independent points."""
    g = torch.Generator().manual_seed(seed)
    e = torch.randn(rows, steps, *r.shape, generator=g, dtype=torch.float64)
    x = [v.sqrt() * e[:, 0]]
    for t in range(1, steps):
        x.append(r * x[-1] + (v * (1 - r.square())).sqrt() * e[:, t])
    return torch.stack(x, 1)


R = torch.tensor([[[0.9, 0.5, 0.2], [0.7, -0.4, 0.0]]], dtype=torch.float64)
V = torch.tensor([[[1.0, 4.0, 0.5], [2.0, 1.0, 3.0]]], dtype=torch.float64)
LAGS = torch.stack([R**j for j in range(4)])


def baselines(states: torch.Tensor) -> list:
    phases = torch.linspace(0, 1, states.shape[1])[:, None]
    return [
        Persistence(3),
        DampedPersistence.of(states, 3),
        Climatology(states, 3),
        Climatology(states[:1], 3, phases, 5),
        Analogues(states, 3, 4),
        LinearInverseModel(states, 3, 2),
        OpticalFlow(3, states.amin((0, 1, 3, 4)), errors=torch.randn(5, 3, *states.shape[2:]), radius=2),
    ]


def test_rows_do_not_depend_on_their_neighbours_and_keep_their_type() -> None:
    states = ar1(R, V, 4, 30).float()
    for model in baselines(states):
        last = states[:, : model.window]
        forcing = torch.rand(4, model.window + 3, 1, 2, 3, generator=torch.Generator().manual_seed(1))
        whole = model.sample(last, forcing, generator=Streams(5, range(4)))
        assert whole.shape == (4, 3, 1, 2, 3) and model.network_calls == 0
        alone = model.sample(last[2:3], forcing[2:3], generator=Streams(5, [2]))
        torch.testing.assert_close(whole[2:3], alone, rtol=0, atol=1e-5)
        assert model.sample(last.double(), forcing, generator=Streams(5, range(4))).dtype == torch.float64
        other = model.sample(last, forcing, generator=Streams(6, range(4)))
        assert model.stochastic != torch.equal(whole, other)


def test_corrections_reach_every_predicted_state() -> None:
    states = ar1(R, V, 4, 30).float()
    for model in baselines(states):
        leads = []

        def correct(x: torch.Tensor, lead: float, leads=leads) -> torch.Tensor:
            leads.append(lead)
            return x.clamp_min(0)

        made = model.sample(
            states[:, : model.window], torch.zeros(4, 5, 1, 2, 3), generator=Streams(5, range(4)), correct=correct
        )
        assert leads == [1.0, 2.0, 3.0] and float(made.min()) == 0


def test_damped_persistence_has_the_law_of_an_autoregression() -> None:
    """Given the true correlations r^j: mean r^j x, covariance v (r^|i-j| - r^(i+j)), for every point."""
    model = DampedPersistence(torch.full_like(R, 0.5), V, LAGS)
    x = torch.linspace(-1, 2, 6).reshape(1, 1, 1, 2, 3)
    root = model.root.double()
    covariance = torch.einsum("ik...,jk...->ij...", root, root)
    i = torch.arange(1, 4)
    true = V * (R ** (i[:, None] - i).abs()[..., None, None, None] - R ** (i[:, None] + i)[..., None, None, None])
    torch.testing.assert_close(covariance, true, rtol=1e-5, atol=1e-6)
    n = 4000
    drawn = model.sample(x.expand(n, -1, -1, -1, -1), generator=torch.Generator().manual_seed(0))
    error = drawn.mean(0) - (0.5 + LAGS[1:].float() * (x[0] - 0.5))
    assert float((error / model.root.square().sum(1).sqrt().clamp_min(1e-6)).abs().max()) < 5 / np.sqrt(n)


def test_damped_persistence_finds_the_law_in_data() -> None:
    """40 000 states: correlations within 0.05, variances within 10 %."""
    model = DampedPersistence.of(ar1(R, V, 40, 1000).float() + 3.0, 3)
    torch.testing.assert_close(model.memory.double(), LAGS[1:], rtol=0, atol=0.05)
    torch.testing.assert_close(model.std(2).double(), (V * (1 - R**4)).sqrt(), rtol=0.05, atol=0)


def test_damped_persistence_keeps_each_lead_s_variance_for_any_correlations() -> None:
    """Correlations that no series has: the law of every single lead stays v (1 - r_j^2). Land stays still."""
    r = torch.tensor([1.0, 0.2, 0.9, -0.5])[:, None, None, None].expand(4, 1, 1, 2)
    model = DampedPersistence(torch.zeros(1, 1, 2), torch.tensor([[[2.0, 0.0]]]), r)
    for lead in (1, 2, 3):
        expected = torch.tensor([[[float(2 * (1 - r[lead, 0, 0, 0] ** 2)) ** 0.5, 0.0]]])
        torch.testing.assert_close(model.std(lead), expected)
    drawn = model.sample(torch.zeros(3, 1, 1, 1, 2), generator=Streams(0, range(3)))
    assert not drawn[..., 1].any() and drawn[..., 0].all()


def test_an_analogue_s_error_is_one_the_series_made() -> None:
    """With r known at lag 1, x' - r x is a_{s+1} - r a_s for one s: an innovation of the series, at all points."""
    states = ar1(R, V, 3, 20).float()
    model = Analogues(states, 1, near=57)
    r = model.memory[0]
    innovations = (states[:, 1:] - r * states[:, :-1]).flatten(0, 1)
    x = torch.randn(200, 1, 1, 2, 3, generator=torch.Generator().manual_seed(3))
    made = model.sample(x, generator=Streams(0, range(200)))[:, 0] - r * x[:, 0]
    distance = (made.flatten(1)[:, None] - innovations.flatten(1)).norm(dim=-1)
    assert float(distance.min(1).values.max()) < 1e-5
    assert len(distance.argmin(1).unique()) > 45


def test_the_nearest_analogue_of_a_training_state_is_itself() -> None:
    states = ar1(R, V, 3, 20).float()
    for fade in (True, False):
        made = Analogues(states, 2, near=1, fade=fade).sample(states[:, 7:8], generator=Streams(0, range(3)))
        torch.testing.assert_close(made, states[:, 8:10])


def test_climatology_draws_stretches_near_the_time_of_year() -> None:
    """States that tell their time: successive, and begin within two days of the day in one of four years of 25 days.

    Stretches of three begin at 0 to 96, so the fourth turn of the year, at 98 to 102, has none: 3 + 5 + 5 + 5 starts.
    """
    time = torch.arange(100.0)
    states = time[None, :, None, None].expand(1, 100, 1, 2)
    angle = 2 * torch.pi * time / 25
    phases = torch.stack([angle.cos(), angle.sin()], 1)
    model = Climatology(states, 3, phases, near=18)
    forcing = phases[50:54, :, None].expand(-1, -1, 2)[None].expand(400, -1, -1, -1)
    made = model.sample(torch.zeros(400, 1, 1, 2), forcing, generator=Streams(0, range(400)))[..., 0, 0]
    assert (made.diff(dim=1) == 1).all()
    assert set((made[:, 0] - 1).tolist()) == {0, 1, 2, *range(23, 28), *range(48, 53), *range(73, 78)}
    with pytest.raises(ValueError, match="give the forcing"):
        model.sample(torch.zeros(2, 1, 1, 2))


def test_linear_inverse_model_finds_the_propagator_and_the_floor() -> None:
    """All patterns of 30 points from 8000 states: A of the law within 0.1, CRPS within 3 % of the exact law's."""
    law = StochasticTransport((6, 5), (0.05, 0.1), 1e-3, 0.1)
    train = law.trajectories(torch.Generator().manual_seed(0), 160, 50)[:, :, None].float()
    model = LinearInverseModel(train, 3, components=1.0)
    assert model.components == 30 and model.rest is None
    basis = torch.eye(30).reshape(30, 1, 6, 5)
    A = model._field(model._amplitudes(basis) @ model.propagator.T) - model._field(torch.zeros(1, 30))
    zero = model._field(model._amplitudes(0 * basis) @ model.propagator.T) - model._field(torch.zeros(1, 30))
    torch.testing.assert_close(A[:, 0] - zero[:, 0], law.mean(basis[:, 0]), rtol=0, atol=0.1)
    truth = law.trajectories(torch.Generator().manual_seed(1), 200, 3)[:, :, None].float()
    rows = truth[None, :, :1].expand(20, -1, -1, -1, -1, -1).flatten(0, 1)
    floor = torch.tensor([law.expected_crps(j) for j in (1, 2, 3)])

    def ratio(model) -> torch.Tensor:  # noqa: ANN001
        made = model.sample(rows, generator=torch.Generator().manual_seed(2)).unflatten(0, (20, 200))
        return crps(made, truth[:, 1:]).mean((0, 2, 3, 4)) / floor

    assert bool((ratio(model) < 1.03).all()) and bool((ratio(model) > 0.97).all())
    # Fewer patterns and damped persistence for the rest lie between, and are no sharper than they may be.
    part = ratio(LinearInverseModel(train, 3, components=10))
    assert bool((part > ratio(model)).all()) and bool((part < ratio(DampedPersistence.of(train, 3))).all())


def test_linear_inverse_model_counts_patterns_by_variance_and_area() -> None:
    """Two waves with variances 4 and 1 under cells of unequal area: one explains 80 %."""
    area = torch.tensor([0.5, 1.5, 0.5, 1.5])
    g = torch.Generator().manual_seed(0)
    waves = torch.tensor([[1.0, 1, 1, 1], [3**0.5, -(3**-0.5), 3**0.5, -(3**-0.5)]])
    assert torch.allclose((waves * area) @ waves.T / 4, torch.eye(2))
    z = torch.randn(1, 4000, 2, generator=g) * torch.tensor([2.0, 1.0])
    states = (z @ waves)[:, :, None]
    assert LinearInverseModel(states, 1, 0.75, area).components == 1
    assert LinearInverseModel(states, 1, 0.9, area).components == 2
    few = LinearInverseModel(states[:, :3], 1, 1, area)  # three states of four points: the same patterns by another way
    plain = LinearInverseModel(states[:, :3].expand(2, -1, -1, -1), 1, 1, area)
    torch.testing.assert_close(
        few._field(torch.ones(1, 1)).abs(), plain._field(torch.ones(1, 1)).abs(), rtol=1e-4, atol=1e-4
    )
    with pytest.raises(ValueError, match="components is a whole number"):
        LinearInverseModel(states, 1, 1.5)


def blob(y: float, x: float) -> torch.Tensor:
    a, b = torch.meshgrid(torch.arange(40.0), torch.arange(48.0), indexing="ij")
    return torch.exp(-((a - y) ** 2 + (b - x) ** 2) / (2 * 4.0**2))


def test_motion_of_a_moving_picture_is_found_and_carried_on() -> None:
    flow = motion(blob(20, 22), blob(21.5, 21.25))
    seen = blob(20.7, 21.6) > 0.3
    torch.testing.assert_close(flow[0][seen].mean(), torch.tensor(1.5), rtol=0, atol=0.1)
    torch.testing.assert_close(flow[1][seen].mean(), torch.tensor(-0.75), rtol=0, atol=0.1)
    model = OpticalFlow(3, torch.zeros(1))
    pair = torch.stack([blob(20, 22), blob(21.5, 21.25)])[None, :, None]
    made = model.sample(pair)[0, :, 0]
    for j in (1, 2, 3):
        true = blob(21.5 + 1.5 * j, 21.25 - 0.75 * j)
        still = float((blob(21.5, 21.25) - true).norm())
        assert float((made[j - 1] - true).norm()) < 0.15 * still


def test_carry_is_exact_for_whole_cells_and_planes() -> None:
    x = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    moved = carry(x, torch.stack([torch.full((5, 7), 2.0), torch.full((5, 7), -1.0)]), torch.tensor([9.0, -9.0]))
    torch.testing.assert_close(moved[:, 2:, :-1], x[:, :-2, 1:], rtol=0, atol=1e-5)
    torch.testing.assert_close(moved[:, :2], torch.tensor([9.0, -9.0])[:, None, None].expand(2, 2, 7))
    y, z = torch.meshgrid(torch.arange(5.0), torch.arange(7.0), indexing="ij")
    plane = carry((2 * y + z)[None], torch.full((2, 5, 7), 0.5), torch.zeros(1))
    torch.testing.assert_close(plane[0, 1:, 1:], (2 * y + z - 1.5)[1:, 1:])


def test_fit_on_datasets() -> None:
    """From a Dataset of trajectories, and from a series with land and season."""
    data = part_of(trajectories("stochastic-transport", grid=(4, 6), times=20, train=10, validation=1, test=1), "train")
    spec = StateSpec.fit(data, "tracer")
    state = spec.to_tensor(data)[:, :2]
    for kind in (Persistence, DampedPersistence, Climatology, Analogues, LinearInverseModel, OpticalFlow):
        model = kind.fit(data, spec, 2)
        made = model.sample(state[:, -model.window :], generator=Streams(0, range(10)))
        assert made.shape == (10, 2, 1, 4, 6) and bool(made.isfinite().all())
    assert law_of(data).grid == (4, 6)
    time = np.arange("2001-01-01", "2003-01-01", dtype="datetime64[D]").astype("datetime64[ns]")
    values = np.random.default_rng(0).standard_normal((len(time), 4, 5)).astype(np.float32)
    values[:, 0, 0] = np.nan
    coords = {"time": time, "lat": [0.0, 30, 60, 75], "lon": [0.0, 1, 2, 3, 4]}
    series = xr.Dataset({"t": (("time", "lat", "lon"), values, {"units": "K"})}, coords)
    series = part_of(with_season(split_times(series, None, ("2002-12", "2002-12"))), "train")
    spec = StateSpec.fit(series, "t", ["annual_cos", "annual_sin"], mask="missing")
    state, forcing = spec.to_tensor(series), spec.forcing_tensor(series)
    for kind in (Persistence, DampedPersistence, Climatology, Analogues, LinearInverseModel):
        model = kind.fit(series, spec, 2)
        made = model.sample(state[None, :1], forcing[None, :3], generator=Streams(0, [0]))
        assert not made[..., 0, 0].any() and bool(made.isfinite().all())
    with pytest.raises(InputError, match="3 times in a row"):
        Persistence.fit(series, spec, 2), DampedPersistence.fit(series.isel(time=slice(3)), spec, 4)
