"""The published rules of the spring mesh, and that states of chaotic systems follow each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scidiff.datasets import trajectories
from scidiff.datasets.obstacles import place_discs
from scidiff.errors import InputError
from scidiff.solvers import NavierStokes, SpringMesh, ifrk4, lorenz96, rk4

COUNTS = {"train": 2, "validation": 1, "test": 1}


def test_spring_mesh_starts_at_rest_uniformly_in_the_disc() -> None:
    """In a disc of radius R the squared distance is uniform on [0, R^2]; 360 draws, 5 standard errors of the mean."""
    data = trajectories("spring-mesh", times=2, **COUNTS)
    first = data.isel(time=0)
    assert not first.p_x.values.any() and not first.p_y.values.any()
    x, y = np.meshgrid(data.x, data.y)
    square = (first.q_x - x) ** 2 + (first.q_y - y) ** 2
    assert not square.values[:, data.fixed.values].any() and data.fixed.values.sum() == 10
    share = square.values[:, ~data.fixed.values] / 0.35**2
    assert share.max() <= 1 + 1e-5
    assert abs(share.mean() - 0.5) < 5 / np.sqrt(12 * share.size)
    assert abs((first.q_x - x).values.mean()) < 5 * 0.175 / np.sqrt(400)


def test_spring_mesh_follows_the_solver_and_the_published_clock() -> None:
    data = trajectories("spring-mesh", **{**COUNTS, "times": 4, "grid": (4, 3), "substeps": 8})
    assert (np.diff(data.time) == np.timedelta64(7_810_000, "ns")).all()
    q, p = (torch.from_numpy(np.stack([data[f"{n}_x"], data[f"{n}_y"]], 2)).double() for n in "qp")
    later = SpringMesh((4, 3)).advance(q[:, 0], p[:, 0], 0.00781 / 64, 64 * 3)
    torch.testing.assert_close(q[:, 3], later[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(p[:, 3], later[1], rtol=0, atol=1e-6)


def test_kolmogorov_states_follow_each_other() -> None:
    data = trajectories("kolmogorov", **COUNTS, grid=(16, 20), forcing=2, start=0.25, every=0.25, dt=1 / 32, times=3)
    solver = NavierStokes((16, 20), 1 / 200, 0.1, 2)
    w = solver.transform(torch.from_numpy(data.vorticity.values[:, 0]).double())
    step = ifrk4(solver, 1 / 64)
    for _ in range(32):
        w = step(w)
    torch.testing.assert_close(
        solver.field(w).float(), torch.from_numpy(data.vorticity.values[:, 2]), rtol=0, atol=2e-3
    )
    with pytest.raises(InputError, match="dt must divide"):
        trajectories("kolmogorov", every=0.3, dt=0.2)


def test_lorenz96_states_follow_each_other_up_to_the_noise() -> None:
    options = {"size": 8, "times": 40, "burn_in": 5.0, "train": 8, "validation": 0, "test": 0}
    exact, noisy = (trajectories("lorenz96", noise=n, **options).x.values.astype(np.float64) for n in (0.0, 0.3))
    step = rk4(lambda x: lorenz96(x), 0.00625)

    def errors(x: np.ndarray) -> torch.Tensor:
        w = torch.from_numpy(x[:, :-1])
        for _ in range(8):
            w = step(w)
        return torch.from_numpy(x[:, 1:]) - w

    assert float(errors(exact).abs().max()) < 1e-3
    assert float(errors(noisy).std()) == pytest.approx(0.3, rel=0.1)
    assert 3.0 < exact.std() < 4.3  # known climate of F = 8: 3.6


def test_flow_past_discs_keeps_its_boundary_and_its_distances() -> None:
    data = trajectories("obstacles", **COUNTS, rows=8, discs_each=2, times=3, substeps=6)
    assert data.velocity_x.shape == (4, 3, 8, 43) and not data.velocity_x.values[:, 0].any()
    solid = np.broadcast_to(data.solid.values[:, None], data.velocity_x.shape)
    assert not data.velocity_x.values[solid].any() and 0.02 < data.solid.values.mean() < 0.2
    profile = 4 * data.y * (0.41 - data.y) / 0.41**2 * (1 - np.exp(-5 * 0.16))
    np.testing.assert_allclose(data.velocity_x.values[:, 2, :, 0], np.tile(profile, (4, 1)), atol=0.05)
    for seed in range(10):
        centres, radii = place_discs(4, (0.05, 0.1), torch.Generator().manual_seed(seed))
        gap = torch.cdist(centres, centres) - radii[:, None] - radii + 10 * torch.eye(4)
        assert float(gap.min()) >= 0.05 and float((centres[:, 0] - radii).min()) >= 0.05
        assert float((centres[:, 1] + radii).max()) <= 2.2 - 0.25
    with pytest.raises(InputError, match="do not fit"):
        place_discs(30, (0.1, 0.1), torch.Generator().manual_seed(0))
