"""The initial state of a flow: its law, a linear limit with a posterior in closed form, cases, scores, bad input."""

import math
from functools import partial

import numpy as np
import pytest
import torch

import scidiff
from scidiff.errors import InputError
from scidiff.linalg import Stationary
from scidiff.noise import GaussianNoise
from scidiff.operators import Linear, Mask
from scidiff.posterior import DPS, MMPS
from scidiff.priors import GaussianPrior
from scidiff.problems.flow_baselines import interpolated, most_probable
from scidiff.problems.imaging import tensor
from scidiff.problems.navier_stokes import NavierStokesInitial, initial_law, lowered
from scidiff.samplers import DPMSolver
from scidiff.schedules import log_linear

SHAPE = (16, 20)


def problem(**arguments) -> NavierStokesInitial:
    return NavierStokesInitial(
        **{
            "shape": SHAPE,
            "model_error": 0.3,
            "iterations": 5,
            "reynolds": 50.0,
            "std": 1.5,
            "forcing": 2,
            "time": 0.5,
            **arguments,
        }
    )


def wave(grid, rows: int, columns: int) -> torch.Tensor:
    """A plane wave on a grid, (H, W)."""
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) / n for n in grid), indexing="ij")
    return torch.cos(2 * math.pi * (rows * y + columns * x) + 0.7)


# The law


def test_the_law_of_a_fine_grid_is_that_of_the_coarse_one() -> None:
    """Covariance of waves: the same number on both grids, and the total is the square of the standard deviation."""
    coarse, fine = initial_law((16, 20), 3.0), initial_law((48, 60), 3.0)
    for rows, columns in ((1, 0), (2, 3), (0, 5)):
        both = []
        for law, grid in ((coarse, (16, 20)), (fine, (48, 60))):
            w = wave(grid, rows, columns)[None, None]
            both.append(float((w * law.cov.matmul(w)).sum() / (grid[0] * grid[1]) ** 2))
        assert both[0] == pytest.approx(both[1], rel=1e-10)
        # density (k^2 + 9)^-4 in physical wavenumbers of a box 2 pi high and 2 pi 20/16 wide
        k2 = rows**2 + (columns * 16 / 20) ** 2
        reference = wave((16, 20), 1, 0)[None, None]
        first = float((reference * coarse.cov.matmul(reference)).sum() / (16 * 20) ** 2)
        assert both[0] / first == pytest.approx(((k2 + 9) / 10) ** -4, rel=1e-10)
    assert float(fine.variance.mean()) == pytest.approx(9, rel=1e-3)
    mean = torch.ones(1, 1, *SHAPE, dtype=torch.float64)
    assert float(coarse.cov.matmul(mean).abs().max()) < 1e-12


def test_lowering_and_interpolating_keep_the_waves_that_both_grids_have() -> None:
    fine = wave((32, 40), 3, -4) + wave((32, 40), 11, 2)  # 11 of 16 rows cannot be seen
    torch.testing.assert_close(lowered(fine, (16, 20)), wave((16, 20), 3, -4))
    torch.testing.assert_close(interpolated(wave((16, 20), 3, -4), (32, 40)), wave((32, 40), 3, -4))
    with_gap = wave((16, 20), 3, -4)
    with_gap[2, 3] = math.nan
    assert torch.isfinite(interpolated(with_gap, (32, 40))).all()


# Little vorticity and no forcing: the flow is a heat equation, and the posterior is Gaussian in closed form


def linear_limit() -> tuple[NavierStokesInitial, object, GaussianPrior]:
    """Problem, observation, and the exact posterior, from a heat kernel that is no part of the solver."""
    p = problem(std=1e-3, noise=2e-4, model_error=0.0, forcing=0, reynolds=20.0, time=1.0, steps=2)
    observation = p.read(p.case(3).observation)
    ky, kx = (2 * math.pi * torch.fft.fftfreq(n, 2 * math.pi / SHAPE[0], dtype=torch.float64) for n in SHAPE)
    decay = torch.exp(-(ky[:, None].square() + kx.square()) / 20)
    cut = [3 * (torch.fft.fftfreq(n) * n).abs() < n for n in SHAPE]  # waves that the solver carries
    decay = decay * cut[0][:, None] * cut[1]

    def heat(x: torch.Tensor) -> torch.Tensor:
        return torch.fft.ifft2(decay.to(x.dtype) * torch.fft.fft2(x)).real

    operator = Mask(p.seen(observation)) @ Linear(heat, (1, *SHAPE))
    law = initial_law(SHAPE, 1e-3)
    exact = law.condition(operator, GaussianNoise(float(observation["noise_std"])), p.measurement(observation).double())
    return p, observation, exact


def test_in_the_linear_limit_4dvar_and_mmps_agree_with_the_closed_form() -> None:
    p, observation, exact = linear_limit()
    part = p.likelihood(observation)
    y = part.y.double()
    law = initial_law(SHAPE, 1e-3)
    found = most_probable(law.cov, part.operator, part.noise, y, 40)
    assert float((found[0] - exact.mean).norm() / exact.mean.norm()) < 2e-3
    levels = partial(log_linear, sigma_min=0.05, sigma_max=30.0)
    sampler = MMPS(DPMSolver(12, levels, stochastic=True), iterations=5, solver="cg", linearisations=1)
    members = 16
    ensemble = sampler(p.posterior(observation), members=members, generator=torch.Generator().manual_seed(0))
    x = ensemble.samples[:, 0]
    std = exact.variance.sqrt()
    off = ((x.mean(0) - exact.mean) / std).square().mean().sqrt()
    assert float(off) < 1.5 / members**0.5
    ratio = x.var(0).mean() / exact.variance.mean()
    assert 0.85 < float(ratio) < 1.15


# The problem


def test_cases_come_from_a_finer_grid_and_fit_their_posterior() -> None:
    p = NavierStokesInitial((24, 24), noise=0.5, std=2.0, forcing=2, time=0.5)
    case = p.case(1)
    assert "twice as fine" in case.observation.attrs["simulated"]
    assert case.truth.identical(p.case(1).truth) and not case.truth.equals(p.case(2).truth)
    observation = p.read(case.observation)
    assert float(observation["noise_std"]) == pytest.approx(math.hypot(0.5, p.model_error), rel=1e-6)
    assert 0.01 < p.model_error < 0.6
    part = p.posterior(observation).likelihood
    x = tensor(case.truth["vorticity"])[None, None]
    chi2 = float(part.residual(x).square().mean())
    assert 0.6 < chi2 < 1.6
    own = p.observe(case.truth, torch.Generator().manual_seed(1))
    assert float((own["later_vorticity"] - observation["later_vorticity"]).std()) < 3 * float(observation["noise_std"])
    assert p.check(observation)["warnings"] == [] and p.read(observation).equals(observation)


def test_gaps_and_single_noises_are_left_out_together() -> None:
    p = problem()
    observation = p.case(0).observation
    values = observation["later_vorticity"].values.copy()
    values[2, 3] = np.nan
    stds = np.linspace(0.5, 1.5, values.size).reshape(values.shape)
    dims = ("observed_y", "observed_x")
    gappy = p.read(observation.assign(later_vorticity=(dims, values, {"units": "s-1"}), noise_std=(dims, stds)))
    part = p.likelihood(gappy)
    assert part.y.shape == (1, 1, values.size - 1) and part.noise.std.shape == (1, values.size - 1)
    x = torch.zeros(1, 1, *SHAPE)
    z = p.flow(SHAPE)(x)[0, 0, ::2, ::2]
    kept = ~np.isnan(values)
    torch.testing.assert_close(part.operator(x)[0, 0], z[torch.from_numpy(kept)])
    assert part.noise.std[0, -1] == pytest.approx(1.5)


def test_reconstruct_beats_taking_the_data_for_the_answer(tmp_path) -> None:
    p = problem(noise=0.3, model_error=0.05, iterations=4, steps=8)
    case = p.case(0)
    case.observation.to_netcdf(tmp_path / "later.nc", engine="h5netcdf")
    result = scidiff.reconstruct(p, str(tmp_path / "later.nc"), sampler=DPS(steps=20), members=2, truth=case.truth)
    scores = p.evaluate(result, case.truth)
    assert float(scores["relative_l2"]) < 0.8 * float(scores["relative_l2_no_dynamics"])
    assert float(scores["relative_l2_4dvar"]) < 0.8 * float(scores["relative_l2_no_dynamics"])
    assert result["vorticity"].dims == ("member", "y", "x") and 0.2 < float(scores["chi2"]) < 2.5
    assert p.plot(result) is not None


def test_the_prior_follows_the_grid_of_the_observation_and_may_be_another() -> None:
    p = problem()
    wide = p.read(problem(shape=(20, 20)).case(0).observation)
    assert p.posterior(wide).shape == (1, 20, 20)
    own = GaussianPrior(torch.zeros(1, *SHAPE), Stationary.power_law(SHAPE, channels=1))
    assert problem(prior=own).posterior(p.case(0).observation).prior is own
    with pytest.raises(InputError, match="this field needs"):
        problem(prior=own).posterior(wide)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda o: o.isel(observed_y=slice(4)), "at least 16 x 16"),
        (lambda o: o.drop_vars("later_vorticity"), "expected a variable 'later_vorticity'"),
        (lambda o: o.assign(noise_std=-1.0), "'noise_std' must be positive"),
        (lambda o: o.assign(later_vorticity=o["later_vorticity"] * np.nan), "units|no number"),
        (lambda o: o.assign(later_vorticity=o["later_vorticity"].assign_attrs(units="K")), "s-1"),
    ],
)
def test_wrong_observations_are_named(change, message) -> None:
    p = problem()
    with pytest.raises(InputError, match=message):
        p.read(change(p.case(0).observation))


def test_a_mean_that_no_periodic_flow_has_is_noticed() -> None:
    p = problem()
    observation = p.case(0).observation
    shifted = observation.assign(later_vorticity=observation["later_vorticity"] + 20)
    assert "mean vorticity" in p.check(shifted)["warnings"][0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (8, 8)}, "at least 16"),
        ({"subsampling": 3}, "must divide"),
        ({"noise": -1.0}, "not be negative"),
        ({"noise": 0.0, "model_error": 0.0}, "nor 0 without noise"),
        ({"std": 0.0}, "std must be positive"),
        ({"reynolds": -1.0}, "reynolds must be positive"),
        ({"forcing": 7}, "wavenumber"),
    ],
)
def test_wrong_parameters_are_refused(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        problem(**arguments)
